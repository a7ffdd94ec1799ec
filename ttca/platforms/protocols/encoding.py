"""How images travel: in files or as numbers; but for JPEG, what arrives is what was measured, to the last bit."""

from __future__ import annotations

import base64
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any, Literal
from urllib.parse import urlencode

import numpy as np
import urllib3
from numpy.typing import NDArray
from PIL import Image

from ttca.errors import ConfigError
from ttca.images import Images, ImageShape
from ttca.lossy import as_jpeg
from ttca.platforms.protocols.reading import check_choice

__all__ = [
    "AS_DECIMAL",
    "AS_FLOAT32",
    "ColorOrder",
    "ImageFile",
    "ImageLayout",
    "Numbers",
    "Pixels",
    "as_base64",
    "as_form",
    "as_multipart",
    "as_png",
    "check_image_shape",
    "check_layout",
    "repeated_to",
]

ImageLayout = Literal["NHWC", "NCHW"]
Pixels = Literal["unit", "levels"]
ColorOrder = Literal["rgb", "bgr"]

#: What a uint8 level becomes in a float input: [0, 1] or 0..255.
AS_FLOAT32 = {
    "unit": np.arange(256, dtype=np.float32) / np.float32(255),
    "levels": np.arange(256, dtype=np.float32),
}
#: The same for JSON. Nine digits are enough for every one to read back as the same float32.
AS_DECIMAL = {pixels: np.round(table.astype(np.float64), 9) for pixels, table in AS_FLOAT32.items()}


def check_image_shape(shape: object) -> ImageShape:
    """Return ``shape`` as (H, W, 3), or raise a ConfigError."""
    sizes = list(shape) if isinstance(shape, list | tuple) else []
    if len(sizes) != 3 or not all(type(s) is int and s >= 1 for s in sizes) or sizes[2] != 3:
        raise ConfigError(
            f"Expected image_shape as (height, width, 3), got {shape}. Set it to the size the platform takes."
        )
    return sizes[0], sizes[1], 3


def check_layout(layout: str | None) -> ImageLayout | None:
    """Return where the channels are, in capitals; a ConfigError where it is neither 'NHWC' nor 'NCHW', nor None."""
    if layout is None:
        return None
    if not isinstance(layout, str) or layout.upper() not in ("NHWC", "NCHW"):
        raise ConfigError(f"Expected layout to be one of NHWC, NCHW, got {layout!r}. Choose one.")
    return "NHWC" if layout.upper() == "NHWC" else "NCHW"


