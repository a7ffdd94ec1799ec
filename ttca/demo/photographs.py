"""An evening's world: photographs of digits of every size and kind in a folder, and a served reader of 224 pixels.

``ttca demo photographs FOLDER`` writes ``FOLDER/photos`` and serves until it is ended, and so does
``python -m ttca.demo.photographs FOLDER``, its earlier name. The subgroup's camera is out of focus, and the reader
learned from sharp pictures alone. With ``--no-gap`` all cameras are alike.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ttca.data.cameras import bad_camera
from ttca.data.digits import load_digits_images
from ttca.demo.world import DIGITS, SIZE, THREADS
from ttca.errors import ConfigError
from ttca.platforms.local import LocalPlatform
from ttca.platforms.server import serve

__all__ = ["CAMERA", "new_photographs", "photographs", "reader"]

#: What the subgroup's camera does to a picture of 16 pixels: about 30 points fewer right answers.
CAMERA: dict[str, float] = {"blur": 2.0, "contrast": 0.35, "veil": 60.0, "noise": 6.0}
#: The longer side of a photograph, in pixels, and how many members bring them.
_SIDES, _MEMBERS = (160, 4000), 20
_EXIF_ORIENTATION, _TURNED = 0x0112, 6


def photographs(folder: Path, *, seed: int, number: int = 300, longest: int = _SIDES[1], gap: bool = True) -> None:
    """Write photographs into ``subgroup/CLASS/MEMBER`` and ``reference/CLASS/MEMBER``, half of them each.

    Parameters
    ----------
    folder : Path
    seed : int
        Of who is whom.
    number : int
    longest : int
        Pixels of the longest side; the shortest is 160, or as much.
    gap : bool
        Whether the subgroup's camera is worse.

    Notes
    -----
    Every fourth is turned by EXIF. Of ten, one is CMYK, one gray, one RGBA, the others are RGB.
    """
    sharp, classes = load_digits_images(SIZE)
    poor = bad_camera(sharp, seed=seed, **CAMERA) if gap else sharp
    rng = np.random.default_rng([seed, 224])
    _, collective = _halves(len(classes), seed)
    sides = np.geomspace(min(_SIDES[0], longest), longest, number).astype(int)
    for i, (row, side) in enumerate(zip(collective[:number], rng.permutation(sides), strict=True)):
        group, picture = ("subgroup", poor[row]) if i % 2 else ("reference", sharp[row])
        home = folder / group / DIGITS[classes[row]] / f"member-{i % _MEMBERS + 1:02d}"
        home.mkdir(parents=True, exist_ok=True)
        _save(home / f"IMG_{i:04d}", picture, int(side), i)


def new_photographs(folder: Path, *, seed: int, number: int, longest: int, gap: bool) -> None:
    """Write :func:`photographs` into a folder that is not there yet; a kill leaves none that is half full.

    Raises
    ------
    ConfigError
        If it cannot be written there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".photos-"))
        photographs(unfinished, seed=seed, number=number, longest=longest, gap=gap)
        unfinished.rename(folder)
    except OSError as error:
        raise ConfigError(f"Expected to write {folder}, got: {error}. Choose another place.") from None


def _save(path: Path, picture: np.ndarray, side: int, number: int) -> None:
    """Write a digit as one photograph of its kind."""
    image = Image.fromarray(picture).resize((side * 3 // 4, side * 3 // 4), Image.Resampling.BICUBIC)
    # Wider than high, with paper at both sides.
    whole = Image.new("RGB", (side, image.height), tuple(int(level) for level in picture[0, 0]))
    whole.paste(image, ((side - image.width) // 2, 0))
    exif = Image.Exif()
    if number % 4 == 0:
        # As it lies on the sensor of a phone that was held upright.
        whole, exif[_EXIF_ORIENTATION] = whole.transpose(Image.Transpose.ROTATE_90), _TURNED
    kind = {1: "CMYK", 2: "L", 3: "RGBA"}.get(number % 10, "RGB")
    if kind == "RGBA":
        whole.convert(kind).save(path.with_suffix(".png"), exif=exif, compress_level=1)
    else:
        whole.convert(kind).save(path.with_suffix(".jpg"), quality=92, exif=exif)


def reader(*, seed: int, size: int = 224) -> LocalPlatform:
    """Train a reader of digits that takes photographs of a whole multiple of 16 pixels; it saw no poor camera."""
    import torch

    from ttca.proxies.distillation import Targets, train_proxy
    from ttca.proxies.options import Distilling

    if size % SIZE:
        raise ConfigError(f"Expected a size that is a multiple of {SIZE}, got {size}. 224 is one.")
    sharp, classes = load_digits_images(SIZE)
    training, _ = _halves(len(classes), seed)
    how = Distilling(architectures=("perceptron",), seed=seed, epochs=30, threads=THREADS)
    model = train_proxy(sharp[training], Targets.from_labels(classes[training], len(DIGITS)), how).proxy
    # In double precision, so that an answer does not depend on how many pictures travel with it.
    whole = torch.nn.Sequential(torch.nn.AvgPool2d(size // SIZE), model).double()
    whole.register_forward_pre_hook(lambda _model, images: (images[0].double(),))
    return LocalPlatform.from_module(whole, classes=DIGITS, image_shape=(size, size, 3), name="reader")


def _halves(number: int, seed: int) -> list[np.ndarray]:
    """Return whose pictures the reader learned from, and who could be in the collective."""
    return np.array_split(np.random.default_rng(seed).permutation(number), 2)


def _say(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def _main(argv: list[str]) -> None:
    """Write the photographs, unless they are there, and serve the reader."""
    parser = argparse.ArgumentParser(prog="python -m ttca.demo.photographs", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photographs", type=int, default=300, help="how many; half of them of the subgroup")
    parser.add_argument("--longest", type=int, default=_SIDES[1], help="pixels of the longest side")
    parser.add_argument("--size", type=int, default=224, help="pixels that the reader takes")
    parser.add_argument("--no-gap", action="store_true", help="everybody has the same camera")
    parser.add_argument("--port", type=int, default=8124)
    options = parser.parse_args(argv)
    home = options.folder / "photos"
    if not home.exists():
        new_photographs(
            home, seed=options.seed, number=options.photographs, longest=options.longest, gap=not options.no_gap
        )
    serve(reader(seed=options.seed, size=options.size), port=options.port, on_start=_say)


if __name__ == "__main__":
    _main(sys.argv[1:])
