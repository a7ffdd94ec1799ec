"""The one sitting of verification people: what they are asked about, once, and who still sits in which seat."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ttca.certificates import Examined
from ttca.errors import ActionError, LedgerError
from ttca.kept import Digest, load_json, save_json
from ttca.panel import SIDES, Panel, draw_panel, with_empty_seats
from ttca.people import People
from ttca.perturbing import Family
from ttca.pooling.ledger import Ledger
from ttca.pooling.minutes import Minutes
from ttca.pooling.pool import QueryPool
from ttca.roles import ROLES_FILE
from ttca.settings import Settings
from ttca.values import OneLine
from ttca.workshop import Workshop

__all__ = [
    "Sitting",
    "check_ledger",
    "check_opened",
    "check_pool",
    "check_unopened",
    "heard_so_far",
    "is_opened",
    "knows_pool",
    "open_sitting",
    "panel_of",
    "used_before",
]

#: What the verification people of an action are used for; written before the first question.
_OPENED = "verification.json"
#: Settings that change neither what is learned nor what is to be shown.
_INDIFFERENT = {
    "name", "subgroup", "valid_days", "controls", "control_lengths", "controls_people",
    "recheck_people",
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Sitting(OneLine):
    """The epoch of its questions, who is asked, and the ledger's minutes of it."""

    epoch: str
    panel: Panel
    minutes: Minutes


def open_sitting(shop: Workshop, people: People, family: Family, pool: str) -> Sitting:
    """Open the one sitting of verification people, or the one that was opened for the same questions.

    Whoever was forgotten since has left an empty seat, and may be missing among the people. ``pool`` is the digest of
    what the pool was answered (:class:`~ttca.asking.TransferSet`): δ follows from it.

    Raises
    ------
    ActionError
        If the people were read for other questions: a second look would make the certificate worthless. If somebody
        is missing who was not forgotten. If somebody has answered for the pool.
    """
    path, drawn = shop.folder / _OPENED, _drawn(shop, people)
    # First as today, then as earlier versions named people and platform.
    today = people.digest()
    ways = [_content(shop, today, family, drawn, pool, *way) for way in _ways(shop, today)]
    content = ways[0]
    if not path.is_file():
        _check_not_lost(shop.folder, shop.queries)
        _check_unasked(shop.queries, drawn)
        # Written before the first query, so that a kill in between cannot be used to look twice.
        save_json(path, content)
    opened = load_json(path)
    content = next((way for way in ways if way["epoch"] == opened.get("epoch")), content)
    epoch = content["epoch"]
    minutes = Minutes(shop.queries.ledger, str(opened.get("epoch")))
    if opened.get("epoch") == epoch:
        # Earlier versions wrote less.
        if opened.keys() != content.keys():
            save_json(path, content)
        minutes.seat({side: (_faces(shop, epoch, who), who.members.tolist()) for side, who in _sides(drawn).items()})
    elif opened.get("question") != content["question"] or not _empty(minutes.seats()):
        raise used_before(shop.folder, shop.settings, people)
    return Sitting(str(opened["epoch"]), panel_of(shop, people), minutes)


def check_opened(folder: Path, settings: Settings, queries: QueryPool, panel: Panel) -> None:
    """Raise what :func:`open_sitting` would, as far as that can be known before anything is learned."""
    path = folder / _OPENED
    if not path.is_file():
        _check_not_lost(folder, queries)
        _check_unasked(queries, panel)
        return
    opened = load_json(path)
    # Earlier versions did not write who verifies. Where somebody has left, others than then are right.
    everybody = panel.seating is None and opened.get("people") not in (None, panel.people.digest())
    if everybody or ("examined" in opened and _examined(path, opened) != panel.examined()):
        raise used_before(folder, settings, panel.people)


def check_ledger(folder: Path, ledger: Ledger) -> None:
    """Raise where people have begun to verify in a folder and its ledger holds nothing: they would be asked again.

    Raises
    ------
    LedgerError
        Nothing was asked.
    """
    if is_opened(folder) and not ledger.paid():
        raise LedgerError(
            f"Expected {ledger.name} to hold what verification people were asked, got an empty ledger although "
            f"{folder / _OPENED} says that they were. Put ledger and key back. If they are lost for good, start a new "
            "action in a new folder with new verification people. Nothing was asked."
        )


