"""Tests of the contract of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ttca.errors import ImageError
from ttca.images import check_images

SHAPES = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), st.just(3))


@given(hnp.arrays(np.uint8, SHAPES), st.booleans())
def test_good_images_pass_unchanged(images: NDArray[np.uint8], fortran: bool) -> None:
    """Images of the contract come back with the same values, in C order, however they lay in memory."""
    checked = check_images(np.asfortranarray(images) if fortran else images, shape=images.shape[1:])
    np.testing.assert_array_equal(checked, images)
    assert checked.dtype == np.uint8
    assert checked.flags.c_contiguous


def test_a_list_of_images_will_do() -> None:
    """A list of arrays of one size becomes one array."""
    assert check_images([np.zeros((2, 2, 3), np.uint8)] * 3).shape == (3, 2, 2, 3)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((1, 4, 5, 3)), "got float64"),
        (np.zeros((1, 4, 5, 3), np.int8), "got int8"),
        (np.zeros((1, 4, 5, 3), np.bool_), "got bool"),
        (None, "got object"),
        ([[1.0]], "got float64"),
        ("face.png", "got <U8"),
        (np.zeros((4, 5, 3), np.uint8), r"got \(4, 5, 3\)"),
        (np.zeros((1, 3, 4, 5), np.uint8), r"got \(1, 3, 4, 5\)"),
        (np.zeros((1, 4, 5, 1), np.uint8), "gray"),
        (np.zeros((1, 4, 5, 4), np.uint8), r"got \(1, 4, 5, 4\)"),
        (np.zeros((1, 0, 5, 3), np.uint8), "with pixels"),
        (np.zeros((1, 5, 4, 3), np.uint8), "4×5 pixels, got 5×4"),
        ([np.zeros((4, 5, 3), np.uint8), np.zeros((5, 5, 3), np.uint8)], "several sizes"),
    ],
)
def test_other_images_are_a_sentence(images: Any, sentence: str) -> None:
    """A wrong type, number of axes, channel count or size is an ImageError that names what came."""
    with pytest.raises(ImageError, match=f"Expected .*{sentence}"):
        check_images(images, shape=(4, 5, 3))
