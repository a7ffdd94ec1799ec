"""The data sets of the hub: the same arrays from a folder and from the hub, and a sentence for what is wrong."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.loopback_hub import serve_repository
from ttca.data.hub import LabeledImages, load_cifar10, load_cifar100, load_fairface
from ttca.errors import DataError, MissingExtraError

_PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 7, 3), dtype=np.uint8)
_CIFAR10 = {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "ship"])}
_LABELS = [2, 0, 1, 1, 0]


def _png(pixels: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _cells(images: Any) -> list[dict[str, Any]]:
    return [{"bytes": _png(pixels), "path": None} for pixels in images]


def _write(
    root: Path,
    columns: dict[str, Any],
    features: dict[str, Any],
    *,
    repo: str = "uoft-cs/cifar10/plain_text",
    name: str = "test-00000-of-00001",
) -> Path:
    """Write a parquet file as the hub does: encoded images, and the features in the schema's metadata."""
    schema = datasets.Features(features).arrow_schema
    file = root / repo / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), file)
    return file


def _write_cifar10(root: Path) -> Path:
    return _write(root, {"img": _cells(_PIXELS), "label": _LABELS}, _CIFAR10)


@pytest.fixture(autouse=True)
def _no_data_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TTCA_DATA", raising=False)


def _check_cifar10(loaded: LabeledImages) -> None:
    np.testing.assert_array_equal(loaded.images, _PIXELS)
    assert loaded.images.dtype == np.uint8
    assert list(loaded.columns) == ["label"]
    assert loaded.columns["label"].dtype == np.int64
    assert loaded.columns["label"].tolist() == _LABELS
    assert loaded.class_names == {"label": ("cat", "dog", "ship")}
    assert len(loaded) == 5


def test_reads_a_folder_given_as_root(tmp_path: Path) -> None:
    """A folder in the hub's layout gives exact pixels, labels and class names, and is left as it was."""
    file = _write_cifar10(tmp_path)
    before = (file.stat().st_mtime_ns, sorted(tmp_path.rglob("*")))
    _check_cifar10(load_cifar10("test", root=tmp_path))
    assert before == (file.stat().st_mtime_ns, sorted(tmp_path.rglob("*")))


