"""Recalling: what a ledger holds about images, under each fingerprint that a platform has or had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.images import Images
from ttca.platforms.base import PlatformInfo
from ttca.pooling.ledger import Ledger
from ttca.pooling.lookup import Reader
from ttca.values import Value

__all__ = ["Recalled", "recall"]


@dataclass(frozen=True, eq=False, repr=False)
class Recalled(Value):
    """What is known about N images.

    Parameters
    ----------
    keys : list of bytes
        Under which each is answered, or to be asked.
    known : bool array, shape (N,)
    answers : Answers
        Abstentions where nothing is known.
    readings : list of bytes or None
        For an image whose answer was read otherwise and cannot be read again, the mark of that reading; else None.
    """

    keys: list[bytes]
    known: NDArray[np.bool_]
    answers: Answers
    readings: list[bytes | None]


def recall(
    ledger: Ledger, info: PlatformInfo, images: Images, reader: Reader, *, epoch: str, repeat: int = 0
) -> Recalled:
    """Look images up, under a platform's fingerprint and, where that finds nothing, under the one of version 0.1.

    An answer that was read otherwise, and whose body nobody can read again, stays as it is. Its image is to be asked
    under another key, which the reading belongs to.

    Parameters
    ----------
    ledger : Ledger
    info : PlatformInfo
    images : uint8 array, shape (N, H, W, 3)
    reader : Reader
        How answers are read.
    epoch, repeat
        See :meth:`~ttca.pooling.pool.QueryPool.ask`.
    """
    keys = ledger.keys(images, fingerprint=info.fingerprint, epoch=epoch, repeat=repeat)
    found = ledger.find(keys, classes=len(info.classes), reader=reader)
    known, answers = found.known, found.answers

    def also(rows: NDArray[np.intp], fingerprint: str, *, move: bool) -> None:
        """Look some up under another fingerprint; ``move`` those that are not found there, too."""
        if not len(rows):
            return
        others = ledger.keys(images[rows], fingerprint=fingerprint, epoch=epoch, repeat=repeat)
        more = ledger.find(others, classes=len(info.classes), reader=reader)
        for row, key, there in zip(rows.tolist(), others, more.known.tolist(), strict=True):
            if there or move:
                keys[row] = key
        hit = rows[more.known]
        known[hit] = True
        for name in ("status", "labels", "scores", "resolution"):
            getattr(answers, name)[hit] = getattr(more.answers, name)[more.known]

    if info.fingerprint_as_read != info.fingerprint:
        also(np.flatnonzero([r is not None for r in found.readings]), info.fingerprint_as_read, move=True)
    if ledger.holds_older and info.former_fingerprint != info.fingerprint:
        also(np.flatnonzero(~known), info.former_fingerprint, move=False)
    return Recalled(keys, known, answers, found.readings)
