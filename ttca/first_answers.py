"""One image at a time: what the platform says in its own words, how that is read, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jmespath
import numpy as np
from jmespath.exceptions import JMESPathError

from ttca.answers import Answers, Status
from ttca.config import ActionFile
from ttca.data.folder import ListedFile, read_image
from ttca.data.photographs import Photograph
from ttca.errors import ActionError, DataError, ImageError, PlatformError, QuotaError
from ttca.folder_lock import hold
from ttca.images import ImageShape
from ttca.masking import masked_everywhere
from ttca.platforms.base import PlatformInfo
from ttca.platforms.http import HttpPlatform
from ttca.platforms.proposing import Proposal, headers_of, proposals, response_of
from ttca.platforms.protocols.reading import UnreadableError, excerpt
from ttca.platforms.protocols.tensors import HEADER_LENGTH, as_json
from ttca.pooling.ledger import Ledger, open_ledger
from ttca.pooling.lookup import KeptWords, Reader, words_of
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.pooling.recall import recall
from ttca.pooling.titles import take_title
from ttca.prices import bill_of_errors
from ttca.progress import Reporter, silent
from ttca.roles import GivenRoles
from ttca.terminal import visible
from ttca.values import Value

__all__ = ["FirstAnswer", "first_answers", "payer", "proposed", "shown_answer"]

#: The places of a template, as its table names them.
_PLACES = ("results", "label", "scores", "names", "refused", "error")
#: So much of an answer is shown; what is left out is counted.
_MOST_LINES, _LONGEST_TEXT, _LONGEST_LIST = 200, 200, 20
_LONGEST_ANSWER = 4000
_BEST = 5


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FirstAnswer(Value):
    """What a platform said to one image.

    Parameters
    ----------
    file : str
    member : str
        Who paid, or would have.
    done : tuple of str
        What was done to the photograph before it was sent, by the action's preparation; empty where nothing was.
    charged : int
        Queries charged now; 0 where it was answered before.
    status : int or None
        Of HTTP, None where the answer's words are not kept.
    said : str or None
        The words, JSON with line breaks; long texts and lists are cut, keys masked. What is no text is told as JSON
        where its protocol says how, or by its length.
    read : str
        What that is read as, or why it cannot be read.
    answered : bool
        Whether a class was read.
    places : dict of str to str
        What lies at each place that the table names.
    proposals : tuple of Proposal
        What would read it better, where it named no class.
    """

    file: str
    member: str
    done: tuple[str, ...]
    charged: int
    status: int | None
    said: str | None
    read: str
    answered: bool
    places: dict[str, str]
    proposals: tuple[Proposal, ...]

    def told(self) -> str:
        """Return all of it, for people."""
        cost = f"{self.charged} charged to {self.member}" if self.charged else "nothing charged: answered before"
        lines = [f"{self.file}: {cost}.", *([f"Prepared: {'; '.join(self.done)}."] if self.done else [])]
        if self.said is None:
            lines.append("The platform's own words are not kept.")
        else:
            lines += [f"It said (status {self.status}):", self.said]
        lines += [f"At {name}: {found}" for name, found in self.places.items()]
        lines.append(f"Read as: {self.read}")
        return "\n".join(lines + proposed(self.proposals))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found = {
            name: getattr(self, name) for name in ("file", "member", "charged", "status", "said", "read", "answered")
        }
        return {
            **found,
            "done": list(self.done),
            "places": self.places,
            "proposals": [dict(p.options) for p in self.proposals],
        }


def proposed(found: Sequence[Proposal]) -> list[str]:
    """Return proposals for people; none is applied."""
    if not found:
        return []
    lines = ["A table that would read it, under [platform.options] (look at it first, nothing was changed):"]
    for one in found:
        told = "its names are no classes yet" if one.answers is None else "it reads a class"
        lines += [*(f"    {line}" for line in one.lines.splitlines()), f"        ({told})"]
    return lines


def payer(members: Sequence[Member], left: Mapping[str, int], wanted: str | None) -> Member:
    """Return who pays: the one who is named, or the first with a query left; ``left`` holds whoever has paid before.

    Raises
    ------
    QuotaError
        If nobody has a query left.
    """
    able = [m for m in members if left.get(m.name, m.quota) > 0 and wanted in (None, m.name)]
    if not able:
        raise QuotaError(
            f"Expected {'a member' if wanted is None else wanted} with a query left, got none. Raise quota in [pool]."
        )
    return able[0]


def first_answers(
    known: ActionFile,
    files: Sequence[Path],
    *,
    member: str | None = None,
    accept_new_version: bool = False,
    reporter: Reporter = silent,
) -> Iterator[FirstAnswer]:
    """Ask about image files, one after the other, and yield what was said to each.

    Parameters
    ----------
    known : ActionFile
    files : sequence of Path
        Photographs, which the action's preparation makes fit; without one, images of the size that the platform takes.
        The box of the people's table counts, so that the pool need not ask again.
    member : str, optional
        Who pays; by default the first who can.
    accept_new_version : bool
        Whether answers are paid again where the platform is another one than before.
    reporter : Reporter

    Raises
    ------
    DataError
        If a file is no such image. Nothing was sent.
    ActionError
        If somebody who verifies, or who is never asked, would be asked. Nothing was sent.
    QuotaError
        If nobody can pay.
    PlatformError
        If the platform is down or refuses the key; what was heard before is in the ledger, and the error's note says
        what was charged.
    """
    listed = {one.path.resolve(): one for one in known.list_files(known.people.source)}
    members = known.payers({one.member for one in listed.values()})
    with known.open_platform() as platform:
        images = _images(known, files, listed, platform.info.image_shape)
        lock = hold(known.folder, say=reporter.say)
        try:
            given = known.given_roles()
            for path, image in zip(files, images, strict=True):
                _check_may_be_asked(given, path, listed.get(path.resolve()), image)
            with open_ledger(known.folder, known.pool.ledger) as ledger:
                if known.pool.ledger is not None:
                    take_title(ledger, known.settings.name, known.folder)
                who = payer(members, ledger.remaining(), None if member is None else known.check_member(member))
                queries = QueryPool(
                    platform,
                    ledger,
                    [who],
                    cap=known.pool.cap,
                    pace=Pace(concurrency=1, batch=1),
                    action=known.settings.name,
                    overrule=known.pool.overrule,
                    reporter=reporter,
                )
                queries.accept_new_version = accept_new_version
                answered = 0
                with bill_of_errors(
                    ledger, known.settings.name, known.platform.price, remaining=lambda: len(files) - answered
                ):
                    for path, image in zip(files, images, strict=True):
                        before, owner = _charged(ledger), listed.get(path.resolve())
                        owners = [who.name if owner is None else owner.member]
                        # What was said is kept. Another table that cannot read it would be paid for in vain.
                        if accept_new_version or not _is_kept_unread(platform, ledger, image):
                            queries.ask(image.pixels[None], purpose="ask", owners=owners)
                        answered += 1
                        yield _first_answer(
                            known, platform, ledger, image, (str(path), who.name, _charged(ledger) - before)
                        )
        finally:
            lock.release()


def _check_may_be_asked(given: GivenRoles, path: Path, listed: ListedFile | None, image: Photograph) -> None:
    """Raise where the table or an earlier query made somebody verify, or where they are never asked."""
    role = "" if listed is None else listed.role or given.role(listed.person)
    role = role or given.role_of(image.pixels)
    if role in ("verification", "unasked"):
        does = "is never asked" if role == "unasked" else "verifies"
        raise ActionError(
            f"Expected pictures of people whose answers may be known now, got {path}, of somebody who {does}. "
            "Choose another picture. No query was spent."
        )


def _images(
    known: ActionFile, files: Sequence[Path], listed: Mapping[Path, ListedFile], shape: ImageShape
) -> list[Photograph]:
    """Return all images, or raise one error about all that are none."""
    found, wrong = list[Photograph](), list[str]()
    for path in files:
        try:
            found.append(_image(known, path, listed.get(path.resolve()), shape))
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise DataError("\n".join(wrong))
    return found


def _is_kept_unread(platform: HttpPlatform, ledger: Ledger, image: Photograph) -> bool:
    """Whether what the platform said of an image is kept, and another way to read it than now was tried in vain."""
    info = platform.info
    found = recall(ledger, info, image.pixels[None], Reader(info.reading_mark, platform.read_again), epoch="pool")
    words = _words(ledger, info, image)
    return not found.known[0] and words is not None and words.reading != info.reading_mark


def _words(ledger: Ledger, info: PlatformInfo, image: Photograph) -> KeptWords | None:
    """Return what the platform said of an image, however it was read."""
    (key,) = ledger.keys(image.pixels[None], fingerprint=info.fingerprint, epoch="pool")
    return ledger.database.run(lambda connection: words_of(connection, ledger.seals, key))


def _image(known: ActionFile, path: Path, listed: ListedFile | None, shape: ImageShape) -> Photograph:
    """Return an image as the action sends it: prepared as its people's are."""
    try:
        return read_image(path, shape, known.people.prepared, None if listed is None else listed.box)
    except (DataError, ImageError) as error:
        raise DataError(f"{path}: {error}") from None


