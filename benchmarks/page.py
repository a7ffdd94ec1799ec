"""What does a browser's own decoder change on the members' page, and how long does a photograph take there?

Run as ``python -m benchmarks page``; needs Chromium. The page's arithmetic gives Python's levels exactly
(``tests/test_page.py``). What comes before it, decoding, is the browser's. *Ours.*
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import struct
import tempfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from sklearn.datasets import load_sample_images

from benchmarks._browser import Browser
from ttca.attacks.options import Perturbing
from ttca.attacks.universal import Examples, SignDescent
from ttca.data.photographs import read_photograph
from ttca.demo.world import DIGITS, SIZE, digits_world
from ttca.errors import ConfigError
from ttca.images import Images
from ttca.perturbations import PerturbationSet
from ttca.preparation import Preparation
from ttca.proxies.distillation import Targets, train_proxy
from ttca.proxies.options import Distilling
from ttca.publishing import members_page

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--people", "40", "--turns", "3")

#: What the platform of the photographs takes, in pixels.
TARGET = 224
#: How much larger than the platform's image a digit is photographed.
ENLARGED = 24
EPSILON = 4
#: Red, green and blue of Display P3 as a profile names them (XYZ under D50).
_P3 = {"r": (0.51512, 0.24120, -0.00105), "g": (0.29198, 0.69225, 0.04189), "b": (0.15710, 0.06657, 0.78407)}
_MEGAPIXELS = (4000, 3000)

#: Reads a file as the page does, and returns its levels as decoded and as prepared.
_READ = """
async function read(file, kind, way, whole) {
  const picture = await readPhoto(new Blob([fromBase64(file)], {type: kind}));
  const text = (bytes) => {
    const parts = [];
    for (let at = 0; at < bytes.length; at += 32768) parts.push(String.fromCharCode(...bytes.subarray(at, at + 32768)));
    return btoa(parts.join(""));
  };
  const {w, h} = picture;
  const decoded = whole ? text(resample(picture, [0, 0, w, h], w, h)) : "";
  return {w, h, decoded, prepared: text(prepared(picture, way, null))};
}
"""
#: A photograph of 12 megapixels, decoded.
_PHOTOGRAPH = """
(async () => {
  const canvas = new OffscreenCanvas(WIDTH, HEIGHT);
  const picture = new ImageData(WIDTH, HEIGHT);
  let state = 1;
  for (let i = 0; i < picture.data.length; i++) {
    picture.data[i] = i % 4 === 3 ? 255 : (state = (state * 48271) % 2147483647) >> 8 & 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  globalThis.photo = await readPhoto(await canvas.convertToBlob({type: "image/jpeg", quality: 0.9}));
})()
"""
_APPLY = "moved(prepared(photo, {fit: 'FIT', size: [TARGET, TARGET]}, null), the.set.delta[0], the.set.epsilon); 0"

Encoder = Callable[[Image.Image], tuple[bytes, str]]


def main(argv: list[str]) -> dict[str, Any]:
    """Compare Chromium's decoding with Pillow's on photographs and on people's answers, and take the page's time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks page", description=__doc__)
    parser.add_argument("--people", type=int, default=599, help="test people whose pictures are photographed")
    parser.add_argument("--turns", type=int, default=15, help="how often a photograph of 12 megapixels is prepared")
    parser.add_argument("--seed", type=int, default=0, help="seed of people and platform")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.people < 2 or options.turns < 1:
        raise ConfigError("Expected at least two people and one turn, got fewer. Ask for more.")
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        size = _open_page(browser, Path(folder))
        version = browser.run("navigator.userAgent.match(/Chrom\\w*\\/[\\d.]+/)[0]")
        decoders = [_compared(browser, name, encoder) for name, encoder in _kinds().items()]
        answers = _answers(browser, options.people, options.seed)
        speed = _speed(browser, options.turns)
    return {
        "benchmark": "page",
        "browser": version,
        "page_bytes_10_classes_224_px": size,
        "decoders": decoders,
        "answers": answers,
        "speed": speed,
    }


def _open_page(browser: Browser, folder: Path) -> int:
    """Open a page of ten classes whose δ no program can shorten, and return its size in bytes."""
    delta = np.random.default_rng(0).integers(-4, 5, (10, TARGET, TARGET, 3)).astype(np.int8)
    known = PerturbationSet(delta, 4, DIGITS, "people", "f" * 64, preparation=Preparation(size=TARGET))
    known.save(folder / "set.safetensors")
    page = members_page((folder / "set.safetensors").read_bytes(), "").encode()
    (folder / "page.html").write_bytes(page)
    browser.open(folder / "page.html")
    browser.run("ready")
    browser.run(_READ + "0")
    return len(page)


# -- decoders ---------------------------------------------------------------------------------------------------


def _p3() -> bytes:
    """Return a Display P3 profile: sRGB's own, with other primaries and another name."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for letter, values in _P3.items():
        # The table of tags begins at byte 128: a count, then name, place and size of each.
        entry = made.index(f"{letter}XYZ".encode(), 128)
        (place,) = struct.unpack(">I", made[entry + 4 : entry + 8])
        made[place + 8 : place + 20] = struct.pack(">3i", *(round(value * 65536) for value in values))
    return bytes(made).replace("sRGB".encode("utf-16-be"), "DiP3".encode("utf-16-be"))


def _saved(kind: str, mode: str = "RGB", **options: Any) -> Encoder:
    def encode(picture: Image.Image) -> tuple[bytes, str]:
        file = BytesIO()
        picture.convert(mode).save(file, kind, **options)
        return file.getvalue(), f"image/{kind.lower()}"

    return encode


def _half_transparent(picture: Image.Image) -> tuple[bytes, str]:
    alpha = Image.linear_gradient("L").resize(picture.size)
    picture = picture.copy()
    picture.putalpha(alpha)
    return _saved("PNG", "RGBA")(picture)


def _deep(picture: Image.Image) -> tuple[bytes, str]:
    """Return grey of 16 bits whose lower eight are all there is."""
    grey = np.asarray(picture.convert("L")).astype(np.uint16)
    file = BytesIO()
    Image.fromarray(grey * 256 + grey[::-1, ::-1]).save(file, "PNG")
    return file.getvalue(), "image/png"


def _kinds() -> dict[str, Encoder]:
    """Return the ways that a photograph may come."""
    profile = _p3()
    found: dict[str, Encoder] = {"PNG": _saved("PNG"), "PNG, transparent in part": _half_transparent}
    for quality in (75, 90, 95):
        for name, sampling in (("4:4:4", 0), ("4:2:0", 2)):
            found[f"JPEG {quality}, {name}"] = _saved("JPEG", quality=quality, subsampling=sampling)
    found["JPEG 90, CMYK"] = _saved("JPEG", "CMYK", quality=90)
    found["PNG, grey of 16 bits"] = _deep
    found["WebP 90"] = _saved("WEBP", quality=90)
    found["PNG, Display P3"] = _saved("PNG", icc_profile=profile)
    found["JPEG 90, 4:2:0, Display P3"] = _saved("JPEG", quality=90, subsampling=2, icc_profile=profile)
    return found


def _read(browser: Browser, data: bytes, kind: str, way: Preparation, *, whole: bool) -> dict[str, Images]:
    """Return what the page makes of a file: prepared, and where it is asked for, decoded."""
    height, width, _ = way.image_shape
    task = json.dumps({"fit": way.fit, "size": [height, width]})
    said = browser.run(f"read('{base64.b64encode(data).decode()}', '{kind}', {task}, {json.dumps(whole)})")
    shapes = {"prepared": way.image_shape} | ({"decoded": (said["h"], said["w"], 3)} if whole else {})
    return {name: np.frombuffer(base64.b64decode(said[name]), np.uint8).reshape(s) for name, s in shapes.items()}


def _difference(pairs: Sequence[tuple[Images, Images]]) -> dict[str, float]:
    """Return the share of values that differ, their mean difference over all values and the largest, in levels."""
    apart = np.concatenate([np.abs(one.astype(int) - other).reshape(-1) for one, other in pairs])
    return {
        "differ": float((apart > 0).mean()),
        "differ_by_more_than_one": float((apart > 1).mean()),
        "mean_levels": float(apart.mean()),
        "most_levels": int(apart.max()),
    }


def _compared(browser: Browser, name: str, encoder: Encoder) -> dict[str, Any]:
    """Return how far both decoders are apart on two photographs, as decoded and as the platform gets them."""
    pictures = [Image.fromarray(np.ascontiguousarray(picture)) for picture in load_sample_images().images]
    way = Preparation(size=TARGET)
    decoded, prepared = [], []
    for picture in pictures:
        data, kind = encoder(picture)
        theirs, ours = _read(browser, data, kind, way, whole=True), read_photograph(data).pixels
        decoded.append((theirs["decoded"], ours))
        prepared.append((theirs["prepared"], way.of(ours)))
    return {"kind": name, "decoded": _difference(decoded), "prepared": _difference(prepared)}


# -- answers ----------------------------------------------------------------------------------------------------


def _answers(browser: Browser, people: int, seed: int) -> list[dict[str, Any]]:
    """Return what the demo's platform says to test people's photographs with δ, by either decoder."""
    import torch

    world = digits_world(seed)
    truth = Targets.from_labels(world.training_classes, len(DIGITS))
    how = Distilling(architectures=("perceptron",), seed=seed, epochs=30, threads=2)
    model = train_proxy(world.training_images, truth, how).proxy
    learners = world.roster.pool
    rows = learners.subgroup
    learned = SignDescent(Perturbing(threads=2)).learn(
        model,
        Examples(learners.images[rows], learners.classes[rows], learners.classes[rows]),
        epsilon=EPSILON,
        groups=10,
    )
    known = PerturbationSet(learned.delta, EPSILON, DIGITS, "bad camera", "f")
    test = world.test
    chosen = np.flatnonzero(test.subgroup)[:people]
    classes = test.classes[chosen]
    way = Preparation(size=SIZE)

    def said(images: Images) -> NDArray[np.int64]:
        with torch.no_grad():
            batch = torch.from_numpy(known.apply(images, classes)).permute(0, 3, 1, 2).float() / 255
            return np.asarray(model(batch).argmax(dim=1).numpy(), dtype=np.int64)

    found = []
    for name in ("PNG", "JPEG 75, 4:2:0", "JPEG 90, 4:2:0", "JPEG 90, 4:2:0, Display P3"):
        encoder = _kinds()[name]
        pairs = []
        for image in test.images[chosen]:
            photo = Image.fromarray(image).resize((SIZE * ENLARGED,) * 2, Image.Resampling.BICUBIC)
            data, kind = encoder(photo)
            theirs = _read(browser, data, kind, way, whole=False)["prepared"]
            pairs.append((theirs, way.of(read_photograph(data).pixels)))
        page, python = (said(np.stack([pair[i] for pair in pairs])) for i in (0, 1))
        found.append(
            {
                "kind": name,
                "people": len(chosen),
                "prepared": _difference(pairs),
                "right_page": float((page == classes).mean()),
                "right_python": float((python == classes).mean()),
                "answers_that_differ": int((page != python).sum()),
            }
        )
    return found


# -- time -------------------------------------------------------------------------------------------------------


def _speed(browser: Browser, turns: int) -> dict[str, Any]:
    """Return how long a decoded photograph of 12 megapixels takes to become what is saved, in milliseconds."""
    width, height = _MEGAPIXELS
    browser.run(_PHOTOGRAPH.replace("WIDTH", str(width)).replace("HEIGHT", str(height)))
    found: dict[str, Any] = {"pixels": width * height, "turns": turns}
    for fit in ("crop", "pad", "squash"):
        script = _APPLY.replace("FIT", fit).replace("TARGET", str(TARGET))
        browser.run(script)
        computed = [1000 * browser.worked(script) for _ in range(turns)]
        clock = f"(() => {{ const began = performance.now(); {script}; return performance.now() - began; }})()"
        passed = [browser.run(clock) for _ in range(turns)]
        found[fit] = {
            "computed_ms": {"median": statistics.median(computed), "least": min(computed), "most": max(computed)},
            "passed_ms": {"median": statistics.median(passed), "least": min(passed), "most": max(passed)},
        }
    return found
