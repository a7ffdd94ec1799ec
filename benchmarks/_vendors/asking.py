"""A vendor's printed table, turned to its emulator, and what the emulator's model says: both sides of a comparison."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks._vendors import EMULATORS
from benchmarks._vendors.base import IMAGE_SHAPE, Vendor, model_says
from ttca.config import PlatformSection
from ttca.images import Images
from ttca.platforms.vendors import table

__all__ = ["keyed", "pictures", "section", "variable"]

_BLOCK = 16


def section(vendor: str, url: str, **changes: Any) -> PlatformSection:
    """Return the printed table of a vendor, filled in as a user would, at the address of an emulator.

    Parameters
    ----------
    vendor : str
    url : str
        The emulator's; the table's own path stays.
    **changes
        Keys of ``[platform]`` that are others.
    """
    printed = table(vendor)
    for placeholder, value in EMULATORS[vendor].fills.items():
        assert placeholder in printed, f"{placeholder} stands nowhere in the table of {vendor}"
        printed = printed.replace(placeholder, value)
    own: dict[str, Any] = tomllib.loads(printed)["platform"]
    at = {"url": url + urlsplit(own["url"]).path}
    if "token_from" in own:
        at["token_from"] = {**own["token_from"], "url": url + urlsplit(own["token_from"]["url"]).path}
    options = {**own.pop("options"), "image_shape": IMAGE_SHAPE}
    return PlatformSection(**{**own, **at, "classes": tuple(own["classes"]), "options": options, **changes})


def variable(vendor: str) -> str:
    """Return the name of the variable with the key that a vendor's table names."""
    name: str = tomllib.loads(table(vendor))["platform"]["key_variable"]
    return name


@contextmanager
def keyed(vendor: str) -> Iterator[None]:
    """Set the variable of a vendor's key to what its emulator knows, and unset it afterwards."""
    name = variable(vendor)
    before = os.environ.get(name)
    os.environ[name] = f"127.0.0.1 {EMULATORS[vendor].secret}"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def pictures(vendor: type[Vendor], n: int, *, dark: int = 0, seed: int = 0) -> tuple[Images, list[int]]:
    """Return mosaics (n + dark, 64, 64, 3) and their labels, all classes in turn, the dark ones last with -1.

    No two classes are alike by a hair, so that what a JPEG or a rounded score changes is no other answer.
    """
    rng = np.random.default_rng(seed)
    classes = len(vendor.words)
    found: list[Images] = []
    while len(found) < n:
        small = rng.integers(0, 256, (IMAGE_SHAPE[0] // _BLOCK, IMAGE_SHAPE[1] // _BLOCK, 3), dtype=np.uint8)
        image = small.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)
        (said,) = model_says(image[None], classes)
        assert said.scores is not None
        best = np.sort(said.scores)
        if said.label == len(found) % classes and best[-1] - best[-2] > 0.05:
            found.append(image)
    night = rng.integers(0, 8, (dark, *IMAGE_SHAPE), dtype=np.uint8)
    return np.concatenate([np.array(found, np.uint8).reshape(-1, *IMAGE_SHAPE), night]), [
        *(i % classes for i in range(n)),
        *[-1] * dark,
    ]
