"""How photographs become what a platform takes: one named way, for the people asked and for every member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from ttca.errors import ConfigError, ImageError
from ttca.images import Images, ImageShape
from ttca.names import unknown_name
from ttca.resampling import resample

__all__ = ["Fit", "Preparation", "Region", "after_sending", "parse_box"]

#: How a picture of another shape is made to fit (docs/preparation.md).
Fit = Literal["crop", "pad", "squash"]

#: x, y, width and height of a part of the upright picture, in pixels.
Region: TypeAlias = tuple[int, int, int, int]

_LARGEST = 4096


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """One named way from a picture of any size to the size a platform takes.

    Parameters
    ----------
    size : int or (height, width)
        In pixels, 1..4096; one number for a square.
    fit : {"crop", "pad", "squash"}
        ``crop``: the largest part of the right shape, from the middle. ``pad``: the whole picture, with black around
        it. ``squash``: the whole picture, in another shape.
    filter : {"area-lanczos"}
        :func:`ttca.resampling.resample`.
    color : {"sRGB"}

    Raises
    ------
    ConfigError
        If a value is none of these.
    """

    size: int | tuple[int, int]
    fit: Fit = "crop"
    filter: Literal["area-lanczos"] = "area-lanczos"
    color: Literal["sRGB"] = "sRGB"

    def __post_init__(self) -> None:
        size = tuple(self.size) if isinstance(self.size, list | tuple) else (self.size, self.size)
        whole = all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= _LARGEST for n in size)
        if len(size) != 2 or not whole:
            raise ConfigError(
                f"Expected the size of a preparation as a whole number of pixels in 1..{_LARGEST}, or as [height, "
                f"width], got {self.size!r}. Give the size that the platform takes, such as size = 224."
            )
        object.__setattr__(self, "size", size[0] if size[0] == size[1] else size)
        known = {"fit": get_args(Fit), "filter": ("area-lanczos",), "color": ("sRGB",)}
        for name, words in known.items():
            if getattr(self, name) not in words:
                what, got = f"{name} of a preparation", str(getattr(self, name))
                raise ConfigError(unknown_name(what, got, words, otherwise="docs/preparation.md says what each does."))

    @classmethod
    def from_dict(cls, found: Any) -> Preparation:
        """Return a preparation from plain values, as they stand in a file; raise ConfigError for any other."""
        names = [f.name for f in fields(cls)]
        if not isinstance(found, Mapping) or "size" not in found or not set(found) <= set(names):
            raise ConfigError(
                f"Expected a preparation with size and, where wanted, {', '.join(names[1:])}, got {found!r}. Write it "
                'like {fit = "crop", size = 224, filter = "area-lanczos", color = "sRGB"}.'
            )
        return cls(**found)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values that :meth:`from_dict` reads back: the same way has the same values."""
        size = list(self.size) if isinstance(self.size, tuple) else self.size
        return {"fit": self.fit, "size": size, "filter": self.filter, "color": self.color}

    def __str__(self) -> str:
        h, w, _ = self.image_shape
        size = f"[{h}, {w}]" if h != w else str(h)
        return f'{{fit = "{self.fit}", size = {size}, filter = "{self.filter}", color = "{self.color}"}}'

    @property
    def image_shape(self) -> ImageShape:
        """(H, W, 3) of what it makes."""
        h, w = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        return (h, w, 3)

    def of(self, pixels: Images, box: Region | None = None) -> Images:
        """Return a picture as the platform gets it.

        Parameters
        ----------
        pixels : uint8 array, shape (h, w, 3)
            Upright, sRGB, of any size.
        box : (x, y, width, height), optional
            The part that counts; what lies outside the picture is left away.

        Returns
        -------
        uint8 array, shape (H, W, 3)
            The picture itself where it has that size already.

        Raises
        ------
        ImageError
            If nothing of the picture lies in the box.
        """
        part = pixels if box is None else _cut(pixels, box)
        height, width, _ = self.image_shape
        h, w, _ = part.shape
        if self.fit == "squash":
            return resample(part, height, width)
        wider = w * height >= h * width
        if self.fit == "crop":
            if wider:
                kept = _rounded(h * width, height, w)
                left = (w - kept) // 2
                return resample(part[:, left : left + kept], height, width)
            kept = _rounded(w * height, width, h)
            top = (h - kept) // 2
            return resample(part[top : top + kept], height, width)
        inner = (_rounded(h * width, w, height), width) if wider else (height, _rounded(w * height, h, width))
        small = resample(part, *inner)
        if inner == (height, width):
            return small
        out = np.zeros((height, width, 3), dtype=np.uint8)
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        out[top : top + inner[0], left : left + inner[1]] = small
        return out

    def told(self, shape: ImageShape, box: Region | None = None) -> tuple[str, ...]:
        """Return what it does to a picture of (h, w, 3), each in a few words; empty where it changes nothing."""
        height, width, _ = self.image_shape
        if box is None and shape == self.image_shape:
            return ()
        return (*(() if box is None else (_told_box(shape, box),)), f"{self.fit} to {width}×{height}")


def _rounded(numerator: int, denominator: int, most: int) -> int:
    """Return the quotient, halves rounded up, within 1..most."""
    return min(most, max(1, (2 * numerator + denominator) // (2 * denominator)))


def _inside(shape: ImageShape, box: Region) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what lies in a picture of (h, w, 3)."""
    x, y, width, height = box
    return max(0, x), max(0, y), min(shape[1], x + width), min(shape[0], y + height)


def _told_box(shape: ImageShape, box: Region) -> str:
    left, top, right, bottom = _inside(shape, box)
    kept = (left, top, right - left, bottom - top)
    said = f"box {','.join(map(str, box))}"
    return said if kept == tuple(box) else f"{said}, of which {','.join(map(str, kept))} lies in the picture"


def _cut(pixels: Images, box: Region) -> Images:
    _, _, width, height = box
    h, w, _ = pixels.shape
    left, top, right, bottom = _inside((h, w, 3), box)
    if width < 1 or height < 1 or left >= right or top >= bottom:
        raise ImageError(
            f"Expected a box x, y, width, height inside the upright picture of {w}×{h} pixels (width×height), got "
            f"{', '.join(map(str, box))}. Correct the box, or leave it empty for the whole picture."
        )
    return pixels[top:bottom, left:right]


def parse_box(text: str) -> Region:
    """Return a box written as four whole numbers, with commas, semicolons or spaces between them.

    Raises
    ------
    ImageError
        If the text is anything else.

    Examples
    --------
    >>> parse_box("12, 30, 200, 200")
    (12, 30, 200, 200)
    """
    try:
        x, y, width, height = map(int, text.replace(",", " ").replace(";", " ").split())
    except ValueError:
        raise ImageError(
            f"Expected a box as four whole numbers x, y, width, height, in pixels of the upright picture, got "
            f"{text!r}. Write it like 12,30,200,200."
        ) from None
    return (x, y, width, height)


def after_sending(shape: ImageShape, preparation: Preparation | None) -> str:
    """Return what a platform's own crop or resize may do to δ, for people, before anything is paid."""
    way = "as they are" if preparation is None else f"prepared as {preparation}"
    return (
        f"Pictures go out at {shape[0]}×{shape[1]} pixels (height×width), {way}. If the platform crops or resizes them "
        "once more, δ is cut or averaged with them and may lose its effect. Send the size that its model takes, crop "
        "faces first (column box), or learn for it (transforms, warp, block). What is left of δ behind it, the "
        "certificate measures: docs/preparation.md."
    )
