"""Tests of the order in which images are asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.errors import ConfigError
from ttca.pooling.choosing import ORDERS, in_order, most_uncertain


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40), st.sampled_from(ORDERS), st.integers(0, 9))
def test_every_image_has_its_turn_once(rows: list[tuple[int, bool]], order: str, seed: int) -> None:
    """Each order is a permutation, the same for the same seed."""
    classes = np.array([c for c, _ in rows], np.int64)
    subgroup = np.array([s for _, s in rows], np.bool_)
    got = in_order(order, classes, subgroup, seed=seed)  # type: ignore[arg-type]
    assert sorted(got.tolist()) == list(range(len(rows)))
    np.testing.assert_array_equal(got, in_order(order, classes, subgroup, seed=seed))  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 12), min_size=4, max_size=4), st.integers(1, 40))
def test_stratified_prefixes_share_equally(sizes: list[int], n: int) -> None:
    """In any number of first images each class and group has as many as any other, or all it has, give or take one."""
    stratum = np.repeat(np.arange(4), sizes)
    got = stratum[in_order("stratified", stratum // 2, stratum % 2 == 1, seed=0)][:n]
    counts = np.bincount(got, minlength=4)
    most = counts.max()
    assert all(c >= min(most - 1, size) for c, size in zip(counts, sizes, strict=True))


def test_the_least_certain_come_first() -> None:
    """The smaller the margin between the two likeliest classes, the earlier the image."""
    rows = np.array([[0.9, 0.05, 0.05], [0.4, 0.35, 0.25], [0.5, 0.0, 0.5], [0.6, 0.3, 0.1]], np.float32)
    assert most_uncertain(rows).tolist() == [2, 1, 3, 0]


def test_odd_arguments_are_refused() -> None:
    """Another order, columns of other lengths and a single class are sentences."""
    with pytest.raises(ConfigError, match="order to be one of random, stratified, got 'best'"):
        in_order("best", np.zeros(2, np.int64), np.zeros(2, np.bool_), seed=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="one class and group per image"):
        in_order("random", np.zeros(2, np.int64), np.zeros(3, np.bool_), seed=0)
    with pytest.raises(ConfigError, match="two or more classes"):
        most_uncertain(np.ones((3, 1), np.float32))
