"""Planning: members, queries, days and price of an action that would surely enough be certified; asks nothing."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ttca.action import CollectiveAction
from ttca.audit import AUDIT_FILE, GROUPS
from ttca.certificates import Certifying
from ttca.errors import ActionError, ConfigError, MissingExtraError
from ttca.frames import frame
from ttca.goals import Design, Goal
from ttca.kept import load_json
from ttca.pooling.quotas import Quota
from ttca.power import LADDER, MOST_SLOW, Assumed, Verifiers, fewest_persons, power
from ttca.prices import Price
from ttca.training_time.bounds import Setting, TotalSize
from ttca.training_time.bounds import plan as plan_planting
from ttca.training_time.signals import Domain, FeatureLabelPlanting, Signal

__all__ = [
    "ALONE",
    "RELABEL",
    "WANTED",
    "ActionPlan",
    "Alone",
    "Learning",
    "Line",
    "Retraining",
    "assume",
    "days_told",
    "goals",
    "make_plan",
    "measure_learning",
    "power_curves",
    "successes",
    "verifying_group",
]

#: A plan certifies at least so surely.
WANTED = 0.8
#: Shares of the gap that δ may close.
_CLOSED = (0.5, 1.0, 1.25, 1.5)
#: Nobody is surely always right.
_MOST = 0.995
#: Queries that Square Attack paid for each wrong picture until it was right, on average: the least and the most of
#: benchmarks/results/query_budget-*-final.json, where every picture was put right within 5,000.
ALONE = (13.4, 82.9)
#: The share of a minority that has to relabel (arXiv 2508.15374, its poster).
RELABEL = (0.2, 0.3)
_IMAGES = 32
#: Numbers of persons in the figure.
_DRAWN = (25, 50, 100, 150, 200, 300)


@dataclass(frozen=True, kw_only=True)
class Line:
    """What it takes to certify one goal at one S.

    Parameters
    ----------
    goal : str
    own : bool
        Whether it is the action's own goal.
    success : float
        The true S that is assumed.
    now : float
        Power with the verification people there are.
    persons : int or None
        Verification people of the subgroup who certify it with 80 %; None where no number that was tried does. All that
        follows is about so many, and None without them.
    more_people : int or None
        Verification people to be won, both groups together.
    queries : int or None
        In all, at most.
    more_members : int or None
        Who must join, each with the quota of ``[pool]``, to pay for that.
    days : float or None
        Under the members' rates; None also where nobody has a rate and the platform's pace is not known.
    price : float or None
    """

    goal: str
    own: bool
    success: float
    now: float
    persons: int | None
    more_people: int | None = None
    queries: int | None = None
    more_members: int | None = None
    days: float | None = None
    price: float | None = None


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How long learning takes on this machine: ``seconds``, from ``passes`` images and what one was measured to take.

    Validation, controls and published weights' trial rates are not in it.
    """

    seconds: float
    passes: int
    per_image: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def told(self) -> str:
        """Return it for people."""
        time = f"{max(1, round(self.seconds)):,} s" if self.seconds < 90 else f"{round(self.seconds / 60):,} min"
        return (
            f"Learning takes about {time} on this machine: {self.passes:,} passes of an image at "
            f"{1000 * self.per_image:.2f} ms, measured just now on a few. Controls take more."
        )


@dataclass(frozen=True, kw_only=True)
class Alone:
    """What the same pictures would cost if every member attacked alone: from ``least`` to ``most`` queries in all."""

    images: int
    wrong: float
    least: int
    most: int


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """What two other actions take where the provider trains anew on so many ``records``.

    Parameters
    ----------
    records : int
    plant : int or None
        Members who must plant one signal so that ``success`` is guaranteed; None where not even everybody would do.
    success : float
    relabel : (int, int)
        Members of the minority who must relabel to reach the least violation, as published.
    """

    records: int
    plant: int | None
    success: float
    relabel: tuple[int, int]

    def told(self) -> str:
        """Return it for people."""
        some, many = self.relabel
        planted = (
            "planting a mark is guaranteed by no number of members"
            if self.plant is None
            else f"a mark planted by {self.plant:,} members is guaranteed to be answered as they want in "
            f"{100 * self.success:.1f} % of marked pictures"
        )
        return (
            f"Where the provider retrains on {self.records:,} records: {planted} (docs/training_time.md); relabeling "
            f"takes {some:,} to {many:,} members of the minority, 20 to 30 % of it, as published (docs/minority.md)."
        )


