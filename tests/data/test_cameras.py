"""The cameras and the digits: what they return, and that they are the same every time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from tests.examples import examples
from ttca.data.cameras import (
    bad_camera,
    color_cast,
    dark_phone,
    fog,
    gaussian_blur,
    night,
    pixelated,
    soft_focus,
)
from ttca.data.digits import load_digits_images
from ttca.errors import DataError, ImageError, MissingExtraError
from ttca.images import Images


def _scene(n: int = 5, height: int = 12, width: int = 9, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0, 2.3])
def test_blur_equals_scipy(sigma: float) -> None:
    """The blur is scipy's Gaussian filter with mirrored edges and four standard deviations of taps."""
    scene = _scene()
    expected = gaussian_filter(scene.astype(np.float64), (0, sigma, sigma, 0), mode="mirror", truncate=4.0)
    np.testing.assert_allclose(gaussian_blur(scene, sigma), expected, atol=1e-3)


def test_soft_focus_is_seven_by_seven_sigma_point_eight() -> None:
    """The soft-focus camera is a 7×7 Gaussian of 0.8 px rounded to whole levels, up to float32 ties."""
    scene = _scene()
    exact = gaussian_filter(scene.astype(np.float64), (0, 0.8, 0.8, 0), mode="mirror", radius=(0, 3, 3, 0))
    seen = soft_focus(scene)
    assert seen.dtype == np.uint8
    assert np.abs(seen - exact).max() <= 0.5 + 1e-3


@given(st.integers(0, 255), st.floats(0, 3), st.integers(1, 8), st.integers(1, 8))
@examples(30)
def test_blur_keeps_flat_images(level: int, sigma: float, height: int, width: int) -> None:
    """A flat image, however small, looks the same out of focus."""
    flat = np.full((2, height, width, 3), level, dtype=np.uint8)
    np.testing.assert_array_equal(soft_focus(flat, sigma), flat)
    np.testing.assert_array_equal(bad_camera(flat, blur=sigma, contrast=1, veil=0, noise=0), flat)


def test_bad_camera_is_the_same_in_any_batch() -> None:
    """An image's noise depends on the seed and on the image, not on the images around it."""
    scene = _scene(40)
    whole = bad_camera(scene, seed=3)
    assert whole.shape == scene.shape
    assert whole.dtype == np.uint8
    order = np.random.default_rng(1).permutation(40)
    np.testing.assert_array_equal(bad_camera(scene[order], seed=3), whole[order])
    np.testing.assert_array_equal(bad_camera(scene[7:8], seed=3), whole[7:8])


def test_bad_camera_noise_follows_the_seed_and_its_size() -> None:
    """Another seed gives other noise of the standard deviation asked for; no noise needs no seed."""
    grey = np.full((50, 16, 16, 3), 128, dtype=np.uint8)
    grey[:, 0, 0, 0] = np.arange(50)
    a, b = (bad_camera(grey, blur=0, contrast=1, veil=0, noise=12, seed=seed) for seed in (0, 1))
    assert (a != b).mean() > 0.9
    assert np.std(a[:, 1:].astype(float)) == pytest.approx(12, rel=0.05)
    assert len({image.tobytes() for image in a}) == 50
    np.testing.assert_array_equal(bad_camera(grey, noise=0, seed=0), bad_camera(grey, noise=0, seed=1))


def test_bad_camera_takes_contrast_and_adds_a_veil() -> None:
    """Without blur and noise a level x becomes contrast·x + veil, rounded and clipped to 0..255."""
    scene = _scene()
    expected = np.clip(np.rint(0.5 * scene.astype(np.float64) + 200), 0, 255)
    np.testing.assert_array_equal(bad_camera(scene, blur=0, contrast=0.5, veil=200, noise=0), expected)


def test_cameras_work_in_blocks_and_on_nothing() -> None:
    """A batch larger than one block is seen as its images are one by one, and an empty one stays empty."""
    scene = _scene(12, 300, 300)
    np.testing.assert_array_equal(soft_focus(scene), np.concatenate([soft_focus(scene[i : i + 1]) for i in range(12)]))
    assert soft_focus(scene[:0]).shape == (0, 300, 300, 3)
    assert bad_camera(scene[:0]).shape == (0, 300, 300, 3)


def test_cameras_leave_their_input_alone() -> None:
    """No camera writes into the images it was given."""
    scene = _scene()
    before = scene.copy()
    soft_focus(scene)
    soft_focus(scene, 0)[:] = 0
    bad_camera(scene)
    np.testing.assert_array_equal(scene, before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"blur": -1.0}, "Expected a blur sigma of at least 0 pixels, got -1.0"),
        ({"blur": float("nan")}, "blur sigma"),
        ({"contrast": 1.5}, r"Expected a contrast in \[0, 1\], got 1.5"),
        ({"veil": 300.0}, "Expected a veil of 0 to 255 levels"),
        ({"noise": -0.1}, "Expected noise of at least 0"),
        ({"seed": -1}, "Expected a seed of at least 0"),
    ],
)
def test_bad_camera_refuses_settings_out_of_range(options: dict[str, float], said: str) -> None:
    """Each setting out of its range is a sentence, also when there are no images."""
    with pytest.raises(DataError, match=said):
        bad_camera(_scene(0), **options)  # type: ignore[arg-type]


