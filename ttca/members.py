"""What a member does alone: put the perturbation of their true class on their own image file. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ttca.data.decoding import decode_rgb
from ttca.data.photographs import read_photograph
from ttca.errors import DataError, ImageError
from ttca.images import Images
from ttca.perturbations import PerturbationSet
from ttca.preparation import Region
from ttca.signing import check_signature

__all__ = ["apply_to_file"]


def apply_to_file(
    perturbations: Path,
    image: Path,
    *,
    true_class: str,
    out: Path,
    box: Region | None = None,
    epsilon: int | None = None,
    key: str | None = None,
    anyway: bool = False,
) -> dict[str, Any]:
    """Write clip(x + δ_c) as a lossless PNG and return what was done.

    Parameters
    ----------
    perturbations : Path
        A file of :class:`~ttca.perturbations.PerturbationSet`.
    image : Path
        A photograph of any kind and size where the set says how it is prepared; else RGB, gray or palette, at the size
        the set was made for.
    true_class : str
        The class the image truly shows.
    out : Path
        A ``.png`` file; JPEG would destroy the perturbation.
    box : (x, y, width, height), optional
        The part of the upright photograph that counts, in pixels; only where the set has a preparation.
    epsilon : int, optional
        Refuse a set of another ε.
    key : str, optional
        The collective's public key: refuse a file that it did not sign.
    anyway : bool
        Apply a set that is not certified, has expired, or was not signed with that key.

    Raises
    ------
    SignatureError, PerturbationError, ImageError
        If the file is not what was signed, whatever is asked; if the set is not signed with the key, is not certified
        or has expired; if set, class or image do not fit. Nothing is written then.
    """
    # The signature first: nothing in a file that somebody changed is believed.
    signed = check_signature(perturbations, "perturbations", expected=key, anyway=anyway)
    chosen = PerturbationSet.load(perturbations)
    chosen.check_fits(epsilon=epsilon, expired=anyway)
    if not anyway:
        chosen.check_certified()
    number = chosen.class_index(true_class)
    if out.resolve() == image.resolve():
        raise ImageError(
            f"Expected an output file other than the input, got {image} for both. The input would be lost. Choose "
            "another name."
        )
    if out.suffix.lower() != ".png":
        raise ImageError(
            f"Expected an output file ending in .png, got {out.name!r}. Other formats can lose the perturbation."
        )
    try:
        before, done = _prepared(chosen, image.read_bytes(), box)
    except OSError as error:
        raise ImageError(f"Expected an image at {image}, got: {error}. Check the path.") from None
    except (DataError, ImageError) as error:
        raise ImageError(f"{image}: {error}") from None
    after = chosen.apply(before[None], number)[0]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(after).save(out, "PNG")
    except OSError as error:
        raise ImageError(f"Expected to write {out}, got: {error}. Choose another place.") from None
    return {
        "out": str(out),
        "about": chosen.about(),
        "signed_by": signed.key,
        "signature": signed.told,
        "class": true_class,
        "prepared": list(done),
        "epsilon": chosen.epsilon,
        "values": int(after.size),
        "values_changed": int(np.count_nonzero(after != before)),
        "largest_change": int(np.abs(after.astype(np.int16) - before).max()),
    }


def _prepared(chosen: PerturbationSet, data: bytes, box: Region | None) -> tuple[Images, tuple[str, ...]]:
    """Return a photograph as those who were asked about sent theirs, and what was done to it."""
    way = chosen.preparation
    if way is None:
        if box is not None:
            raise ImageError(
                "Expected no box, got one: the perturbation file does not say how photographs are prepared. Cut it out "
                f"yourself, to {chosen.image_shape[0]}×{chosen.image_shape[1]} pixels (height×width)."
            )
        return decode_rgb(data), ()
    photograph = read_photograph(data)
    return way.of(photograph.pixels, box), (*photograph.done, *way.told(photograph.pixels.shape, box))
