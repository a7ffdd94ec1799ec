"""The conditions people are measured under: what is sent, what counts as a hit; ours, and a guest's controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ConfigError
from ttca.images import Images
from ttca.lossy import jpeg, shrink_and_enlarge
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.row import Row
from ttca.values import OneLine, Value

__all__ = [
    "CONTROLS",
    "HONEST_ROW",
    "ROW_KEYS",
    "SECTIONS",
    "Control",
    "Measuring",
    "Metric",
    "Opponents",
    "Scene",
    "metric_keys",
    "queries_for",
    "with_encoding",
]

Labels: TypeAlias = NDArray[np.int64]
#: ``(y_true, y_pred) -> float``, over the people that were resolved; a refusal is a prediction of −1.
Metric: TypeAlias = Callable[[Labels, Labels], float]

_GAP = "The gap, before and after"
_OTHER_DELTA = "Subgroup, another δ of the same ε"
_HARDER = "Subgroup, same δ, harder conditions"
_REFERENCE = "The reference group"
_ABUSE = "Abuse: the δ of a wrong class"
#: The report's headings for ours, in the order in which they are read.
SECTIONS = (_GAP, _OTHER_DELTA, _HARDER, _REFERENCE, _ABUSE)


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(
            f"Expected the name of a {what} as letters, digits and underscores, got {name!r}. It becomes a key of the "
            "result."
        )


@dataclass(frozen=True, eq=False, repr=False)
class Opponents(Value):
    """What an action has to beat, at the same ε.

    ``noise``: random ±ε per class. ``zero_query``: from a proxy that asked nothing, trained for
    ``zero_query_epochs``. ``class_agnostic``: one δ for all classes.
    """

    noise: PerturbationSet
    zero_query: PerturbationSet
    class_agnostic: PerturbationSet
    zero_query_epochs: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Scene(OneLine):
    """What a control can use: one group of people, and everything that was learned.

    Parameters
    ----------
    people : People
        Those the control is about, all of the subgroup or all of the reference.
    perturbations : PerturbationSet
        The action's δ.
    opponents : Opponents
        Other δ of the same ε.
    proxy : callable
        uint8 (N, H, W, 3) → int64 (N,): the class the proxy would pick, with no knowledge of the truth.
    seed : int
    seats : int64 (N,), optional
        Where each person sits, where others have left: what is drawn for a seat stays the same.
    """

    people: People
    perturbations: PerturbationSet
    opponents: Opponents
    proxy: Callable[[Images], Labels]
    seed: int
    seats: Labels | None = None

    @property
    def images(self) -> Images:
        """The people's images as they are, uint8 (N, H, W, 3)."""
        return self.people.images

    @property
    def classes(self) -> Labels:
        """The people's true classes, int64 (N,)."""
        return self.people.classes

    @cached_property
    def with_delta(self) -> Images:
        """The images, each with the δ of its true class, uint8 (N, H, W, 3)."""
        return self.perturbations.apply(self.images, self.classes)

    @cached_property
    def picked(self) -> Labels:
        """The class that the proxy picks for each image as it is, int64 (N,)."""
        return self.proxy(self.images)

    @cached_property
    def wrong(self) -> Labels:
        """A wrong class for each image, drawn at random, int64 (N,)."""
        count = len(self.perturbations.classes)
        seats = np.arange(len(self.classes)) if self.seats is None else self.seats
        drawn = self.rng().integers(1, count, size=int(seats.max(initial=-1)) + 1)
        return (self.classes + drawn[seats]) % count

    def part(self, rows: slice) -> Scene:
        """Return some of the people; what is drawn for a seat, and what was found out already, stays as it is."""
        seats = np.arange(len(self.classes)) if self.seats is None else self.seats
        part = replace(self, people=self.people[rows], seats=seats[rows])
        for name in ("with_delta", "picked", "wrong"):
            if name in vars(self):
                vars(part)[name] = vars(self)[name][rows]
        return part

    def rng(self) -> np.random.Generator:
        """Return a new generator, made from the action's seed; it draws the same at every call."""
        return np.random.default_rng(self.seed)


def _true(scene: Scene) -> Labels:
    return scene.classes