def test_cameras_refuse_other_images() -> None:
    """Floats are refused at the door, and a blur that cannot be is a sentence."""
    with pytest.raises(ImageError, match="uint8"):
        soft_focus(np.zeros((1, 4, 4, 3)))
    with pytest.raises(DataError, match="blur sigma"):
        soft_focus(_scene(), -0.1)
    with pytest.raises(DataError, match="radius"):
        gaussian_blur(_scene(), 1.0, radius=-1)
    with pytest.raises(DataError, match="shape"):
        gaussian_blur(np.zeros((4, 4)), 1.0)


def test_fog_and_cast_move_levels_by_their_tables() -> None:
    """Fog is 0.45·x + 77; the cast multiplies red, green and blue by 1.25, 0.9 and 0.45; rounded and clipped."""
    levels = np.array([[[[0, 0, 0], [1, 1, 1], [100, 100, 100], [204, 205, 203], [255, 255, 255]]]], np.uint8)
    assert fog(levels)[0, 0].tolist() == [[77] * 3, [77] * 3, [122] * 3, [169, 169, 168], [192] * 3]
    assert color_cast(levels)[0, 0].tolist() == [[0, 0, 0], [1, 1, 0], [125, 90, 45], [255, 184, 91], [255, 230, 115]]


def test_pixelated_is_the_mean_of_two_by_two() -> None:
    """Each square of four pixels gets their mean, halves rounded up; an odd side is refused."""
    red = np.array([[10, 20, 0, 1], [30, 41, 1, 0]], np.uint8)
    scene = np.stack([red, 255 - red, np.zeros_like(red)], axis=-1)[None]
    seen = pixelated(scene)
    assert seen.shape == scene.shape
    assert seen[0, :, :, 0].tolist() == [[25, 25, 1, 1], [25, 25, 1, 1]]
    assert seen[0, :, :, 1].tolist() == [[230, 230, 255, 255], [230, 230, 255, 255]]
    assert not seen[..., 2].any()
    with pytest.raises(DataError, match="Expected images whose sides are even, got 5×4 pixels"):
        pixelated(_scene(1, 5, 4))


def test_the_dark_phone_mixes_colors_and_darkens() -> None:
    """Its filter leaks between channels, then 255·(x/255)^2.2 darkens; black stays, white loses some blue."""
    scene = np.array([[[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 64, 200]]]], np.uint8)
    assert dark_phone(scene)[0, 0].tolist() == [
        [0, 0, 0], [255, 255, 156], [156, 2, 0], [7, 116, 18], [0, 7, 55], [44, 31, 48],
    ]  # fmt: skip


def test_night_keeps_less_light_and_adds_noise() -> None:
    """A level x becomes 0.4·x + 8 with noise of 5 levels, the same for an image in any batch."""
    grey = np.full((30, 16, 16, 3), 100, np.uint8)
    grey[:, 0, 0, 0] = np.arange(30)
    seen = night(grey)
    assert seen[:, 1:].astype(float).mean() == pytest.approx(48, abs=0.2)
    assert seen[:, 1:].astype(float).std() == pytest.approx(5, rel=0.03)
    np.testing.assert_array_equal(night(grey[7:9]), seen[7:9])


@pytest.mark.parametrize("camera", [fog, pixelated, color_cast, dark_phone, night])
def test_every_camera_gives_whole_levels_and_leaves_its_input_alone(camera: Callable[[Any], Images]) -> None:
    """Images come back as uint8 of their shape, together as one by one; the input stays, and none gives none."""
    scene = _scene(3, 12, 10)
    before = scene.copy()
    seen = camera(scene)
    assert seen.dtype == np.uint8
    assert seen.shape == scene.shape
    np.testing.assert_array_equal(seen, np.concatenate([camera(scene[i : i + 1]) for i in range(3)]))
    np.testing.assert_array_equal(scene, before)
    assert camera(scene[:0]).shape == (0, 12, 10, 3)
    with pytest.raises(ImageError, match="uint8"):
        camera(scene.astype(np.float64))


def test_digits_are_grey_images_with_labels() -> None:
    """All 1,797 digits come as grey RGB images that use the whole range, at the size asked for."""
    images, labels = load_digits_images()
    assert images.shape == (1797, 16, 16, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert (images.min(), images.max()) == (0, 255)
    assert (images == images[..., :1]).all()
    assert np.bincount(labels).min() > 150
    assert labels[:10].tolist() == list(range(10))


def test_digits_at_their_own_size_are_the_originals() -> None:
    """At 8×8 nothing is interpolated: the 17 levels are scaled to 0..255."""
    from sklearn.datasets import load_digits

    images, _ = load_digits_images(8)
    np.testing.assert_array_equal(images[..., 0], np.rint(load_digits().images * 255 / 16))


def test_digits_refuse_to_shrink() -> None:
    """A size below the originals' 8 pixels is refused."""
    with pytest.raises(DataError, match="at least 8 pixels, got 7"):
        load_digits_images(7)


def test_digits_without_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scikit-learn the error says which extra to install."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ttca\[data\]'"):
        load_digits_images()
