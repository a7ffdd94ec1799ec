"""Tests of numbers in one sentence: no error says that a number is not what it was expected to be, and shows it so."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.errors import AnswerError
from ttca.platforms.protocols import Response, create_protocol
from ttca.platforms.protocols.reading import Reading
from ttca.platforms.protocols.scores import _ABOVE
from ttca.platforms.throttle import come_back
from ttca.report.formatting import percent_at_least
from ttca.rounding import apart, at_least

_FLOATS = st.floats(-1e300, 1e300)


@given(_FLOATS, _FLOATS, st.integers(1, 9))
def test_different_numbers_never_look_alike(one: float, other: float, digits: int) -> None:
    """Two numbers are shown alike if and only if they are equal, and each is shown within its digits."""
    shown = apart(one, other, digits=digits)
    assert (shown[0] == shown[1]) == (one == other) or one == other == 0
    assert all(
        math.isclose(float(text), number, rel_tol=10.0 ** (1 - digits))
        for text, number in zip(shown, (one, other), strict=True)
    )


@given(st.floats(0, 1), st.integers(1, 9))
def test_a_lower_bound_is_never_rounded_up(bound: float, digits: int) -> None:
    """What is shown holds if the bound holds, and is no further from it than its digits; one that is short stays."""
    shown = float(at_least(bound, digits))
    assert shown <= bound < shown + 1.0001 * 10.0**-digits
    assert float(at_least(round(bound, digits), digits)) == round(bound, digits)
    assert float(percent_at_least(bound).text.rstrip("%").strip()) / 100 <= bound + 1e-12


@pytest.mark.parametrize("scores", [[0.5, 0.5000021], [0.5000021, 0.5000002], [0.1 + 0.2, 0.7000001]])
def test_a_sum_that_is_nearly_right_is_shown_with_the_digits_that_differ(scores: list[float]) -> None:
    """What is refused for a sum a little above 1 does not read as 1."""
    sentence = Reading(classes=("cat", "dog"))._scale.sentence(_ABOVE, np.array(scores))
    found = re.search(r"sum to 1, got (\S+) in sum", sentence)
    assert found is not None, sentence
    assert float(found[1]) > 1


def test_a_wait_that_is_a_little_too_long_is_said_to_be_longer() -> None:
    """60.2 seconds are longer than 60, and read so."""
    assert "wait 61 s, longer than the 60 s" in come_back(60.2, 60.0)


def test_a_label_just_below_the_highest_score_is_told_apart() -> None:
    """A label that is not the best by the sixth digit names two scores that differ."""
    protocol = create_protocol(
        "template", classes=("cat", "dog"), path="look", send="png", image_shape=(8, 8, 3), label="label",
        scores="scores", scores_are="confidences",
    )  # fmt: skip
    wire = protocol.describe(lambda path: pytest.fail(path))
    body = b'{"label": "cat", "scores": {"cat": 0.71234561, "dog": 0.71234569}}'
    with pytest.raises(AnswerError) as refused:
        wire.parse(Response(200, {}, body, platform="p"), 1)
    assert "got 0.7123456 for it and 0.7123457" in str(refused.value)
