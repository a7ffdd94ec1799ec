"""Tests of people and their single role."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from tests.examples import examples
from ttca.errors import ActionError, DataError, ImageError
from ttca.people import People, Roster, split_roles
from ttca.preparation import Preparation


def pictures(*numbers: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return one image per number; equal numbers are identical images."""
    images = np.zeros((len(numbers), 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = np.array(numbers, np.int64) % 256
    images[:, 0, 0, 1] = np.array(numbers, np.int64) // 256
    return images


def some(*numbers: int, **columns: Any) -> People:
    """Return people of class 0 with the given images, named by them."""
    named = {"persons": [f"p{n}" for n in numbers], **columns}
    return People.build(pictures(*numbers), [0] * len(numbers), **named)


# -- people -----------------------------------------------------------------------------------------------------


def test_people_without_names_are_persons_of_their_own() -> None:
    """Every image is by default another person, who is their own member, in the subgroup."""
    people = People.build(pictures(1, 2, 3), [0, 1, 2])
    assert len(set(people.persons.tolist())) == 3
    assert people.members.tolist() == people.persons.tolist()
    assert people.subgroup.tolist() == [True] * 3
    assert people.image_shape == (2, 2, 3)


def test_persons_pay_for_themselves_unless_members_are_named() -> None:
    """The members are the persons, or those who are named."""
    assert some(1, 2).members.tolist() == ["p1", "p2"]
    assert some(1, 2, members=["ada", "ada"]).members.tolist() == ["ada", "ada"]


def test_two_spellings_of_a_name_are_one_person_and_one_member() -> None:
    """Composed or decomposed, with a space behind it or not, a name stands for one person, who gets one role."""
    people = some(1, 2, 3, persons=["Zo\u00eb", "Zoe\u0308", "a  b"], members=["ada", "ada ", "\u00a0ada"])
    assert people.persons.tolist() == ["Zo\u00eb", "Zo\u00eb", "a  b"]
    assert people.members.tolist() == ["ada"] * 3
    with pytest.raises(ActionError, match="Expected every person in one role"):
        Roster(pool=some(1, persons=["ada"]), selection=some(2, persons=["ada "]), verification=some(3))


def test_rows_and_concatenation_keep_columns_together() -> None:
    """Taking rows and putting parts together moves every column alike."""
    people = People.build(pictures(1, 2, 3), [0, 1, 2], persons=["a", "b", "c"], subgroup=[1, 0, 1])
    turned = People.concatenate([people[np.array([2, 0])], people[1:2], people[np.array([False] * 3)]])
    assert turned.persons.tolist() == ["c", "a", "b"]
    assert turned.classes.tolist() == [2, 0, 1]
    assert turned.subgroup.tolist() == [True, True, False]
    np.testing.assert_array_equal(turned.images, pictures(3, 1, 2))


@pytest.mark.parametrize(
    ("classes", "columns", "sentence"),
    [
        ([0], {}, "for each of 2 images"),
        ([[0], [1]], {}, "for each of 2 images"),
        ([0, 1], {"persons": ["a"]}, "for each of 2 images"),
        ([0, 1], {"members": ["a", "b", "c"]}, "for each of 2 images"),
        ([0, 1], {"subgroup": [True]}, "for each of 2 images"),
        ([0.0, 1.5], {}, "classes as whole numbers, got float64"),
        ([0, None], {}, "classes as whole numbers, got object"),
        (["cat", "dog"], {}, "classes as whole numbers"),
        ([True, False], {}, "classes as whole numbers, got bool"),
        ([0, -1], {}, "class numbers of 0 or more, got -1"),
        ([0, 1], {"subgroup": ["False", "True"]}, "subgroup as True or False"),
        ([0, 1], {"subgroup": [0, 2]}, "subgroup as True or False"),
        ([0, 1], {"subgroup": [0.0, np.nan]}, "subgroup as True or False"),
    ],
)
def test_columns_that_do_not_fit_are_a_sentence(classes: Any, columns: dict[str, Any], sentence: str) -> None:
    """A column of another length, type or range raises, instead of being converted into something else."""
    with pytest.raises(DataError, match=f"Expected .*{sentence}"):
        People.build(pictures(1, 2), classes, **columns)


def test_columns_of_another_type_are_refused_by_the_class_itself() -> None:
    """People made without build are checked as well."""
    people = some(1, 2)
    with pytest.raises(DataError, match="classes as int64"):
        People(people.images, people.classes.astype(float), people.persons, people.members, people.subgroup)
    with pytest.raises(ImageError):
        People(people.images[0], people.classes, people.persons, people.members, people.subgroup)


def test_the_digest_is_of_all_that_is_learned_from() -> None:
    """A change in images, classes, groups, order or whose picture is whose changes the digest; other names do not."""
    base = some(1, 2, members=["m", "m"])
    digests = {
        base.digest(),
        some(1, 3, persons=["p1", "p2"], members=["m", "m"]).digest(),
        some(1, 2, persons=["p1", "p1"], members=["m", "m"]).digest(),
        some(1, 2, members=["m", "m"], subgroup=[True, False]).digest(),
        People.build(base.images, [0, 1], persons=base.persons, members=base.members).digest(),
        base[::-1].digest(),
        base[:1].digest(),
    }
    assert len(digests) == 7
    assert some(1, 2, persons=["p9", "p3"], members=["m", "n"]).digest() == base.digest()
    assert People.concatenate([base[:1], base[1:]]).digest() == base.digest()


# -- roster -----------------------------------------------------------------------------------------------------


def test_a_roster_of_separate_people_stands() -> None:
    """People in one role each make a roster; test people are a role only where there are some."""
    roster = Roster(some(1), some(2), some(3))
    assert list(roster.roles()) == ["pool", "selection", "verification"]
    assert list(Roster(some(1), some(2), some(3), some(4)).roles())[3:] == ["test"]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([some(1), some(2, 1), some(3)], "'p1' in both pool and selection"),
        ([some(1), some(2), some(3, persons=["p2"])], "'p2' in both selection and verification"),
        ([some(1), some(2), some(3), some(4, persons=["p1"])], "'p1' in both pool and test"),
        ([some(1), some(2), some(1, persons=["x"])], "same image in both pool and verification"),
        ([some(1), some(2), some(3), some(3, persons=["x"])], "same image in both verification and test"),
        ([some(1), some(2), some(3, subgroup=False)], "subgroup people in the role verification"),
        ([some(1), some(), some(3)], "subgroup people in the role selection"),
        ([some(1), some(2), some(3), some()], "subgroup people in the role test"),
        ([some(1), some(2), People.build(np.zeros((1, 3, 2, 3), np.uint8), [0])], "images of one size"),
    ],
)
def test_a_person_or_image_in_two_roles_is_refused(parts: list[People], sentence: str) -> None:
    """A shared person, a shared image, an empty role or another image size raises, and says where."""
    with pytest.raises(ActionError, match=f"Expected .*{sentence}"):
        Roster(*parts)


