"""How fast is a member's minute, how much memory do large photographs take, and how much disk does it all need?

Run as ``python -m benchmarks members``. δ is applied to images in memory, which uses one core whatever there is.
``ttca apply`` gets large photographs in a process of its own, whose peak Linux says. With ``--install``, pip installs a
wheel of this repository's base into a new environment, which is measured without pip itself.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import venv
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ttca.errors import ConfigError
from ttca.members import move_bytes
from ttca.perturbations import PerturbationSet
from ttca.platforms.protocols.encoding import as_png
from ttca.preparation import Preparation

__all__ = ["QUICK", "bomb", "main", "peak_bytes"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--images", "64", "--repeats", "3")

HOME = Path(__file__).resolve().parents[1]
CLASSES, SIDE, EPSILON = 10, 224, 4
# What a new environment has with pip.
_PIPS_OWN = ("pip*", "setuptools*", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
# Runs a command and then says the peak of its memory; what its parent had before counts for nothing.
_MEASURED = """
import sys
from ttca.cli import main
try:
    main()
finally:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(peak.split()[1], file=sys.__stderr__)
"""
HOW = {
    "apply_per_s": f"images a second through PerturbationSet.apply, {SIDE} × {SIDE}, {CLASSES} classes mixed, one "
    "call; median over the repeats",
    "apply_one_per_s": "the same, one image a call",
    "photograph_s": "seconds from the bytes of a JPEG of 12 megapixels to those of the PNG to submit, decoding "
    "included; median over the repeats",
    "peak_mb": "megabytes (10^6 bytes) that `ttca apply` had at most, as Linux says it, interpreter included: a grey "
    "and a color JPEG of 50 megapixels, and a PNG that has 13,000 × 13,000 pixels, which is refused",
    "install_mb": "megabytes of a new environment after `pip install` of the wheel, without pip and what came with it: "
    "files without compiled bytecode, all files, and the blocks that they take on disk, as du counts them",
}


def main(argv: list[str]) -> dict[str, Any]:
    """Measure, and return the numbers and how each was made."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks members", description=__doc__)
    parser.add_argument("--images", type=int, default=512, help="images of one call")
    parser.add_argument("--repeats", type=int, default=9, help="repeats of every measurement of time")
    parser.add_argument("--install", action="store_true", help="also install the base from a wheel; asks the index")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.images < 1 or options.repeats < 1:
        raise ConfigError(f"Expected at least one image and one repeat, got {options.images} and {options.repeats}.")
    made = _set()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.images, SIDE, SIDE, 3), dtype=np.uint8)
    classes = rng.integers(0, CLASSES, options.images)
    photograph = _jpeg(Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)).resize((4000, 3000)))

    def each() -> None:
        for image in images:
            made.apply(image, 3)

    together, alone = (
        options.images / _median(options.repeats, work) for work in (lambda: made.apply(images, classes), each)
    )
    seconds = _median(options.repeats, lambda: as_png(move_bytes(made, photograph, 3).after))
    result: dict[str, Any] = {
        "how": HOW,
        "images": options.images,
        "repeats": options.repeats,
        "apply_per_s": together,
        "apply_one_per_s": alone,
        "photograph_s": seconds,
        "peak_mb": _peaks(made),
    }
    if options.install:
        result["install_mb"] = _installed()
    return result


def _set() -> PerturbationSet:
    delta = np.random.default_rng(1).integers(-EPSILON, EPSILON + 1, (CLASSES, SIDE, SIDE, 3)).astype(np.int8)
    names = tuple(f"class-{c}" for c in range(CLASSES))
    return PerturbationSet(delta, EPSILON, names, "people", "f" * 64, preparation=Preparation(size=SIDE))


def _median(repeats: int, work: Callable[[], object]) -> float:
    """Return the median of the seconds, after a first time that does not count."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _jpeg(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


def bomb() -> bytes:
    """Return a PNG of half a megabyte that says, truly, that it has 13,000 × 13,000 black pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = 13_000 * (13_000 * 3 + 1)
    # A hundred rows, compressed so that they can be repeated; of zeros alone the checksum is their number.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    rows = packer.compress(bytes(size // 130)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = b"\x78\xda" + rows * 130 + b"\x03\0" + struct.pack(">HH", size % 65521, 1)
    head = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def peak_bytes(folder: Path, words: list[str]) -> tuple[int, int]:
    """Run ttca in a process of its own, in a folder; return its exit status and the most bytes that it had.

    Raises
    ------
    ConfigError
        Where this system does not say it.
    """
    if sys.platform != "linux":
        raise ConfigError(f"Expected Linux, which says how much memory a process had, got {sys.platform}.")
    code = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HOME)!r})\n{_MEASURED}", *words]
    done = subprocess.run(code, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, int(done.stderr.split()[-1]) * 1024


def _peaks(made: PerturbationSet) -> dict[str, float]:
    wide = (8192, 6144)
    files = {
        "grey.jpg": _jpeg(Image.new("L", wide, 90)),
        "color.jpg": _jpeg(Image.new("RGB", wide, (9, 99, 199))),
        "bomb.png": bomb(),
    }
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made.save(folder / "set.safetensors")
        for file, data in files.items():
            (folder / file).write_bytes(data)
            words = ["apply", "set.safetensors", file, "--class", "class-1", "--anyway"]
            code, peak = peak_bytes(folder, words)
            if code != (file == "bomb.png"):
                raise ConfigError(f"Expected {file} to be {'refused' if code == 0 else 'applied'}, got the contrary.")
            found[file] = peak / 1e6
    return found


def _installed() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A copy: building leaves files beside the sources.
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(HOME)]
        subprocess.run(wheel, check=True)
        (built,) = folder.glob("ttca-*.whl")
        venv.create(folder / "new", with_pip=True)
        (site,) = (folder / "new" / "lib").glob("python*/site-packages")
        python = folder / "new" / "bin" / "python"
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(built)], check=True)
        for own in (path for name in _PIPS_OWN for path in site.glob(name)):
            shutil.rmtree(own) if own.is_dir() else own.unlink()
        files = [path for path in (folder / "new").rglob("*") if path.is_file() and not path.is_symlink()]
        return {
            "files": sum(path.stat().st_size for path in files if path.suffix != ".pyc") / 1e6,
            "with_bytecode": sum(path.stat().st_size for path in files) / 1e6,
            "on_disk": sum(path.lstat().st_blocks for path in (folder / "new").rglob("*")) * 512 / 1e6,
        }
