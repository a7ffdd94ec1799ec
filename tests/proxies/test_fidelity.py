"""Fidelity counts agreement where the platform named a class, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.proxies.fidelity import agreement


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), max_size=40))
def test_agreement_is_a_count(pairs: list[tuple[int, int]]) -> None:
    """The count and its base are those of a loop over the images on which the platform named a class."""
    predicted = np.array([p for p, _ in pairs], np.int64)
    platform = np.array([f for _, f in pairs], np.int64)
    found = agreement(predicted, platform)
    named = [(p, f) for p, f in pairs if f >= 0]
    assert (found.agree, found.n) == (sum(p == f for p, f in named), len(named))
    if named:
        assert found.rate == found.agree / len(named)
    else:
        assert math.isnan(found.rate)


def test_an_abstention_is_not_agreed_with() -> None:
    """A proxy that says −1 where the platform said nothing gains nothing by it."""
    assert agreement(np.array([-1, 2]), np.array([-1, 1])).rate == 0.0


@pytest.mark.parametrize("n", [0, 1, 3])
def test_arrays_of_two_lengths_are_refused(n: int) -> None:
    """One class per image on both sides, never a broadcast."""
    with pytest.raises(ValueError, match=r"Expected two arrays of classes \(N,\), got"):
        agreement(np.zeros(n, np.int64), np.zeros(2, np.int64))
