"""Tests of sanity before money: who is stopped, who never, and what is proposed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.sanity import main as simulate
from tests import worlds
from tests.examples import examples
from tests.worlds import Recorder, open_action
from ttca.answers import Answers
from ttca.errors import ChangedPlatformError, QuotaError, SanityError
from ttca.images import Images
from ttca.platforms.base import Credential, PlatformInfo
from ttca.platforms.local import LocalPlatform
from ttca.sanity import LOOKS, OVERRULED_FILE, Overruling, Sanity

Labels = NDArray[np.int64]


def world(classes: int, said: Callable[[Labels], Labels], *, n: int = 120, wrong: int = 5) -> tuple[Sanity, Answers]:
    """Return n persons, half of each group, and answers; of every ``wrong`` of the reference one is mistaken."""
    truth = np.arange(n, dtype=np.int64) % classes
    subgroup = np.arange(n) >= n // 2
    names = np.array([f"person {i}" for i in range(n)])
    right = np.where(np.arange(n) % wrong == wrong - 1, (truth + 1) % classes, truth)
    # The subgroup is served worse than chance.
    right[subgroup] = (truth[subgroup] + 1) % classes
    sanity = Sanity(truth, names, subgroup, tuple(f"class {i}" for i in range(classes)))
    return sanity, Answers.from_labels(said(right), classes)


def first_look(sanity: Sanity, answers: Answers) -> str | None:
    """Return what is wrong at the first look that finds something, or at the end."""
    found = [sanity.at_look(i, answers) for i in range(len(sanity.parts))]
    return next((f for f in found if f is not None), sanity.at_end(answers))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_subgroup_served_worse_than_chance_stops_nothing(classes: int) -> None:
    """Where the reference is served well, nothing is found wrong, however the subgroup is served."""
    assert first_look(*world(classes, lambda said: said)) is None


@pytest.mark.parametrize(
    ("classes", "said", "told"),
    [
        (2, lambda said: 1 - said, '["class 1", "class 0"]'),
        (10, lambda said: (said + 1) % 10, "(first_label = 1), 16 of 20"),
        (4, lambda said: np.array([2, 3, 1, 0])[said], '["class 3", "class 2", "class 0", "class 1"]'),
        (10, lambda said: np.full_like(said, 3), "'class 3' for everybody"),
        (10, lambda said: np.full_like(said, -1), "refused 20 of 20"),
    ],
    ids=["reverse", "shifted", "any order", "one class", "refused"],
)
def test_a_wrong_table_is_found_by_forty_answers(classes: int, said: Callable[[Labels], Labels], told: str) -> None:
    """By the last look it is found, and what would fit the answers paid already is named."""
    sanity, answers = world(classes, said)
    found = [sanity.at_look(i, answers) for i in range(3)]
    problem = next(f for f in found if f is not None)
    assert told in problem


def test_classes_numbered_from_one_are_told_from_another_order() -> None:
    """Where the first class was never said and the last one could not be read, numbering from 1 is named."""
    sanity, answers = world(5, lambda said: np.where(said == 4, -1, said + 1))
    # What has no place among the classes is no answer at all.
    status = np.where(answers.labels < 0, 2, 0).astype(np.int8)
    unread = Answers(status, answers.labels, answers.scores, answers.resolution)
    problem = first_look(sanity, unread)
    assert problem is not None
    assert "numbers its classes from 1 (first_label = 1)" in problem


def test_who_is_asked_first_are_persons_of_the_reference() -> None:
    """Parts hold each other, are as long as the looks, and begin with one image of each person of the reference."""
    truth = np.zeros(60, np.int64)
    persons = np.array([f"person {i % 30}" for i in range(60)])
    sanity = Sanity(truth, persons, np.arange(60) % 30 < 10, ("a", "b"))
    assert [len(part) for part in sanity.parts] == list(LOOKS)
    assert sanity.parts[0].tolist() == list(range(10, 30))
    assert sanity.parts[1].tolist() == [*range(10, 30), *range(10)]
    assert set(sanity.parts[1]) < set(sanity.parts[2])


def test_further_images_of_a_person_do_not_count() -> None:
    """One person with forty wrong pictures is one person, from whom nothing follows."""
    truth = np.zeros(60, np.int64)
    persons = np.array(["one"] * 40 + [f"person {i}" for i in range(20)])
    sanity = Sanity(truth, persons, np.zeros(60, np.bool_), ("a", "b"))
    answers = Answers.from_labels(np.where(persons == "one", 1, 0).astype(np.int64), 2)
    assert first_look(sanity, answers) is None


@examples(60)
@given(st.integers(2, 6), st.integers(0, 70), st.integers(0, 2**32 - 1))
def test_any_answers_are_judged(classes: int, n: int, seed: int) -> None:
    """Whatever came, of whomever, is judged without an error, and no proposal is worse than what stands."""
    rng = np.random.default_rng(seed)
    truth, said = rng.integers(0, classes, n), rng.integers(-1, classes, n)
    persons = np.array([f"p{i}" for i in rng.integers(0, max(n, 1), n)], dtype=np.str_)
    names = tuple(f"class {i}" for i in range(classes))
    sanity = Sanity(truth, persons, rng.random(n) < rng.random(), names)
    found = first_look(sanity, Answers.from_labels(said, classes))
    assert found is None or found.startswith("Expected answers that fit")


def test_simulated_actions_that_are_in_order_are_hardly_stopped() -> None:
    """The slice of the simulation: fewer than 1 in 100 in order are stopped, and of wrong tables nearly all by 40."""
    row = simulate(["--actions", "1000"])
    assert row["stopped_in_order"] < 0.01
    assert row["stopped_by_40"] > 0.85


@pytest.mark.full
def test_twenty_thousand_simulated_actions() -> None:
    """Of 20,000 actions in order, at two classes and .785, fewer than 1 in 100 are stopped, with 95 % confidence."""
    assert simulate(["--actions", "20000"])["stopped_in_order_at_most"] < 0.01


# -- in an action -----------------------------------------------------------------------------------------------


class Turned(Recorder):
    """The tiny world's platform, its classes in another order."""

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer with the scores of other classes."""
        said = super().attempt(images, credential, request_id=request_id)
        return Answers.from_scores(said.scores[:, [2, 0, 1]])


def test_a_wrong_order_of_classes_costs_forty_queries_and_is_named(tmp_path: Path) -> None:
    """The action stops by its looks; running again pays nothing; anyway goes on, is kept, and stands in the row."""
    platform = Turned()
    for _ in range(2):
        with open_action(tmp_path, platform) as action, pytest.raises(SanityError) as stopped:
            action.pool()
        assert platform.queries <= 40
        assert 'With classes = ["checks", "stripes", "bars"] in [platform]' in str(stopped.value)
        assert "--anyway (in Python, anyway=True)." in str(stopped.value)
        # Only bodies that came over HTTP can be read again.
        assert "read again" not in str(stopped.value)
        assert "needs another version, or a new folder." in str(stopped.value)
    assert not (tmp_path / OVERRULED_FILE).exists()
    with open_action(tmp_path, platform, anyway=True) as action:
        transfer = action.pool()
    assert platform.queries == 205
    assert transfer.overruled is not None
    with open_action(tmp_path, platform) as action:
        assert action.pool().overruled == transfer.overruled
        row, _ = action.measure()
    assert row.to_dict()["overruled"] == transfer.overruled


def test_what_was_said_of_one_platform_does_not_hold_for_another(tmp_path: Path) -> None:
    """Who went on anyway is asked again once the platform is another."""
    with open_action(tmp_path, Turned(), anyway=True) as action:
        action.pool()

    def third(images: Images) -> NDArray[np.float64]:
        return worlds.model(images)[:, [1, 2, 0]]

    other = LocalPlatform(third, classes=worlds.CLASSES, image_shape=worlds.SHAPE, version="3")
    with open_action(tmp_path, other) as action, pytest.raises(ChangedPlatformError):
        action.pool()
    with open_action(tmp_path, other, accept_new_version=True) as action, pytest.raises(SanityError):
        action.pool()


def test_what_is_read_again_over_http_costs_nothing_and_is_told(tmp_path: Path) -> None:
    """Where answers are read here, a change of how they are read needs no other version."""
    info = PlatformInfo("faces", ("a", "b"), (8, 8, 3), reading={"scores": "logits"})
    with pytest.raises(
        SanityError, match=r"^Wrong\. A change of how answers are read costs nothing: .* read again\. Noth"
    ):
        Overruling(tmp_path, info, anyway=False).hear("Wrong.")


def test_what_all_of_it_costs_is_refused_before_the_first_part(tmp_path: Path) -> None:
    """Quotas that pay for the first looks and not for the pool pay nothing."""
    platform = Recorder()
    poor = open_action(tmp_path, platform, members=worlds.members(quota=30))
    with poor as action, pytest.raises(QuotaError, match="205"):
        action.pool()
    assert platform.queries == 0