def knows_pool(folder: Path) -> bool:
    """Whether people have begun to verify, and it is known for which answers of the pool; earlier versions knew not."""
    path = folder / _OPENED
    return path.is_file() and load_json(path).get("pool") is not None


def check_pool(folder: Path, settings: Settings, pool: str) -> None:
    """Raise where the pool has other answers than when people began to verify, before δ is learned anew in vain.

    Raises
    ------
    ActionError
    """
    path = folder / _OPENED
    # Earlier versions did not write it.
    if path.is_file() and load_json(path).get("pool") not in (None, pool):
        raise ActionError(
            "Expected the pool as it was when people began to verify, got other people or answers. "
            f"{_changed(folder, settings)}They would teach another δ, and verification people are asked once. Put "
            "the settings back, and the photographs, classes and groups in the table. Where somebody was forgotten, "
            "start a new action in a new folder with new verification people. Nothing was learned anew."
        )


def check_unopened(folder: Path, settings: Settings) -> None:
    """Raise where recipes are to race although people have begun to verify what an earlier race chose.

    Raises
    ------
    ActionError
    """
    if is_opened(folder):
        raise used_before(folder, settings)


def is_opened(folder: Path) -> bool:
    """Whether verification people were begun to be read in this folder: nobody needs to be asked whether to begin."""
    return (folder / _OPENED).is_file()


def heard_so_far(folder: Path, ledger: Ledger) -> dict[str, int]:
    """Return how many answers each condition has got in the open sitting; nothing where none is open."""
    path = folder / _OPENED
    if not path.is_file():
        return {}
    return {name: len(said) for name, said in Minutes(ledger, str(load_json(path).get("epoch"))).read().items()}


def used_before(folder: Path, settings: Settings, people: People | None = None) -> ActionError:
    """Return the error for verification people who were read for other questions, with what differs where it is known.

    ``people`` are those of today.
    """
    path = folder / _OPENED
    then = load_json(path).get("people") if path.is_file() else None
    others = people is not None and then is not None and then != people.digest()
    told = "A photograph, a class or a group of verification people is another one than then. " if others else ""
    return ActionError(
        "Expected verification people who were not used before, got some who were: this action already "
        "verified other perturbations, people or goals, or another platform, with them, or read their answers "
        f"otherwise. {told}{_changed(folder, settings)}Put it back as it was, and run it again to resume: nobody is "
        "asked twice. A second look at the same people would make the certificate worthless. For anything else, start "
        "a new action in a new folder with new verification people."
    )


def _changed(folder: Path, settings: Settings) -> str:
    """Return a sentence about the settings that are others than when the sitting was opened; "" where none is known."""
    path = folder / _OPENED
    # Earlier versions did not write them.
    then, now = (load_json(path) if path.is_file() else {}).get("settings") or {}, _deciding(settings)
    told = [
        f"{key} = {_written(now[key])} (then {_written(then[key])})"
        for key in now
        if key != "pinned" and key in then and then[key] != now[key]
    ]
    if then.get("pinned", now["pinned"]) != now["pinned"]:
        hand = [" and ".join(keys) or "none" for keys in (now["pinned"], then["pinned"])]
        told.append(f"keys of learning set by hand: {hand[0]} (then {hand[1]})")
    return f"Settings that differ: {', '.join(told)}. " if told else ""


def _written(value: Any) -> str:
    """Return a value as an action file has it."""
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)