def test_reads_the_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a root the folder named by TTCA_DATA is read."""
    _write_cifar10(tmp_path)
    monkeypatch.setenv("TTCA_DATA", str(tmp_path))
    _check_cifar10(load_cifar10("test"))


@pytest.mark.parametrize("rows", [slice(1, 4), slice(None, None, 2), slice(-2, None), slice(None, None, -1)])
def test_rows_are_those_of_a_python_slice(tmp_path: Path, rows: slice) -> None:
    """``rows`` selects what the same slice selects of the whole."""
    _write_cifar10(tmp_path)
    part = load_cifar10("test", root=tmp_path, rows=rows)
    np.testing.assert_array_equal(part.images, _PIXELS[rows])
    assert part.columns["label"].tolist() == _LABELS[rows]


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    """A split in several files is one array, and a damaged image is named by its own file and row."""
    for i, (start, stop) in enumerate([(0, 2), (2, 5)]):
        cells = _cells(_PIXELS[start:stop])
        columns = {"img": cells, "label": _LABELS[start:stop]}
        _write(tmp_path, columns, _CIFAR10, name=f"test-{i:05d}-of-00002-abc")
    _check_cifar10(load_cifar10("test", root=tmp_path))
    cells[1]["bytes"] = cells[1]["bytes"][:100]
    file = _write(tmp_path, columns, _CIFAR10, name="test-00001-of-00002-abc")
    with pytest.raises(DataError, match=rf"row 1 \(the first is 0\) of .*{file.name} .*damaged"):
        load_cifar10("test", root=tmp_path)
    assert len(load_cifar10("test", root=tmp_path, rows=slice(0, 3))) == 3
    file.unlink()
    with pytest.raises(DataError, match=r"Expected all 2 parts of the split test, each once, got \['test-00000"):
        load_cifar10("test", root=tmp_path)


def test_cifar100_and_fairface_have_their_columns(tmp_path: Path) -> None:
    """CIFAR-100 has two columns of classes; FairFace three and a flag, and its unused columns are left out."""
    names = datasets.ClassLabel(names=["a", "b"])
    _write(
        tmp_path,
        {"img": _cells(_PIXELS[:2]), "fine_label": [0, 1], "coarse_label": [1, 1]},
        {"img": datasets.Image(), "fine_label": names, "coarse_label": names},
        repo="uoft-cs/cifar100/cifar100",
        name="train-00000-of-00001",
    )
    cifar = load_cifar100("train", root=tmp_path)
    assert {k: v.tolist() for k, v in cifar.columns.items()} == {
        "fine_label": [0, 1],
        "coarse_label": [1, 1],
    }
    assert cifar.class_names == {"fine_label": ("a", "b"), "coarse_label": ("a", "b")}
    columns = {"age": [1, 0], "gender": [0, 0], "race": [1, 1], "service_test": [True, False]}
    _write(
        tmp_path,
        {"image": _cells(_PIXELS[:2]), **columns, "note": ["x", "y"]},
        {
            "image": datasets.Image(),
            "age": names,
            "gender": names,
            "race": names,
            "service_test": datasets.Value("bool"),
            "note": datasets.Value("string"),
        },
        repo="HuggingFaceM4/FairFace/0.25",
        name="validation-00000-of-00001",
    )
    faces = load_fairface("validation", root=tmp_path)
    assert {k: v.tolist() for k, v in faces.columns.items()} == {**columns, "service_test": [1, 0]}
    assert sorted(faces.class_names) == ["age", "gender", "race"]
    assert faces.columns["service_test"].dtype == np.int64


def test_unknown_split_is_refused_before_anything_is_opened() -> None:
    """A split the data set does not have is a sentence that names those it has."""
    with pytest.raises(DataError, match="'train' or 'validation' of HuggingFaceM4/FairFace, got 'test'"):
        load_fairface("test")
    with pytest.raises(DataError, match="'train' or 'test'"):
        load_cifar10("../test")


def test_missing_folder_says_what_it_must_hold(tmp_path: Path) -> None:
    """A root without the data set says what must be there and what happens without a root."""
    with pytest.raises(DataError, match=r"uoft-cs/cifar10/plain_text/test-\*\.parquet under .* no folder") as e:
        load_cifar10("test", root=tmp_path)
    assert "unset TTCA_DATA" in str(e.value)
    assert "network" in str(e.value)
    _write_cifar10(tmp_path)
    with pytest.raises(DataError, match=r"got only \['test-00000-of-00001.parquet'\]"):
        load_cifar10("train", root=tmp_path)


def test_missing_column_lists_those_found(tmp_path: Path) -> None:
    """A file without a column that is needed lists the columns it has."""
    _write(tmp_path, {"img": _cells(_PIXELS)}, {"img": datasets.Image()})
    with pytest.raises(DataError, match=r"Expected the columns \['img', 'label'\], got \['img'\] in .*missing"):
        load_cifar10("test", root=tmp_path)


@pytest.mark.parametrize(
    ("columns", "features", "said"),
    [
        ({"label": _LABELS}, {"label": datasets.Value("int64")}, "named classes"),
        ({"label": [0, 1, None, 1, 0]}, {}, r"from 0 to 2 in the column 'label', got None in row 2"),
        ({"label": [0, 1, 2, -1, 0]}, {}, r"got -1 in row 3"),
        ({"label": [0, 1, 2, 7, 0]}, {}, r"got 7 in row 3"),
        ({"img": ["a"] * 5}, {"img": datasets.Value("string")}, "row 0 .* cannot be used"),
        ({"img": [1] * 5}, {"img": datasets.Value("int64")}, "Expected encoded images in the column 'img'"),
        ({"img": [None] * 5}, {}, "row 0 .* empty cell"),
    ],
)
def test_wrong_columns_are_sentences(
    tmp_path: Path, columns: dict[str, Any], features: dict[str, Any], said: str
) -> None:
    """Labels that name no class and image columns without images are sentences with the row."""
    given = {"img": _cells(_PIXELS), "label": _LABELS, **columns}
    _write(tmp_path, given, {**_CIFAR10, **features})
    with pytest.raises(DataError, match=said):
        load_cifar10("test", root=tmp_path)


def test_fractional_labels_are_refused(tmp_path: Path) -> None:
    """A column of fractions is not a column of whole numbers, and is not rounded."""
    features = {name: datasets.ClassLabel(names=["a"]) for name in ("age", "gender", "race")}
    _write(
        tmp_path,
        {"image": _cells(_PIXELS[:1]), "age": [0], "gender": [0], "race": [0], "service_test": [0.5]},
        {"image": datasets.Image(), **features, "service_test": datasets.Value("float64")},
        repo="HuggingFaceM4/FairFace/0.25",
        name="train-00000-of-00001",
    )
    with pytest.raises(DataError, match="whole numbers in the column 'service_test', got double"):
        load_fairface("train", root=tmp_path)


def test_images_of_unequal_size_are_refused(tmp_path: Path) -> None:
    """An image whose size differs from the first one's is named by its row, with both sizes."""
    cells = [*_cells(_PIXELS[:4]), *_cells(_PIXELS[4:, :5])]
    _write(tmp_path, {"img": cells, "label": _LABELS}, _CIFAR10)
    with pytest.raises(DataError, match=r"row 4 .* 8×7 pixels .*, got 5×7"):
        load_cifar10("test", root=tmp_path)