@dataclass(frozen=True, kw_only=True)
class ActionPlan:
    """What an action takes.

    Parameters
    ----------
    assumed : Assumed
    source : str
        Where the rates are from.
    members, quota_left, verification : int
        There are now.
    design : {"disjoint", "paired"}
    lines : tuple of Line
        By goal and S.
    alone : Alone
    retraining : Retraining or None
        None where nobody said that the provider retrains.
    """

    assumed: Assumed
    source: str
    members: int
    quota_left: int
    verification: int
    design: Design
    lines: tuple[Line, ...]
    alone: Alone
    retraining: Retraining | None = None

    @property
    def has_gap(self) -> bool:
        """Whether the rates leave a gap to close."""
        return self.assumed.subgroup < self.assumed.reference

    @property
    def cheapest(self) -> Line | None:
        """The line with the fewest queries at the smallest S that closes the gap and can be certified.

        At the largest S below where none does; None where nothing can be certified, or there is no gap to close.
        """
        if not self.has_gap:
            return None
        there = [line for line in self.lines if line.queries is not None]
        whole = [line.success for line in there if line.success >= self.assumed.reference - 1e-9]
        at = min(whole) if whole else max((line.success for line in there), default=None)
        here = [line for line in there if line.success == at]
        return min(here, key=lambda line: (line.queries or 0, not line.own), default=None)

    @property
    def cheapest_of_own(self) -> Line | None:
        """The same among the lines of the action's own goal."""
        return replace(self, lines=tuple(line for line in self.lines if line.own)).cheapest

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a line for each goal and S (:class:`Line`).

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        return frame([asdict(line) for line in self.lines])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        best, own = self.cheapest, self.cheapest_of_own
        return {
            **asdict(self),
            "lines": [asdict(line) for line in self.lines],
            "cheapest": None if best is None else asdict(best),
            "cheapest_of_own_goal": None if own is None else asdict(own),
            "conclusion": self.told(),
        }

    def explained(self) -> str:
        """Return, for people, what the columns of the plan's table mean."""
        highest = max(line.success for line in self.lines) == _MOST
        first = f"{self.lines[0].success:.3f}"
        several = (
            f"several, from half of the gap closed ({first} here) to more than all of it"
            if self.has_gap
            else f"several, from {first} up"
        )
        found = [
            f"S is the subgroup's share of right answers with δ. Nobody knows it before, so each goal has a line for "
            f"{several}{f', but none above {_MOST}: nobody is surely always right' if highest else ''}. Sure now: how "
            f"often a certificate would pass if S were so, with the {self.verification:,} verification people there "
            "are. People: how many of the subgroup would make that 80 %. Queries and days: what is still to be paid "
            "for with so many, at most. Too many: not even the most people that are tried would do, which is "
            f"{LADDER[-1]:,}, or {MOST_SLOW:,} for a margin or a share."
        ]
        rate = Goal("rate", _as_reference(self.assumed))
        if any(line.goal == str(rate) and not line.own for line in self.lines):
            found.append(
                f"{str(rate)[0].upper()}{str(rate)[1:]}: at least {100 * (rate.value or 0):g} of 100 answers are right "
                f"with δ, which is about what the reference gets as it is ({self.assumed.reference:.3f})."
            )
        return " ".join(found)

    def there(self) -> str:
        """Return, for people, what there is now."""
        return (
            f"There are {self.members:,} members, who have {self.quota_left:,} queries left, and {self.verification:,} "
            "verification people of the subgroup."
        )

    def about_others(self) -> str:
        """Return, for people, how other ways compare."""
        alone = self.alone
        low, high = ALONE
        if alone.least == alone.most:
            cost = f"{alone.least:,} queries, for hardly any is read wrongly"
        else:
            cost = (
                f"{alone.least:,} to {alone.most:,} queries, at {low:g} to {high:g} for each wrong picture as in two "
                "benchmarks (docs/query_budget.md)"
            )
        found = [
            f"If every member attacked alone, {alone.images:,} pictures of the subgroup would take about {cost}, and "
            "every later picture takes its own; δ takes none."
        ]
        if self.retraining is not None:
            found.append(self.retraining.told())
        return " ".join(found)

    def told(self) -> str:
        """Return the conclusion for people."""
        best, own = self.cheapest, self.cheapest_of_own
        if not self.has_gap:
            return "By these rates there is no gap to close: stop here, or ask more people (ttca audit)."
        if best is None:
            return (
                "No number of people that was tried certifies any goal with 80 % probability, at any S in the table. "
                "Is there a gap? See: ttca audit"
            )
        found = f"The cheapest plan that certifies with 80 % probability: {_takes(best)}"
        if best.own:
            return found
        if own is None:
            return f"{found} No number of people that was tried certifies the action's own goal, at any S in the table."
        return f"{found} For the action's own goal: {_takes(own)}"


