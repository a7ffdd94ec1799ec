"""The bundle: report, certificate, consents, ledger rows and the program that checks them, signed, without any name."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from ttca.action import CollectiveAction
from ttca.errors import ActionError
from ttca.evidence.check import FORMAT, Refused, check_contents, receipts, zip_bytes
from ttca.heads import HEADS_FILE, Head, read_heads, sign_head
from ttca.letters import complaint
from ttca.pooling.chain import Link, links_of, payers
from ttca.pooling.consent import Consent, consents, words
from ttca.pooling.ledger import Ledger
from ttca.private import private, private_folder
from ttca.signing import KEY_FILE, CollectiveKey, signature_file

__all__ = ["Evidence", "write_evidence"]

#: Endings of files that nobody would expect a folder behind.
_PACKED = (".7z", ".bz2", ".gz", ".pdf", ".rar", ".tar", ".tgz", ".xz")

_README = """\
Evidence of the action "{action}", made {made}.

report.html        what was found and what it does not show; opens in any browser, loads nothing
letter.md          a letter of complaint, with blanks to fill in: in a copy, outside the bundle
certificate.json   what was proved, with every answer that it follows from, and its signature
row.json           every number of the report
ledger.jsonl       every query that was paid, as a chain of salted commitments; sealed where somebody is forgotten
heads.json         the signed heads of that chain: before the first verification query, after the last, and now
measurement.json   which rows of the ledger each number follows from
members.json       who paid which requests, and who consented to what, under names drawn for this bundle alone
consent.txt        the receipts of consent, under the same names
manifest.json      the hashes of all of these, and its signature
check.py           checks all of it

To check: python check.py (Python 3.9 or newer, nothing else). With the collective's public key, which it gave you by
another way: python check.py --key KEY
"""


@dataclass(frozen=True)
class Evidence:
    """What was written.

    Parameters
    ----------
    path : Path
    key : str
        The public key that signed it.
    head : Head
        Of the ledger, as it is in the bundle.
    rows, sealed : int
        Rows of the ledger, and how many of them are sealed.
    warnings : tuple of str
        What whoever publishes it should know.
    """

    path: Path
    key: str
    head: Head
    rows: int
    sealed: int
    warnings: tuple[str, ...]


def write_evidence(action: CollectiveAction, path: Path, *, url: str) -> Evidence:
    """Write the bundle of an action whose report is complete; nothing is asked.

    Parameters
    ----------
    action : CollectiveAction
        It holds the action's folder meanwhile.
    path : Path
        A new ZIP, where it ends in ``.zip``; else a new folder.
    url : str
        Of the platform, as the members' consent names it.

    Raises
    ------
    ActionError
        If something is there already, something would have to be asked, heads were signed under another name or with
        another key, or it cannot be written.
    """
    if path.exists():
        raise ActionError(
            f"Expected a new file or folder for the bundle, got {path}, which exists. Choose another name."
        )
    if path.suffix.lower() in _PACKED:
        raise ActionError(f"Expected a name that ends in .zip, or a folder's, got {path}. Choose another name.")
    _check_complete(action)
    _check_heads(action)
    name, ledger = action.settings.name, action.ledger
    row, _ = action.measure()
    certificate, traced = action.verify(), action.trace()
    report = action.report(for_publication=True)
    head = sign_head(action.folder, ledger, name, "export", epoch=traced.epoch, facts=traced.facts)
    links = links_of(ledger, name)
    agreed = consents(ledger, action=name)
    members = _members(ledger, name, agreed, links)
    now = words(action=name, subgroup=action.settings.subgroup, url=url)
    certificate_file = action.folder / "certificate.json"
    files = {
        "report.html": report.read_bytes(),
        "letter.md": complaint(row, certificate, traced.around, url=url, head=head).encode(),
        "certificate.json": certificate_file.read_bytes(),
        "certificate.json.sig": signature_file(certificate_file).read_bytes(),
        "row.json": _json(row.to_dict()),
        "ledger.jsonl": "".join(f"{json.dumps(_line(link))}\n" for link in links).encode(),
        "heads.json": (action.folder / HEADS_FILE).read_bytes(),
        "measurement.json": _json(traced.measured),
        "members.json": _json(members),
        "consent.txt": receipts(members).encode(),
        "check.py": resources("ttca.evidence").joinpath("check.py").read_bytes(),
        "README.txt": _README.format(action=name, made=head.at).encode(),
    }
    key = CollectiveKey.open_or_make(action.folder)
    _sign(files, key, name, head.at)
    try:
        check_contents(files, key.public)
    except Refused as refused:
        raise ActionError(
            f"Expected a bundle that its own check.py takes, got one that it refuses: {refused} Put that file of "
            f"{action.folder} back as it was. Nothing was written."
        ) from None
    _write(path, files)
    sealed = sum(link.content is None for link in links)
    return Evidence(path, key.public, head, len(links), sealed, tuple(_warnings(members, now, action)))


def _check_complete(action: CollectiveAction) -> None:
    """Raise where the action is not verified and measured, before anything is done."""
    if not ((action.folder / "certificate.json").is_file() and (action.folder / "row.json").is_file()):
        raise ActionError(
            f"Expected an action that is verified and reported, got none in {action.folder}. Evidence asks nothing. "
            "Run first: ttca run"
        )
    # Who is kept for rechecks proves nothing here.
    missing = {step: cost.queries for step, cost in action.plan().items() if cost.queries and step != "recheck"}
    if missing:
        raise ActionError(
            f"Expected an action with nothing left to ask, got {sum(missing.values())} queries for "
            f"{', '.join(missing)}. Evidence asks nothing. Run first: ttca report"
        )


def _check_heads(action: CollectiveAction) -> None:
    """Raise where an earlier head is not this action's by name and key: whoever checks the bundle would refuse it."""
    key, name = CollectiveKey.open_or_make(action.folder).public, action.settings.name
    for head in read_heads(action.folder):
        if head.action != name:
            raise ActionError(
                f"Expected the name under which the action's heads were signed, {head.action!r}, got {name!r}. Write "
                "the first into [action] again: with another name nobody could check the bundle. Nothing was written."
            )
        if head.key != key:
            raise ActionError(
                f"Expected the key that signed the action's heads, {head.key}, got {key}. Put that {KEY_FILE} back. "
                "If it is lost, no bundle of this action can be checked any more. Nothing was written."
            )


