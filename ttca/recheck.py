"""Rechecking: persons who answered steadily are kept, and asked again: does the platform still answer so, does δ help?

Answers of a recheck never enter a certificate: they have epochs of their own, and a certificate reads none of them.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ActionError, ConfigError, PerturbationError, QuotaError
from ttca.expiry import EXPIRED_FILE, RECORD_FILE, Expiry, expire, expiry_of
from ttca.images import Images
from ttca.kept import load_json, save_json
from ttca.panel import SIDES, Panel
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.perturbing import Family
from ttca.pooling.opening import get_meta, set_meta
from ttca.pooling.pool import QueryPool
from ttca.signing import CollectiveKey, signer
from ttca.statistics.kept_answers import changed_log_e, helps_log_e
from ttca.verifying import MEMBERS_FILE, Verified, handed_out
from ttca.workshop import Workshop

__all__ = [
    "ASKS",
    "BATCH",
    "REJECTS_AT",
    "Kept",
    "Recheck",
    "alike",
    "due",
    "helped_then",
    "keep_people",
    "kept_cost",
    "outcome",
    "recheck",
    "recheck_cost",
    "rechecked",
    "rechecked_told",
    "standing",
]

ASKS = 3
"""How often a person is asked on the certificate's day; only who answers alike each time is kept."""
REJECTS_AT = 200.0
"""At this e-value a hypothesis is rejected: while both are true, one is in at most 1 of 100 actions, ever."""

BATCH = 4
"""So many persons are asked between two glances at the e-values, twice each."""

_FORMAT = 1
#: A cron job never starts at the very second at which the last one did.
_GRACE_S = 3600.0
_UNKNOWN = "?"


