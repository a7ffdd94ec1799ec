"""Answers: what a platform said about a batch of images, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ttca.errors import TTCAError
from ttca.values import Value

__all__ = ["Answers", "Status", "contradicted"]


class Status(IntEnum):
    """How one query ended.

    A refusal ("no face found", "not sure") *is* an answer, and not a correct one. A failure is an abstention.
    """

    ANSWERED = 0
    REFUSED = 1
    FAILED = 2


# numpy asks an enum's member for a dozen attributes that it has not; a number is compared at once.
_ANSWERED = int(Status.ANSWERED)
_FAILED = int(Status.FAILED)
_LAST_STATUS = int(max(Status))


@dataclass(frozen=True, eq=False, repr=False)
class Answers(Value):
    """N rows of what the platform said.

    Parameters
    ----------
    status : int8 array, shape (N,)
        Values of :class:`Status`.
    labels : int64 array, shape (N,)
        The class named, −1 where there is none. Always −1 unless the row is answered.
    scores : float32 array, shape (N, C)
        Probabilities; NaN where the platform did not say. Label-only rows are all NaN.
    resolution : float32 array, shape (N,)
        The step to which the row's scores are rounded (0.01 for whole percent), 0 where they are exact.
    body : bytes, optional
        What all rows were read from, where the platform can read it again: a ledger keeps it. It is no part of what
        was said, and is lost where rows are chosen or put together.

    Raises
    ------
    TTCAError
        If shapes disagree, a status is unknown, a label is out of range, a score is outside [0, 1], or a
        resolution is not a number of 0 or more.
    """

    status: NDArray[np.int8]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    resolution: NDArray[np.float32]
    body: bytes | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        shapes = {self.status.shape, self.labels.shape, self.resolution.shape, self.scores.shape[:1]}
        if self.scores.ndim != 2 or self.status.ndim != 1 or len(shapes) != 1:
            raise TTCAError(
                "Expected status, labels, scores and resolution with one row per image, got "
                f"{self.status.shape}, {self.labels.shape}, {self.scores.shape}, {self.resolution.shape}."
            )
        # Made for every request that is answered, so by the fewest and cheapest of numpy's means.
        answered = self.status == _ANSWERED
        all_answered = bool(answered.all())
        if not (all_answered or (self.status.min() >= 0 and self.status.max() <= _LAST_STATUS)):
            raise TTCAError(f"Expected statuses among {[int(s) for s in Status]}, got {np.unique(self.status)}.")
        if not (self.resolution.min(initial=0) >= 0 and self.resolution.max(initial=0) < np.inf):
            raise TTCAError("Expected a resolution of 0 or more in every row, got another.")
        classes = self.scores.shape[1]
        named = self.labels if all_answered else self.labels[answered]
        if not (named.min(initial=0) >= 0 and self.labels.max(initial=-1) < classes):
            raise TTCAError(f"Expected every answered label in 0..{classes - 1}, got one outside it.")
        if not all_answered and (self.labels[~answered] != -1).any():
            raise TTCAError("Expected label −1 in every row that is not answered.")
        # These pass over NaN, which says nothing.
        lowest = np.fmin.reduce(self.scores, axis=None, initial=0)
        if not (lowest >= -1e-6 and np.fmax.reduce(self.scores, axis=None, initial=0) <= 1 + 1e-4):
            raise TTCAError("Expected scores as probabilities in [0, 1], got one outside it.")

    @classmethod
    def failed(cls, n: int, classes: int) -> Answers:
        """Return n abstentions."""
        return cls(
            np.full(n, Status.FAILED, np.int8),
            np.full(n, -1, np.int64),
            np.full((n, classes), np.nan, np.float32),
            np.zeros(n, np.float32),
        )

    @classmethod
    def from_labels(cls, labels: NDArray[np.int64], classes: int) -> Answers:
        """Return label-only answers; a negative label is a refusal. A TTCAError where they are no whole numbers."""
        given = np.asarray(labels)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise TTCAError(
                f"Expected labels as whole numbers, shape (N,), got {given.dtype} {given.shape}. Cast them first."
            )
        labels = given.astype(np.int64)
        status = np.where(labels >= 0, Status.ANSWERED, Status.REFUSED).astype(np.int8)
        n = len(labels)
        return cls(status, np.maximum(labels, -1), np.full((n, classes), np.nan, np.float32), np.zeros(n, np.float32))

    @classmethod
    def from_scores(cls, scores: NDArray[np.floating], *, resolution: float = 0.0) -> Answers:
        """Return answers whose label is the highest score named (shape (N, C), NaN = not said)."""
        rows = np.asarray(scores, np.float32)
        if rows.ndim != 2:
            raise TTCAError(f"Expected scores of shape (N, C), got {rows.shape}. For one image pass scores[None].")
        named = ~np.isnan(rows).all(axis=1)
        labels = np.where(named, np.nan_to_num(rows, nan=-1.0).argmax(axis=1), -1).astype(np.int64)
        status = np.where(named, Status.ANSWERED, Status.REFUSED).astype(np.int8)
        return cls(status, labels, rows, np.full(len(rows), resolution, np.float32))

    @classmethod
    def concatenate(cls, parts: Sequence[Answers], *, classes: int) -> Answers:
        """Return the rows of all parts in order; a TTCAError where one has other classes."""
        if not parts:
            return cls.failed(0, classes)
        if others := {p.classes for p in parts} - {classes}:
            raise TTCAError(
                f"Expected answers of {classes} classes, got some of {min(others)}. Pass those of one kind."
            )
        return cls(
            np.concatenate([p.status for p in parts]),
            np.concatenate([p.labels for p in parts]),
            np.concatenate([p.scores for p in parts]),
            np.concatenate([p.resolution for p in parts]),
        )

    def with_body(self, body: bytes | None) -> Answers:
        """Return the same answers with what they were read from; nothing is checked twice."""
        answers = copy(self)
        object.__setattr__(answers, "body", body)
        return answers

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Answers:
        return Answers(self.status[rows], self.labels[rows], self.scores[rows], self.resolution[rows])

    def _facts(self) -> str:
        kinds = {status.name.lower(): int((self.status == status).sum()) for status in Status}
        said = "labels only" if np.isnan(self.scores).all() else "scores"
        return f"{', '.join(f'{n} {kind}' for kind, n in kinds.items() if n) or 'none'}, {self.classes} classes, {said}"

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return int(self.scores.shape[1])

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Rows with a label, shape (N,)."""
        return np.equal(self.status, _ANSWERED)

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """Rows the platform did answer, with a label or with a refusal, shape (N,)."""
        return np.not_equal(self.status, _FAILED)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Rows with a score for every class, shape (N,)."""
        return self.answered & ~np.isnan(self.scores).any(axis=1)

    @property
    def coverage(self) -> float:
        """Share of rows resolved; NaN for no rows."""
        return float(self.resolved.mean()) if len(self) else float("nan")


def contradicted(
    labels: NDArray[np.int64], scores: NDArray[np.floating], resolution: NDArray[np.floating] | float
) -> NDArray[np.bool_]:
    """Return the rows whose label has a score that is lower than another one, by more than the scores are rounded.

    Parameters
    ----------
    labels : int64 array, shape (N,)
        −1 where there is none: such a row contradicts nothing.
    scores : float array, shape (N, C)
        NaN where not said. A label whose own score is not said contradicts nothing either.
    resolution : float array, shape (N,), or float
        The step to which scores are rounded, 0 where they are exact.

    Returns
    -------
    bool array, shape (N,)
    """
    if not scores.size:
        return np.zeros(len(labels), np.bool_)
    own = scores[np.arange(len(labels)), np.maximum(labels, 0)]
    lead = np.where(np.isnan(scores), -np.inf, scores).max(axis=1) - own
    step = np.asarray(resolution)
    # Half a step each way makes a whole one, and float32 cannot say 0.01 exactly.
    return np.asarray((labels >= 0) & (lead > np.where(step > 0, step + 1e-6, 0.0)))
