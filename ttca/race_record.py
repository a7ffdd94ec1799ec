"""The record of a race: who runs, what each candidate got, and what came of it, as it is kept, shown and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ttca.frames import frame
from ttca.kept import load_json
from ttca.recipes import Recipe
from ttca.rounding import apart

__all__ = ["COMBINED", "NOTHING", "RACE_FILE", "Entrant", "Raced", "Runners", "Spared", "Switched", "proposed_nothing"]

#: Where the record of a race lies in an action's folder.
RACE_FILE = "race.json"
#: What a row says where doing nothing won.
NOTHING = "nothing"
#: And where the runner-up serves some classes.
COMBINED = "combined"
#: What earlier versions did not write down of who races.
_LATER = ("length", "final_length", "halves", "at_once", "after", "unasked_length")


def proposed_nothing(folder: Path) -> bool:
    """Whether the last race in an action's folder ended, and doing nothing won it."""
    path = folder / RACE_FILE
    result = load_json(path).get("result") if path.is_file() else None
    return result is not None and not result["proposed"]


@dataclass(frozen=True)
class Runners:
    """Who races, decided before anything is asked.

    Parameters
    ----------
    recipes : tuple of Recipe
    seconds : dict of str to float
        What learning each is estimated to take in one thread; a shared proxy counts for whoever comes first.
    no_time, no_queries : tuple of str
        Who would have raced, had there been more time, or more queries to tell them apart.
    length : float
        For how long candidates are learned, as a multiple of what their recipes say.
    final_length : float
        For how long the winner is: where halves race, in full. It was 1 in earlier versions.
    unasked_length : float or None
        The same of a winner that asks nothing; None: as any other.
    halves : bool
        Whether each is learned twice, each time without half of the pool's subgroup, on which it races then.
    at_once : int
        How many are learned at once.
    after : float
        Seconds that one recipe's learning is estimated to take after the race, at most; two that serve together take up
        to twice that.
    earlier : bool
        Whether an earlier version decided it, which knew none of the five before.
    """

    recipes: tuple[Recipe, ...]
    seconds: Mapping[str, float]
    no_time: tuple[str, ...] = ()
    no_queries: tuple[str, ...] = ()
    length: float = 1.0
    final_length: float = 1.0
    halves: bool = False
    at_once: int = 1
    after: float = 0.0
    unasked_length: float | None = None
    earlier: bool = False

    @property
    def wall(self) -> float:
        """Seconds that learning the candidates is estimated to take."""
        together = sum(self.seconds.values())
        return max(together / self.at_once, max(self.seconds.values(), default=0.0))

    def length_of(self, winner: Recipe) -> float:
        """Return for how long a winner is learned."""
        longer = None if winner.asks or self.halves else self.unasked_length
        return self.final_length if longer is None else longer

    @property
    def told(self) -> str:
        """Who races and how long it takes, for people."""
        from ttca.racing import count_asked

        names, count = ", ".join(recipe.name for recipe in self.recipes), len(self.recipes)
        asked = count_asked([not recipe.asks for recipe in self.recipes])
        say = f"{count} recipes race: {names}." if count > 1 else f"One recipe is left: {names}."
        then = f", and the winner with its controls up to {_minutes(self.after)} after the race" if self.after else ""
        say = f"{say} Learning takes about {_minutes(self.wall)}{then}, by an estimate."
        if asked < count:
            say = f"{say} The platform is asked about the {asked} whose proxies foretell it best."
        left = _missing(self.no_time, self.no_queries)
        if self.length != 1:
            longer = self.unasked_length
            also = "" if longer in (None, self.length) else f" A winner that asks nothing is learned for {longer:.0%}."
            left = [f"Each is learned for {self.length:.0%} of its full length: most_minutes.{also}", *left]
        if self.halves:
            again = "the winner once more from all" + (", in full" if self.final_length > self.length else "")
            twice = f"With so few people in selection each is learned twice, without one half of the pool's, {again}."
            left = [twice, *left]
        return " ".join([say, *left])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found = {**asdict(self), "recipes": [r.to_dict() for r in self.recipes], "seconds": dict(self.seconds)}
        del found["earlier"]
        return {k: v for k, v in found.items() if not (self.earlier and k in _LATER)}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Runners:
        """Return what :meth:`to_dict` wrote."""
        recipes = tuple(Recipe.from_dict(r) for r in said["recipes"])
        later = {key: said[key] for key in _LATER if key in said}
        return cls(
            recipes, dict(said["seconds"]), tuple(said["no_time"]), tuple(said["no_queries"]), **later,
            earlier=not later,
        )  # fmt: skip


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min"


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """What one candidate got.

    Parameters
    ----------
    name, about : str
    persons : int
        About whom the platform was asked in the rounds, or in the test where one recipe runs: each is one query. In
        earlier versions the winner's were in the test, too.
    mean, difference : float or None
        The mean probability of the true class (or share of right answers, where there are no scores), and how far it is
        above doing nothing on the same persons. None where nobody was asked.
    out : int or None
        The round after which it was out; None for the winner, 0 where the platform was not asked about it.
    seconds : float
        That learning it took; a shared proxy counts for whoever comes first.
    fidelity : float or None
        How often its proxy named the platform's class for selection people, the mean of both groups'; of one that
        equalizes see :func:`ttca.candidates.foresight`. Earlier versions did not write it.
    asks : bool
        Whether it learned from the platform's answers. Earlier versions did not write it.
    """

    name: str
    about: str
    persons: int
    mean: float | None
    difference: float | None
    out: int | None
    seconds: float
    fidelity: float | None = None
    asks: bool = True