@dataclass(frozen=True, kw_only=True)
class _Look:
    """One look: an epoch that nobody can guess, who was drawn (seats), and what came of each so far."""

    epoch: str
    began: str
    seats: tuple[int, ...]
    said: str = ""
    ended: bool = False


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Whom an action keeps for rechecks.

    Parameters
    ----------
    epoch : str
        Of the certificate's questions.
    day : str
        When they were asked for the third time, ISO 8601, UTC.
    asked : int
        How many persons were asked three times.
    labels : dict of int to (int, int)
        By seat, what the platform said of the image as it is and with δ, −1 for a refusal.
    helped : bool
        Whether δ helped at least as many of them as it harmed.
    looks : tuple
    expired : Expiry, optional
        What the last look found, where it rejected.
    """

    epoch: str
    day: str
    asked: int
    labels: Mapping[int, tuple[int, int]]
    helped: bool
    looks: tuple[_Look, ...] = field(default=(), repr=False)
    expired: Expiry | None = None

    @property
    def told(self) -> str:
        """How many are kept, for people."""
        return (
            f"Kept for rechecks: {len(self.labels)} of {self.asked} persons, whose answers were alike in {ASKS} asks. "
            "Later, ask them again with: ttca recheck"
        )


@dataclass(frozen=True, kw_only=True)
class Recheck:
    """What all looks so far say.

    Parameters
    ----------
    kept : int
        Persons who are kept.
    looks, persons, changed, missing : int
        Looks so far; persons both of whose answers came; how many of these answers are others than those kept; persons
        of whom an answer did not come.
    helped, harmed : int
        Persons who were right with δ alone, and without it alone.
    e_changed, e_helps : float
        E-values against "the platform still answers so" and "δ still helps"; at 200 the one is rejected. The second is
        None where δ helped fewer of those who are kept than it harmed, on the certificate's day already.
    last : str or None
        When the last look began, ISO 8601, UTC.
    open : bool
        Whether that look was interrupted.
    asked : int
        Queries of this call about persons; those the ledger held cost nothing again.
    expiry : Expiry or None
        The statement, once one of the two is rejected.
    other_version : bool
        Whether the platform says of itself that it is another one than the set was learned on.
    """

    kept: int
    looks: int
    persons: int
    changed: int
    missing: int
    helped: int
    harmed: int
    e_changed: float
    e_helps: float | None
    last: str | None
    open: bool = False
    asked: int = 0
    expiry: Expiry | None = None
    other_version: bool = False

    @property
    def alarm(self) -> str | None:
        """What was rejected, a sentence; None where nothing was."""
        found = []
        if self.e_changed >= REJECTS_AT:
            found.append(f"the platform no longer answers as it did: {self.changed} of {2 * self.persons} kept answers "
                         f"are others now (e-value {_shown(self.e_changed)})")  # fmt: skip
        if self.e_helps is not None and self.e_helps >= REJECTS_AT:
            found.append(f"δ no longer helps: it made {self.harmed} persons' answers wrong and {self.helped} right "
                         f"(e-value {_shown(self.e_helps)})")  # fmt: skip
        return "; ".join(found) + "." if found else None

    @property
    def told(self) -> str:
        """All of it, for people."""
        if not self.looks:
            return f"{self.kept} persons are kept, and were never asked again.{self._other}"
        counts = (
            f"In {self.looks} {'look' if self.looks == 1 else 'looks'}, the last on {str(self.last)[:10]}, "
            f"{self.changed} of {2 * self.persons} answers about kept persons were others than on the certificate's "
            f"day; δ helped {self.helped} and harmed {self.harmed} persons."
        )
        gone = f" Of {self.missing} persons an answer did not come." if self.missing else ""
        figures = (
            f" E-values: {_shown(self.e_changed)} against “the platform still answers so”, "
            f"{'none' if self.e_helps is None else _shown(self.e_helps)} against “δ still helps”; {REJECTS_AT:g} "
            "rejects."
        )
        if self.expiry is not None:
            return f"{counts}{gone}{figures} {self.expiry.told}"
        return f"{counts}{gone}{figures}{self._other or ' Nothing speaks against the certificate.'}"

    @property
    def _other(self) -> str:
        if not self.other_version:
            return ""
        return (
            " But the platform has another address, model or version now than the one that the set was learned on: "
            "ttca submit refuses the set there."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


# -- on the certificate's day -----------------------------------------------------------------------------------


def alike(labels: NDArray[np.int64], resolved: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which persons' answers came and were alike in every ask.

    Parameters
    ----------
    labels : int64 array, shape (asks, persons, 2)
        What was said of the image as it is, and with δ; −1 for a refusal, which is an answer too.
    resolved : bool array, shape (asks, persons, 2)

    Returns
    -------
    bool array, shape (persons,)
    """
    return np.asarray((resolved.all(axis=0) & (labels == labels[0]).all(axis=0)).all(axis=1))


def kept_cost(folder: Path, panel: Panel, most: int, *, certified: bool | None) -> int:
    """Return how many queries :func:`keep_people` still pays at most; ``certified`` is None before the certificate."""
    if (folder / RECORD_FILE).is_file() or certified is False:
        return 0
    return 2 * ASKS * len(_examinees(panel)[0][:most])


def keep_people(shop: Workshop, family: Family, verified: Verified) -> Kept | None:
    """Ask the first verification people three times in all, as they are and with δ, and keep who answered alike.

    The certificate's own answers are the first of the three, and cost nothing again. None where nobody is to be kept,
    or the certificate failed. Safe to kill: what was answered is in the ledger.

    Raises QuotaError where the quotas do not allow all of it: a part would keep nobody, and nothing was asked.

    Parameters
    ----------
    shop : Workshop
    family : Family
    verified : Verified
    """
    epsilon, most = verified.certificate.epsilon, shop.settings.recheck_people
    if epsilon is None or not most:
        return None
    folder, queries, chosen = shop.folder, shop.queries, family.sets[epsilon]
    path = folder / RECORD_FILE
    if path.is_file():
        known = _read(path, queries)
        if known.epoch == verified.epoch:
            return known
    elif _looks_begun(queries):
        raise _older(path)
    people, seats = _examinees(verified.panel)
    people, seats = people[:most], seats[:most]
    ways = _both_ways(people, chosen)
    owners = people.members.tolist()
    costs = [queries.cost(images, epoch=verified.epoch, repeat=repeat) for repeat in range(ASKS) for images in ways]
    needed = sum(cost.queries for cost in costs)
    _check_affordable(queries, needed, "it", "lower recheck_people in [action]")
    labels = np.zeros((ASKS, len(people), 2), np.int64)
    resolved = np.zeros((ASKS, len(people), 2), np.bool_)
    with queries.reporter.track("asking (recheck)", needed, unit="queries", at_most=True):
        for repeat in range(ASKS):
            for way, images in enumerate(ways):
                answers = queries.ask(images, purpose="recheck", epoch=verified.epoch, repeat=repeat, owners=owners)
                labels[repeat, :, way], resolved[repeat, :, way] = answers.labels, answers.resolved
    steady = alike(labels, resolved)
    chosen_labels = labels[0, steady].tolist()
    known = Kept(
        epoch=verified.epoch,
        day=datetime.now(UTC).isoformat(timespec="seconds"),
        asked=len(people),
        labels={int(seat): (a, b) for seat, (a, b) in zip(seats[steady], chosen_labels, strict=True)},
        helped=helped_then(chosen_labels, people.classes[steady].tolist()),
    )
    _write(path, queries, known)
    return known


