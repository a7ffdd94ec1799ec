"""Tests of the demo's people: nobody has two roles, and the camera is all that makes a group."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ttca.data.cameras import bad_camera
from ttca.data.digits import load_digits_images
from ttca.demo.platform import digits_platform
from ttca.demo.world import CAMERA, DIGITS, MEMBERS, SHARE_IN_TRAINING, SIZE, VOLUNTEERS, DigitsWorld, digits_world
from ttca.people import People
from ttca.platforms.base import Credential

TOTAL = 1797


@cache
def world(seed: int = 0) -> DigitsWorld:
    """Return the demo's world, made once per seed."""
    return digits_world(seed)


def everybody(found: DigitsWorld) -> dict[str, People]:
    """Return all people by role, test people included."""
    return {**found.roster.roles(), "test": found.test}


def numbers(people: People) -> set[int]:
    """Return which of scikit-learn's digits people are."""
    return {int(person.removeprefix("person-")) for person in people.persons.tolist()}


def test_the_digits_are_split_into_thirds() -> None:
    """A third trained the platform, a third is the collective, a third are test people, and together they are all."""
    found = world()
    collective = set().union(*(numbers(p) for p in found.roster.roles().values()))
    assert len(found.training_images) == len(found.training_classes) == TOTAL // 3
    assert len(collective) == len(numbers(found.test)) == TOTAL // 3
    assert not collective & numbers(found.test)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_person_and_no_image_is_in_two_places(seed: int) -> None:
    """Persons of different roles, and the digits that trained the platform, are disjoint in every seed."""
    found = world(seed)
    replace(found.roster, test=found.test)
    persons = [numbers(p) for p in everybody(found).values()]
    assert sum(map(len, persons)) == len(set().union(*persons))
    sharp, _ = load_digits_images(SIZE)
    trained_on = {image.tobytes() for image in found.training_images}
    asked = {image.tobytes() for p in everybody(found).values() for image in p.images}
    outside = set(range(TOTAL)) - set().union(*persons)
    few = round(SHARE_IN_TRAINING * len(outside))
    assert len(trained_on & {sharp[i].tobytes() for i in outside}) >= len(outside) - few
    assert not trained_on & asked


def test_the_camera_is_all_that_differs_between_the_groups() -> None:
    """Every reference picture is the sharp original of a member's own, and every member's went through the camera."""
    sharp, classes = load_digits_images(SIZE)
    through_camera = bad_camera(sharp, seed=0, **CAMERA)
    for people in everybody(world()).values():
        rows = np.array([int(person.removeprefix("person-")) for person in people.persons.tolist()])
        expected = np.where(people.subgroup[:, None, None, None], through_camera[rows], sharp[rows])
        assert np.array_equal(people.images, expected)
        assert np.array_equal(people.classes, classes[rows])
        members, volunteers = people[people.subgroup], people[~people.subgroup]
        assert set(volunteers.persons.tolist()) <= set(members.persons.tolist())
        payer = dict(zip(members.persons.tolist(), members.members.tolist(), strict=True))
        assert [payer[p] for p in volunteers.persons.tolist()] == volunteers.members.tolist()


def test_groups_are_compared_on_the_same_people() -> None:
    """Where numbers are measured, both groups are the same persons; in the pool some volunteers are enough."""
    found = world()
    for role, people in everybody(found).items():
        one, other = (set(people.persons[mask].tolist()) for mask in (people.subgroup, ~people.subgroup))
        if role == "pool":
            assert len(other) == VOLUNTEERS < len(one)
        else:
            assert one == other


def test_few_of_the_training_pictures_came_through_the_bad_camera() -> None:
    """The platform saw the stated share of bad pictures, which is why it serves them badly."""
    sharp, _ = load_digits_images(SIZE)
    originals = {image.tobytes() for image in sharp}
    bad = sum(image.tobytes() not in originals for image in world().training_images)
    assert bad == round(SHARE_IN_TRAINING * (TOTAL // 3))


def test_every_class_and_every_member_is_there() -> None:
    """All ten digits are in every role and every member brings images to the pool."""
    found = world()
    for people in everybody(found).values():
        for group in (people.subgroup, ~people.subgroup):
            assert set(people.classes[group].tolist()) == set(range(len(DIGITS)))
    assert len(set(found.roster.pool.members.tolist())) == MEMBERS


def test_the_same_seed_makes_the_same_people_and_another_one_others() -> None:
    """Two worlds of one seed are equal to the last pixel; another seed gives other roles and noise."""
    again = digits_world(0)
    for role, people in everybody(world()).items():
        assert people.digest() == everybody(again)[role].digest()
        assert people.digest() != everybody(world(1))[role].digest()
    assert np.array_equal(world().training_images, again.training_images)
    assert np.array_equal(world().training_classes, again.training_classes)


def test_an_answer_does_not_depend_on_what_travels_with_it() -> None:
    """The demo's platform gives an image the same scores, to the last bit, alone and in requests of any size."""
    platform = digits_platform(world(), seed=0)
    images = world().roster.pool.images[:24]

    def scores(size: int) -> NDArray[np.float32]:
        parts = [
            platform.attempt(images[i : i + size], Credential("ada"), request_id="r").scores
            for i in range(0, len(images), size)
        ]
        return np.concatenate(parts)

    for size in (1, 3, 5, 16):
        np.testing.assert_array_equal(scores(size), scores(24))


def test_no_page_tells_to_type_what_a_folder_could_hide() -> None:
    """A folder called ttca hides the package from `python -m ttca…`: pages and sentences name the command alone."""
    root = Path(__file__).parents[1]
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md")), *sorted((root / "examples").glob("*.ipynb"))]
    shown = [path.name for path in pages if re.search(r"(?m)^\W*(?:nohup )?python[0-9.]* -m ttca", path.read_text())]
    assert not shown


@pytest.mark.full
def test_the_photographs_world_is_a_command_of_its_own(tmp_path: Path) -> None:
    """`ttca demo photographs` works beside a folder called ttca, says its address, and writes photographs once."""
    (tmp_path / "ttca").mkdir()
    words = ["demo", "photographs", "evening", "--photographs", "20", "--longest", "32", "--size", "16", "--port", "0"]
    files = []
    for _ in range(2):
        server = subprocess.Popen(
            [Path(sys.executable).with_name("ttca"), *words],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("http://127.0.0.1:")
        finally:
            server.terminate()
            _, told = server.communicate(timeout=30)
        files.append({path: path.stat().st_mtime_ns for path in (tmp_path / "evening" / "photos").rglob("*.*")})
    assert len(files[0]) == 20
    assert files[0] == files[1]
    assert "is there already, and stays as it is" in told
    assert [path.name for path in (tmp_path / "evening").iterdir()] == ["photos"]
