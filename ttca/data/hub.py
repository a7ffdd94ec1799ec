"""CIFAR-10/100 and FairFace as arrays, from the Hugging Face hub or from a folder laid out like it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttca.data.decoding import decode_rgb, for_each
from ttca.errors import DataError, MissingExtraError
from ttca.images import Images
from ttca.renamed import old_names
from ttca.values import Value

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["LabeledImages", "load_cifar10", "load_cifar100", "load_fairface"]

_ROOT_VARIABLE = "TTCA_DATA"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


@dataclass(frozen=True, eq=False, repr=False)
class LabeledImages(Value):
    """A split of a data set, in its official order.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    columns : dict of str to int64 array, shape (N,)
        The other columns, by the data set's own names.
    class_names : dict of str to tuple of str
        For each column of classes, the name of class 0, 1, …
    """

    images: Images
    columns: dict[str, NDArray[np.int64]]
    class_names: dict[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class _Source:
    """Where a data set lives on the hub, and what its columns are called there."""

    repo: str
    folder: str
    splits: tuple[str, ...]
    image: str
    classes: tuple[str, ...]
    plain: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[str]:
        return [self.image, *self.classes, *self.plain]


@dataclass(frozen=True)
class _Opened:
    """A split that is open and not yet decoded, and which of its rows came from which file."""

    dataset: Dataset
    origins: tuple[tuple[str, int], ...]

    def place(self, row: int) -> str:
        for name, count in self.origins:
            if row < count:
                return f"row {row} (the first is 0) of {name}"
            row -= count
        return f"row {row}"


_CIFAR10 = _Source("uoft-cs/cifar10", "plain_text", ("train", "test"), "img", ("label",))
_CIFAR100 = _Source("uoft-cs/cifar100", "cifar100", ("train", "test"), "img", ("fine_label", "coarse_label"))
_FAIRFACE = _Source(
    "HuggingFaceM4/FairFace",
    "0.25",
    ("train", "validation"),
    "image",
    ("age", "gender", "race"),
    ("service_test",),
)


def load_cifar10(split: str, *, root: str | os.PathLike[str] | None = None, rows: slice | None = None) -> LabeledImages:
    """Return CIFAR-10: 32×32 images and the column ``label``.

    Parameters
    ----------
    split : {"train", "test"}
    root : path, optional
        A folder laid out as the hub is: ``uoft-cs/cifar10/plain_text/<split>-*.parquet``. When not given, the
        environment variable ``TTCA_DATA``; when that is not set either, the Hugging Face hub, which needs a
        network.
    rows : slice, optional
        Which rows to decode; all when not given.

    Returns
    -------
    LabeledImages

    Raises
    ------
    DataError
        If the split, a file, a column, a label or an image is not as it must be, or the hub is not reached.
    MissingExtraError
        If ``datasets`` is not installed.
    """
    return _load(_CIFAR10, split, root, rows)


def load_cifar100(
    split: str, *, root: str | os.PathLike[str] | None = None, rows: slice | None = None
) -> LabeledImages:
    """Return CIFAR-100: 32×32 images and the columns ``fine_label`` (100) and ``coarse_label`` (20).

    Parameters
    ----------
    split : {"train", "test"}
    root : path, optional
        A folder with ``uoft-cs/cifar100/cifar100/<split>-*.parquet``, else as for `load_cifar10`.
    rows : slice, optional
        Which rows to decode; all when not given.

    Returns
    -------
    LabeledImages

    Raises
    ------
    DataError, MissingExtraError
        As `load_cifar10`.
    """
    return _load(_CIFAR100, split, root, rows)


def load_fairface(
    split: str, *, root: str | os.PathLike[str] | None = None, rows: slice | None = None
) -> LabeledImages:
    """Return FairFace (margin 0.25): 224×224 faces; ``age``, ``gender``, ``race``, ``service_test`` (0 or 1).

    Parameters
    ----------
    split : {"train", "validation"}
    root : path, optional
        A folder with ``HuggingFaceM4/FairFace/0.25/<split>-*.parquet``, else as for `load_cifar10`.
    rows : slice, optional
        Which rows to decode; all when not given. A decoded row takes 147 kB.

    Returns
    -------
    LabeledImages

    Raises
    ------
    DataError, MissingExtraError
        As `load_cifar10`.
    """
    return _load(_FAIRFACE, split, root, rows)


def _load(source: _Source, split: str, root: str | os.PathLike[str] | None, rows: slice | None) -> LabeledImages:
    if split not in source.splits:
        known = " or ".join(repr(s) for s in source.splits)
        raise DataError(f"Expected the split {known} of {source.repo}, got {split!r}. Choose one of these.")
    try:
        import datasets  # noqa: F401
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError(f"Reading {source.repo}", "data") from error
    chosen = root if root is not None else os.environ.get(_ROOT_VARIABLE) or None
    opened = _from_hub(source, split) if chosen is None else _from_folder(source, split, Path(chosen))
    found = _decode(source, opened, rows)
    del opened
    # The encoded photographs are as large as some data sets; Arrow would keep their memory for itself.
    pa.default_memory_pool().release_unused()
    return found


def _from_hub(source: _Source, split: str) -> _Opened:
    import datasets

    try:
        dataset = datasets.load_dataset(source.repo, source.folder, split=split)
    except Exception as error:  # the hub's client raises many unrelated types, and others with each version
        said = str(error).strip().split("\n", 1)[0]
        raise DataError(
            f"Expected to download {source.repo} from the Hugging Face hub, got {type(error).__name__}: {said}. Check "
            f"the network, or set {_ROOT_VARIABLE} to a folder that holds "
            f"{source.repo}/{source.folder}/{split}-*.parquet."
        ) from error
    return _Opened(dataset, ((f"{source.repo} ({split}, from the hub)", len(dataset)),))


def _from_folder(source: _Source, split: str, root: Path) -> _Opened:
    # Parquet straight into memory: the reader of `datasets` would write an Arrow copy into a cache first.
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    tables, origins = [], []
    for file in _shards(source, split, root):
        try:
            found = pq.read_schema(file).names
            _check_columns(source, found, str(file))
            table = pq.read_table(file, columns=source.wanted)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"Expected a parquet file at {file}, got {type(error).__name__}: {error}. Copy it again from the hub."
            ) from error
        tables.append(table)
        origins.append((str(file), table.num_rows))
    try:
        dataset = Dataset(pa.concat_tables(tables))
    except (TypeError, ValueError, KeyError, pa.ArrowException) as error:
        names = ", ".join(name for name, _ in origins)
        raise DataError(
            f"Expected files with the column types of the hub, got {type(error).__name__}: {error} in "
            f"{names}. Copy them again from the hub."
        ) from error
    return _Opened(dataset, tuple(origins))


def _shards(source: _Source, split: str, root: Path) -> list[Path]:
    folder = root / source.repo / source.folder
    wanted = f"{source.repo}/{source.folder}/{split}-*.parquet"
    files = sorted(folder.glob(f"{split}-*.parquet")) if folder.is_dir() else []
    if not files:
        there = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else None
        got = f"no folder {folder}" if there is None else f"only {there} in {folder}"
        raise DataError(
            f"Expected {wanted} under {root}, got {got}. Copy the data set there from the hub, in the folders it has "
            f"on the hub. Or unset {_ROOT_VARIABLE} (and pass no root) to download it from the hub, which needs a "
            "network."
        )
    marks = [m.groups() for m in (_SHARD.search(f.name) for f in files) if m]
    if marks and (len(marks) != len(files) or sorted(marks) != _complete(int(marks[0][1]))):
        raise DataError(
            f"Expected all {int(marks[0][1])} parts of the split {split}, each once, got "
            f"{[f.name for f in files]} in {folder}. Copy the missing parts from the hub and remove the others."
        )
    return files


def _complete(parts: int) -> list[tuple[str, ...]]:
    return [(f"{i:05d}", f"{parts:05d}") for i in range(parts)]


def _check_columns(source: _Source, found: list[str], where: str) -> None:
    missing = [name for name in source.wanted if name not in found]
    if missing:
        raise DataError(
            f"Expected the columns {source.wanted}, got {found} in {where}: {missing} missing. "
            f"Use the files of {source.repo}, configuration {source.folder}."
        )


def _decode(source: _Source, opened: _Opened, rows: slice | None) -> LabeledImages:
    import pyarrow as pa
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    dataset = opened.dataset
    first = opened.origins[0][0]
    _check_columns(source, list(dataset.column_names), first)
    dataset = dataset.select_columns(source.wanted)
    class_names = {}
    for name in source.classes:
        feature = dataset.features[name]
        if not isinstance(feature, ClassLabel):
            raise DataError(
                f"Expected the column {name!r} to hold named classes (ClassLabel), got {feature} in {first}. "
                f"Use the files of {source.repo} as the hub has them."
            )
        class_names[name] = tuple(feature.names)
    numbers = range(len(dataset))[rows if rows is not None else slice(None)]
    if not numbers:
        raise DataError(
            f"Expected at least one row, got none: {rows} of {len(dataset)} rows in {first}. Ask for other rows."
        )
    try:
        # Encoded bytes: decoding is ours, on all cores, and can say which row is damaged.
        dataset = dataset.cast_column(source.image, ImageFeature(decode=False))
        table = dataset.select(numbers).with_format("arrow")[:]
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"Expected encoded images in the column {source.image!r}, got {type(error).__name__}: {error} in "
            f"{first}. Use the files of {source.repo} as the hub has them."
        ) from error
    columns = {
        name: _integers(table[name], name, len(class_names.get(name, "01")), opened, numbers)
        for name in (*source.classes, *source.plain)
    }
    images = _images(list(_encoded(table[source.image])), opened, numbers)
    return LabeledImages(images, columns, class_names)


def _integers(column: Any, name: str, classes: int, opened: _Opened, numbers: range) -> NDArray[np.int64]:
    import pyarrow as pa

    try:
        values: NDArray[np.int64] = column.cast(pa.int64()).fill_null(-1).to_numpy().astype(np.int64)
    except pa.ArrowException as error:
        raise DataError(
            f"Expected whole numbers in the column {name!r}, got {column.type} in {opened.origins[0][0]}. "
            "Copy the file again from the hub."
        ) from error
    wrong = np.flatnonzero((values < 0) | (values >= classes))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"Expected values from 0 to {classes - 1} in the column {name!r}, got {column[row].as_py()} in "
            f"{opened.place(numbers[row])}. Leave out rows without a label."
        )
    return values


def _encoded(column: Any) -> Iterator[bytes | None]:
    for chunk in column.chunks:
        yield from chunk.field("bytes").to_pylist()


def _images(encoded: list[bytes | None], opened: _Opened, numbers: range) -> Images:
    def pixels(i: int, size: tuple[int, int] | None = None) -> Images:
        data = encoded[i]
        try:
            if data is None:
                raise DataError("Expected an image, got an empty cell. Copy the file again from the hub.")
            return decode_rgb(data, size=size)
        except DataError as error:
            raise DataError(f"The image in {opened.place(numbers[i])} cannot be used. {error}") from error

    first = pixels(0)
    size = (first.shape[0], first.shape[1])
    images = np.empty((len(encoded), *first.shape), dtype=np.uint8)

    def fill(i: int) -> None:
        images[i] = pixels(i, size)

    for_each(fill, len(encoded))
    return images


__getattr__ = old_names(__name__, LabelledImages=LabeledImages)
