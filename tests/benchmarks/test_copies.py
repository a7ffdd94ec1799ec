"""Tests of copies and near copies: what is taken for the same photograph, and that nothing is missed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._copies import NEAR, near_copies
from ttca.lossy import jpeg


def smooth(n: int, seed: int, side: int = 32) -> np.ndarray:
    """Return n different gray pictures of a few squares, without much detail, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 1)).astype(np.uint8)
    return coarse.repeat(side // 4, axis=1).repeat(side // 4, axis=2).repeat(3, axis=3)


def test_copies_are_found_however_they_were_saved() -> None:
    """A copy, one saved as JPEG, a paler one and one with a little noise are the same; all others are not."""
    others = smooth(40, 0)
    noise = np.random.default_rng(1).integers(-4, 5, others[3].shape)
    images = smooth(40, 2)
    images[5] = others[0]
    images[6] = jpeg(others[1:2], quality=90)[0]
    images[7] = others[2] // 2 + 50
    images[8] = np.clip(others[3].astype(int) + noise, 0, 255)
    assert np.flatnonzero(near_copies(images, others)).tolist() == [5, 6, 7, 8]


def test_an_image_of_one_level_is_a_copy_of_its_like_alone() -> None:
    """Where nothing varies there is no correlation: bytes decide."""
    flat = np.full((2, 8, 8, 3), 7, np.uint8)
    flat[1] = 9
    assert near_copies(flat, np.concatenate([flat[:1], smooth(3, 0, 8)])).tolist() == [True, False]


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_nobody_is_a_copy_of_nobody(n: int, m: int) -> None:
    """No images, or none before them, are no error."""
    assert near_copies(smooth(n, 0), smooth(m, 1)).tolist() == [False] * n


@given(seed=st.integers(0, 10**6), side=st.sampled_from([4, 6, 7, 12, 16]), strength=st.floats(0, 60))
def test_it_is_what_every_pair_says(seed: int, side: int, strength: float) -> None:
    """The coarse pictures rule out no pair whose correlation is above the limit, whatever the size and the noise."""
    rng = np.random.default_rng(seed)
    others = rng.integers(0, 256, (6, side, side, 3), dtype=np.uint8)
    noise = rng.normal(0, strength, (9, side, side, 3))
    images = np.clip(others[rng.integers(0, 6, 9)] + noise, 0, 255).astype(np.uint8)
    both = np.corrcoef(np.concatenate([images, others]).reshape(15, -1).astype(float))[:9, 9:]
    close = np.abs(both.max(1) - NEAR) < 1e-6
    assert (near_copies(images, others) == (both.max(1) > NEAR))[~close].all()