def _members(ledger: Ledger, action: str, agreed: Sequence[Consent], links: Sequence[Link]) -> dict[str, Any]:
    """Return who paid and who agreed, under names that are drawn anew for every bundle."""
    paid, gone = payers(ledger, action)
    outcomes: dict[tuple[int, int], str] = {}
    for link in links:
        said = {} if link.content is None else json.loads(link.content)
        if said.get("row") == "query":
            # A later row about the same query counts.
            outcomes[tuple(said["attempt"])] = said["outcome"]
    found: dict[str, Any] = {}
    for name in dict.fromkeys([*paid.values(), *(consent.member for consent in agreed)]):
        requests = {request for request, payer in paid.items() if payer == name}
        found[_pseudonym(found)] = {
            "charged": sum(r in requests and ended != "refunded" for (r, _), ended in outcomes.items()),
            "forgotten": name in gone,
            "requests": sorted(requests),
            "consents": [_consent(consent) for consent in agreed if consent.member == name],
        }
    texts = {consent.digest: consent.text for consent in agreed}
    # In the order of names that mean nothing.
    return {"texts": texts, "members": dict(sorted(found.items()))}


def _pseudonym(taken: Mapping[str, Any]) -> str:
    while (name := f"person-{secrets.token_hex(3)}") in taken:
        pass
    return name


def _consent(consent: Consent) -> dict[str, Any]:
    # To the day: the minute may tell who was asked in between.
    days = (None if at is None else _day(at) for at in (consent.agreed_at, consent.withdrawn_at))
    agreed, withdrawn = days
    return {"agreed": agreed, "withdrawn": withdrawn, "sha256": consent.digest}


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def _line(link: Link) -> dict[str, str]:
    if link.salt is None or link.content is None:
        return {"commitment": link.commitment.hex()}
    return {"salt": link.salt.hex(), "content": link.content}


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _sign(files: dict[str, bytes], key: CollectiveKey, action: str, made: str) -> None:
    """Add the manifest and its signature."""
    listed = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    files["manifest.json"] = _json({"format": FORMAT, "action": action, "made": made, "files": listed})
    files["manifest.json.sig"] = key.signature_content(files["manifest.json"], "evidence")


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    try:
        if path.suffix.lower() == ".zip":
            with open(path, "xb", opener=private) as file:
                file.write(zip_bytes(dict(files)))
            return
        private_folder(path)
        for name, content in files.items():
            with open(path / name, "xb", opener=private) as file:
                file.write(content)
    except OSError as error:
        raise ActionError(f"Expected to write the bundle to {path}, got: {error}. Choose another place.") from None


def _warnings(members: Mapping[str, Any], now: str, action: CollectiveAction) -> list[str]:
    digest = hashlib.sha256(now.encode()).hexdigest()
    standing = {
        name: [c["sha256"] for c in m["consents"] if c["withdrawn"] is None] for name, m in members["members"].items()
    }
    silent = sum(not texts for name, texts in standing.items() if not members["members"][name]["forgotten"])
    other = sum(bool(texts) and digest not in texts for texts in standing.values())
    said = []
    if not any(head.moment == "before verification" for head in read_heads(action.folder)):
        said.append(
            f"No head was signed before verification: nothing shows that the questions came before the answers. Was "
            f"{action.folder / HEADS_FILE} replaced or lost? Put it back, and write the bundle anew."
        )
    if silent:
        said.append(
            f"{silent} members have no consent on record. Ask them before you publish, and write it down: ttca pool "
            "consent"
        )
    if other:
        said.append(
            f"{other} members agreed to other words than today's, perhaps to words that say nothing of evidence. Ask "
            "them again before you publish."
        )
    said.append(
        f"The bundle says of each test picture its class and what {action.platform.info.name} said, in an order that "
        "only you can read. Nobody who is forgotten later can be taken out of a copy that others have."
    )
    return said
