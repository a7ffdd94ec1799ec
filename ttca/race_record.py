"""The record of a race: who runs, what each candidate got, and what came of it, as it is kept, shown and told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ttca.recipes import Recipe
from ttca.rounding import apart

__all__ = ["NOTHING", "RACE_FILE", "Entrant", "Raced", "Runners"]

#: Where the record of a race lies in an action's folder.
RACE_FILE = "race.json"
#: What a row says where doing nothing won.
NOTHING = "nothing"


@dataclass(frozen=True)
class Runners:
    """Who races, decided before anything is asked.

    Parameters
    ----------
    recipes : tuple of Recipe
    seconds : dict of str to float
        What learning each is estimated to take; a shared proxy counts for whoever comes first.
    no_time, no_queries : tuple of str
        Who would have raced, had there been more time, or more queries to tell them apart.
    """

    recipes: tuple[Recipe, ...]
    seconds: Mapping[str, float]
    no_time: tuple[str, ...] = ()
    no_queries: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """Who races and how long it takes, for people."""
        names = ", ".join(recipe.name for recipe in self.recipes)
        minutes = max(1, round(sum(self.seconds.values()) / 60))
        left = [
            f"{len(names)} more would have raced with {what}: {', '.join(names)}."
            for names, what in ((self.no_time, "a larger most_minutes"), (self.no_queries, "more queries for the race"))
            if names
        ]
        several = len(self.recipes) > 1
        say = f"{len(self.recipes)} recipes race: {names}." if several else f"One recipe is left: {names}."
        return " ".join([say, f"Learning takes about {minutes} min, by an estimate.", *left])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "recipes": [r.to_dict() for r in self.recipes], "seconds": dict(self.seconds)}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Runners:
        """Return what :meth:`to_dict` wrote."""
        recipes = tuple(Recipe.from_dict(r) for r in said["recipes"])
        return cls(recipes, dict(said["seconds"]), tuple(said["no_time"]), tuple(said["no_queries"]))


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """What one candidate got.

    Parameters
    ----------
    name, about : str
    persons : int
        About whom the platform was asked: each is one query.
    mean, difference : float or None
        The mean probability of the true class (or share of right answers, where there are no scores), and how far it is
        above doing nothing on the same persons. None where nobody was asked.
    out : int or None
        The round after which it was out; None for the winner.
    seconds : float
        That learning it took.
    """

    name: str
    about: str
    persons: int
    mean: float | None
    difference: float | None
    out: int | None
    seconds: float


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
    fresh : bool
        Whether the test was on persons that the choice did not use.
    queries : int
        That the race asked.
    persons : int
        Subgroup persons in selection.
    no_time, no_queries : tuple of str
        See :class:`Runners`.
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

    @property
    def recipe(self) -> str:
        """What a row says: the winner's name, or that nothing is proposed."""
        return self.winner if self.proposed else NOTHING

    @property
    def told(self) -> str:
        """What came of it, for people."""
        p, level = apart(self.p, self.level, digits=2)
        test = (
            f"of {self.tested} {'other ' if self.fresh else ''}people, {self.won} were answered rightly only with its "
            f"δ and {self.lost} only without (p = {p}; at most {level} was needed)"
        )
        if self.proposed:
            return f"The race was won by the recipe {self.winner}: {test}."
        return (
            "Nothing is proposed: no recipe was shown to beat doing nothing, so nobody was asked for a certificate, "
            f"and members get no file. The best was {self.winner}: {test}. More people in selection, or a larger "
            "race_share, would show a smaller gain."
        )

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
        return cls(**given)