# -- later ------------------------------------------------------------------------------------------------------


def outcome(kept: Sequence[int], now: Sequence[int], resolved: Sequence[bool], truth: int) -> str:
    """Return one character for a person: how many of the two answers have changed, and what δ did.

    Parameters
    ----------
    kept, now : two integers
        What was said of the image as it is and with δ, then and now.
    resolved : two bools
        Whether an answer came now.
    truth : int
        The person's true class.

    Returns
    -------
    str
        ``?`` where an answer did not come: a failure is no change. Else a digit: three times the changed answers, plus
        0 where δ harms, 1 where it makes no difference, 2 where it helps.
    """
    if not all(resolved):
        return _UNKNOWN
    changed = sum(was != is_ for was, is_ in zip(kept, now, strict=True))
    return str(3 * changed + 1 + (now[1] == truth) - (now[0] == truth))


def helped_then(kept: Iterable[Sequence[int]], truth: Iterable[int]) -> bool:
    """Whether δ helped at least as many kept persons as it harmed on the certificate's day.

    Else "δ helps at least half" was never true of them, and nothing follows from its being false.

    Parameters
    ----------
    kept : iterable of two integers
        What was said of each person's image as it is and with δ.
    truth : iterable of int
        Their true classes.
    """
    pairs = zip(kept, truth, strict=True)
    return sum(int(said[1] == true) - int(said[0] == true) for said, true in pairs) >= 0


def standing(looks: Sequence[str], *, helped: bool = True) -> dict[str, Any]:
    """Return what looks say together, each given as the characters of :func:`outcome`: counts and e-values.

    Where δ had not ``helped`` (:func:`helped_then`), there is no e-value against "δ still helps": None.
    """
    counts = np.array([_counted(said) for said in looks], np.int64).reshape(-1, 9)
    by = counts.reshape(-1, 3, 3)
    persons, total = by.sum(axis=2), counts.sum(axis=0).reshape(3, 3)
    won, lost = by[:, :, 2].sum(axis=1), by[:, :, 0].sum(axis=1)
    return {
        "looks": len(looks),
        "persons": int(total.sum()),
        "changed": int(total[1].sum() + 2 * total[2].sum()),
        "missing": sum(said.count(_UNKNOWN) for said in looks),
        "helped": int(won.sum()),
        "harmed": int(lost.sum()),
        "e_changed": _exp(changed_log_e(persons)),
        "e_helps": _exp(helps_log_e(np.stack([won, lost], axis=1))) if helped else None,
    }


@lru_cache(maxsize=4096)
def _counted(said: str) -> tuple[int, ...]:
    return tuple(said.count(str(digit)) for digit in range(9))


def recheck_cost(folder: Path, queries: QueryPool, people: int) -> int:
    """Return how many queries :func:`recheck` pays at most: what an open look has left, or a new look's.

    Raises what :func:`recheck` does where nothing is certified, or nobody is kept.
    """
    _certified(folder)
    known = _known(folder, queries)
    _check_people(people)
    last = known.looks[-1] if known.looks else None
    return 2 * (len(last.seats) - len(last.said) if last is not None and not last.ended else people)