def test_no_rows_are_a_sentence(tmp_path: Path) -> None:
    """A selection without rows, and a file without rows, are sentences and not empty arrays."""
    _write_cifar10(tmp_path)
    with pytest.raises(DataError, match="at least one row, got none"):
        load_cifar10("test", root=tmp_path, rows=slice(9, 12))
    _write(tmp_path, {"img": [], "label": []}, _CIFAR10)
    with pytest.raises(DataError, match="at least one row, got none"):
        load_cifar10("test", root=tmp_path)


def test_what_is_no_parquet_is_a_sentence(tmp_path: Path) -> None:
    """A file that is not parquet, and files whose columns disagree, are sentences with the file."""
    file = _write_cifar10(tmp_path)
    file.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"Expected a parquet file at .*Copy it again"):
        load_cifar10("test", root=tmp_path)
    file.unlink()
    _write(tmp_path, {"img": _cells(_PIXELS), "label": _LABELS}, _CIFAR10, name="test-00000-of-00002")
    other = {**_CIFAR10, "label": datasets.Value("string")}
    _write(tmp_path, {"img": _cells(_PIXELS), "label": ["a"] * 5}, other, name="test-00001-of-00002")
    with pytest.raises(DataError, match="Expected files with the column types of the hub"):
        load_cifar10("test", root=tmp_path)


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional packages the error says how to install them."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ttca\[data\]'"):
        load_cifar10("test")


