"""Certificates: what verification showed about S, how sure it is, and every answer that it follows from."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ActionError, ConfigError
from ttca.frames import frame
from ttca.goals import Certifying, Design
from ttca.rounding import at_least
from ttca.statistics.binomial import clopper_pearson_interval, clopper_pearson_lower, clopper_pearson_upper
from ttca.trials import Clusters, Standing, in_step, quoted, rule_of, size_within, test_in_words
from ttca.values import OneLine

__all__ = [
    "BATCH",
    "FORMAT",
    "Bound",
    "Certificate",
    "Certifying",
    "Condition",
    "Examined",
    "Interval",
    "LevelTest",
    "Power",
    "certify",
    "clopper_pearson_interval",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "outcomes",
]

FORMAT = 3
"""Version of the dictionary that :meth:`Certificate.to_dict` writes."""

BATCH = 16
"""So many persons are asked between two looks at the verdict."""

Condition: TypeAlias = Literal["reference", "before"] | int
"""What persons are asked under: the reference as it is, the subgroup as it is, or with the δ of an ε."""

_RIGHT, _WRONG, _UNRESOLVED = "1", "0", "?"
_PROBABILITY = 0.8


def outcomes(y_true: ArrayLike, y_pred: ArrayLike, resolved: ArrayLike) -> str:
    """Return one character per person: ``1`` right, ``0`` wrong, ``?`` unresolved.

    Parameters
    ----------
    y_true : integers, shape (N,)
        True classes, 0 or more.
    y_pred : integers, shape (N,)
        What the platform said, −1 where it named no class.
    resolved : bool, shape (N,)
        Rows the platform did answer, be it with a refusal (a resolved −1, which is wrong).

    Raises
    ------
    ActionError
        If shapes or dtypes disagree or a true class is negative.
    """
    truth, said, known = np.asarray(y_true), np.asarray(y_pred), np.asarray(resolved)
    if said.ndim != 1 or not said.shape == truth.shape == known.shape:
        raise ActionError(
            "Expected y_true, y_pred and resolved with one row per person, got shapes "
            f"{truth.shape}, {said.shape}, {known.shape}. Pass the rows of the same people."
        )
    if said.dtype.kind not in "iu" or truth.dtype.kind not in "iu" or known.dtype != np.bool_:
        raise ActionError(
            "Expected whole numbers in y_true and y_pred and a boolean resolved, got dtypes "
            f"{truth.dtype}, {said.dtype}, {known.dtype}. Convert them first."
        )
    if np.any(truth < 0):
        # A true class of −1 would make every refusal look right.
        raise ActionError("Expected true classes of 0 or more, got a negative one. Drop people without a class.")
    return "".join(np.where(~known, _UNRESOLVED, np.where(said == truth, _RIGHT, _WRONG)).tolist())


@dataclass(frozen=True)
class Examined:
    """Who verifies.

    Parameters
    ----------
    design : {"disjoint", "paired"}
        Whether the groups are other people, or the same people under two conditions.
    persons, others : int
        Of the subgroup, and of the reference.
    images : int
        That all of them brought; one of each person and group is asked about, unless there is a layout.
    layout : pair of tuples of int, optional
        Images of each person of the subgroup and of the reference, where all of them count.
    """

    design: Design
    persons: int
    others: int
    images: int
    layout: Clusters | None = None

    @property
    def answers(self) -> int:
        """How many answers one ε can be asked for: one per person, or per image."""
        return self.persons if self.layout is None else sum(self.layout[0])

    @property
    def other_answers(self) -> int:
        """The same of the reference as it is."""
        return self.others if self.layout is None else sum(self.layout[1])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return cast("dict[str, Any]", _plain(asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Examined:
        """Return who :meth:`to_dict` wrote; KeyError, TypeError or ValueError where that cannot be read."""
        return cls(
            _design(data["design"]),
            persons=_whole(data["persons"]),
            others=_whole(data["others"]),
            images=_whole(data["images"]),
            layout=_layout(data["layout"]),
        )

    def told(self, terms: Certifying) -> str:
        """Return, for people, how many persons are asked for such a certificate, and of how many of their images."""
        who = f"{self.persons} persons"
        if self.others and self.design == "disjoint" and terms.aim.compares_with == "reference":
            who += f" of the subgroup and {self.others} of the reference"
        if self.layout is not None:
            return f"{who}, all of their {self.images} images"
        both = self.design == "paired" and terms.aim.compares_with == "reference"
        each = "one image of each in either group" if both else "one image of each"
        more = "" if self.images == self.persons + self.others else f", of {self.images} that they brought"
        return f"{who}, {each}{more}"

    def check(self, terms: Certifying) -> None:
        """Raise where no test serves the goal for these people, before anything is asked.

        Raises
        ------
        ConfigError
        """
        terms.check_design(_design_of(terms, self))
        if self.layout is not None and size_within(self.layout, terms.within or 0.0, terms.alpha) is None:
            raise ConfigError(
                "Expected persons with about as many images each, got numbers of images for which the approximate test "
                "of persons claims too often. Leave out every_image: one image of each person is then asked about. No "
                "query was spent."
            )

    def __post_init__(self) -> None:
        if self.persons < 1 or self.others < 0 or self.images < 0:
            raise ActionError(
                f"Expected at least one person of the subgroup to verify, got {self.persons} and {self.others} others. "
                "Give verification a larger share of the people."
            )
        if self.design == "paired" and self.persons != self.others:
            raise ActionError(
                f"Expected the same persons in both groups, got {self.persons} and {self.others}. Pass each in both."
            )
        if self.layout is not None and tuple(map(len, self.layout)) != (self.persons, self.others):
            raise ActionError(
                f"Expected numbers of images of {self.persons} and {self.others} persons, got those of others."
            )


@dataclass(frozen=True)
class Bound:
    """A one-sided bound.

    Parameters
    ----------
    value : float
        The bound, a rate.
    kind : str
        ``"one-sided lower"`` or ``"one-sided upper"``.
    confidence : float
        Probability with which it holds; where ``shared_by`` > 1, with which all of them hold together.
    shared_by : int
        Over how many ε the error was divided (Bonferroni); 1 for a bound whose ε was not chosen.
    """

    value: float
    kind: Literal["one-sided lower", "one-sided upper"]
    confidence: float
    shared_by: int = 1


@dataclass(frozen=True)
class Interval:
    """A two-sided interval, for showing to people; fields as :class:`Bound`."""

    low: float
    high: float
    confidence: float
    shared_by: int = 1
    kind: Literal["two-sided"] = "two-sided"


@dataclass(frozen=True)
class Power:
    """What so many verification people could have shown about one ε.

    Parameters
    ----------
    probability : float
        Wanted probability of success.
    smallest_rate : float or None
        Smallest true S that passes with it; None where none does, or where it is not known (bets on pairs).
    possible : bool
        Whether right answers of everybody would have passed.
    """

    probability: float
    smallest_rate: float | None
    possible: bool


@dataclass(frozen=True)
class LevelTest:
    """One ε put to the test.

    Parameters
    ----------
    epsilon : int
        Budget in pixel levels of 255.
    answers : str
        One character per person asked, in the fixed order (:func:`outcomes`).
    passed : bool
    figures : str
        What the verdict rests on, for people.
    """

    epsilon: int
    answers: str
    passed: bool
    figures: str

    @property
    def right(self) -> int:
        """Right answers; an unresolved one is none."""
        return self.answers.count(_RIGHT)

    @property
    def asked(self) -> int:
        """Persons asked at this ε."""
        return len(self.answers)


@dataclass(frozen=True, repr=False)
class Certificate(OneLine):
    """What was shown about the success S of the perturbations, and with what confidence.

    Parameters
    ----------
    terms : Certifying
        Goal, error and stopping, fixed before the first answer.
    family : tuple of int
        All ε fixed before verification, largest first.
    examined : Examined
        Who verifies.
    baseline : str
        Answers without δ that the goal reads, one character per person in the fixed order; empty for a rate.
    tests : tuple of LevelTest
        What was done, in order: from the largest ε downward, to the first failure.
    epsilon : int or None
        The smallest ε that passed before a failure; None when the largest failed.
    parity_certified : bool or None
        Whether parity with the reference was shown at ``epsilon``. None where the goal was not parity: there
        the sequence was ordered and stopped by another test, and a second family of claims at the same alpha
        would let the chance of *some* false claim grow to twice alpha. Whoever wants parity makes it the goal.
    lower : Bound
        Lower bound of S at ``quoted_epsilon``, at 1 − alpha: Bonferroni over the family, as data chose the ε.
    interval : Interval
        Two-sided 95 % interval of S at ``quoted_epsilon``, likewise corrected.
    power : Power
        What one test could have certified.

    Raises
    ------
    ActionError
        If the parts contradict each other.

    Notes
    -----
    *Ours*. ``lower`` and the tests' outcome each hold with probability 1 − alpha, both with 1 − 2·alpha.
    """

    terms: Certifying
    family: tuple[int, ...]
    examined: Examined
    baseline: str
    tests: tuple[LevelTest, ...]
    epsilon: int | None
    parity_certified: bool | None
    lower: Bound
    interval: Interval
    power: Power

    def __post_init__(self) -> None:
        passed = [t.epsilon for t in self.tests if t.passed]
        verdicts = [t.passed for t in self.tests]
        parity = self.terms.aim.kind == "parity"
        consistent = (
            len(self.tests) > 0
            and list(self.family) == sorted(set(self.family), reverse=True)
            and tuple(t.epsilon for t in self.tests) == self.family[: len(self.tests)]
            and all(verdicts[:-1])
            and (len(self.tests) == len(self.family) or not verdicts[-1])
            and self.epsilon == (passed[-1] if passed else None)
            and self.parity_certified == (bool(passed) if parity else None)
            and all(t.asked <= self.examined.answers for t in self.tests)
        )
        if not consistent:
            raise ActionError(
                "Expected a certificate whose tests go from the largest ε downward to the first failure and "
                "agree with its verdict, got one that contradicts itself. Do not edit it; verify again."
            )

    def _facts(self) -> str:
        shown = "not shown" if self.epsilon is None else f"shown at ε = {self.epsilon}"
        return f"{self.terms.aim} {shown}, S at least {at_least(self.lower.value)}, {self.examined.persons} persons"

    def passed_at(self, epsilon: int) -> bool:
        """Whether the test of this member of the family was reached and passed; all that pass are claimed together."""
        return any(test.epsilon == epsilon and test.passed for test in self.tests)

    def lower_at(self, epsilon: int) -> float:
        """Return the lower bound of S at any tested ε, NaN at one that the sequence did not reach.

        All of them hold together at 1 − alpha: each is at alpha / size of the family (Bonferroni). At
        ``quoted_epsilon`` it is ``lower``.
        """
        for test in self.tests:
            if test.epsilon == epsilon:
                return _quoted(test, self.examined, self.terms, self.terms.alpha / len(self.family))[0]
        return float("nan")

    @property
    def quoted_epsilon(self) -> int:
        """The ε that ``lower`` and ``interval`` speak of: the certified one, else the largest."""
        return self.family[0] if self.epsilon is None else self.epsilon

    @property
    def quoted_test(self) -> LevelTest:
        """The test at ``quoted_epsilon``."""
        return next(test for test in self.tests if test.epsilon == self.quoted_epsilon)

    @property
    def design(self) -> Design:
        """How S is compared: with other persons, or person by person."""
        return _design_of(self.terms, self.examined)

    @property
    def how(self) -> str:
        """Which test was used and when it stopped, in two sentences for people."""
        return test_in_words(self.terms, self.design)

    @property
    def persons_asked(self) -> int:
        """The most persons of the subgroup that one ε was asked about."""
        return max(test.asked for test in self.tests)

    @property
    def queries(self) -> int:
        """Verification queries that certificate and baseline cost."""
        return sum(test.asked for test in self.tests) + len(self.baseline)

    def summary(self) -> str:
        """Return one sentence for people that says which bound is quoted and how sure it is."""
        corrected = f", corrected for {len(self.family)} values of ε" if len(self.family) > 1 else ""
        said = (
            f"With δ of ε = {self.quoted_epsilon}, the subgroup's share of right answers is at least "
            f"{at_least(self.lower.value)} ({self.lower.kind} bound, {100 * self.lower.confidence:g} % "
            f"confidence{corrected})"
        )
        goal, test, who = self.terms.aim, self.quoted_test, self.examined.told(self.terms)
        if self.epsilon is not None:
            return f"Certified {goal} at ε = {self.epsilon} ({test.figures}; {who}). {said}."
        if self.power.possible:
            return f"Not certified ({goal}): {test.figures} ({who}). {said}."
        if goal.kind == "parity" and _WRONG not in self.baseline:
            return (
                f"Not certified ({goal}): the reference got no wrong answer, so nobody can be shown to do better. What "
                f"could be shown is parity within a margin, an improvement, or a success rate ({who}). {said}."
            )
        return (
            f"Not certified ({goal}): so few verification people could not have certified it, even with every answer "
            f"right ({who}). {said}."
        )

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a line for each ε that was tested: right, asked, rate, lower bound, passed.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        return frame(
            [
                {
                    "epsilon": test.epsilon,
                    "right": test.right,
                    "asked": test.asked,
                    "rate": test.right / test.asked if test.asked else float("nan"),
                    "lower": self.lower_at(test.epsilon),
                    "passed": test.passed,
                }
                for test in self.tests
            ]
        )

    def plot(self, axes: Any = None) -> Any:
        """Draw S at every tested ε (:func:`ttca.report.plots.plot_certificate`) and return the axes.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        from ttca.report.plots import plot_certificate

        return plot_certificate(self, axes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: ``json.loads(json.dumps(d)) == d``."""
        return {"format": FORMAT, **cast("dict[str, Any]", _plain(asdict(self)))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Return the certificate that :meth:`to_dict` wrote. Needs no scipy.

        Raises
        ------
        ActionError
            If the format is another, a field is missing or unreadable, or the parts contradict each other.
        """
        found = data.get("format") if isinstance(data, Mapping) else type(data).__name__
        if found == 2:
            raise ActionError(
                "Expected a certificate that counts persons, got one of version 0.1 of ttca, which counted every image "
                "as another person. Verify again in a new folder, with verification people nobody has used."
            )
        if found != FORMAT:
            raise ActionError(
                f"Expected a certificate of format {FORMAT}, got {found!r}. Read it with the version of ttca that "
                "wrote it, or verify again."
            )
        try:
            epsilon, parity = data["epsilon"], data["parity_certified"]
            if parity is not None and not isinstance(parity, bool):
                raise TypeError("parity_certified")
            return cls(
                terms=Certifying(**data["terms"]),
                family=tuple(_whole(e) for e in data["family"]),
                examined=Examined.from_dict(data["examined"]),
                baseline=_answers(data["baseline"]),
                tests=tuple(
                    LevelTest(_whole(t["epsilon"]), _answers(t["answers"]), _flag(t["passed"]), _text(t["figures"]))
                    for t in data["tests"]
                ),
                epsilon=None if epsilon is None else _whole(epsilon),
                parity_certified=parity,
                lower=_bound(data["lower"]),
                interval=_interval(data["interval"]),
                power=_power(data["power"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise ActionError(
                f"Expected a certificate written by ttca, got one that cannot be read ({error!r}). Fetch the file "
                "again, or verify again."
            ) from error

    def recompute(self) -> Certificate:
        """Return the certificate that this one's own answers give: equal to it, unless it was tampered with.

        Raises
        ------
        ActionError
            If the answers lead to a question that was never asked, or leave some over.
        MissingExtraError
            If scipy is not installed.
        """
        held: dict[Condition, str] = {test.epsilon: test.answers for test in self.tests}
        held["before" if self.terms.aim.compares_with == "before" else "reference"] = self.baseline
        used: dict[Condition, int] = {}

        def replay(condition: Condition, start: int, stop: int) -> str:
            found = held.get(condition, "")[start:stop]
            used[condition] = stop
            if len(found) != stop - start:
                raise ActionError(
                    "Expected a certificate whose tests stop where its answers decide them, got one whose answers show "
                    f"that more should have been asked ({condition}). Do not edit certificates; verify again."
                )
            return found

        anew = certify(replay, self.terms, epsilons=self.family, examined=self.examined)
        if any(len(answers) != used.get(condition, 0) for condition, answers in held.items()):
            raise ActionError(
                "Expected a certificate whose tests stop where its answers decide them, got one that went on. Do not "
                "edit certificates; verify again."
            )
        return anew

    def check(self) -> None:
        """Raise ActionError where the certificate does not follow from its own answers."""
        if self.recompute() != self:
            raise ActionError(
                "Expected a certificate that follows from its answers, got one that says something else. Do not edit "
                "certificates; verify again."
            )


def certify(
    ask: Callable[[Condition, int, int], str], terms: Certifying, *, epsilons: Sequence[int], examined: Examined
) -> Certificate:
    """Find the smallest ε shown to reach the goal, asking no more persons than the verdict needs.

    Parameters
    ----------
    ask : callable
        ``ask(condition, start, stop)`` asks the platform about the persons ``start`` to ``stop - 1`` in their fixed
        order and returns one character for each (:func:`outcomes`). Every person of a condition is asked once, from
        the first on; ε are asked from the largest downward, none after a failure.
    terms : Certifying
    epsilons : sequence of int
        The family, in pixel levels 1..255, fixed before anything is verified. Any order.
    examined : Examined

    Returns
    -------
    Certificate

    Raises
    ------
    ConfigError
        If the family is not as above, or no test serves the goal for these people; raised before any query.
    MissingExtraError
        If scipy is not installed; raised before any query.

    Notes
    -----
    Fixed-sequence testing is *published* (Maurer, Hothorn and Lehmacher 1995; Westfall and Krishen 2001).
    Each ε is tested at the full alpha, because a false claim needs the *first* ε in the order whose goal is in
    truth unmet to pass. It holds for any dependence between the ε and any shape of S. Starting from the
    smallest ε and going on until one passes gives every ε its own chance to err, and is not valid.
    The rules that stop are in :mod:`ttca.trials`. *Ours*: their use here.
    """
    family, persons = _family(epsilons), examined.answers
    condition = terms.aim.compares_with
    design = _design_of(terms, examined)
    examined.check(terms)
    # Says what to install, before anything is asked.
    clopper_pearson_lower(0, 1, terms.alpha)
    beside = in_step(terms, design)
    most = {"reference": examined.other_answers, "before": persons, None: 0}[condition]
    baseline = "" if beside or condition is None else ask(condition, 0, most)
    rule = rule_of(terms, design, persons, _at_most(baseline), examined.layout)
    tests: list[LevelTest] = []
    for epsilon in family:
        answers, table = "", Standing(np.zeros(0, np.bool_), _at_most(baseline), persons)
        # The first batch is asked in any case: a verdict with no answer behind it teaches nobody anything.
        while (passed := rule.verdict(table) if answers else None) is None:
            stop = min(persons, len(answers) + BATCH)
            if beside and condition is not None and len(baseline) < stop:
                baseline += ask(condition, len(baseline), stop)
            answers += ask(epsilon, len(answers), stop)
            table = Standing(_at_least(answers), _at_most(baseline), persons)
        tests.append(LevelTest(epsilon, answers, passed, rule.told(table)))
        if not passed:
            break

    certified = [test for test in tests if test.passed]
    last, size = certified[-1] if certified else tests[0], len(family)
    low, high = _quoted(last, examined, terms, 0.025 / size)
    rate = rule.smallest_rate(_at_most(baseline), persons, _PROBABILITY)
    everybody = Standing(np.ones(persons, np.bool_), _at_most(baseline), persons)
    return Certificate(
        terms=terms,
        family=family,
        examined=examined,
        baseline=baseline,
        tests=tuple(tests),
        epsilon=certified[-1].epsilon if certified else None,
        parity_certified=bool(certified) if terms.aim.kind == "parity" else None,
        lower=Bound(_quoted(last, examined, terms, terms.alpha / size)[0], "one-sided lower", 1 - terms.alpha, size),
        interval=Interval(low, high, 0.95, shared_by=size),
        power=Power(_PROBABILITY, None if rate is None or math.isnan(rate) else rate, rule.verdict(everybody) is True),
    )


def _design_of(terms: Certifying, examined: Examined) -> Design:
    # Before and after are the same persons, whoever the reference is.
    return "paired" if terms.aim.compares_with == "before" else examined.design


def _quoted(test: LevelTest, examined: Examined, terms: Certifying, alpha: float) -> tuple[float, float]:
    images = None if examined.layout is None else examined.layout[0]
    return quoted(_at_least(test.answers), examined.answers, alpha, terms.stopping, images)


def _at_least(answers: str) -> NDArray[np.bool_]:
    """Return who was surely right: doubt goes against what is claimed."""
    return np.array([c == _RIGHT for c in answers], np.bool_)


def _at_most(answers: str) -> NDArray[np.bool_]:
    """Return who may have been right: doubt goes against the claim, also in what it must beat."""
    return np.array([c != _WRONG for c in answers], np.bool_)


def _family(epsilons: Sequence[int]) -> tuple[int, ...]:
    try:
        levels = [_whole(e) for e in epsilons]
    except TypeError:
        raise ConfigError(
            f"Expected whole pixel levels as ε, got {epsilons!r}. Give a list of numbers such as [2, 4, 8]."
        ) from None
    if not levels:
        raise ConfigError("Expected at least one ε to verify, got none. Give a list such as [2, 4, 8].")
    if len(set(levels)) != len(levels):
        raise ConfigError(f"Expected each ε once, got {levels}. Each costs its own verification queries.")
    if min(levels) < 1 or max(levels) > 255:
        raise ConfigError(f"Expected ε in pixel levels 1..255, got {levels}. Write 8/255 as 8.")
    return tuple(sorted(levels, reverse=True))


# --- reading what others wrote -----------------------------------------------------------------------------


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _whole(value: object) -> int:
    # True is an int to Python, and neither a count nor a pixel level to anybody.
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{value!r} is not a whole number")
    return operator.index(cast(int, value))


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{value!r} is not in [0, 1]")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _design(value: object) -> Design:
    if value == "disjoint" or value == "paired":
        return value
    raise ValueError(f"design {value!r}")


def _layout(value: Any) -> Clusters | None:
    if value is None:
        return None
    ours, theirs = (tuple(_whole(count) for count in part) for part in value)
    if min((*ours, *theirs), default=1) < 1:
        raise ValueError("a person without an image")
    return ours, theirs


def _answers(value: object) -> str:
    if set(_text(value)) - {_RIGHT, _WRONG, _UNRESOLVED}:
        raise ValueError("answers other than 1, 0 and ?")
    return _text(value)


def _bound(data: Mapping[str, Any]) -> Bound:
    if data["kind"] not in ("one-sided lower", "one-sided upper"):
        raise ValueError(f"kind {data['kind']!r}")
    return Bound(_share(data["value"]), data["kind"], _share(data["confidence"]), _whole(data["shared_by"]))


def _interval(data: Mapping[str, Any]) -> Interval:
    if data["kind"] != "two-sided":
        raise ValueError(f"kind {data['kind']!r}")
    return Interval(_share(data["low"]), _share(data["high"]), _share(data["confidence"]), _whole(data["shared_by"]))


def _power(data: Mapping[str, Any]) -> Power:
    rate = data["smallest_rate"]
    return Power(_share(data["probability"]), None if rate is None else _share(rate), _flag(data["possible"]))
