"""Backbones: networks that somebody published with their weights; where they lie, and what is known about them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ttca.proxies.registry import architecture_name, list_architectures

__all__ = [
    "NO_ONNX",
    "ONNX",
    "SUFFIXES",
    "WEIGHTS_FOLDER",
    "Backbone",
    "family_of",
    "hub_backbone",
    "in_cache",
    "in_folder",
    "in_packages",
    "read_backbone",
]

#: The variable that names the folder of weights.
WEIGHTS_FOLDER = "TTCA_WEIGHTS"
#: The architecture of a backbone whose file holds its own network.
ONNX = "onnx"
SUFFIXES = (".safetensors", ".onnx")
#: Said where an ONNX file is to be read and cannot be.
NO_ONNX = "Expected onnx and onnx2torch for an ONNX file, got no such packages. Install them: pip install 'ttca[onnx]'"
_GROUP = "ttca.weights"
_HUB = "https://huggingface.co/"
_UNKNOWN = "unknown"
#: A header of safetensors that is longer is none.
_LONGEST_HEADER = 10**8

Where = Literal["file", "folder", "package", "cache", "hub"]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network with weights that were learned elsewhere, from other images and for other classes.

    Parameters
    ----------
    name : str
        What it is called: timm's name, or its file's.
    architecture : str
        ``timm/NAME``, one of :func:`ttca.proxies.registry.list_architectures`, ``module:function``, or ``onnx``: then
        the file holds the network too.
    source, license : str
        Who published it where, and under which license, as far as the file or its package says.
    digest : str
        SHA-256 of the file, 64 hex digits.
    path : str
        Where the file lies here. It is no part of what the backbone *is*.
    found : {"file", "folder", "package", "cache", "hub"}
        How it was come by.
    outputs : int, optional
        How many classes it was published for.
    labels : str
        The name of that set of classes, where the file says it.
    side : int, optional
        Height and width of the images that it was made for, in pixels.
    fixed : bool
        Whether it takes images of that size alone; others are resized for it.
    mean, std : tuple of float, optional
        What its images, float in [0, 1], are normalized by; None where the network does so itself or timm says it.
    megabytes : float
    """

    name: str
    architecture: str
    source: str
    license: str
    digest: str
    path: str
    found: Where = "file"
    outputs: int | None = None
    labels: str = ""
    side: int | None = None
    fixed: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    megabytes: float = 0.0

    def __post_init__(self) -> None:
        if self.architecture != ONNX:
            architecture_name(self.architecture)
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None:
                numbers = tuple(float(x) for x in given)
                if len(numbers) != 3 or (name == "std" and min(numbers) <= 0):
                    raise ValueError(f"Expected {name} of {self.name} as three numbers, got {given!r}.")
                object.__setattr__(self, name, numbers)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides a proxy that starts from it, JSON-able: neither where the file lies nor what it is called."""
        return {
            "architecture": self.architecture,
            "weights": self.digest,
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
        }

    @property
    def shown(self) -> dict[str, str]:
        """What row, report and members' file say of it: name, architecture, source, license and digest."""
        return {name: getattr(self, name) for name in ("name", "architecture", "source", "license", "digest")}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Backbone:
        """Return what :meth:`to_dict` wrote down.

        Raises
        ------
        ValueError
            If it is something else.
        """
        try:
            return cls(**said)
        except TypeError as error:
            raise ValueError(f"Expected a backbone as ttca writes one down, got another object ({error}).") from None

    def check(self) -> None:
        """Raise ValueError where the file is gone, or is another one than it was."""
        path = Path(self.path)
        if not path.is_file():
            raise ValueError(f"Expected the backbone {self.name} at {path}, got nothing there. Put the file back.")
        if _sha256(path) != self.digest:
            raise ValueError(f"Expected the backbone {self.name} at {path} as it was, got another file. Put it back.")


def family_of(architecture: str) -> str:
    """Return an architecture without timm's tag, which says what its weights were learned from."""
    return architecture.partition(".")[0] if architecture.startswith("timm/") else architecture


