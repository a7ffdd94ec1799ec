"""Tests of the lossy ways to a platform: they keep the contract of an image, and they do lose something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.examples import examples
from ttca.errors import ConfigError
from ttca.images import Images, check_images
from ttca.lossy import check_quality, jpeg, left_by_jpeg, shrink_and_enlarge

WAYS = (jpeg, shrink_and_enlarge)


def noise(n: int = 3, height: int = 16, width: int = 16) -> Images:
    """Return images in which every value is random."""
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@examples(40)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_what_comes_out_is_images_of_the_same_size(images: Images) -> None:
    """Any batch of any size, one pixel and no image included, comes back as new images of its own shape."""
    for way in WAYS:
        before = images.copy()
        out = check_images(way(images), shape=(images.shape[1], images.shape[2], 3))
        assert len(out) == len(images)
        assert np.array_equal(images, before), "the input is left as it was"
        assert not np.shares_memory(out, images)


@pytest.mark.parametrize("way", WAYS)
@given(colour=st.tuples(*[st.integers(0, 255)] * 3))
@examples(40)
def test_a_plain_colour_survives(way: Callable[[Images], Images], colour: tuple[int, int, int]) -> None:
    """An image of one colour changes by no more than the rounding of JPEG's colour space."""
    images = np.broadcast_to(np.array(colour, np.uint8), (2, 16, 16, 3)).copy()
    difference = np.abs(way(images).astype(np.int16) - images).max()
    assert difference <= (0 if way is shrink_and_enlarge else 5)


@pytest.mark.parametrize("way", WAYS)
def test_noise_does_not_survive(way: Callable[[Images], Images]) -> None:
    """Fine noise, which a perturbation may be, is changed by many levels."""
    images = noise()
    assert np.abs(way(images).astype(np.int16) - images).mean() > 10


def test_a_lower_quality_loses_more() -> None:
    """JPEG of quality 10 is further from the original than 75, and 75 further than 100."""
    images = noise()
    lost = [np.abs(jpeg(images, quality=q).astype(np.int16) - images).mean() for q in (10, 75, 100)]
    assert lost[0] > lost[1] > lost[2]


def test_the_default_is_the_quality_of_the_row() -> None:
    """The control is called jpeg75 and resize: the defaults are quality 75 and half the size."""
    images = noise()
    assert np.array_equal(jpeg(images), jpeg(images, quality=75))
    assert np.array_equal(shrink_and_enlarge(images), shrink_and_enlarge(images, factor=0.5))
    assert not np.array_equal(shrink_and_enlarge(images), shrink_and_enlarge(images, factor=0.25))


def test_height_and_width_are_not_mixed_up() -> None:
    """In an image that is not square, a bright upper half stays above, and is still bright at its edges."""
    images = np.zeros((1, 20, 8, 3), np.uint8)
    images[:, :10] = 200
    for way in WAYS:
        out = way(images)
        assert out[0, :8].min() > 150
        assert out[0, 12:].max() < 50


@pytest.mark.parametrize("way", WAYS)
def test_images_do_not_see_one_another(way: Callable[[Images], Images]) -> None:
    """An image comes back the same whatever batch it is in."""
    images = noise()
    assert np.array_equal(way(images)[1:2], way(images[1:2]))


def test_half_size_and_back_is_a_blur_of_single_pixels() -> None:
    """A checkerboard of single pixels becomes almost even grey when it is resized to half."""
    board = np.indices((16, 16)).sum(axis=0) % 2 * 255
    images = np.repeat(board[None, ..., None], 3, axis=-1).astype(np.uint8)
    assert np.abs(shrink_and_enlarge(images).astype(np.int16) - 128)[:, 2:-2, 2:-2].max() < 20


def test_what_a_file_leaves_of_a_change_is_said() -> None:
    """Of a change of one color for all pixels nearly all, of noise less, the less the lower the quality."""
    before = np.full((2, 16, 16, 3), 128, np.uint8)
    plain, random = before + np.uint8(16), before + (noise(2) >> 5)
    assert left_by_jpeg(before, plain, quality=90) == pytest.approx(1.0, abs=0.02)
    fine, coarse = (left_by_jpeg(before, random, quality=quality) for quality in (95, 30))
    assert coarse < fine < 1.0
    assert np.isnan(left_by_jpeg(before, before, quality=90))
    signs = np.where(noise(2) > 127, 1.0, -1.0)
    changed = (before + 4 * signs).astype(np.uint8)
    change = changed.astype(float) - before
    left = jpeg(changed, quality=60).astype(float) - jpeg(before, quality=60)
    expected = (change * left).sum() / (change * change).sum()
    assert left_by_jpeg(before, changed, quality=60) == pytest.approx(expected)


@pytest.mark.parametrize("quality", [0, 101, 9.5, True, "90"])
def test_what_is_no_quality_is_refused(quality: Any) -> None:
    """A quality is a whole number from 1 to 100."""
    with pytest.raises(ConfigError, match="1 to 100"):
        check_quality(quality)
