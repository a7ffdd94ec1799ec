"""How images travel: as lossless PNG, as base64 or as numbers; what arrives is what was measured, to the last bit."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Literal

import numpy as np
import urllib3
from numpy.typing import NDArray
from PIL import Image

from ttca.errors import ConfigError
from ttca.images import Images, ImageShape

__all__ = [
    "AS_DECIMAL",
    "AS_FLOAT32",
    "ImageLayout",
    "Pixels",
    "as_base64",
    "as_lists",
    "as_multipart",
    "as_png",
    "check_image_shape",
]

ImageLayout = Literal["NHWC", "NCHW"]
Pixels = Literal["unit", "levels"]

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


def as_png(image: NDArray[np.uint8]) -> bytes:
    """Return one image, uint8 (H, W, 3), as a PNG file. Little compression: it is lossless at any level."""
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def as_base64(image: NDArray[np.uint8]) -> str:
    """Return one image as a PNG file in base64."""
    return base64.b64encode(as_png(image)).decode("ascii")


def as_lists(images: Images, *, pixels: Pixels | None, layout: ImageLayout = "NHWC") -> list[Any]:
    """Return images (N, H, W, 3) as nested lists: whole levels where ``pixels`` is None, else decimals."""
    values: NDArray[Any] = images if layout == "NHWC" else images.transpose(0, 3, 1, 2)
    if pixels is not None:
        values = AS_DECIMAL[pixels][values]
    nested: list[Any] = values.tolist()
    return nested


def as_multipart(image: NDArray[np.uint8], *, field: str, fields: Mapping[str, str]) -> tuple[bytes, str]:
    """Return a multipart/form-data body with the image as a PNG file in ``field``, and its content type."""
    parts: list[tuple[str, Any]] = [*fields.items(), (field, ("image.png", as_png(image), "image/png"))]
    body, content_type = urllib3.encode_multipart_formdata(parts, boundary=uuid.uuid4().hex)
    return body, content_type