@dataclass(frozen=True, kw_only=True)
class Control:
    """One condition that people are measured under. Row, cost and report follow from it.

    Parameters
    ----------
    name : str
        An identifier, under which the measurement keeps it; a guest's value stands under it in the row's ``extra``.
    label : str
        What the report calls it.
    sends : callable
        Scene → uint8 (N, H, W, 3): the images that are sent, one per person.
    hit : callable
        Scene → int64 (N,): the class that counts as a hit; by default the true one.
    whose : {"subgroup", "reference"}
        Whose images are sent.
    meaning : str
        A sentence or two for people who read the report.
    section : str
        Under which heading the report lists it.
    mark : {"reference", "before", "after", "control", "warning"}
        How the report's chart draws it.
    key : str, optional
        The key of the row that holds it. Only ours have one.
    asked_as : {"reference", "before", "delta"} or None
        What the certificate may ask that is the same, so that it costs nothing more on verification people. Only ours
        say so.

    Raises
    ------
    ConfigError
        If the name is no identifier.
    """

    name: str
    label: str
    sends: Callable[[Scene], Images]
    hit: Callable[[Scene], Labels] = _true
    whose: Literal["subgroup", "reference"] = "subgroup"
    meaning: str = ""
    section: str = "Controls of your own"
    mark: Literal["reference", "before", "after", "control", "warning"] = "control"
    key: str | None = None
    asked_as: Literal["reference", "before", "delta"] | None = None

    def __post_init__(self) -> None:
        _check_name("control", self.name)
        if self.whose not in ("subgroup", "reference"):
            raise ConfigError(
                f"Expected whose images the control {self.name} sends, subgroup or reference, got {self.whose!r}."
            )


#: Ours, in the order in which they are asked. Conditions, costs, the row's rates and the report follow from this list.
CONTROLS: tuple[Control, ...] = (
    Control(
        name="reference_before",
        label="Reference without δ",
        sends=lambda scene: scene.images,
        whose="reference",
        meaning="The reference group's share of right answers.",
        section=_GAP,
        mark="reference",
        key="reference_before",
        asked_as="reference",
    ),
    Control(
        name="reference_after",
        label="Reference with δ",
        # Not the scene's own copy: this one is needed once, and photographs are large.
        sends=lambda scene: scene.perturbations.apply(scene.images, scene.classes),
        whose="reference",
        meaning="The reference group's share of right answers when they apply δ, which was not made for them.",
        section=_REFERENCE,
        mark="reference",
        key="reference_after",
    ),
    Control(
        name="subgroup_before",
        label="Subgroup without δ",
        sends=lambda scene: scene.images,
        meaning="The subgroup's share of right answers.",
        section=_GAP,
        mark="before",
        key="subgroup_before",
        asked_as="before",
    ),
    Control(
        name="subgroup_after",
        label="Subgroup with δ (S)",
        sends=lambda scene: scene.with_delta,
        meaning="The subgroup's share of right answers.",
        section=_GAP,
        mark="after",
        key="subgroup_after",
        asked_as="delta",
    ),
    Control(
        name="abuse",
        label="Abuse rate",
        sends=lambda scene: scene.perturbations.apply(scene.images, scene.wrong),
        hit=lambda scene: scene.wrong,
        meaning="Each person gets the δ of a wrong class, drawn at random. How often does the platform then answer "
        "with that class? A high rate means that δ also works for a lie.",
        section=_ABUSE,
        mark="warning",
        key="abuse_rate",
    ),
    Control(
        name="noise",
        label="Random noise",
        sends=lambda scene: scene.opponents.noise.apply(scene.images, scene.classes),
        meaning="S with random noise of full strength instead of δ.",
        section=_OTHER_DELTA,
        key="noise_control",
    ),
    Control(
        name="proxy_class",
        label="Class picked by the proxy",
        sends=lambda scene: scene.perturbations.apply(scene.images, scene.picked),
        meaning="S when nobody knows the true class and the proxy picks the class whose δ is applied.",
        section=_HARDER,
        key="proxy_class_control",
    ),
    Control(
        name="class_agnostic",
        label="One δ for all classes",
        sends=lambda scene: scene.opponents.class_agnostic.apply(scene.images, scene.classes),
        meaning="S with a single δ for everybody, which cannot point to the true class.",
        section=_OTHER_DELTA,
        key="class_agnostic_control",
    ),
    Control(
        name="zero_query",
        label="δ learned without queries",
        sends=lambda scene: scene.opponents.zero_query.apply(scene.images, scene.classes),
        meaning="S with a δ learned without a single query. The queries bought only what S gains beyond this.",
        section=_OTHER_DELTA,
        key="zero_query_control",
    ),
    Control(
        name="jpeg75",
        label="After JPEG 75",
        sends=lambda scene: jpeg(scene.with_delta),
        meaning="S when the image with δ is compressed as a JPEG of quality 75 before the platform sees it.",
        section=_HARDER,
        key="jpeg75_control",
    ),
    Control(
        name="resize",
        label="After a resize",
        sends=lambda scene: shrink_and_enlarge(scene.with_delta),
        meaning="S when the image with δ is shrunk to half its size and enlarged again before the platform sees it.",
        section=_HARDER,
        key="resize_control",
    ),
)