# -- split ------------------------------------------------------------------------------------------------------


@st.composite
def crowds(draw: st.DrawFn) -> People:
    """Draw people with shared persons, duplicate images and both groups."""
    n = draw(st.integers(12, 60))
    numbers = draw(st.lists(st.integers(0, 3 * n), min_size=n, max_size=n))
    persons = draw(st.lists(st.integers(0, 2 * n).map(str), min_size=n, max_size=n))
    classes = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    subgroup = draw(st.lists(st.sampled_from([True, True, False]), min_size=n, max_size=n))
    return People.build(pictures(*numbers), classes, persons=persons, subgroup=subgroup)


@examples(150)
@given(crowds(), st.integers(0, 2**32), st.sampled_from([0.0, 0.2]))
def test_no_person_and_no_image_gets_two_roles(people: People, seed: int, test: float) -> None:
    """Every row gets exactly one role, and all rows of a person, or of an identical image, get the same one."""
    try:
        roster = split_roles(people, seed=seed, test=test)
    except ActionError as error:
        # The only way to fail: by chance and linked people, a role is left without anybody of the subgroup.
        if "subgroup people in the role" not in str(error):
            raise
        reject()
    parts = list(roster.roles().values())
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            assert not set(one.persons.tolist()) & set(other.persons.tolist())
            assert not {x.tobytes() for x in one.images} & {x.tobytes() for x in other.images}
    rows = sorted((p.images[i].tobytes(), p.persons[i], p.classes[i]) for p in parts for i in range(len(p)))
    assert rows == sorted(
        (x.tobytes(), p, c) for x, p, c in zip(people.images, people.persons, people.classes, strict=True)
    )


def crowd(n: int, classes: int = 5, *, per_person: int = 1) -> People:
    """Return n images, a third of the reference, ``per_person`` images for each person."""
    rng = np.random.default_rng(1)
    persons = [f"p{i // per_person}" for i in range(n)]
    return People.build(
        pictures(*range(n)), rng.integers(0, classes, n), persons=persons, subgroup=rng.random(n) < 2 / 3
    )