def _takes(line: Line) -> str:
    days = "" if line.days is None else f" and {days_told(line.days)}"
    people = "enough people are there" if not line.more_people else f"{line.more_people:,} more verification people"
    members = f", {line.more_members:,} more members" if line.more_members else ""
    return (
        f"{line.goal}, if S is {line.success:.3f}: {line.persons:,} verification people of the subgroup ({people}), at "
        f"most {line.queries:,} queries{days}{members}."
    )


def days_told(days: float) -> str:
    """Return a number of days for people; a day that has begun is one."""
    whole = max(1, math.ceil(days - 1e-9))
    return "1 day" if whole == 1 else f"{whole:,} days"


def assume(
    action: CollectiveAction, *, gap: float | None = None, subgroup: float | None = None, reference: float | None = None
) -> tuple[Assumed, str]:
    """Return the rates that a plan goes by, and where they are from: what is given, else the audit.

    Parameters
    ----------
    action : CollectiveAction
    gap : float, optional
        By how much the subgroup's rate is below the reference's.
    subgroup, reference : float, optional

    Raises
    ------
    ConfigError
        If the rates do not follow from what is given and there is no audit, a rate is out of range, or too much is
        given.
    ActionError
        If the audit cannot be read.
    """
    if gap is not None and subgroup is not None:
        raise ConfigError("Expected a gap or the subgroup's rate, got both. Leave one of them out.")
    if gap is not None and not 0 < gap < 1:
        raise ConfigError(f"Expected a gap above 0 and below 1, got {gap}. Write 15 points as 0.15.")
    told, source = {"subgroup": subgroup, "reference": reference}, "as assumed"
    if reference is None or (subgroup is None and gap is None):
        audited, date = _audited(action)
        told = {name: audited[name] if told[name] is None else told[name] for name in GROUPS}
        also = ", with what was assumed" if gap or subgroup or reference else ""
        source = f"the audit of {date}{also}"
    if gap is not None and told["reference"] is not None:
        told["subgroup"] = told["reference"] - gap
    if told["subgroup"] is None or told["reference"] is None:
        raise ConfigError(
            "Expected the rates of both groups, got only one: the audit asked one group alone. Give the other with "
            "--assume-subgroup or --assume-reference."
        )
    return Assumed(subgroup=told["subgroup"], reference=told["reference"]), source


def _audited(action: CollectiveAction) -> tuple[dict[str, float | None], str]:
    """Return each group's rate, None where nobody of it was asked, and when and of whom, for people."""
    path = action.folder / AUDIT_FILE
    if not path.is_file():
        raise ConfigError(
            "Expected an audit in the action's folder, or assumed rates, got neither. Run ttca audit first, or assume: "
            "ttca plan --assume-subgroup 0.6 --assume-reference 0.85"
        )
    found = load_json(path)
    try:
        groups = {group["name"]: group["accuracy"]["value"] for group in found["groupings"][0]["groups"]}
        rates = {name: None if groups.get(name) is None else float(groups[name]) for name in GROUPS}
        compared = found.get("comparison")
        none = compared is not None and not compared["shown"]
        return rates, f"{found['date']}, of people in the pool{', which showed no gap' if none else ''}"
    except (KeyError, IndexError, TypeError, ValueError):
        raise ActionError(f"Expected an audit in {path}, got something else. Run ttca audit again.") from None