def read_backbone(path: Path, *, architecture: str = "", found: Where = "file", **known: str) -> Backbone:
    """Return what a ``.safetensors`` or ``.onnx`` file says of itself; no network is made.

    Parameters
    ----------
    path : Path
    architecture : str
        The network that the weights belong to, where the file does not say so.
    found : str
        How it was come by.
    **known : str
        ``name``, ``source`` and ``license``, where the file says none.

    Raises
    ------
    ValueError
        If the file cannot be read, is of another kind, or does not say to which network its weights belong.
    """
    if path.suffix not in SUFFIXES:
        how = (
            f" Convert it once: ttca weights convert {path.name} {path.stem}.safetensors"
            if path.suffix in (".pth", ".pt", ".bin", ".ckpt")
            else ""
        )
        raise ValueError(f"Expected weights as .safetensors or .onnx, got {path.name}, which ttca never opens.{how}")
    try:
        digest, size = _sha256(path), path.stat().st_size
        said = _onnx_facts(path) if path.suffix == ".onnx" else _safetensors_facts(path)
    except OSError as error:
        raise ValueError(f"Expected weights at {path}, got a file that cannot be read: {error}.") from None
    named = ONNX if path.suffix == ".onnx" else said.get("architecture") or architecture or _by_name(path.stem)
    if not named:
        raise ValueError(
            f"Expected {path.name} to say which network its weights belong to, got none. Name one in architectures, or "
            "write it into the file: ttca weights convert FILE OUT --architecture timm/NAME"
        )
    backbone = Backbone(
        name=said.get("name") or known.get("name") or path.stem,
        architecture=named,
        source=said.get("source") or known.get("source") or path.name,
        license=said.get("license") or known.get("license") or _UNKNOWN,
        digest=digest,
        path=str(path.absolute()),
        found=found,
        outputs=said.get("outputs"),
        labels=said.get("labels", ""),
        side=said.get("side"),
        fixed=bool(said.get("side")),
        mean=said.get("mean"),
        std=said.get("std"),
        megabytes=size / 1e6,
    )
    return _as_timm_knows(backbone) if named.startswith("timm/") else backbone


def in_folder() -> list[Backbone]:
    """Return what lies in the folder that the variable ``TTCA_WEIGHTS`` names, by name.

    Raises
    ------
    ValueError
        If there is no such folder, or a file in it does not say what it is.
    """
    named = os.environ.get(WEIGHTS_FOLDER)
    if not named:
        return []
    folder = Path(named)
    if not folder.is_dir():
        raise ValueError(f"Expected {WEIGHTS_FOLDER} to name a folder of weights, got {named!r}. Correct or unset it.")
    return [read_backbone(p, found="folder") for p in sorted(folder.iterdir()) if p.suffix in SUFFIXES]


def in_packages() -> list[Backbone]:
    """Return what installed packages offer: entry points of the group ``ttca.weights``.

    Each names the path of a ``.safetensors`` or ``.onnx`` file, or a function that returns it. Source and license are
    the package's, where the file says none.

    Raises
    ------
    ValueError
        If a package offers something else.
    """
    offered = sorted(importlib.metadata.entry_points(group=_GROUP), key=lambda e: e.name)
    return [_from_package(entry) for entry in offered]


def in_cache() -> list[Backbone]:
    """Return timm's weights that lie in the cache of the Hugging Face hub, by name; nothing is downloaded.

    Without timm there are none.
    """
    files = dict(_cached_files())
    if not files:
        return []
    try:
        import timm
    except ImportError:
        return []
    return [
        _of_hub(name, path, "cache")
        for name, path in sorted(files.items())
        if timm.is_model(name) and timm.get_pretrained_cfg(name, allow_unregistered=False) is not None
    ]


def hub_backbone(architecture: str, *, download: bool) -> Backbone:
    """Return timm's own weights of ``timm/NAME``: from the cache, else from the hub where that is allowed.

    Raises
    ------
    ValueError
        If timm has none, or they cannot be had.
    """
    import timm

    name = architecture.removeprefix("timm/")
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if known is None or not known.hf_hub_id:
        raise ValueError(f"Expected a model that timm has weights of on the hub, got {architecture}.")
    tagged = str(known.hf_hub_id).removeprefix("timm/")
    cached = dict(_cached_files()).get(tagged)
    if cached is not None:
        return _of_hub(tagged, cached, "cache")
    if not download:
        raise ValueError(f"Expected weights of {architecture} in the hub's cache, got none there.")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        path = Path(hf_hub_download(known.hf_hub_id, "model.safetensors"))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ValueError(
            f"Expected weights of {architecture} from {_HUB}{known.hf_hub_id}, got: {error}. Connect to the network, "
            f"or put a .safetensors file into the folder that {WEIGHTS_FOLDER} names."
        ) from None
    return _of_hub(tagged, path, "hub")


def _of_hub(name: str, path: Path, found: Where) -> Backbone:
    return read_backbone(path, architecture=f"timm/{name}", found=found, name=name, source=f"{_HUB}timm/{name}")


