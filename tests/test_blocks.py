"""Tests of squares of pixels: what a coarse δ is learned on, and what it becomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.blocks import check_block, enlarge, shrink
from ttca.errors import ConfigError

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, n=st.integers(0, 4), h=st.integers(1, 4), w=st.integers(1, 4), block=st.integers(1, 5))
def test_an_image_shrinks_to_the_means_of_its_squares(seed: int, n: int, h: int, w: int, block: int) -> None:
    """Every small pixel is the mean of its square, rounded to the nearest level with halves up."""
    images = np.random.default_rng(seed).integers(0, 256, (n, h * block, w * block, 3), dtype=np.uint8)
    small = shrink(images, block)
    squares = images.reshape(n, h, block, w, block, 3).astype(np.float64).mean((2, 4))
    assert small.dtype == np.uint8
    assert np.array_equal(small, np.floor(squares + 0.5).astype(np.uint8))


@given(seed=seeds, block=st.integers(1, 5), epsilon=st.integers(1, 100))
def test_what_is_learned_small_is_what_the_large_image_gets(seed: int, block: int, epsilon: int) -> None:
    """Away from black and white, the small picture of image plus δ is the small image plus the small δ."""
    rng = np.random.default_rng(seed)
    image = rng.integers(128, 150, (1, 3 * block, 4 * block, 3), dtype=np.uint8)
    delta = rng.integers(-epsilon, epsilon + 1, (1, 3, 4, 3)).astype(np.int8)
    large = enlarge(delta, block)
    assert large.dtype == np.int8
    assert large.shape == (1, 3 * block, 4 * block, 3)
    sent = (image + large.astype(np.int16)).astype(np.uint8)
    assert np.array_equal(shrink(sent, block), (shrink(image, block) + delta.astype(np.int16)).astype(np.uint8))


def test_many_images_are_shrunk_like_one() -> None:
    """Working in parts of some hundred images changes nothing."""
    images = np.random.default_rng(0).integers(0, 256, (600, 4, 4, 3), dtype=np.uint8)
    one_by_one = np.concatenate([shrink(images[i : i + 1], 2) for i in range(600)])
    assert np.array_equal(shrink(images, 2), one_by_one)


@pytest.mark.parametrize("block", [3, 7, 64])
def test_a_block_that_does_not_divide_the_image_is_refused(block: int) -> None:
    """Half a square at the border would get no δ: the setting is refused in words."""
    with pytest.raises(ConfigError, match="Expected a block that divides"):
        check_block(block, (32, 32, 3))
    check_block(8, (32, 24, 3))