def make_plan(
    action: CollectiveAction,
    assumed: Assumed,
    *,
    source: str,
    quota: Quota,
    price: Price | None = None,
    records: int | None = None,
) -> ActionPlan:
    """Return what the action takes, at several S, for its own goal and others; spends no query.

    Parameters
    ----------
    action : CollectiveAction
    assumed : Assumed
    source : str
        Where the rates are from.
    quota : Quota
        Of a member who joins.
    price : Price, optional
    records : int, optional
        What the provider trains on, where it retrains.

    Raises
    ------
    ConfigError
        If there are fewer than one record.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Ours.* Queries are those of the dry run, with other numbers of verification people: at most, since tests may end
    early. Days are what the members' rates and the platform's pace so far demand (:meth:`QueryPool.seconds`).
    """
    if records is not None and records < 1:
        raise ConfigError(f"Expected 1 record or more that the provider trains on, got {records}.")
    examined, group = action.panel.examined(), verifying_group(action)
    fixed = sum(cost.queries for step, cost in action.plan().items() if step not in ("baseline", "verification"))
    lines = []
    work = [(terms, own, success) for terms, own in goals(action, assumed) for success in successes(assumed)]
    with action.queries.reporter.track("working out what certifies", len(work), unit="goals") as advance:
        for terms, own, success in work:
            now = power(terms, group, examined.persons, assumed)(success)
            persons = fewest_persons(terms, group, assumed, success, WANTED)
            line = Line(goal=str(terms.aim), own=own, success=success, now=now, persons=persons)
            if persons is not None:
                line = _costed(action, line, terms, group, fixed, quota, price)
            lines.append(line)
            advance(1)
    left = action.ledger.left().of(action.queries.members).total
    return ActionPlan(
        assumed=assumed,
        source=source,
        members=len(action.queries.members),
        quota_left=left,
        verification=examined.persons,
        design=examined.design,
        lines=tuple(lines),
        alone=_alone(action, assumed),
        retraining=None if records is None else _retraining(action, assumed, records),
    )


def successes(assumed: Assumed) -> list[float]:
    """Return the S of a plan: half of the gap closed, all of it, and more, as far as a rate can go."""
    gap = max(assumed.reference - assumed.subgroup, 0.05)
    found = (min(_MOST, assumed.subgroup + share * gap) for share in _CLOSED)
    return sorted({round(success, 4) for success in found})


def _as_reference(assumed: Assumed) -> float:
    """Return the success rate that a plan has as a goal: about the reference's own."""
    return min(_MOST, max(0.01, round(assumed.reference, 2)))


def goals(action: CollectiveAction, assumed: Assumed) -> list[tuple[Certifying, bool]]:
    """Return the terms of every goal that these people can be certified for, and whether it is the action's own."""
    own = replace(action.settings.certifying, every_image=False)
    plain = replace(own, goal="parity", within=None, accuracy_ratio=None)
    rate = _as_reference(assumed)
    others = [
        replace(plain, goal="improvement"), plain, replace(plain, within=0.05), replace(plain, accuracy_ratio=0.8),
        replace(plain, goal=rate),
    ]  # fmt: skip
    if plain.stopping != "curtailed" and action.panel.design == "paired":
        # No test that stops early is known for it.
        others.pop(3)
    if not action.panel.examined().others:
        others = [terms for terms in others if terms.aim.compares_with != "reference"]
    return [(own, True), *((terms, False) for terms in others if terms.aim.kind != own.aim.kind)]


def verifying_group(action: CollectiveAction) -> Verifiers:
    """Return who verifies, whatever their number."""
    examined = action.panel.examined()
    others = examined.others / examined.persons if examined.design == "disjoint" else 1.0
    return Verifiers(design=examined.design, others=others)


def power_curves(action: CollectiveAction, assumed: Assumed) -> dict[str, dict[int, list[float]]]:
    """Return the power of every goal, by its name and by the number of persons, at each S of :func:`successes`."""
    group, found = verifying_group(action), {}
    work = goals(action, assumed)
    with action.queries.reporter.track("drawing what certifies", len(work), unit="goals") as advance:
        for terms, _ in work:
            passing = {persons: power(terms, group, persons, assumed) for persons in _DRAWN}
            found[str(terms.aim)] = {n: [at(success) for success in successes(assumed)] for n, at in passing.items()}
            advance(1)
    return found