def test_importing_needs_no_optional_package() -> None:
    """The modules of ttca.data can be imported where neither datasets nor scikit-learn is installed."""
    code = (
        "import sys\n"
        "for name in ('datasets', 'sklearn', 'pyarrow', 'torch', 'scipy'): sys.modules[name] = None\n"
        "import ttca.data, ttca.data.hub, ttca.data.digits, ttca.data.folder, ttca.data.cameras"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def _in_a_fresh_process(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # datasets reads HF_* once, when it is imported: only a fresh process sees another hub.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TTCA_"))}
    kept |= {"HF_HOME": str(home), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=kept, capture_output=True, text=True, timeout=120, check=False
    )


_SAY_WHAT_HAPPENS = """
from ttca.data.hub import load_cifar10
from ttca.errors import DataError
try:
    load_cifar10("test")
except DataError as error:
    import sys
    sys.stdout.write(str(error))
"""


@pytest.mark.e2e
def test_the_hub_gives_the_same_arrays_as_a_folder(tmp_path: Path) -> None:
    """Without a root the real client of the hub downloads, and what comes back is what a folder gives."""
    folder = _write_cifar10(tmp_path / "data").parent
    code = (
        "import sys, numpy as np\n"
        "from ttca.data.hub import load_cifar10\n"
        "x = load_cifar10('test', rows=slice(1, None))\n"
        "assert x.class_names == {'label': ('cat', 'dog', 'ship')}\n"
        "np.savez(sys.argv[1], images=x.images, label=x.columns['label'])"
    ).replace("sys.argv[1]", repr(str(tmp_path / "out.npz")))
    with serve_repository("uoft-cs/cifar10", "plain_text", folder) as url:
        done = _in_a_fresh_process(code, tmp_path / "home", HF_ENDPOINT=url)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["images"], _PIXELS[1:])
        assert out["label"].tolist() == _LABELS[1:]


@pytest.mark.e2e
def test_another_data_set_on_the_hub_is_a_sentence(tmp_path: Path) -> None:
    """A repository on the hub whose columns are others is refused with the columns found."""
    _write(tmp_path / "data", {"image": _cells(_PIXELS)}, {"image": datasets.Image()})
    folder = tmp_path / "data/uoft-cs/cifar10/plain_text"
    with serve_repository("uoft-cs/cifar10", "plain_text", folder) as url:
        done = _in_a_fresh_process(_SAY_WHAT_HAPPENS, tmp_path / "home", HF_ENDPOINT=url)
    assert done.returncode == 0, done.stderr
    assert "Expected the columns ['img', 'label'], got ['image'] in uoft-cs/cifar10 (test, from the hub)" in (
        done.stdout
    )


@pytest.mark.e2e
def test_offline_hub_is_a_sentence(tmp_path: Path) -> None:
    """Where the hub cannot be reached the error says so, and what to set to work without it."""
    done = _in_a_fresh_process(_SAY_WHAT_HAPPENS, tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Expected to download uoft-cs/cifar10 from the Hugging Face hub, got Connection")
    assert "Check the network, or set TTCA_DATA to a folder that holds uoft-cs/cifar10/plain_text" in done.stdout


@pytest.mark.e2e
def test_hub_without_the_data_set_is_a_sentence(tmp_path: Path) -> None:
    """A hub that answers and does not have the data set is a sentence too."""
    with serve_repository("someone/else", "plain_text", tmp_path) as url:
        done = _in_a_fresh_process(_SAY_WHAT_HAPPENS, tmp_path / "home", HF_ENDPOINT=url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Expected to download uoft-cs/cifar10 from the Hugging Face hub, got ")


_REAL = os.environ.get("TTCA_DATA")
real_data = pytest.mark.skipif(not _REAL, reason="TTCA_DATA names no folder with the real data sets")


@real_data
def test_real_cifar10() -> None:
    """The official CIFAR-10 test split opens with its class order and its first labels."""
    part = load_cifar10("test", root=_REAL, rows=slice(0, 200))
    assert part.images.shape == (200, 32, 32, 3)
    assert part.columns["label"][:8].tolist() == [3, 8, 8, 0, 6, 6, 1, 6]
    assert part.class_names["label"][:3] == ("airplane", "automobile", "bird")
    assert len(load_cifar10("test", root=_REAL, rows=slice(9_990, None))) == 10
    assert len(load_cifar10("train", root=_REAL, rows=slice(19_990, None))) == 10


@real_data
def test_real_cifar100() -> None:
    """The official CIFAR-100 opens with its 100 fine and 20 coarse classes."""
    part = load_cifar100("test", root=_REAL, rows=slice(9_900, None))
    assert part.images.shape == (100, 32, 32, 3)
    assert [len(part.class_names[name]) for name in ("fine_label", "coarse_label")] == [100, 20]
    assert part.class_names["fine_label"][:2] == ("apple", "aquarium_fish")
    assert len(load_cifar100("train", root=_REAL, rows=slice(14_990, None))) == 10


@real_data
def test_real_fairface() -> None:
    """FairFace opens at 224×224 with its nine ages, two genders and seven races."""
    part = load_fairface("validation", root=_REAL, rows=slice(4_950, None))
    assert part.images.shape == (50, 224, 224, 3)
    assert part.class_names["gender"] == ("Male", "Female")
    assert part.class_names["race"][2] == "Black"
    assert len(part.class_names["age"]) == 9
    assert set(part.columns) == {"age", "gender", "race", "service_test"}
    assert len(load_fairface("train", root=_REAL, rows=slice(7_990, None))) == 10
