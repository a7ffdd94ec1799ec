"""Tests of equalising two groups' cameras without pairs of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ttca.data.cameras import soft_focus
from ttca.equaliser import Equalizer
from ttca.errors import ActionError


def scenes(n: int, seed: int) -> NDArray[np.uint8]:
    """Return textured images with more power in low frequencies, as photographs have."""
    noise = np.random.default_rng(seed).normal(0, 1, (n, 16, 16, 3))
    smooth = gaussian_filter(noise, (0, 1.0, 1.0, 0))
    return np.clip(128 + 60 * smooth + 12 * noise, 0, 255).astype(np.uint8)


def test_a_soft_camera_is_undone_without_pairs() -> None:
    """Fitted on other people's images of both groups, it brings blurred images most of the way back."""
    equaliser = Equalizer.between(soft_focus(scenes(300, 0)), scenes(200, 1))
    sharp = scenes(50, 2)
    soft = soft_focus(sharp)
    restored = equaliser.apply(soft)
    assert restored.dtype == np.uint8
    before, after = (np.abs(x.astype(float) - sharp).mean() for x in (soft, restored))
    assert after < 0.6 * before


def test_equal_cameras_change_almost_nothing() -> None:
    """Between two groups with one camera, the gain is near one everywhere."""
    equaliser = Equalizer.between(scenes(400, 0), scenes(400, 1))
    assert np.abs(equaliser.gain - 1).max() < 0.15
    images = scenes(20, 2)
    assert np.abs(equaliser.apply(images).astype(int) - images).mean() < 1.5


def test_the_same_images_are_left_alone() -> None:
    """A group compared with itself comes back bit for bit, also in more than one part."""
    images = scenes(40, 0)
    many = np.concatenate([images] * 14)
    assert np.array_equal(Equalizer.between(images, images).apply(many), many)


@given(st.integers(0, 255), st.integers(0, 255))
def test_flat_images_keep_their_level_and_divide_nothing_by_zero(level: int, other: int) -> None:
    """A difference of brightness alone is no filter: the gain is one where nobody has any texture."""
    flat = np.full((2, 8, 8, 3), level, np.uint8)
    equaliser = Equalizer.between(flat, np.full((3, 8, 8, 3), other, np.uint8))
    assert np.allclose(equaliser.gain, 1, atol=1e-2)
    assert np.array_equal(equaliser.apply(flat), flat)


def test_two_groups_of_one_size_are_needed() -> None:
    """Without volunteers, or with images of another size, the sentence says what to do."""
    images = scenes(3, 0)
    for others in (images[:0], images[:, :8]):
        with pytest.raises(ActionError, match="Let volunteers take part, or set equalize = false"):
            Equalizer.between(images, others)