def _costed(
    action: CollectiveAction,
    line: Line,
    terms: Certifying,
    group: Verifiers,
    fixed: int,
    quota: Quota,
    price: Price | None,
) -> Line:
    persons, examined = line.persons or 0, action.panel.examined()
    others = persons if group.design == "paired" else max(1, round(group.others * persons))
    baseline = {"reference": others, "before": persons, None: 0}[terms.aim.compares_with]
    queries = fixed + baseline + persons * len(action.settings.epsilons)
    left = action.ledger.left().of(action.queries.members).total
    joining = max(0, math.ceil((queries - left) / quota.total))
    seconds = action.queries.seconds(queries, [quota] * joining)
    wanting = max(0, persons - examined.persons)
    if terms.aim.compares_with == "reference" and group.design == "disjoint":
        wanting += max(0, others - examined.others)
    return replace(
        line,
        more_people=wanting,
        queries=queries,
        more_members=joining,
        days=None if seconds is None else seconds / 86400,
        price=None if price is None else price.of(queries),
    )


def _alone(action: CollectiveAction, assumed: Assumed) -> Alone:
    images = sum(int(people.subgroup.sum()) for people in action.roster.roles().values())
    wrong = (1 - assumed.subgroup) * images
    # One look at each picture tells which are wrong.
    least, most = (round(images + wrong * each) for each in ALONE)
    return Alone(images=images, wrong=wrong, least=least, most=most)


def _retraining(action: CollectiveAction, assumed: Assumed, records: int) -> Retraining:
    people = action.roster.pool
    labels = max(2, len(action.classes))
    # Pictures with and without a mark that nobody has yet.
    domain = Domain((2,), labels)
    pilot = np.zeros((2, labels), np.int64)
    pilot[0, : len(action.classes)] = np.bincount(people.classes, minlength=len(action.classes))
    strategy = FeatureLabelPlanting(Signal(domain, (0,), (1,)), 0)
    wanted = min(_MOST, assumed.reference) if assumed.reference > 0 else 0.5
    found = plan_planting(strategy, pilot, TotalSize(0), Setting(population=records), wanted=wanted)
    minority = records * float(people.subgroup.mean())
    return Retraining(
        records=records,
        plant=found.size,
        success=wanted,
        relabel=(math.ceil(RELABEL[0] * minority), math.ceil(RELABEL[1] * minority)),
    )


def measure_learning(action: CollectiveAction) -> Learning | None:
    """Return how long learning takes here, from a training and a δ of a few steps on 32 images; None without torch.

    None too where recipes race: nobody knows yet who wins, and their own estimate is in ``action.runners``.

    Notes
    -----
    *Ours.* What an epoch more, and a step more, take is multiplied by the epochs, steps and images of the action.
    Nothing that is learned is kept, and nothing is asked.
    """
    try:
        if action.runners is not None:
            return None
        learner = action.learner
        from ttca.attacks.universal import Examples
        from ttca.proxies.distillation import train_proxy
        from ttca.proxies.runtime import best_device
    except MissingExtraError:
        return None
    settings, known, device = action.settings, action.known, best_device()
    few = action.questions.people[: min(_IMAGES, len(action.questions.people))]
    images, targets = learner.seen(few.images), learner.true(few)
    options = replace(learner.start.options(settings.distilling), keep_best=False)
    examples = Examples(images, few.classes, np.zeros_like(few.classes))
    proxy = train_proxy(images, targets, replace(options, epochs=1), selection=(images, targets), device=device).proxy

    def train(epochs: int) -> None:
        train_proxy(images, targets, replace(options, epochs=epochs), selection=(images, targets), device=device)

    def attack(steps: int) -> None:
        learner.attack(steps).learn(
            proxy, examples, epsilon=max(settings.epsilons), groups=1, selection=examples, device=device
        )

    training, pushing = (_marginal(work) / len(few) for work in (train, attack))
    asked = len(action.questions.people)
    passes, altered = settings.public_epochs * known.early + settings.epochs * asked, 0
    for turn in action.questions.rounds:
        altered += len(turn)
        passes += settings.epochs * (asked + altered)
    pushed = min(len(known.helped), settings.perturbing.batch_size) * settings.steps
    pushes = pushed * len(settings.epsilons) + pushed // 2 * len(action.questions.rounds)
    seconds = passes * training + pushes * pushing
    return Learning(seconds=seconds, passes=passes + pushes, per_image=seconds / max(1, passes + pushes))


def _marginal(work: Any) -> float:
    """Return the seconds that one more of something takes: what three take more than one, and never nothing."""
    took = []
    for count in (1, 3):
        began = time.perf_counter()
        work(count)
        took.append(time.perf_counter() - began)
    return max((took[1] - took[0]) / 2, took[1] / 30)