def recheck(
    folder: Path,
    queries: QueryPool,
    panel: Panel,
    *,
    people: int,
    every_days: float | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Recheck:
    """Ask kept persons again, as they are and with δ; mark the set as expired where that rejects.

    Whom a look asks is drawn uniformly from all who are kept, each independently of all others, and written down before
    the first query: a kill loses nothing, pays nothing twice and draws nobody anew. A look ends early once it rejects.
    A set that has expired is asked about no more.

    Parameters
    ----------
    folder : Path
    queries : QueryPool
    panel : Panel
        Of the action's verification people.
    people : int
        To ask, with repetition.
    every_days : float, optional
        Ask nobody where the last look is younger.
    now : callable

    Raises
    ------
    ActionError
        If there is no certified set, nobody is kept, or the record is older than the ledger's last look.
    ConfigError
        If a number is out of range.
    QuotaError
        If quotas or cap do not allow the whole of a new look. Nothing was asked.
    SignatureError
        If the key in the folder did not sign the set: nobody would heed what it says about it. Nothing was asked.
    """
    _check_people(people)
    _check_every(every_days)
    CollectiveKey.open_or_make(folder)
    chosen, known = _certified(folder), _known(folder, queries)
    before = rechecked(folder, queries)
    if before is not None and before.expiry is not None:
        if not (folder / EXPIRED_FILE).is_file():
            expire(folder, before.expiry)
        return before
    where = {int(seat): row for row, seat in enumerate(_examinees(panel)[1])}
    # Whoever was forgotten has left an empty seat.
    known = replace(known, labels={seat: said for seat, said in known.labels.items() if seat in where})
    if not known.labels:
        raise ActionError(
            "Expected persons who are kept for rechecks, got none: nobody's answers were alike, or all have left. A "
            "new action with new verification people can keep others."
        )
    last = known.looks[-1] if known.looks else None
    if before is not None and before.alarm is None and (last is None or last.ended):
        if not due(before, every_days, now=now):
            return before
        rng, seats = np.random.default_rng(secrets.randbits(128)), sorted(known.labels)
        drawn = tuple(int(seats[i]) for i in rng.integers(len(seats), size=people))
        last = _Look(
            epoch=f"{known.epoch}-recheck-{secrets.token_hex(8)}",
            began=now().isoformat(timespec="seconds"),
            seats=drawn,
        )
        known = replace(known, looks=(*known.looks, last))
        _check_affordable(queries, 2 * people, "this look", "ask fewer: --people")
        # Before the first query, so that nobody draws until they like whom they drew.
        _write(folder / RECORD_FILE, queries, known)
    if last is None:
        raise AssertionError("an alarm without a look")  # pragma: no cover - e-values are 1 before the first look
    asked = 0
    state = _standing(known)
    most = 2 * (len(last.seats) - len(last.said))
    with queries.reporter.track("asking (recheck)", most, unit="queries", at_most=True):
        while len(last.said) < len(last.seats) and not _rejects(state):
            stop = min(len(last.said) + BATCH, len(last.seats))
            said = _ask(queries, _examinees(panel)[0], where, known, last, chosen, stop)
            asked += 2 * len(said)
            last = replace(last, said=last.said + said)
            known = replace(known, looks=(*known.looks[:-1], last))
            _write(folder / RECORD_FILE, queries, known)
            state = _standing(known)
    other = _is_other(chosen, queries)
    found = Recheck(kept=len(known.labels), last=last.began, asked=asked, other_version=other, **state)
    if (alarm := found.alarm) is not None:
        since = now().isoformat(timespec="seconds")
        found = replace(found, expiry=Expiry.of(chosen, since=since, why=alarm[0].upper() + alarm[1:]))
    ended = (*known.looks[:-1], replace(last, ended=True))
    _write(folder / RECORD_FILE, queries, replace(known, looks=ended, expired=found.expiry))
    if found.expiry is not None:
        expire(folder, found.expiry)
    return found


def due(before: Recheck, every_days: float | None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> bool:
    """Whether a new look is due: the last began so many days ago, less an hour, or is still open."""
    _check_every(every_days)
    if before.last is None or before.open or every_days is None:
        return True
    age = (now() - datetime.fromisoformat(before.last)).total_seconds()
    return age >= every_days * 86400 - _GRACE_S


def rechecked(folder: Path, queries: QueryPool) -> Recheck | None:
    """Return what all looks so far say, without a query; None where nobody is kept."""
    if not (folder / RECORD_FILE).is_file() or not (folder / MEMBERS_FILE).is_file():
        return None
    known, chosen = _read(folder / RECORD_FILE, queries), _certified(folder)
    try:
        said = expiry_of(folder, chosen, signer(folder / MEMBERS_FILE, "perturbations"))
    except PerturbationError:
        # A kill came before its signature: it is written again by the next look.
        said = None
    state = _standing(known)
    last = known.looks[-1] if known.looks else None
    return Recheck(
        kept=len(known.labels),
        last=None if last is None else last.began,
        open=last is not None and not last.ended,
        expiry=said,
        other_version=_is_other(chosen, queries),
        **state,
    )


def rechecked_told(folder: Path, queries: QueryPool) -> str | None:
    """Return what all looks so far say, for people; None where nobody is kept."""
    found = rechecked(folder, queries)
    return None if found is None else found.told


def _is_other(chosen: PerturbationSet, queries: QueryPool) -> bool:
    return not queries.platform.info.is_of(chosen.fingerprint)


# -- inside -----------------------------------------------------------------------------------------------------


def _ask(
    queries: QueryPool,
    people: People,
    where: Mapping[int, int],
    known: Kept,
    look: _Look,
    chosen: PerturbationSet,
    stop: int,
) -> str:
    """Return the characters of those who were drawn, from the first without one to before ``stop``."""
    start = len(look.said)
    here = [i for i in range(start, stop) if look.seats[i] in where]
    rows = np.array([where[look.seats[i]] for i in here], np.intp)
    # Who is drawn twice is asked twice: an answer that is already there would say nothing new.
    repeats = np.array([look.seats[:i].count(look.seats[i]) for i in here], np.int64)
    labels, resolved = np.full((len(here), 2), -1, np.int64), np.zeros((len(here), 2), np.bool_)
    for repeat in np.unique(repeats).tolist():
        mine = repeats == repeat
        drawn = people[rows[mine]]
        images = np.concatenate(_both_ways(drawn, chosen))
        owners = 2 * drawn.members.tolist()
        answers = queries.ask(images, purpose="recheck", epoch=look.epoch, repeat=repeat, owners=owners)
        labels[mine] = answers.labels.reshape(2, -1).T
        resolved[mine] = answers.resolved.reshape(2, -1).T
    said = [_UNKNOWN] * (stop - start)
    for i, row, now, came in zip(here, rows, labels.tolist(), resolved.tolist(), strict=True):
        said[i - start] = outcome(known.labels[look.seats[i]], now, came, int(people.classes[row]))
    return "".join(said)


def _standing(known: Kept) -> dict[str, Any]:
    return standing([look.said for look in known.looks], helped=known.helped)


def _examinees(panel: Panel) -> tuple[People, NDArray[np.int64]]:
    """Return one image of each person of the subgroup who verifies, in the panel's order, and their seats."""
    people, seats = panel.sitting(SIDES[0], 0, panel.examined().answers)
    _, first = np.unique(people.persons, return_index=True)
    first.sort()
    return people[first], seats[first]


def _check_affordable(queries: QueryPool, needed: int, what: str, otherwise: str = "") -> None:
    left = queries.ledger.left().of(queries.members).total
    if needed > left:
        raise QuotaError(
            f"Expected {needed} queries for {what}, got {left} that quotas and cap still allow. Raise them in [pool]"
            f"{otherwise and f', or {otherwise}'}. None was sent."
        )


def _looks_name(queries: QueryPool) -> str:
    return f"looks {queries.action or ''}"


def _looks_begun(queries: QueryPool) -> int:
    """Return how many looks the ledger knows of: with an older record, somebody could look until they like it."""
    return int(queries.ledger.database.run(lambda connection: get_meta(connection, _looks_name(queries))) or 0)


def _older(path: Path) -> ActionError:
    return ActionError(
        f"Expected {path} with every look that the ledger knows of, got an older one or none. Put the latest back: "
        "what was found cannot be undone. If it is lost, start a new action with new verification people."
    )


def _both_ways(people: People, chosen: PerturbationSet) -> tuple[Images, Images]:
    return people.images, chosen.apply(people.images, people.classes)


def _certified(folder: Path) -> PerturbationSet:
    found = handed_out(folder)
    if found is None:
        raise ActionError(
            f"Expected a certified set in {folder / MEMBERS_FILE}, got none: only what members have is rechecked. "
            "ttca run makes one, if its certificate passes."
        )
    return found


def _known(folder: Path, queries: QueryPool) -> Kept:
    path = folder / RECORD_FILE
    if not path.is_file() and _looks_begun(queries):
        raise _older(path)
    if not path.is_file():
        raise ActionError(
            f"Expected persons who are kept for rechecks in {path}, got no such file. ttca run keeps them, unless "
            "recheck_people = 0 in [action], or quotas do not allow it. Run it again: it says what is missing."
        )
    return _read(path, queries)


def _read(path: Path, queries: QueryPool) -> Kept:
    """Return what was kept, as it was written under the ledger's secret."""
    found = load_json(path)
    mark = found.pop("mark", None)
    if mark != _mark(found, queries) or found.get("format") != _FORMAT:
        raise ActionError(
            f"Expected {path} as it was written, got something else: it was edited, or belongs to another ledger. "
            "Restore it from a copy."
        )
    if len(found["looks"]) < _looks_begun(queries):
        raise _older(path)
    return Kept(
        epoch=found["epoch"],
        day=found["day"],
        asked=found["asked"],
        helped=found["helped"],
        labels={int(seat): (int(a), int(b)) for seat, (a, b) in found["kept"].items()},
        looks=tuple(_Look(**{**look, "seats": tuple(look["seats"])}) for look in found["looks"]),
        expired=Expiry(**found["expired"]) if "expired" in found else None,
    )


def _write(path: Path, queries: QueryPool, known: Kept) -> None:
    content = {
        "format": _FORMAT,
        "epoch": known.epoch,
        "day": known.day,
        "asked": known.asked,
        "helped": known.helped,
        "kept": {str(seat): list(said) for seat, said in sorted(known.labels.items())},
        "looks": [{**asdict(look), "seats": list(look.seats)} for look in known.looks],
    }
    if known.expired is not None:
        content["expired"] = known.expired.to_dict()
    save_json(path, {**content, "mark": _mark(content, queries)})
    # After the record: a kill in between forbids nothing.
    begun, database = str(len(known.looks)), queries.ledger.database
    database.run(lambda connection: set_meta(database, connection, _looks_name(queries), begun), write=True)


def _mark(content: Mapping[str, Any], queries: QueryPool) -> str:
    text = json.dumps(content, sort_keys=True)
    return queries.ledger.seal(b"ttca recheck\0" + text.encode()).hex()


def _rejects(state: Mapping[str, Any]) -> bool:
    return bool(max(state["e_changed"], state["e_helps"] or 0.0) >= REJECTS_AT)


def _check_people(people: int) -> None:
    if people < 1:
        raise ConfigError(f"Expected at least one person to ask, got {people}. The default is 20.")


def _check_every(days: float | None) -> None:
    if days is not None and not 0 < days < math.inf:
        raise ConfigError(f"Expected every as days above 0, got {days:g}. 7 is a week.")


def _exp(log_e: float) -> float:
    # More than a double holds says no more than this.
    return math.exp(min(log_e, 600.0))


def _shown(e: float) -> str:
    return f"{e:.2g}" if e < 1e6 else "over a million"
