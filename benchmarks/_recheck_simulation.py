"""What rechecks cost and how often they cry wolf, on simulated platforms, through the functions of ``ttca recheck``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.recheck import ASKS, BATCH, REJECTS_AT, alike, helped_then, outcome, standing
from ttca.statistics.binomial import clopper_pearson_upper
from ttca.statistics.kept_answers import HARM_WINS, STEADY, change_wins

__all__ = ["Platform", "false_alarm", "queries_to_find", "recheck_part"]

_CLASSES = 3
#: What a person with no, one or two changed answers adds to the log of an e-value, at most.
_WINS = [math.log(change_wins(changed)) for changed in range(3)]
#: Queries after which a swap counts as not found.
_MOST = 4000
#: The platform of the headline: what METHODS calls 1 % of images noisy, and a swap that moves 3 % of answers.
_NOISE, _MOVED, _PERSONS = 0.01, 0.03, 299


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A simulated platform, and the verification people that it is asked about.

    Parameters
    ----------
    persons : int
        Who were asked three times.
    noisy : float
        Share of persons about whom the platform is in two minds: each answer is another one with chance ``wavers``.
        The noise belongs to the person, not to the query.
    wavers : float
    jitter : float
        Chance with which any single answer is another one.
    helped, harmed : float
        Share of persons who are right with δ alone, and without it alone. Of the others nine in ten are right.
    moved : float
        Share of the kept answers that a swap of the model moves.
    quiet : int
        Looks before the swap.
    people : int
        Persons of each look.
    """

    persons: int = _PERSONS
    noisy: float = _NOISE
    wavers: float = 0.5
    jitter: float = 0.0
    helped: float = 0.2
    harmed: float = 0.03
    moved: float = _MOVED
    quiet: int = 0
    people: int = 20