def _deciding(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide what is learned or shown, as JSON has them."""
    given = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in _INDIFFERENT}
    return dict(json.loads(json.dumps(given)))


def _check_not_lost(folder: Path, queries: QueryPool) -> None:
    if {"audit", "baseline", "verification"} & queries.ledger.paid(action=queries.action).keys():
        raise ActionError(
            f"Expected the file {folder / _OPENED}, which records what verification people were used for, got no file "
            "although the ledger holds their answers. Restore it, or start a new action in a new folder with "
            "new verification people."
        )


def _check_unasked(queries: QueryPool, panel: Panel) -> None:
    """Raise where somebody is to verify whose answer is known."""
    asked = sum(int(queries.in_hand(people.images).answered.sum()) for people in (panel.subgroup, panel.reference))
    if asked:
        raise ActionError(
            f"Expected verification people whom nobody has asked, got {asked} who have answered for the pool. "
            f"Restore {ROLES_FILE}, which keeps everybody's role from the first query on, or put the people back as "
            "they were. Otherwise start a new action in a new folder, with verification people who were never asked."
        )


def panel_of(shop: Workshop, people: People) -> Panel:
    """Return who verifies: as drawn, or once the sitting is open and somebody was forgotten, whoever is left.

    Raises
    ------
    ActionError
        If somebody is missing who was not forgotten.
    """
    path = shop.folder / _OPENED
    opened = load_json(path) if path.is_file() else {}
    epoch = str(opened.get("epoch"))
    seats = Minutes(shop.queries.ledger, epoch).seats()
    if not _empty(seats):
        return _drawn(shop, people)
    rows: dict[str, list[int | None]] = {}
    for side, faces in seats.items():
        mine = people.subgroup == (side == SIDES[0])
        known = dict(zip(_faces(shop, epoch, people[mine]), mine.nonzero()[0].tolist(), strict=True))
        missing = sum(1 for face in faces if face and face not in known)
        if missing:
            raise ActionError(
                f"Expected all verification people but those who were forgotten, got {missing} others who are missing. "
                "Put them back among the people. Anyone who wants to leave is forgotten with: ttca pool forget"
            )
        rows[side] = [known[face] if face else None for face in faces]
    return with_empty_seats(people, rows, _examined(path, opened))


def _drawn(shop: Workshop, people: People) -> Panel:
    return draw_panel(people, seed=shop.settings.seed, every_image=shop.settings.every_image)


def _sides(panel: Panel) -> dict[str, People]:
    return dict(zip(SIDES, (panel.subgroup, panel.reference), strict=True))


def _faces(shop: Workshop, epoch: str, people: People) -> list[bytes]:
    return shop.queries.ledger.keys(people.images, fingerprint=shop.info.fingerprint, epoch=epoch)


def _empty(seats: Mapping[str, Sequence[bytes]]) -> bool:
    """Whether anybody has left."""
    return any(not face for faces in seats.values() for face in faces)


def _examined(path: Path, opened: dict[str, Any]) -> Examined:
    try:
        return Examined.from_dict(opened["examined"])
    except (KeyError, TypeError, ValueError) as error:
        raise ActionError(
            f"Expected in {path} who verifies, got something that cannot be read ({error!r}). Restore the file."
        ) from None


def _ways(shop: Workshop, who: Digest) -> list[tuple[str, str]]:
    """Return the digests of people, with the platform's fingerprints, by which a sitting may be named."""
    fingerprints = (shop.info.fingerprint_as_read, shop.info.former_fingerprint)
    return [(named, platform) for named in (who, who.before or who) for platform in fingerprints]


def _content(
    shop: Workshop, who: Digest, family: Family, drawn: Panel, pool: str, named: str, platform: str
) -> dict[str, Any]:
    """Return what the sitting's file says of people, by this digest, and of the question to this platform."""
    question = _question(shop, family, platform)
    return {
        "epoch": f"verification-{hashlib.sha256(named.encode() + question).hexdigest()[:32]}",
        "question": hashlib.sha256(question).hexdigest(),
        "examined": drawn.examined().to_dict(),
        "people": who,
        "pool": pool,
        "settings": _deciding(shop.settings),
    }


def _question(shop: Workshop, family: Family, platform: str) -> bytes:
    """Return all that makes a question to verification people another one, but the people."""
    deltas = [f"{epsilon} ".encode() + family.sets[epsilon].delta.tobytes() for epsilon in sorted(family.sets)]
    terms = json.dumps(shop.settings.certifying.to_dict(), sort_keys=True).encode()
    # Actions without one have always asked the question without these words.
    way = "" if shop.preparation is None else json.dumps(shop.preparation.to_dict(), sort_keys=True)
    return b"".join([platform.encode(), *deltas, terms, way.encode()])
