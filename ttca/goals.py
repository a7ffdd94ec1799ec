"""Goals: what a perturbation must show, and the options of a certificate, all fixed before the first answer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from ttca.errors import ConfigError
from ttca.names import unknown_name

__all__ = ["Certifying", "Design", "Goal", "Stopping"]

GoalKind: TypeAlias = Literal["parity", "improvement", "rate", "within", "accuracy_ratio"]
Design: TypeAlias = Literal["disjoint", "paired"]
"""Whether the two groups are other people, or the same people under two conditions."""
Stopping: TypeAlias = Literal["curtailed", "anytime", "hybrid"]

#: A claim that is wrong more often than every second time says nothing.
_MOST_ALPHA = 0.5
_STOPPINGS = ("curtailed", "anytime", "hybrid")


@dataclass(frozen=True)
class Goal:
    """What every ε is tested for.

    Parameters
    ----------
    kind : str
        ``parity``: S is not below the reference accuracy. ``improvement``: S is above the same persons' accuracy
        without δ. ``within``: S is not more than ``value`` below the reference accuracy. ``accuracy_ratio``: S is at
        least ``value`` times the reference accuracy. ``rate``: S is at least ``value``.
    value : float or None
        A share in (0, 1) for the last three.
    """

    kind: GoalKind
    value: float | None = None

    @property
    def compares_with(self) -> Literal["reference", "before"] | None:
        """Whose answers the goal reads beside S: the reference people's, the subgroup's as it is, or nobody's."""
        return {"improvement": "before", "rate": None}.get(self.kind, "reference")

    @property
    def shown(self) -> str:
        """What a certificate of this goal shows about the people it is for, as the end of a sentence."""
        value = math.nan if self.value is None else self.value
        others = "the people they are compared with"
        return {
            "parity": f"with it, their answers are right at least as often as those of {others}",
            "improvement": "with it, their answers are right more often than without it",
            "rate": f"with it, at least {100 * value:.4g} % of their answers are right",
            "within": f"with it, their answers are right as often as those of {others}, but for "
            f"{100 * value:.4g} points",
            "accuracy_ratio": f"with it, their answers are right at least {value:g} times as often as "
            f"those of {others}",
        }[self.kind]

    def __str__(self) -> str:
        value = math.nan if self.value is None else self.value
        return {
            "parity": "parity",
            "improvement": "improvement",
            "rate": f"a success rate of {value:g}",
            "within": f"parity within {100 * value:g} points",
            "accuracy_ratio": f"{value:g} times the reference accuracy",
        }[self.kind]


@dataclass(frozen=True, kw_only=True)
class Certifying:
    """How an action certifies. All of it is fixed, and hashed, before the first answer.

    Parameters
    ----------
    alpha : float
        Greatest probability of certifying an ε whose goal is in truth not met.
    goal : "parity", "improvement" or float
        A number is a success rate.
    within : float, optional
        Another goal: parity within this margin.
    accuracy_ratio : float, optional
        Another goal: this share of the reference accuracy. It compares accuracies. The "four-fifths rule" of law
        compares selection rates, which is the demographic-parity ratio.
    stopping : {"curtailed", "anytime", "hybrid"}
        When a test stops asking. ``curtailed``: as soon as no further answer can change the verdict of the fixed test.
        ``anytime``: as soon as an e-value crosses its bar. ``hybrid``: an e-value on the way at a fifth of alpha, and
        the fixed test at the end at the rest.
    every_image : bool
        Whether all images of a person count, by an approximate test of persons, instead of one image per person.

    Raises
    ------
    ConfigError
        If a value is out of range, two goals are given, or the goal has no test of that kind.
    """

    alpha: float = 0.05
    goal: Literal["parity", "improvement"] | float = "parity"
    within: float | None = None
    accuracy_ratio: float | None = None
    stopping: Stopping = "curtailed"
    every_image: bool = False

    def __post_init__(self) -> None:
        _share("alpha", self.alpha, "0.05 means 95 %.")
        if self.alpha > _MOST_ALPHA:
            raise ConfigError(
                f"Expected alpha of at most {_MOST_ALPHA}, got {self.alpha}. It is how often a claim may be "
                "wrong: with 0.05, one in twenty such actions claims wrongly."
            )
        named = isinstance(self.goal, str) and self.goal in ("parity", "improvement")
        if isinstance(self.goal, str) and not named:
            others_too = "Or write a success rate strictly between 0 and 1 as a number, without quotes: 0.9 is 90 %."
            raise ConfigError(unknown_name("the goal", self.goal, ("parity", "improvement"), otherwise=others_too))
        if not named and (isinstance(self.goal, bool) or not _is_share(self.goal)):
            raise ConfigError(
                "Expected the goal 'parity', 'improvement' or a success rate strictly between 0 and 1, got "
                f"{self.goal!r}. Write 90 % as 0.9."
            )
        others = {
            k: v for k, v in {"within": self.within, "accuracy_ratio": self.accuracy_ratio}.items() if v is not None
        }
        for name, value in others.items():
            _share(
                name, value, "Give a share such as 0.05 for 5 points." if name == "within" else "0.8 is four fifths."
            )
        if len(others) > 1 or (others and self.goal != "parity"):
            given = [*([] if self.goal == "parity" else [f"goal = {self.goal!r}"]), *others]
            raise ConfigError(f"Expected one goal, got {' and '.join(given)}. Leave out all but one.")
        if self.stopping not in _STOPPINGS:
            raise ConfigError(unknown_name("stopping", self.stopping, _STOPPINGS))
        if self.every_image and (self.stopping != "curtailed" or self.aim.kind not in ("parity", "within")):
            raise ConfigError(
                "Expected every_image with the goal parity or within, and stopping = 'curtailed', got "
                f"{self.aim} and {self.stopping!r}. The approximate test of persons serves no other."
            )

    @property
    def aim(self) -> Goal:
        """The one goal that the options name."""
        if self.within is not None:
            return Goal("within", float(self.within))
        if self.accuracy_ratio is not None:
            return Goal("accuracy_ratio", float(self.accuracy_ratio))
        if self.goal in ("parity", "improvement"):
            return Goal(self.goal)
        return Goal("rate", float(self.goal))

    def check_design(self, design: Design) -> None:
        """Raise ConfigError where no test serves the goal for such people, before anything is asked."""
        if self.aim.kind == "accuracy_ratio" and design == "paired" and self.stopping != "curtailed":
            raise ConfigError(
                f"Expected stopping = 'curtailed' for accuracy_ratio where the same people are in both groups, got "
                f"{self.stopping!r}. No test that stops early is known for it. No query was spent."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def _is_share(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < 1


def _share(name: str, value: object, hint: str) -> None:
    if not _is_share(value):
        raise ConfigError(f"Expected {name} strictly between 0 and 1, got {value!r}. {hint}")