def _charged(ledger: Ledger) -> int:
    return sum(balance.charged for balance in ledger.balances())


def _first_answer(
    known: ActionFile, platform: HttpPlatform, ledger: Ledger, image: Photograph, facts: tuple[str, str, int]
) -> FirstAnswer:
    file, member, charged = facts
    section, info = known.platform, platform.info
    reader = Reader(info.reading_mark, platform.read_again)
    found = recall(ledger, info, image.pixels[None], reader, epoch="pool")
    words = ledger.database.run(lambda connection: words_of(connection, ledger.seals, found.keys[0]))
    words = _words(ledger, info, image) if words is None else words
    answers, why = found.answers, ""
    status = said = shown = None
    places: dict[str, str] = {}
    better: list[Proposal] = []
    if words is not None:
        body, place, n = words.body, words.place, words.count
        status, said = response_of(body)
        shown = shown_answer(said, headers_of(body).get(HEADER_LENGTH.lower()))
        try:
            answers = platform.read_again(body, n)[place : place + 1]
        except PlatformError as error:
            why = masked_everywhere(str(error.args[0]))
        if section.protocol == "template":
            places = _at_places(said, section.options)
            if n == 1 and not answers.answered.all():
                options = {"model": section.model, "version": section.version, **section.options}
                better = proposals(said, options, section.classes)
    return FirstAnswer(
        file=file,
        member=member,
        done=image.done,
        charged=charged,
        status=status,
        said=shown,
        read=f"nothing. {why}" if why else _told(answers, section.classes),
        answered=bool(answers.answered.all()) and not why,
        places=places,
        proposals=tuple(better),
    )