def _missing(no_time: Sequence[str], no_queries: Sequence[str]) -> list[str]:
    """Return sentences about who does not race."""
    missing = (no_time, "a larger most_minutes"), (no_queries, "more queries for the race (race_share)")
    return [f"{len(names)} more would have raced with {what}: {', '.join(names)}." for names, what in missing if names]


def _moved(rise: float) -> str:
    """Return in words how far a probability moved."""
    moved = f"{abs(rise):.3f}"
    return f"{'rose' if rise > 0 else 'fell'} by {moved} on average" if float(moved) else "hardly moved"


@dataclass(frozen=True, kw_only=True)
class Switched:
    """A class that the runner-up serves, by its name: see :class:`ttca.combining.Switch`."""

    name: str
    persons: int
    difference: float
    expected: float


@dataclass(frozen=True, kw_only=True)
class Spared:
    """A class that is left alone, by its name: see :class:`ttca.combining.Harm`."""

    name: str
    persons: int
    difference: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Raced:
    """The record of a race, as it is kept, shown and told.

    Parameters
    ----------
    epsilon : int
        At which candidates were compared.
    entrants : tuple of Entrant
    winner : str
        The candidate that was best, whether or not it is proposed.
    proposed : bool
        Whether it was shown to beat doing nothing.
    won, lost, tested : int
        Persons right only with the winner, right only as they are, and all of the test.
    p, level : float
        One-sided p of what candidates are compared by, and what it had to be below.
    rise : float or None
        By how much the probability of the true class rose on average in the test. It is None without scores, and in
        records of earlier versions. There p is of right and wrong.
    error : float
        Of the whole race: how often it may propose what is no better than nothing.
    fresh : bool
        Whether the test was on persons that the choice did not use.
    queries : int
        That the race asked.
    persons : int
        Subgroup persons who could be asked: in selection, and in the pool where halves race.
    no_time, no_queries, length, halves
        See :class:`Runners`.
    final_length : float or None
        For how long the winner learned, as a multiple of what its recipe says. Earlier versions did not write it.
    runner_up : str
        The other candidate of the last round; empty where there was none.
    switched : tuple of Switched
        The classes that it serves.
    spared : tuple of Spared
        The classes that are left alone: those who tested what is proposed fared better as they are.
    """

    epsilon: int
    entrants: tuple[Entrant, ...]
    winner: str
    proposed: bool
    won: int
    lost: int
    tested: int
    p: float
    level: float
    fresh: bool
    queries: int
    persons: int
    no_time: tuple[str, ...] = ()
    no_queries: tuple[str, ...] = ()
    length: float = 1.0
    halves: bool = False
    runner_up: str = ""
    switched: tuple[Switched, ...] = ()
    spared: tuple[Spared, ...] = ()
    error: float = 0.05
    rise: float | None = None
    final_length: float | None = None

    @property
    def recipe(self) -> str:
        """What a row says: the winner's name, that two were combined, or that nothing is proposed."""
        if not self.proposed:
            return NOTHING
        return COMBINED if self.switched else self.winner

    @property
    def going_on(self) -> tuple[str, ...]:
        """The recipes that serve somebody."""
        if not self.proposed:
            return ()
        return (self.winner, self.runner_up) if self.switched else (self.winner,)

    @property
    def learned_answers(self) -> bool:
        """Whether any recipe that serves somebody learned from the platform's answers, which else only chose it."""
        return any(entrant.asks for entrant in self.entrants if entrant.name in self.going_on)

    @property
    def in_parts(self) -> bool:
        """Whether not all classes are served by one recipe."""
        return self.proposed and bool(self.switched or self.spared)

    def serves(self, classes: Sequence[str]) -> dict[str, list[str]]:
        """Return which of the platform's classes each recipe serves, or "nothing" does; empty where one serves all."""
        if not self.in_parts:
            return {}
        spared = [s.name for s in self.spared]
        other = [s.name for s in self.switched if s.name not in spared]
        own = [name for name in classes if name not in (*other, *spared)]
        found = {self.winner: own, self.runner_up: other, NOTHING: spared}
        return {recipe: names for recipe, names in found.items() if names}

    @property
    def told(self) -> str:
        """What came of it, for people."""
        p, level = apart(self.p, self.level, digits=2)
        names = [s.name for s in self.switched]
        best = f"{self.winner}, with {self.runner_up} for {', '.join(names)}" if names else self.winner
        tested = "their" if names and self.fresh else f"{self.winner}'s" if names else "its"
        sure = "" if self.rise is None else f", and the probability of the true class {_moved(self.rise)}"
        in_vain = self.p < self.level and not self.proposed
        needed = "but no more people were right" if in_vain else f"less than {level} was needed"
        test = (
            f"of {self.tested} {'other ' if self.fresh else ''}people, {self.won} got a right answer only with "
            f"{tested} δ and {self.lost} only without{sure} (p = {p}; {needed})"
        )
        if self.proposed:
            combined = (
                f" In {len(names)} of the classes the recipe {self.runner_up} helped those who chose more, and serves "
                f"there: {', '.join(names)}."
                if names
                else ""
            )
            spared = [s.name for s in self.spared]
            alone = (
                f" δ leaves {len(spared)} of the classes alone, in which those tested fared better as they are: "
                f"{', '.join(spared)}."
                if spared
                else ""
            )
            taught = "the platform's answers" if self.learned_answers else "true classes alone: answers only chose it"
            return f"The race was won by the recipe {self.winner}: {test}.{combined}{alone} It learned from {taught}."
        return (
            "Nothing is proposed: no recipe was shown to beat doing nothing, so nobody was asked for a certificate, "
            f"and members get no file. The best was {best}: {test}. Where there is a gap, more people who take "
            "part, a larger selection in [people] or a larger race_share would show a smaller gain."
        )

    @property
    def terms(self) -> str:
        """For how long recipes learned, from whom, and who did not race: for people, empty where all is as usual."""
        longer = self.final_length if self.proposed and self.final_length != self.length else None
        then = "" if longer is None else f", the winner then for {longer:.0%}"
        said = (
            [] if self.length == 1 else [f"Each learned for {self.length:.0%} of its full length (most_minutes){then}."]
        )
        said += ["Each learned twice, without one half of the pool's subgroup."] if self.halves else []
        return " ".join([*said, *_missing(self.no_time, self.no_queries)])

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a line for each recipe that was learned (:class:`Entrant`).

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        return frame([asdict(entrant) for entrant in self.entrants])

    def plot(self, axes: Any = None) -> Any:
        """Draw how far each recipe was above doing nothing (:func:`ttca.report.plots.plot_race`); return the axes.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        from ttca.report.plots import plot_race

        return plot_race(self, axes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Raced:
        """Return what :meth:`to_dict` wrote."""
        given = dict(said)
        given["entrants"] = tuple(Entrant(**e) for e in given["entrants"])
        for name in ("no_time", "no_queries"):
            given[name] = tuple(given[name])
        # Earlier versions combined nothing, and left no class alone.
        given["switched"] = tuple(Switched(**each) for each in given.get("switched", ()))
        given["spared"] = tuple(Spared(**each) for each in given.get("spared", ()))
        return cls(**given)