def as_png(image: NDArray[np.uint8]) -> bytes:
    """Return one image, uint8 (H, W, 3), as a PNG file. Little compression: it is lossless at any level."""
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """The file that an image travels in: PNG, or JPEG where a quality is given.

    Parameters
    ----------
    quality : int, optional
        Of a JPEG file, 1 to 100. None: a PNG file, which is lossless.
    """

    quality: int | None = None

    @property
    def kind(self) -> str:
        """The media type."""
        return "image/png" if self.quality is None else "image/jpeg"

    @property
    def name(self) -> str:
        """What the file is called in a form."""
        return "image.png" if self.quality is None else "image.jpg"

    def of(self, image: NDArray[np.uint8]) -> bytes:
        """Return the file of one image, uint8 (H, W, 3)."""
        return as_png(image) if self.quality is None else as_jpeg(image, quality=self.quality)

    def text_of(self, image: NDArray[np.uint8], *, url: bool = False) -> str:
        """Return the file in base64, alone or as a ``data:`` URL."""
        text = base64.b64encode(self.of(image)).decode("ascii")
        return f"data:{self.kind};base64,{text}" if url else text


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What becomes of levels where a server takes numbers: options of every protocol that can send them.

    Parameters
    ----------
    range : (low, high), optional
        What levels 0 and 255 become, where pixels are floats; [0, 1] where nothing else is said.
    mean, std : three numbers, optional
        Taken from each color and then divided by, in the order in which the colors are sent.
    color_order : {'rgb', 'bgr'}
        In what order they are sent.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    range: Sequence[float] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    color_order: ColorOrder = "rgb"

    def check_numbers(self) -> None:
        """Raise where a value is not allowed."""
        check_choice("color_order", self.color_order, ColorOrder)
        for name, size in (("range", 2), ("mean", 3), ("std", 3)):
            given = getattr(self, name)
            if given is not None and not (
                isinstance(given, list | tuple)
                and len(given) == size
                and all(type(v) in (int, float) and math.isfinite(v) for v in given)
            ):
                raise ConfigError(f"Expected {name} as {size} numbers, got {given!r}. Correct it.")
        if self.range is not None and self.range[0] == self.range[1]:
            raise ConfigError(f"Expected range as two different numbers, got {list(self.range)}. Correct it.")
        if self.std is not None and not all(v > 0 for v in self.std):
            raise ConfigError(f"Expected std of numbers above 0, got {list(self.std)}. Correct it.")

    def check_numbers_fit(self, pixels: Pixels | None, where: str, *, files: bool = False) -> None:
        """Raise where an option has no effect on how pixels travel.

        Parameters
        ----------
        pixels : {'unit', 'levels'} or None
            What floats they are; None for whole levels and files.
        where : str
            For the sentence: what decides that.
        files : bool
            Whether they travel in files.
        """
        if files and self.color_order != "rgb":
            raise ConfigError(f"Expected color_order only where pixels are sent, got it with {where}. Remove one.")
        for name in ("range", "mean", "std"):
            if getattr(self, name) is None or (pixels == "unit" or (pixels is not None and name != "range")):
                continue
            what = "floats in a range of their own" if name == "range" else "floats"
            raise ConfigError(f"Expected {name} only where pixels are sent as {what}, got it with {where}. Remove one.")

    @property
    def numbers_identity(self) -> dict[str, str]:
        """What of a platform's identity these options decide; empty where they say nothing."""
        said = {name: getattr(self, name) for name in ("range", "mean", "std")}
        said = {name: [float(v) for v in value] for name, value in said.items() if value is not None}
        if self.color_order != "rgb":
            said["color_order"] = self.color_order
        return {"numbers": json.dumps(said, sort_keys=True)} if said else {}

    @cached_property
    def _scaled(self) -> dict[tuple[str, bool], NDArray[Any]]:
        """What each level of each sent color becomes, (3, 256), by kind of floats, and whether they go as text."""
        low, high = self.range or (0.0, 1.0)
        levels = np.arange(256, dtype=np.float64)
        bases = {"levels": levels, "unit": low + levels / 255 * (high - low)}
        mean = np.zeros(3) if self.mean is None else np.array(self.mean, np.float64)
        std = np.ones(3) if self.std is None else np.array(self.std, np.float64)
        exact = {kind: (base - mean[:, None]) / std[:, None] for kind, base in bases.items()}
        # Nine significant digits read back as the same float32.
        short = np.vectorize(lambda value: float(f"{value:.9g}"), otypes=[np.float64])
        floats = {kind: table.astype(np.float32) for kind, table in exact.items()}
        return {(kind, text): short(f) if text else f for kind, f in floats.items() for text in (False, True)}

    def numbers(self, images: Images, *, pixels: Pixels | None, layout: ImageLayout, decimal: bool) -> NDArray[Any]:
        """Return images, uint8 (N, H, W, 3), as the numbers that travel.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 3)
        pixels : {'unit', 'levels'} or None
            Which floats; None for whole levels, uint8.
        layout : {'NHWC', 'NCHW'}
        decimal : bool
            Whether float64 that are short as text and read back as the same float32, or float32.
        """
        values: NDArray[Any] = images if self.color_order == "rgb" else images[..., ::-1]
        if pixels is not None and self.range is None and self.mean is None and self.std is None:
            values = (AS_DECIMAL if decimal else AS_FLOAT32)[pixels][values]
        elif pixels is not None:
            tables = self._scaled[pixels, decimal]
            values = np.stack([tables[color][values[..., color]] for color in (0, 1, 2)], axis=-1)
        return values if layout == "NHWC" else values.transpose(0, 3, 1, 2)


def repeated_to(images: Images, size: int) -> Images:
    """Return the images, and the last one again until there are ``size``, for a server that takes no fewer."""
    missing = size - len(images)
    return images if missing <= 0 else np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])


def as_base64(image: NDArray[np.uint8]) -> str:
    """Return one image as a PNG file in base64."""
    return ImageFile().text_of(image)


def as_multipart(
    image: NDArray[np.uint8] | None, *, field: str, fields: Mapping[str, str], file: ImageFile | None = None
) -> tuple[bytes, str]:
    """Return a multipart/form-data body with the image as a file in ``field``, PNG unless said otherwise, and its type.

    Without an image it has the other fields alone.
    """
    file = file or ImageFile()
    parts: list[tuple[str, Any]] = list(fields.items())
    if image is not None:
        parts.append((field, (file.name, file.of(image), file.kind)))
    body, content_type = urllib3.encode_multipart_formdata(parts, boundary=uuid.uuid4().hex)
    return body, content_type


def as_form(fields: Mapping[str, str]) -> tuple[bytes, str]:
    """Return an application/x-www-form-urlencoded body, UTF-8, and its content type."""
    return urlencode(list(fields.items())).encode("ascii"), "application/x-www-form-urlencoded"
