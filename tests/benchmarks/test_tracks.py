"""Tests of the tracks: who is whose reference, who may be asked, and that nobody has two roles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks import _tracks
from benchmarks._grid import planned
from benchmarks._tracks import CAMERAS, TRACKS, WORLDS, Cell, check_backbones
from ttca.blocks import shrink
from ttca.data.cameras import soft_focus
from ttca.data.hub import LabeledImages, load_cifar10
from ttca.errors import ConfigError, DataError
from ttca.people import People
from ttca.proxies.backbones import Backbone
from ttca.settings import Settings

_REAL = os.environ.get("TTCA_DATA")
_WITH_DATA = pytest.mark.skipif(not _REAL, reason="needs the data sets and classifiers of TTCA_DATA")
_CACHES = (
    _tracks._cifar, _tracks._cifar_copies, _tracks._fairface_coarse, _tracks._fairface_copies, _tracks._fairface_train,
    _tracks._fairface_test,
)  # fmt: skip


def photographs(n: int, seed: int, columns: dict[str, int]) -> LabeledImages:
    """Return n different images with columns of so many values."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    return LabeledImages(images, {k: rng.integers(0, v, n) for k, v in columns.items()}, {})


@cache
def made() -> dict[str, LabeledImages]:
    """Return data sets of the real ones' sizes, with small images."""
    labels = {"label": 10, "fine_label": 100}
    faces = {"gender": 2, "race": 7, "age": 9}
    sets = {
        "cifar-train": photographs(9000, 0, labels),
        "cifar-test": photographs(10_000, 1, labels),
        "fairface-train": photographs(8000, 2, faces),
        "fairface-validation": photographs(5000, 3, faces),
    }
    # As in the real data, some photographs are there twice, in splits that have different roles.
    train, validation = sets["fairface-train"].images, sets["fairface-validation"].images
    train[[286, 2737, 1673, 11]] = train[7214], train[6846], validation[3714], train[12]
    train[6628] = validation[2235]
    order = np.random.default_rng(0).permutation(10_000)
    cifar = sets["cifar-test"].images
    cifar[order[[7600, 5100, 5200]]] = cifar[order[[10, 4600, 7000]]]
    # Further on: one that was made paler is the same photograph.
    cifar[order[[5300, 7700]]] = cifar[order[[20, 5400]]] // 2 + 60
    validation[300], validation[2700] = train[7300] // 2 + 60, validation[400] // 2 + 60
    return sets


def forget() -> None:
    """Forget people that were made of other data sets."""
    for cached in _CACHES:
        cached.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def data() -> Iterator[dict[str, LabeledImages]]:
    """Give the tracks data sets of the real ones' sizes, with small images."""
    sets = made()

    def faces_of(split: str, rows: slice) -> LabeledImages:
        whole = sets[f"fairface-{split}"]
        if not len(whole.images[rows]):
            raise DataError("Expected at least one row, got none.")
        return LabeledImages(whole.images[rows], {k: v[rows] for k, v in whole.columns.items()}, {})

    forget()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("load_cifar10", "load_cifar100"):
            patch.setattr(_tracks, name, lambda split: sets[f"cifar-{split}"])
        patch.setattr(_tracks, "load_fairface", faces_of)
        yield sets
    forget()


@pytest.fixture
def races(data: dict[str, LabeledImages]) -> Any:
    """Return the race of the first 2,500 validation people."""
    return data["fairface-validation"].columns["race"][:2500]


def names(people: People | None) -> set[str]:
    """Return the persons."""
    return set() if people is None else set(people.persons.tolist())


def roles(cell: Cell) -> dict[str, set[str]]:
    """Return the persons of every role."""
    return {k: names(v) for k, v in cell.roster.roles().items()} | {"test": names(cell.test)}


#: The tracks of further cameras have the people of the one with the soft focus: a test of their own says so.
every = pytest.mark.parametrize(
    "name",
    # Thousands of photographs are decoded and looked through for copies.
    [
        pytest.param(n, marks=[pytest.mark.full, _WITH_DATA] if n == "waterbirds" else [])
        for n in TRACKS
        if not n.endswith(tuple(CAMERAS))
    ],
)
#: Digits are few, and have no other regime.
_FEW = ("digits", "digits-thirdparty")