#: The row's rates: key of the row → the control it holds.
ROW_KEYS: Mapping[str, str] = MappingProxyType({c.key: c.name for c in CONTROLS if c.key is not None})


def queries_for(controls: Iterable[Control], people: People) -> int:
    """Return how many images the controls send, one per person of each control's group."""
    members = int(people.subgroup.sum())
    counts = {"subgroup": members, "reference": len(people) - members}
    return sum(counts[control.whose] for control in controls)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measuring:
    """What an action measures beside the honest row: a guest's metrics and controls.

    Parameters
    ----------
    metrics : dict of str to callable
        Each takes ``(y_true, y_pred)`` of one group and returns a number. A metric asks the platform nothing.
    controls : sequence of Control
        Each costs one query per person of its group.

    Raises
    ------
    ConfigError
        If a name is no identifier, stands for two values, or is one of ours; if a metric cannot be called, or a
        control claims a key of the row.
    """

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    controls: Sequence[Control] = ()

    def __post_init__(self) -> None:
        for name, metric in self.metrics.items():
            _check_name("metric", name)
            if not callable(metric):
                raise ConfigError(
                    f"Expected the metric {name} as a function of (y_true, y_pred), got {type(metric).__name__}. Pass "
                    "the function itself."
                )
        for control in self.controls:
            if not isinstance(control, Control):
                raise ConfigError(f"Expected controls as ttca.Control, got {type(control).__name__}. Make it one.")
            if control.key is not None or control.asked_as is not None:
                raise ConfigError(
                    f"Expected no row key and no answers from before for the control {control.name}, got some. Leave "
                    "out key and asked_as: its value stands in the row's extra, and its queries are paid."
                )
        # Copies: a list that the caller goes on filling must not change what was checked.
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))
        object.__setattr__(self, "controls", tuple(self.controls))
        known = {*(c.name for c in CONTROLS), *Row.keys()}
        names = [
            *(key for name in self.metrics for key in metric_keys(name).values()),
            *(c.name for c in self.controls),
        ]
        for name in names:
            if name in known or names.count(name) > 1:
                raise ConfigError(
                    f"Expected a name of its own for every value that is measured, got {name} twice. Choose another "
                    "name for your metric or control."
                )

    def all_controls(self) -> tuple[Control, ...]:
        """Return our controls, and then the guest's."""
        return (*CONTROLS, *self.controls)


#: Nothing beside the honest row.
HONEST_ROW = Measuring()


def with_encoding(measuring: Measuring, quality: int | None) -> Measuring:
    """Return what is measured on a platform that is sent JPEG files of this quality; None for one that is not.

    What it sees of δ is what the file leaves, in every condition. One more control says how S fares when the image
    was such a file once before.
    """
    name = f"jpeg{quality}"
    if quality is None or name in {control.name for control in measuring.all_controls()}:
        return measuring
    again = Control(
        name=name,
        label=f"After JPEG {quality}, twice",
        sends=lambda scene: jpeg(scene.with_delta, quality=quality),
        meaning=f"This platform is sent JPEG files of quality {quality}, so that S is what such a file leaves of δ. "
        "Here the image with δ has been one once before.",
        section=_HARDER,
    )
    return replace(measuring, controls=(*measuring.controls, again))


def metric_keys(name: str) -> dict[str, str]:
    """Return the keys of the row's ``extra`` that hold a metric, by condition.

    Its bare name is the subgroup's value with δ, as S is.
    """
    others = ("subgroup_before", "reference_before", "reference_after")
    return {"subgroup_after": name, **{condition: f"{name}_{condition}" for condition in others}}
