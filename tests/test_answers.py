"""Tests of the answers: what is accepted, how they are built, and what is derived from them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ttca.answers import Answers, Status
from ttca.errors import TTCAError

A, R, F = Status.ANSWERED, Status.REFUSED, Status.FAILED
NAN = float("nan")
SCORES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.one_of(st.floats(0, 1, width=32), st.just(NAN)),
)


def three() -> Answers:
    """Return one complete row, one refusal and one failure about two classes."""
    return Answers(
        np.array([A, R, F], np.int8),
        np.array([1, -1, -1], np.int64),
        np.array([[0.25, 0.75], [0.5, NAN], [NAN, NAN]], np.float32),
        np.array([0.0, 0.01, 0.0], np.float32),
    )


def test_what_is_derived_row_by_row() -> None:
    """A refusal is resolved and not answered; a failure is neither; a row with every score is complete."""
    answers = three()
    assert len(answers) == 3
    assert answers.answered.tolist() == [True, False, False]
    assert answers.resolved.tolist() == [True, True, False]
    assert answers.complete.tolist() == [True, False, False]
    assert answers.coverage == pytest.approx(2 / 3)


def test_coverage_of_nothing_is_not_a_number() -> None:
    """No rows have no coverage, and no warning either."""
    assert math.isnan(Answers.failed(0, 3).coverage)


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("status", np.array([A, R], np.int8), "one row per image"),
        ("status", np.array([[A], [R], [F]], np.int8), "one row per image"),
        ("labels", np.array([[1], [-1], [-1]], np.int64), "one row per image"),
        ("labels", np.array([1, -1], np.int64), "one row per image"),
        ("scores", np.zeros(3, np.float32), "one row per image"),
        ("scores", np.zeros((2, 2), np.float32), "one row per image"),
        ("resolution", np.zeros(4, np.float32), "one row per image"),
        ("status", np.array([A, R, 3], np.int8), r"statuses among \[0, 1, 2\], got"),
        ("status", np.array([A, R, -1], np.int8), r"statuses among \[0, 1, 2\], got"),
        ("labels", np.array([2, -1, -1], np.int64), r"label in 0\.\.1"),
        ("labels", np.array([-1, -1, -1], np.int64), r"label in 0\.\.1"),
        ("labels", np.array([1, 0, -1], np.int64), "label −1"),
        ("labels", np.array([1, -1, -2], np.int64), "label −1"),
        ("scores", np.array([[0.2, 1.2]] * 3, np.float32), "probabilities"),
        ("scores", np.array([[-0.1, 0.5]] * 3, np.float32), "probabilities"),
        ("scores", np.array([[np.inf, 0.5]] * 3, np.float32), "probabilities"),
        ("resolution", np.array([0, NAN, 0], np.float32), "resolution of 0 or more"),
        ("resolution", np.array([0, -0.1, 0], np.float32), "resolution of 0 or more"),
        ("resolution", np.array([0, np.inf, 0], np.float32), "resolution of 0 or more"),
    ],
)
def test_answers_that_no_platform_can_give_are_refused(column: str, value: NDArray[Any], sentence: str) -> None:
    """Shapes that disagree and values out of range raise a sentence."""
    with pytest.raises(TTCAError, match=f"Expected .*{sentence}"):
        replace(three(), **cast(dict[str, Any], {column: value}))


@given(SCORES, st.sampled_from([0.0, 0.01, 0.5]))
def test_scores_name_the_highest(scores: NDArray[np.float32], resolution: float) -> None:
    """The label is the first of the highest scores said; a row that says nothing is a refusal; scores stay as sent."""
    answers = Answers.from_scores(scores, resolution=resolution)
    np.testing.assert_array_equal(answers.scores, scores)
    assert set(answers.resolution.tolist()) <= {float(np.float32(resolution))}
    for row, label, status in zip(scores.tolist(), answers.labels.tolist(), answers.status.tolist(), strict=True):
        said = [(-score, i) for i, score in enumerate(row) if not math.isnan(score)]
        assert (status, label) == ((A, min(said)[1]) if said else (R, -1))


@given(hnp.arrays(np.int64, st.integers(0, 8), elements=st.integers(-3, 4)))
def test_labels_alone_say_no_scores(labels: NDArray[np.int64]) -> None:
    """Every label of 0 or more is an answer, every negative one a refusal, and no score is made up."""
    answers = Answers.from_labels(labels, 5)
    np.testing.assert_array_equal(answers.labels, np.maximum(labels, -1))
    np.testing.assert_array_equal(answers.answered, labels >= 0)
    assert answers.resolved.all()
    assert np.isnan(answers.scores).all()
    assert answers.scores.shape == (len(labels), 5)
    assert not answers.complete.any()


@given(st.lists(st.lists(st.integers(-1, 2), max_size=4), max_size=4))
def test_concatenation_keeps_every_row_in_order(parts: list[list[int]]) -> None:
    """The rows of all parts follow each other; no parts are no rows."""
    whole = Answers.concatenate([Answers.from_labels(np.array(p, np.int64), 3) for p in parts], classes=3)
    assert whole.labels.tolist() == [label for p in parts for label in p]
    assert whole.scores.shape == (len(whole), 3)


def test_failed_rows_are_abstentions() -> None:
    """Failed rows have no label, no score and no coverage."""
    failed = Answers.failed(4, 3)
    assert failed.coverage == 0.0
    assert failed.labels.tolist() == [-1] * 4
    assert np.isnan(failed.scores).all()


def test_answers_that_do_not_fit_are_refused_in_words() -> None:
    """Labels between two classes, scores of one image without their axis, and parts of different classes."""
    with pytest.raises(TTCAError, match="labels as whole numbers"):
        Answers.from_labels(cast(Any, np.array([0.5, 1.0])), 3)
    with pytest.raises(TTCAError, match=r"pass scores\[None\]"):
        Answers.from_scores(np.array([0.2, 0.8]))
    with pytest.raises(TTCAError, match="answers of 2 classes, got some of 3"):
        Answers.concatenate([Answers.failed(1, 2), Answers.failed(1, 3)], classes=2)