class _People:
    """Persons with their answers, of whom those are kept who answered alike three times."""

    def __init__(self, platform: Platform, rng: np.random.Generator) -> None:
        self.platform, self.rng = platform, rng
        # Exactly so many, or chance alone would make a δ that helps as many as it harms one or the other.
        kind = rng.permutation(platform.persons)
        helped = kind < round(platform.helped * platform.persons)
        harmed = kind >= platform.persons - round(platform.harmed * platform.persons)
        same = rng.random(platform.persons) < 0.9
        right = np.stack([harmed | (same & ~helped), helped | (same & ~harmed)], axis=1)
        self.base = np.where(right, 0, rng.integers(1, _CLASSES, right.shape))
        self.wavering = np.where(rng.random((platform.persons, 1)) < platform.noisy, platform.wavers, platform.jitter)
        everybody = np.arange(platform.persons)
        asked = np.stack([self.ask(everybody) for _ in range(ASKS)])
        self.kept = np.flatnonzero(alike(asked, np.ones(asked.shape, np.bool_)))
        self.labels = asked[0]
        self.helped = helped_then(self.labels[self.kept].tolist(), [0] * len(self.kept))

    def ask(self, persons: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what the platform says now of these persons, as they are and with δ."""
        other = self.rng.random((len(persons), 2)) < self.wavering[persons]
        shift = self.rng.integers(1, _CLASSES, other.shape)
        return np.asarray((self.base[persons] + other * shift) % _CLASSES)

    def swap(self) -> None:
        """Exchange the model: so large a share of the kept answers is another one from now on."""
        cells = 2 * len(self.kept)
        moved = self.rng.choice(cells, round(self.platform.moved * cells), replace=False)
        rows, ways = self.kept[moved // 2], moved % 2
        self.base[rows, ways] = (self.base[rows, ways] + self.rng.integers(1, _CLASSES, len(moved))) % _CLASSES

    def look(self) -> str:
        """Return the characters of one look, were nobody to stop it."""
        drawn = self.kept[self.rng.integers(len(self.kept), size=self.platform.people)]
        now = self.ask(drawn)
        pairs = zip(self.labels[drawn].tolist(), now.tolist(), strict=True)
        return "".join(outcome(was, is_, (True, True), 0) for was, is_ in pairs)


class _Watch:
    """Glances at e-values, of which those alone are computed that could reject."""

    def __init__(self, people: _People) -> None:
        self._people = people
        # What the two e-values are at most.
        self._changed = self._helps = 0.0

    def saw(self, said: str) -> None:
        """Take note of further persons."""
        told = [int(character) for character in said]
        self._changed += sum(_WINS[digit // 3] for digit in told)
        self._helps += math.log(HARM_WINS) * sum(digit % 3 == 0 for digit in told)

    def rejects(self, looks: Sequence[str]) -> bool:
        """Whether all looks so far, whose persons were taken note of, reject."""
        most = math.log(REJECTS_AT)
        if max(self._changed, self._helps) < most:
            return False
        state = standing(looks, helped=self._people.helped)
        found = [-math.inf if not e else math.log(e) for e in (state["e_changed"], state["e_helps"])]
        self._changed, self._helps = found
        return max(found) >= most


def queries_to_find(platform: Platform, seed: int) -> int | None:
    """Return how many queries after a swap a recheck rejects; None where it did not within 4,000."""
    people = _People(platform, np.random.default_rng(seed))
    looks, watch = [people.look() for _ in range(platform.quiet)], _Watch(people)
    watch.saw("".join(looks))
    people.swap()
    asked = 0
    while asked < _MOST:
        said = people.look()
        for stop in range(BATCH, len(said) + BATCH, BATCH):
            part = said[:stop]
            watch.saw(said[stop - BATCH : stop])
            if watch.rejects([*looks, part]):
                return asked + 2 * len(part)
        looks.append(said)
        asked += 2 * len(said)
    return None


def false_alarm(platform: Platform, looks: int, seed: int) -> bool:
    """Whether even one of so many looks at a platform that has not changed rejects."""
    people = _People(platform, np.random.default_rng(seed))
    before, watch = list[str](), _Watch(people)
    for _ in range(looks):
        said = people.look()
        for stop in range(BATCH, len(said) + BATCH, BATCH):
            watch.saw(said[stop - BATCH : stop])
            if watch.rejects([*before, said[:stop]]):
                return True
        before.append(said)
    return False


def recheck_part(*, swaps: int = 1000, series: int = 400, looks: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return what the benchmark ``audit`` says of rechecks.

    Parameters
    ----------
    swaps : int
        Simulated swaps for each line of the curve.
    series, looks : int
        Simulated platforms that never change, for each of their kinds, and how often each is looked at.
    seed : int

    Returns
    -------
    dict
        ``recheck_queries``: mean queries to find a swap that moves 3 % of the kept answers (1 % of persons noisy, 299
        asked three times). ``recheck_false_alarms``: the greatest share of series with even one alarm, over the kinds
        of steady platforms. ``recheck_curve`` and ``recheck_steady`` have a row for each line and kind.
    """
    headline = Platform()
    lines = [
        headline,
        *(replace(headline, moved=moved) for moved in (0.01, 0.02, 0.05, 0.1)),
        *(replace(headline, noisy=noisy) for noisy in (0.0, 0.02, 0.05)),
        *(replace(headline, persons=persons) for persons in (60, 100)),
        *(replace(headline, quiet=quiet) for quiet in (10, 52)),
    ]
    curve = [_line(line, swaps, seed) for line in lines]
    # At the border: so many answers change as may, and δ helps as many as it harms.
    level = Platform(noisy=0.0, helped=0.05, harmed=0.05)
    border = replace(level, jitter=STEADY)
    kinds = {
        "nothing changes": level,
        "1 % of persons noisy": replace(level, noisy=_NOISE),
        "answers at the border": border,
        "few kept, answers at the border": replace(border, persons=60),
    }
    steady = [_steady(kind, platform, series, looks, seed) for kind, platform in kinds.items()]
    return {
        "recheck_queries": curve[0]["queries"],
        "recheck_false_alarms": max(row["false_alarms"] for row in steady),
        "recheck_curve": curve,
        "recheck_steady": steady,
        "recheck_swaps": swaps,
        "recheck_series": series,
        "recheck_looks": looks,
    }


def _line(platform: Platform, swaps: int, seed: int) -> dict[str, Any]:
    found = [queries_to_find(platform, seed + i) for i in range(swaps)]
    # Who was not found counts with all queries spent on it.
    spent = np.array([_MOST if queries is None else queries for queries in found], np.float64)
    return {
        **asdict(platform),
        "queries": float(spent.mean()),
        "standard_error": float(spent.std() / math.sqrt(swaps)),
        "median": float(np.median(spent)),
        "found": sum(queries is not None for queries in found) / swaps,
    }


def _steady(kind: str, platform: Platform, series: int, looks: int, seed: int) -> dict[str, Any]:
    alarms = sum(false_alarm(platform, looks, seed + i) for i in range(series))
    upper = clopper_pearson_upper(alarms, series, 0.05)
    return {
        "kind": kind,
        **asdict(platform),
        "false_alarms": alarms / series,
        "upper_95": float(upper),
        "series": series,
        "looks": looks,
    }
