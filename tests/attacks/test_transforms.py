"""Tests of the random input transformations under which δ is learned."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ttca.attacks.options import TRANSFORMS
from ttca.attacks.transforms import _cosines, differentiable_jpeg, find_transform, transformed

every = pytest.mark.parametrize("name", TRANSFORMS)


def batch(seed: int, n: int = 3, h: int = 16, w: int = 24) -> torch.Tensor:
    """Return smooth images, float32 (n, 3, h, w): photographs are smooth."""
    noise = torch.rand(n, 3, h // 4, w // 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=(h, w), mode="bilinear")


@every
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), h=st.integers(4, 30), w=st.integers(4, 30))
@example(seed=49345, h=4, w=4)
def test_a_transformed_image_is_still_that_image(name: str, seed: int, h: int, w: int) -> None:
    """Any size comes back in its shape, finite, changed, and near to what it was."""
    x = batch(seed, h=4 * h, w=4 * w)[:, :, : h + 4, : w + 4]
    out = find_transform(name)(x, torch.Generator().manual_seed(seed))
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    assert not torch.equal(out, x)
    assert float((out - x).abs().mean()) < 0.1


@every
def test_gradients_pass_through(name: str) -> None:
    """Every transformation lets the loss reach the pixels, rounding included."""
    x = batch(0).requires_grad_()
    weight = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((find_transform(name)(x, torch.Generator().manual_seed(0)) * weight).sum(), x)
    assert torch.isfinite(gradient).all()
    assert float((gradient != 0).float().mean()) > 0.9


@every
def test_the_mean_colour_stays(name: str) -> None:
    """A plain image comes back plain, to within a rounding step of JPEG: nothing brightens or tints it."""
    plain = torch.full((1, 3, 16, 16), 0.4)
    out = find_transform(name)(plain, torch.Generator().manual_seed(0))
    assert float((out - 0.4).abs().max()) < 0.02


def test_the_draw_covers_every_name_and_none() -> None:
    """Over many draws each named transformation and the untouched batch occur, and nothing that was not named."""
    x, generator = batch(0), torch.Generator().manual_seed(0)
    outs = [transformed(x, ("blur",), generator) for _ in range(40)]
    untouched = sum(torch.equal(out, x) for out in outs)
    assert 5 < untouched < 35
    assert transformed(x, (), generator) is x


def test_the_generator_decides() -> None:
    """The same seed transforms alike."""
    one, other = (transformed(batch(0), tuple(TRANSFORMS), torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, other)


def test_an_unknown_name_is_refused() -> None:
    """A misspelt transformation is an error in words, not no transformation."""
    with pytest.raises(ValueError, match="Expected each transform to be one of resize, blur, jpeg, got 'jpg'"):
        transformed(batch(0), ("jpg",), torch.Generator())


def test_the_cosines_are_orthonormal() -> None:
    """The DCT is its own inverse transposed, so that only rounding loses anything."""
    basis = _cosines()
    assert torch.allclose(basis @ basis.T, torch.eye(8, dtype=basis.dtype))


def test_jpeg_removes_what_jpeg_removes() -> None:
    """What is left of fine noise is near what Pillow's encoder leaves of it, on grey images of the same quality."""
    rng = np.random.default_rng(0)
    grey = np.clip(128 + rng.normal(0, 6, (1, 64, 64, 1)), 0, 255).round().repeat(3, axis=3).astype(np.uint8)
    x = torch.from_numpy(grey).permute(0, 3, 1, 2).float() / 255

    quality = 60.0 + 35.0 * float(torch.rand((), generator=torch.Generator().manual_seed(3)))
    ours = differentiable_jpeg(x, torch.Generator().manual_seed(3))
    buffer = io.BytesIO()
    Image.fromarray(grey[0, :, :, 0]).save(buffer, "JPEG", quality=round(quality))
    theirs = torch.from_numpy(np.asarray(Image.open(buffer)).copy()).float() / 255
    assert float((ours[0, 0] - theirs).abs().mean()) < 0.3 * float((x[0, 0] - theirs).abs().mean())