@every
@pytest.mark.parametrize("regime", ["own", "public"])
def test_no_person_has_two_roles(name: str, regime: Any) -> None:
    """Pool, selection, verification, dev-test and final people are different persons, whatever the seed."""
    track = TRACKS[name]
    dev, final = (track.people(140 if name in _FEW else 500, regime, 3, f) for f in (False, True))
    found = [*roles(dev).values(), names(final.test)]
    for i, one in enumerate(found):
        assert one
        for other in found[i + 1 :]:
            assert not one & other
    assert roles(final)["verification"] == roles(dev)["verification"]


def test_members_alone_need_no_public_images(data: dict[str, LabeledImages], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever learns from members alone neither reads nor carries the train split, which is the larger one."""

    def tests_alone(split: str) -> LabeledImages:
        if split == "train":
            raise DataError("Expected no train split.")
        return data["cifar-test"]

    forget()
    monkeypatch.setattr(_tracks, "load_cifar10", tests_alone)
    assert len(TRACKS["cifar10-resnet56"].people(100, "own", 0, False).roster.pool)
    with pytest.raises(DataError, match="no train split"):
        TRACKS["cifar10-resnet56"].people(100, "public", 0, False)
    forget()


def test_unasked_members_are_the_rest_of_the_pool() -> None:
    """All of CIFAR's pool people have one role, and those who are not asked share it with nobody who is."""
    roster = TRACKS["cifar10-resnet56"].people(500, "own-unasked", 0, False).roster
    assert roster.unasked is not None
    parts = [names(people) for people in (roster.pool, roster.selection, roster.unasked)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4500
    assert 0.6 < roster.unasked.subgroup.mean() < 0.8


@every
def test_the_queries_are_the_images_sent_for_the_pool(name: str) -> None:
    """Pool and selection people together are as many images as the cell has queries, most of them the subgroup's."""
    for queries in (140, 420) if name in _FEW else (250, 700):
        roster = TRACKS[name].people(queries, "own", 0, False).roster
        asked = People.concatenate([roster.pool, roster.selection])
        assert len(asked) == queries
        assert 0.55 < asked.subgroup.mean() < 0.75
        share = 0.1 if name.startswith("fairface") else 0.2
        assert len(roster.selection) == pytest.approx(share * queries, abs=3)
        # The demo's volunteers have two cameras, and two pictures; everybody else has one.
        assert len(names(asked)) == queries or name in _FEW


@every
def test_the_grids_largest_budget_finds_its_people(name: str) -> None:
    """No track is planned with more queries than its pool has images."""
    queries = max(cell.queries for cell in planned([name]) if cell.regime == "own")
    roster = TRACKS[name].people(queries, "own", 0, False).roster
    assert len(roster.pool) + len(roster.selection) == queries


@every
def test_seeds_draw_other_people_from_the_same_pool(name: str) -> None:
    """Another seed asks others; verification and test people are the protocol's and stay."""
    one, other = (TRACKS[name].people(140, "own", seed, False) for seed in (0, 1))
    assert names(one.roster.pool) != names(other.roster.pool)
    assert roles(one)["verification"] == roles(other)["verification"]
    assert np.array_equal(one.test.images, other.test.images)


@every
def test_more_queries_than_images_are_refused(name: str) -> None:
    """A cell that the data cannot fill is a sentence, not a smaller cell."""
    with pytest.raises(ConfigError, match=r"Expected at most \d+ queries"):
        TRACKS[name].people(50_000, "own", 0, False)


@pytest.mark.parametrize("name", ["cifar10-resnet56", "cifar100-resnet32"])
def test_the_subgroup_is_seen_through_the_soft_camera(name: str) -> None:
    """Verification and test people are there twice, sharp and blurred; a pool person has one camera only."""
    cell = TRACKS[name].people(500, "public", 0, False)
    for people, count in ((cell.roster.verification, 500), (cell.test, 2498)):
        soft, sharp = people[people.subgroup], people[~people.subgroup]
        assert len(soft) == len(sharp) == count
        assert np.array_equal(soft_focus(sharp.images), soft.images)
        assert soft.persons.tolist() == sharp.persons.tolist()
    assert cell.public is not None
    assert cell.views is not None
    blurred = {image.tobytes() for image in soft_focus(cell.public.images)}
    assert {image.tobytes() for image in cell.views.images} < blurred
    assert not {image.tobytes() for image in cell.public.images} & {image.tobytes() for image in cell.views.images}


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_cameras_track_differs_by_its_camera_alone(camera: str) -> None:
    """The people, their roles and the platform are those of the soft-focus track, and nothing is set by hand."""
    track = TRACKS[f"cifar10-resnet56-{camera}"]
    plain, cell = (TRACKS[name].people(500, "public", 0, False) for name in ("cifar10-resnet56", track.name))
    assert roles(plain) == roles(cell)
    for before, people in ((plain.roster.pool, cell.roster.pool), (plain.test, cell.test)):
        inside = people.subgroup
        assert np.array_equal(before.subgroup, inside)
        assert np.array_equal(before.images[~inside], people.images[~inside])
        assert not np.array_equal(before.images[inside], people.images[inside])
    through, sharp = cell.test[cell.test.subgroup], cell.test[~cell.test.subgroup]
    assert np.array_equal(CAMERAS[camera](sharp.images), through.images)
    assert cell.public is not None
    assert cell.views is not None
    shown = {image.tobytes() for image in CAMERAS[camera](cell.public.images)}
    assert {image.tobytes() for image in cell.views.images} <= shown
    assert track.settings == {"own": {}, "public": {}}


def test_platforms_that_others_made_get_pictures_as_they_take_them() -> None:
    """FairFace's photographs come at half their size, digits at MNIST's, and nothing is set by hand."""
    faces, digits = (TRACKS[name] for name in ("fairface-faceapi", "digits-thirdparty"))
    whole, half = (TRACKS[n].people(140, "own", 0, False) for n in ("fairface-agegender", faces.name))
    for before, people in ((whole.test, half.test), (whole.roster.pool, half.roster.pool)):
        assert np.array_equal(shrink(before.images, 2), people.images)
        assert before.persons.tolist() == people.persons.tolist()
        assert np.array_equal(before.subgroup, people.subgroup)
    cell, demo = (TRACKS[name].people(140, "own", 0, False) for name in (digits.name, "digits"))
    assert roles(cell) == roles(demo)
    sharp = cell.test[~cell.test.subgroup]
    assert sharp.images.shape[1:] == (28, 28, 3)
    assert sharp.images[:, 4:24, 4:24].any(axis=(1, 2, 3)).all()
    edge = np.ones((28, 28), np.bool_)
    edge[4:24, 4:24] = False
    assert not sharp.images[:, edge].any()
    assert faces.settings == {"own": {}, "public": {}}
    assert digits.settings == {"own": {}}


def test_there_are_twelve_worlds_and_each_is_a_track() -> None:
    """Recipes can be compared on at least twelve worlds, every one of which knows the regime own or public."""
    assert len(WORLDS) == len(set(WORLDS)) >= 12
    assert set(WORLDS) <= TRACKS.keys()
    assert {f"cifar10-resnet56-{camera}" for camera in CAMERAS} < set(WORLDS)


_load_real = load_cifar10


@pytest.mark.full
@_WITH_DATA
@pytest.mark.parametrize("camera", CAMERAS)
def test_every_camera_costs_its_people_right_answers(camera: str) -> None:
    """Both platforms are right less often about 1,000 verification and dev-test people through the camera."""
    from ttca.platforms.base import Credential

    test = _load_real("test")
    rows = np.random.default_rng(0).permutation(len(test))[4500:5500]
    sharp, classes = test.images[rows], test.columns["label"][rows]
    who = Credential("nobody")
    for name in ("cifar10-resnet56", "cifar10-resnet20"):
        with TRACKS[name].open_platform("scores") as platform:
            right = [
                sum(
                    int(
                        (
                            platform.attempt(images[i : i + 250], who, request_id="r").labels == classes[i : i + 250]
                        ).sum()
                    )
                    for i in range(0, 1000, 250)
                )
                for images in (sharp, CAMERAS[camera](sharp))
            ]
        assert right[1] < right[0] - 20


def test_a_photograph_that_is_there_twice_has_one_role() -> None:
    """FairFace holds copies across its splits: none stands in two roles, and the earlier one keeps it."""
    for name, platforms in (("fairface-agegender", 0), ("fairface-faceapi", 0), ("fairface-trained", 4000)):
        dev, final = (TRACKS[name].people(500, "public", 0, f) for f in (False, True))
        assert dev.public is not None
        assert len(dev.public) == 6000 if not platforms else 3000
        size = dev.public.images.shape[1]
        parts = [dev.public, dev.roster.verification, dev.test, final.test]
        marks = [{image.tobytes() for image in shrink(part.images, part.images.shape[1] // size)} for part in parts]
        for i, one in enumerate(marks):
            assert all(not one & other for other in marks[i + 1 :])
        # Copies of 2235 and 3714 are train rows 6628 and 1673, whatever their role there.
        assert [len(part) for part in parts[2:]] == [2498, 2498]
        assert "validation-02235" not in names(dev.test)
        assert "validation-03714" not in names(final.test)
        assert len(dev.roster.verification) == (1998 if not platforms else 999)


def test_a_near_copy_of_an_earlier_photograph_is_no_test_person() -> None:
    """A photograph that was made paler is no other one, on FairFace as on CIFAR."""
    order = np.random.default_rng(0).permutation(10_000)
    dev, final = (TRACKS["cifar10-resnet56"].people(500, "own", 0, f).test for f in (False, True))
    assert f"test-{order[5300]:05d}" not in names(dev)
    assert {f"test-{order[k]:05d}" for k in (5301, 5400)} <= names(dev)
    assert f"test-{order[7700]:05d}" not in names(final)
    dev, final = (TRACKS["fairface-agegender"].people(500, "own", 0, f).test for f in (False, True))
    assert {"validation-00300", "validation-02700"}.isdisjoint(names(dev) | names(final))
    assert {"validation-00400", "validation-00301"} <= names(dev)


def test_those_who_are_left_out_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each data set says how many copies stand in none of its later roles."""
    whom = photographs(30, 5, {})
    birds = [People.build(part, np.zeros(10, int), subgroup=False) for part in np.split(whom.images, 3)]
    birds[2].images[4] = birds[0].images[7]
    monkeypatch.setattr(_tracks, "_waterbirds", lambda: birds)
    _tracks.waterbirds_test.cache_clear()
    found = _tracks.copies_left_out()
    _tracks.waterbirds_test.cache_clear()
    assert found == {
        "cifar10": {"dev-test": 2, "final": 2},
        "cifar100": {"dev-test": 2, "final": 2},
        "fairface": {"verification": 2, "dev-test": 2, "final": 2},
        "waterbirds": {"dev-test and final": 1},
    }


def test_a_test_image_that_somebody_earlier_has_too_is_left_out(data: dict[str, LabeledImages]) -> None:
    """CIFAR-100 holds exact copies under two labels: one of a pool or verification image is in no test set."""
    images, order = data["cifar-test"].images, np.random.default_rng(0).permutation(10_000)
    dev, final = (TRACKS["cifar100-resnet32"].people(500, "own", 0, f).test for f in (False, True))
    for test, first, twins in ((dev, 5000, 2), (final, 7500, 2)):
        sharp = {image.tobytes() for image in test.images[~test.subgroup]}
        assert not sharp & {images[row].tobytes() for row in order[:first]}
        assert len(test) == 2 * (2500 - twins)
    # Two dev-test people who share an image have one role, and stay.
    assert {f"test-{order[k]:05d}" for k in (5200, 7000)} <= names(dev)


def test_the_tracks_classes_are_their_own(races: Any) -> None:
    """CIFAR-100 people have fine labels, FairFace people a gender, and Black people are the subgroup."""
    assert TRACKS["cifar100-resnet32"].people(500, "own", 0, False).test.classes.max() > 90
    faces = TRACKS["fairface-agegender"].people(500, "public", 0, False)
    assert set(faces.test.classes.tolist()) == {0, 1}
    # Each group lies together.
    assert np.array_equal(faces.test.subgroup, np.sort(np.delete(races == 2, [300, 2235])))
    assert faces.public is not None
    assert len(faces.public) == 6000
    assert len(faces.roster.verification) == 1998
    assert faces.views is not None
    assert faces.views.subgroup.all()


@every
def test_every_tracks_settings_are_settings(name: str) -> None:
    """What a track sets exists, and is in its range, in each of its regimes."""
    assert {"own", "public"} & TRACKS[name].settings.keys()
    for chosen in TRACKS[name].settings.values():
        Settings(**chosen)


def test_tracks_need_to_know_where_the_data_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TTCA_DATA it is said what is missing, before anything else happens."""
    monkeypatch.delenv("TTCA_DATA", raising=False)
    with pytest.raises(DataError, match="Expected TTCA_DATA"), TRACKS["cifar10-resnet56"].open_platform("scores"):
        pass


@_WITH_DATA
@pytest.mark.parametrize("answers", ["scores", "rounded", "top-k", "label"])
def test_the_platform_answers_as_it_was_told(answers: str) -> None:
    """The third-party classifier opens from its file and says as much as the kind of answers allows."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    with TRACKS["cifar10-resnet56"].open_platform(answers) as platform:
        from ttca.platforms.base import Credential

        said = platform.attempt(images, Credential("nobody"), request_id="r")
    assert said.answered.all()
    named = (~np.isnan(said.scores)).sum(1)
    assert set(named.tolist()) == {{"scores": 10, "rounded": 10, "top-k": 3, "label": 0}[answers]}
    assert (said.resolution > 0).all() == (answers == "rounded")


def backbone(name: str, architecture: str = "onnx", outputs: int | None = 100) -> Backbone:
    """Return what is known of published weights; there is no file."""
    return Backbone(
        name=name, architecture=architecture, source="s", license="MIT", digest="0" * 64, path="p", outputs=outputs
    )


LITE = "timm/tf_efficientnet_lite0"


@pytest.mark.parametrize(
    ("track", "classes", "found", "why"),
    [
        ("cifar10-resnet56", 10, backbone("cifar100-resnet32"), None),
        ("cifar10-resnet56", 10, backbone("lite", LITE, 1000), None),
        ("fairface-agegender", 2, backbone("lite", f"{LITE}.in1k", 1000), None),
        ("cifar100-resnet32", 100, backbone("cifar100-resnet32"), "published for 100 classes itself"),
        ("cifar10-resnet56", 10, backbone("cifar10-resnet20", outputs=10), "published for 10 classes itself"),
        ("cifar10-resnet56", 10, backbone("who knows", outputs=None), "does not say how many classes"),
        ("waterbirds", 2, backbone("lite", LITE, 1000), "weights that the platform itself contains"),
        ("waterbirds", 2, backbone("lite", f"{LITE}.in1k", 1000), "weights that the platform itself contains"),
        ("waterbirds-fog", 2, backbone("lite", LITE, 1000), "weights that the platform itself contains"),
        ("cifar10-resnet56-fog", 10, backbone("cifar10-resnet20", outputs=10), "published for 10 classes itself"),
        ("waterbirds", 2, backbone("timm/tf_efficientnet_lite0", "onnx", 1000), "that the platform itself contains"),
        ("waterbirds", 2, backbone("other", "timm/resnet18", 1000), None),
    ],
)
def test_backbones_that_no_stranger_has_are_refused(track: str, classes: int, found: Backbone, why: str | None) -> None:
    """On a track, the platform's own labels and the weights that it contains are no public weights."""
    where = replace(TRACKS["cifar10-resnet56"], name=track)
    check_backbones(where, [], classes=classes)
    if why is None:
        check_backbones(where, [found], classes=classes)
        return
    with pytest.raises(ConfigError, match=f"Expected backbones of {track}.*{why}"):
        check_backbones(where, [backbone("fine", outputs=7), found], classes=classes)