def _cached_files() -> Iterator[tuple[str, Path]]:
    """Yield timm's models in the hub's cache with their safetensors: what refs/main says lies under snapshots."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    for repository in sorted(cache.glob("models--timm--*")):
        with contextlib.suppress(OSError):
            revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
            path = repository / "snapshots" / revision / "model.safetensors"
            if path.is_file():
                yield repository.name.removeprefix("models--timm--"), path


def _from_package(entry: importlib.metadata.EntryPoint) -> Backbone:
    try:
        offered = entry.load()
        path = Path(offered() if callable(offered) else offered)
    except Exception as error:
        raise ValueError(
            f"Expected weights from the entry point {entry.value}, got: {error!r}. Uninstall that package."
        ) from None
    facts: dict[str, str] = {"name": entry.name}
    if entry.dist is not None:
        about = entry.dist.metadata
        said = next((about[k] for k in ("License-Expression", "License") if k in about), "")
        facts |= {"source": f"{about['Name']} {entry.dist.version}", "license": said.partition("\n")[0]}
    return read_backbone(path, found="package", **facts)


def _safetensors_facts(path: Path) -> dict[str, Any]:
    """Return what the header says; ttca's own proxies say their architecture and classes in words of their own."""
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        try:
            if not 0 < size < _LONGEST_HEADER:
                raise ValueError("it has no header")
            header = json.loads(file.read(size))
            said = header.get("__metadata__", {}) if isinstance(header, dict) else None
            if said is None:
                raise ValueError("its header is no object")
            facts: dict[str, Any] = {k: str(said[k]) for k in ("name", "source", "license", "labels") if said.get(k)}
            if said.get("architecture"):
                facts["architecture"] = str(said["architecture"])
            if "architectures" in said:
                names = json.loads(said["architectures"])
                if len(names) != 1:
                    raise ValueError(f"it is an ensemble of {len(names)} models, where one can be a backbone")
                facts |= {"architecture": names[0], "outputs": int(said["classes"])}
            facts |= {k: tuple(json.loads(said[k])) for k in ("mean", "std") if said.get(k)}
            if said.get("outputs"):
                facts["outputs"] = int(said["outputs"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"Expected weights as safetensors in {path}, got another file: {error}.") from None
    return facts


def _onnx_facts(path: Path) -> dict[str, Any]:
    try:
        import onnx
    except ImportError:
        raise ValueError(NO_ONNX) from None
    try:
        model = onnx.load(str(path), load_external_data=False)
        given = {tensor.name for tensor in model.graph.initializer}
        asked = [value for value in model.graph.input if value.name not in given]
        shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*asked, *model.graph.output)]
        if len(asked) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (0, 3):
            raise ValueError(f"its inputs are {shapes[: len(asked)]}, where one batch of (N, 3, H, W) is needed")
        said = {p.key: p.value for p in model.metadata_props}
        facts: dict[str, Any] = {k: said[k] for k in ("name", "source", "license", "labels") if said.get(k)}
        facts |= {k: tuple(json.loads(said[k])) for k in ("mean", "std") if said.get(k)}
    except Exception as error:
        # protobuf's errors have no common root but Exception.
        raise ValueError(f"Expected a network as ONNX in {path}, got another file: {error}.") from None
    height, width = shapes[0][2:]
    if height and height == width:
        facts["side"] = height
    if len(shapes[-1]) == 2 and shapes[-1][1]:
        facts["outputs"] = shapes[-1][1]
    return facts


def _by_name(stem: str) -> str:
    """Return the architecture that a file is named after: one of ours, or timm's; else nothing."""
    if stem in list_architectures():
        return stem
    with contextlib.suppress(ImportError):
        import timm

        if timm.is_model(stem):
            return f"timm/{stem}"
    return ""


def _as_timm_knows(backbone: Backbone) -> Backbone:
    """Return a backbone with what timm knows about its weights, where the file said nothing."""
    try:
        import timm
    except ImportError:
        return backbone
    name = backbone.architecture.removeprefix("timm/")
    if not timm.is_model(name):
        raise ValueError(f"Expected a name that timm.create_model knows, got {name!r} in {backbone.path}.")
    known = timm.get_pretrained_cfg(name)
    if known is None:
        return backbone
    license = str(known.license) if backbone.license == _UNKNOWN and known.license else backbone.license
    outputs = known.num_classes if backbone.outputs is None else backbone.outputs
    return replace(
        backbone, license=license, outputs=outputs, side=known.input_size[-1], fixed=bool(known.fixed_input_size)
    )


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _hashed(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _hashed(path: str, _size: int, _changed: int) -> str:
    """Return a file's SHA-256, once for each state of it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