def _told(answers: Answers, classes: Sequence[str]) -> str:
    """Return one row in words."""
    if answers.status[0] == Status.REFUSED:
        return "a refusal, which counts as an answer that is not right."
    if answers.status[0] == Status.FAILED:
        return "nothing: neither a class nor a refusal."
    scores = np.nan_to_num(answers.scores[0], nan=-1)
    best = [i for i in np.argsort(-scores, kind="stable")[:_BEST] if scores[i] >= 0]
    told = ", ".join(f"{classes[i]} {scores[i]:.4g}" for i in best)
    return f"{classes[answers.labels[0]]}{f' ({told})' if told else ', without scores'}."


def _at_places(said: bytes, options: Mapping[str, Any]) -> dict[str, str]:
    """Return what lies at each place that a template's table names."""
    try:
        whole = json.loads(said)
    except (ValueError, RecursionError):
        return {}
    found = {}
    for name in _PLACES:
        if isinstance(expression := options.get(name), str):
            try:
                there = jmespath.search(expression, whole)
            except (JMESPathError, TypeError, ValueError, AttributeError, RecursionError, ArithmeticError):
                there = None
            empty = there is None or there in ([], {}, "")
            shown = masked_everywhere(excerpt(json.dumps(there, ensure_ascii=False)))
            found[f"{name} = {json.dumps(expression)}"] = (
                ("nothing" if there is None else f"nothing in it: {shown}") if empty else shown
            )
            if name == "results":
                whole = there[0] if isinstance(there, list) and there else whole
    return found


def shown_answer(said: bytes, header_length: str | None = None) -> str:
    """Return what a platform said for people: cut where it is long, keys masked, without control characters.

    Parameters
    ----------
    said : bytes
    header_length : str, optional
        How many bytes of it are JSON, where numbers lie behind: they are shown as JSON too.
    """
    return visible(masked_everywhere(_pretty(said, header_length)))


def _pretty(said: bytes, header_length: str | None) -> str:
    """Return an answer with line breaks, cut where it is long; numbers behind its JSON as JSON."""
    try:
        found = json.loads(said) if header_length is None else as_json(said, header_length)
        text = json.dumps(_cut(found), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError, UnreadableError):
        return _as_text(said)
    lines = text.splitlines()
    more = len(lines) - _MOST_LINES
    return text if more <= 0 else "\n".join([*lines[:_MOST_LINES], f"… and {more} more lines"])


def _as_text(said: bytes) -> str:
    """Return what is no JSON as text, or its length and first bytes in hexadecimal digits where it is no text."""
    text = said.decode("utf-8", "replace")
    strange = sum(not (character.isprintable() or character in "\n\r\t") for character in text) + text.count("�")
    if 10 * strange > len(text):
        return f"{len(said):,} bytes that are no text; they begin with {said[:32].hex(' ')}"
    more = len(text) - _LONGEST_ANSWER
    return text if more <= 0 else f"{text[:_LONGEST_ANSWER]}\n… and {more} more characters"


def _cut(said: Any) -> Any:
    if isinstance(said, str):
        return said if len(said) <= _LONGEST_TEXT else f"{said[:_LONGEST_TEXT]}… ({len(said)} characters)"
    if isinstance(said, list):
        more = len(said) - _LONGEST_LIST
        return [_cut(one) for one in said[:_LONGEST_LIST]] + ([f"… and {more} more"] if more > 0 else [])
    if isinstance(said, dict):
        return {name: _cut(value) for name, value in said.items()}
    return said
