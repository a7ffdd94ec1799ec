"""Tests of the e-values of rechecks: fair under what they test, and quick where it is false."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.errors import ActionError
from ttca.statistics.kept_answers import STEADY, changed_log_e, helps_log_e

SHARES = st.floats(0, 1)


@given(both=SHARES, looks=st.integers(1, 3))
def test_where_answers_are_steady_the_stake_is_one_on_average(both: float, looks: int) -> None:
    """However much a person's two answers change together, over one to three looks the mean e-value is at most 1."""
    # Of a mean of STEADY for each answer, any part may fall on persons of whom both have changed.
    two = STEADY * both
    one = 2 * (STEADY - two)
    chances = (1 - one - two, one, two)
    mean = sum(
        math.prod(chances[i] for i in seen) * math.exp(changed_log_e(np.eye(3, dtype=int)[list(seen)]))
        for seen in itertools.product(range(3), repeat=looks)
    )
    assert mean <= 1 + 1e-12
    assert mean == pytest.approx(1)


@given(discordant=SHARES, looks=st.integers(1, 4))
def test_where_delta_helps_half_the_stake_is_one_on_average(discordant: float, looks: int) -> None:
    """However many δ makes no difference to, the mean e-value is 1 where it helps as many as it harms."""
    rows = np.array([[0, 0], [1, 0], [0, 1]])
    chances = (1 - discordant, discordant / 2, discordant / 2)
    mean = sum(
        math.prod(chances[i] for i in seen) * math.exp(helps_log_e(rows[list(seen)]))
        for seen in itertools.product(range(3), repeat=looks)
    )
    assert mean == pytest.approx(1)


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 3), min_size=1, max_size=6))
def test_an_e_value_rises_with_what_speaks_for_it_alone(looks: list[tuple[int, int, int]]) -> None:
    """One more changed person raises it, one more unchanged person lowers it."""
    now = changed_log_e(looks)
    same, one, both = looks[-1]
    assert changed_log_e([*looks[:-1], (same, one + 1, both)]) > now
    assert changed_log_e([*looks[:-1], (same, one, both + 1)]) > changed_log_e([*looks[:-1], (same, one + 1, both)])
    assert changed_log_e([*looks[:-1], (same + 1, one, both)]) < now


def test_a_change_is_found_after_a_year_of_quiet_looks() -> None:
    """Fifty-two quiet looks cost a little, not the whole stake: every fourth answer changed is found soon."""
    quiet, loud = [(20, 0, 0)] * 52, (10, 10, 0)
    assert changed_log_e([*quiet, loud, loud]) > math.log(200)
    assert changed_log_e(quiet) < 0
    assert helps_log_e([(6, 0)] * 52 + [(0, 6)] * 5) > math.log(200)


@pytest.mark.parametrize("wrong", [[[1, 2]], [[1.0, 2.0, 3.0]], [1, 2, 3], [[-1, 0, 0]]])
def test_what_are_no_counts_is_refused(wrong: Any) -> None:
    """Tables of another shape, fractions and negative numbers are a sentence."""
    with pytest.raises(ActionError, match="Expected 3 counts of persons for each look"):
        changed_log_e(wrong)


def test_before_the_first_look_nothing_is_known() -> None:
    """Without a look both e-values are 1."""
    assert changed_log_e([]) == helps_log_e([]) == 0.0