@given(st.integers(0, 2**32))
def test_every_class_and_group_gets_its_shares(seed: int) -> None:
    """In each class of each group the roles have their shares of the persons, within two."""
    people = crowd(600)
    roster = split_roles(people, seed=seed, verification=0.3, selection=0.25, test=0.1)
    shares = {"verification": 0.3, "test": 0.1, "selection": 0.15, "pool": 0.45}
    for role, part in roster.roles().items():
        assert abs(len(part) - shares[role] * 600) <= 4
        for c in range(5):
            for group in (True, False):
                size = np.sum((people.classes == c) & (people.subgroup == group))
                got = np.sum((part.classes == c) & (part.subgroup == group))
                assert abs(got - shares[role] * size) <= 2.5


def test_persons_are_shared_out_not_images() -> None:
    """Shares are of persons, so people with many images come and go whole."""
    roster = split_roles(crowd(600, per_person=6), seed=3, verification=0.5)
    for part in roster.roles().values():
        _, counts = np.unique(part.persons, return_counts=True)
        assert set(counts.tolist()) == {6}
    assert abs(len(roster.verification) - 300) <= 4 * 6


@given(st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_roles(seed: int) -> None:
    """A split is a function of people and seed; another seed gives another one."""
    people = crowd(120)
    one, two, other = (split_roles(people, seed=s) for s in (seed, seed, seed + 1))
    assert {k: v.digest() for k, v in one.roles().items()} == {k: v.digest() for k, v in two.roles().items()}
    assert one.pool.digest() != other.pool.digest()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": "x"}, "seed as a whole number of 0 or more, got 'x'"),
        ({"seed": 1.5}, "got 1.5"),
        ({"seed": -1}, "got -1"),
        ({"test": "0.2"}, "share of test people as a number"),
        ({"verification": 1.0}, "share of verification people as a number in"),
        ({"selection": -0.1}, "share of selection people as a number in"),
        ({"test": float("nan")}, "share of test people as a number in"),
        ({"verification": 0.6, "test": 0.4}, r"verification \+ test shares below 1"),
        ({"verification": 0.0}, "subgroup people in the role verification"),
        ({"selection": 0.0}, "subgroup people in the role selection"),
    ],
)
def test_shares_that_leave_a_role_empty_are_a_sentence(options: dict[str, Any], sentence: str) -> None:
    """Shares out of range, or that give a role nobody, and a seed that is none, raise."""
    with pytest.raises(ActionError, match=f"Expected .*{sentence}"):
        split_roles(crowd(60), **{"seed": 0, **options})


def test_many_images_of_one_person_are_one_person() -> None:
    """Where a role is empty it is said how many persons there are, since further images of them do not help."""
    alone = People.build(some(*range(30)).images, np.zeros(30, np.int64), persons=["ada"] * 30)
    with pytest.raises(ActionError, match=r"There is 1 person of the subgroup in all\. Add other people"):
        split_roles(alone, seed=0)


def test_nobody_cannot_be_split() -> None:
    """No people, and people of the reference only, are a sentence."""
    for people in (some(), some(*range(30), subgroup=False)):
        with pytest.raises(ActionError, match="Expected subgroup people"):
            split_roles(people, seed=0)


def test_a_roster_is_of_the_size_that_its_preparation_makes() -> None:
    """Roles are shared out with the way; one that makes another size is refused."""
    people = crowd(60)
    way = Preparation(size=people.image_shape[:2])
    assert split_roles(people, seed=0, preparation=way).preparation == way
    with pytest.raises(ActionError, match="prepared as"):
        split_roles(people, seed=0, preparation=Preparation(size=99))


@pytest.mark.parametrize("nobody", [None, float("nan"), "", "  "])
@pytest.mark.parametrize("column", ["persons", "members"])
def test_a_name_that_is_missing_is_nobody(nobody: object, column: str) -> None:
    """Cells that a table left blank are refused: all of them would be one person, or one member who pays."""
    images = np.arange(4 * 48, dtype=np.uint8).reshape(4, 4, 4, 3)
    names: Any = {column: ["ada", nobody, "eve", nobody]}
    with pytest.raises(DataError, match="none for 2 of 4; the first is image 1"):
        People.build(images, np.zeros(4, np.int64), **names)


@given(st.lists(st.booleans(), min_size=5, max_size=5), st.lists(st.integers(-5, 4), max_size=6))
def test_rows_that_lie_together_copy_no_photograph(mask: list[bool], numbers: list[int]) -> None:
    """Any rows give the same people as before, and a run of them shares its photographs with everybody."""
    images = np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3)
    people = People.build(images, np.arange(5), subgroup=np.array([True, False, False, True, True]))
    for rows in (np.array(mask), np.array(numbers, np.intp)):
        part = people[rows]
        assert part.classes.tolist() == np.arange(5)[rows].tolist()
        assert np.array_equal(part.images, images[rows])
    run = np.flatnonzero(mask)
    if len(run) and run[-1] - run[0] + 1 == len(run):
        assert np.shares_memory(people[np.array(mask)].images, people.images)
