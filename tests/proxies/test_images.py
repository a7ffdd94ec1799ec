"""Images become tensors and come back without losing a level or making a copy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ttca.proxies.images import fitting, to_levels, to_tensor, to_uint8

shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.just(3))


def test_every_level_survives_the_round_trip() -> None:
    """All 256 levels come back exactly, and lie in [0, 1] on the way."""
    images = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    tensor = to_tensor(to_levels(images))
    assert (float(tensor.min()), float(tensor.max())) == (0.0, 1.0)
    np.testing.assert_array_equal(to_uint8(tensor), images)


@settings(deadline=None)
@given(hnp.arrays(np.uint8, shapes))
def test_any_image_survives_the_round_trip_in_its_place(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    """Any batch comes back exactly, and channel c of the tensor is channel c of the image."""
    tensor = to_tensor(to_levels(images))
    assert tensor.shape == (len(images), 3, *images.shape[1:3])
    np.testing.assert_array_equal((tensor * 255).round().numpy(), images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(to_uint8(tensor), images)


def test_levels_are_a_view_in_channels_last_memory() -> None:
    """A contiguous array is not copied, and both tensors lie in channels-last memory."""
    images = np.zeros((2, 4, 5, 3), np.uint8)
    levels = to_levels(images)
    images[1, 2, 3, 0] = 7
    assert int(levels[1, 0, 2, 3]) == 7
    assert levels.is_contiguous(memory_format=torch.channels_last)
    assert to_tensor(levels).is_contiguous(memory_format=torch.channels_last)


def test_a_read_only_or_strided_array_is_taken_too() -> None:
    """Arrays torch cannot view are copied rather than refused or warned about."""
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    images.flags.writeable = False
    for given_array in (images, images[:, ::-1], images[::2, :, ::2]):
        np.testing.assert_array_equal(to_uint8(to_tensor(to_levels(given_array))), given_array)


def test_to_tensor_leaves_the_levels_alone() -> None:
    """Making floats does not write into the bytes they came from."""
    images = np.full((1, 2, 2, 3), 200, np.uint8)
    to_tensor(to_levels(images))
    assert (images == 200).all()


def test_to_uint8_rounds_and_clips() -> None:
    """Values between levels go to the nearer one, and values outside [0, 1] to the border."""
    tensor = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 2.0, 0.5]).view(1, 3, 1, 2)
    np.testing.assert_array_equal(to_uint8(tensor)[0, 0], [[0, 1, 255], [0, 255, 128]])


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((2, 3, 4, 4), np.uint8)],
    ids=["float", "one image", "channels first"],
)
def test_other_arrays_are_refused(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    """Anything but uint8 NHWC RGB is refused with what was expected and what came."""
    with pytest.raises(ValueError, match=r"Expected uint8 images \(N, H, W, 3\), got"):
        to_levels(images)


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 600))
def test_a_batch_of_photographs_takes_no_more_memory_than_one_of_small_images(
    height: int, width: int, most: int
) -> None:
    """However large images are, a batch's floats take 8 MiB at most, or it is a single image."""
    found = fitting(height, width, most=most)
    assert 1 <= found <= most
    assert found == 1 or found * 12 * height * width <= 8 * 2**20
    assert found == most or (found + 1) * 12 * height * width > 8 * 2**20
