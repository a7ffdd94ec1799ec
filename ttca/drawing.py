"""Drawing people by what their image is, not by its place: whoever stays keeps their turn when others leave.

A permutation of places gives everybody another turn as soon as one person is gone, and what was paid for the others
counts no more. A digest of the image and the seed says the same of an image in whatever table it stands.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.people import People

__all__ = ["drawn_order", "lots", "one_each"]


def lots(people: People, *, seed: int, purpose: str) -> NDArray[np.uint64]:
    """Return one random number per image, which depends on nothing but the image, the seed and the purpose.

    Parameters
    ----------
    people : People
    seed : int
    purpose : str
        What is drawn. Draws for different purposes know nothing of each other.

    Returns
    -------
    uint64 array, shape (N,)
        The first 8 bytes of a SHA-256. Identical images have the same. *Ours.*
    """
    began = hashlib.sha256(f"{purpose}/{seed}/".encode())
    found = np.empty(len(people), np.uint64)
    for i, digest in enumerate(people.image_digests):
        each = began.copy()
        each.update(digest)
        found[i] = int.from_bytes(each.digest()[:8], "big")
    return found


def drawn_order(people: People, *, seed: int, purpose: str) -> NDArray[np.intp]:
    """Return the rows of people in random order: who leaves or joins changes nobody else's place before or behind.

    Parameters
    ----------
    people, seed, purpose
        As for :func:`lots`.

    Returns
    -------
    intp array, shape (N,)
        A permutation; identical images stand in the people's order. *Ours.*
    """
    return np.argsort(lots(people, seed=seed, purpose=purpose), kind="stable")


def one_each(people: People, who: NDArray[Any], rows: NDArray[np.intp], *, seed: int, purpose: str) -> NDArray[np.intp]:
    """Return one of these rows for each person, in random order.

    Parameters
    ----------
    people, seed, purpose
        As for :func:`lots`.
    who : array, shape (N,)
        Equal for images of one person: names, or :func:`ttca.people.units`.
    rows : intp array
        Rows of ``people``.

    Notes
    -----
    *Ours.* The image and the place are drawn apart: else whoever has many images would come first.
    """
    images = lots(people, seed=seed, purpose=f"{purpose}, image")[rows]
    drawn = rows[np.argsort(images, kind="stable")]
    chosen = drawn[np.unique(who[drawn], return_index=True)[1]]
    return chosen[np.argsort(lots(people, seed=seed, purpose=purpose)[chosen], kind="stable")]
