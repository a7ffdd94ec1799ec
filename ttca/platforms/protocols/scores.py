"""What a platform's numbers mean as probabilities, and which of them cannot be any."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ConfigError
from ttca.rounding import apart

__all__ = ["SOME_LOGITS", "Scale", "ScoresAre"]

ScoresAre = Literal[
    "probabilities",
    "logits",
    "percent",
    "bytes",
    "confidences",
    "probability-of-second",
    "logit-of-second",
]

#: What one probability is written as. The rest is no share of a whole.
_UNIT: dict[str, float] = {"percent": 100.0, "bytes": 255.0}
#: Scores that are all of one image's probabilities, so that they have a sum.
_EXCLUSIVE = ("probabilities", "percent", "bytes")
#: bfloat16 has eight bits: each score may be off by so much of itself.
_RELATIVE = 2.0**-8
#: To what scores are rounded where nobody says it, told from all of them being multiples: decimals, and eight bits.
_STEPS = (0.1, 0.01, 0.001, 1e-4, 1 / 255, 1 / 256)
_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*(%?)\s*", re.ASCII)

#: What may be wrong with a row, 0 where nothing is.
_FINITE, _RANGE, SOME_LOGITS, _ZERO, _ABOVE, _BELOW = range(1, 7)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How one platform writes scores.

    Parameters
    ----------
    scores_are : str
        See :class:`~ttca.platforms.protocols.reading.Reading`, as for the others.
    resolution : float
    missing_score, threshold : float, optional

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    scores_are: ScoresAre = "probabilities"
    resolution: float = 0.0
    missing_score: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.resolution < 1:
            raise ConfigError(f"Expected resolution in [0, 1), got {self.resolution}. Use 0.01 for whole percent.")
        if self.missing_score is not None and (self.alone or self.scores_are == "logits"):
            raise ConfigError(
                f"Expected missing_score only where a score may be left out, got it with {self.scores_are}: a softmax "
                "needs every logit, and one score is all that there is. Remove one of them."
            )
        if self.missing_score is not None and not math.isfinite(self.missing_score):
            raise ConfigError(f"Expected missing_score as a finite number, got {self.missing_score}. Correct it.")
        if self.threshold is not None and not self.alone:
            raise ConfigError(
                "Expected threshold only with scores_are as probability-of-second or logit-of-second, got it with "
                f"{self.scores_are}. Remove one of them."
            )
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError(
                f"Expected threshold as a probability between 0 and 1, got {self.threshold}. A logit of 0 is 0.5."
            )

    @property
    def alone(self) -> bool:
        """Whether one score speaks of both classes: it is the second one's."""
        return self.scores_are in ("probability-of-second", "logit-of-second")

    @property
    def exclusive(self) -> bool:
        """Whether the scores of all classes sum to a whole."""
        return self.scores_are in _EXCLUSIVE

    @property
    def step(self) -> float:
        """The step to which scores are rounded, as a probability."""
        return max(self.resolution, 1 / 255) if self.scores_are == "bytes" else self.resolution

    def number(self, said: object) -> float | None:
        """Return a score as a number of this scale, also one written as text; None for what is no number.

        JSON's NaN and infinities are numbers here, which :meth:`judge` then finds.
        """
        if type(said) in (int, float):
            # Larger whole numbers fit no float.
            whole = isinstance(said, int) and math.log2(abs(said) + 1) >= 1000
            return None if whole else float(said)  # type: ignore[arg-type]
        written = _NUMBER.fullmatch(said) if isinstance(said, str) and len(said) < 60 else None
        if written is None:
            return None
        value = float(written[1])
        if not written[2] or self.scores_are == "percent":
            return value
        return None if self.scores_are in ("logits", "logit-of-second", "bytes") else value / 100

    # -- many rows ------------------------------------------------------------------------------------------------

    def one_plain(
        self, called: int | None, scores: Sequence[tuple[int, float]], classes: int
    ) -> tuple[int, NDArray[np.float64]] | None:
        """Return the class and the probabilities of one image, where all are said as :meth:`plain` asks of many rows.

        Nearly every answer is so. It is read without numpy, whose every step costs more than ten numbers; all else
        goes the long way to the same end.

        Parameters
        ----------
        called : int or None
            The label beside the scores; None is returned where it is not the likeliest class.
        scores : sequence of (class, number)
        classes : int
            How many there are.
        """
        if self.scores_are != "probabilities" or self.missing_score is not None:
            return None
        by_class = dict(scores)
        if not len(scores) == len(by_class) == classes > 1 or min(by_class) < 0:
            return None
        values = by_class.values()
        # NaN fails every comparison.
        if not (all(0 <= value <= 1 for value in values) and abs(sum(values) - 1) < _RELATIVE / 2):
            return None
        best = max(by_class, key=by_class.__getitem__)
        label = best if called is None else called
        if by_class.get(label) != by_class[best]:
            return None
        return label, np.array([by_class[k] for k in range(classes)])

    def plain(self, values: NDArray[np.float64]) -> bool:
        """Whether every row holds all probabilities, and they sum to 1: what nearly every answer is."""
        if self.scores_are != "probabilities" or self.missing_score is not None or not values.size:
            return False
        # NaN fails every comparison.
        within = bool(values.min() >= 0 and values.max() <= 1)
        return within and bool(abs(values.sum(axis=1) - 1).max() < _RELATIVE / 2)

    def judge(
        self,
        values: NDArray[np.float64],
        unsaid: NDArray[np.bool_] | None = None,
        *,
        step: float | None = None,
        beside: float = 0.0,
    ) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """Return scores as probabilities, NaN where not said, and what is wrong with each row, 0 where nothing is.

        Parameters
        ----------
        values : float64 array, shape (N, K)
            As they were sent. K is 1 where one score is all.
        unsaid : bool array, shape (N, K), optional
            Which were not said, beside those equal to ``missing_score``.
        step : float, optional
            To what the scores are rounded; the scale's own where None.
        beside : float
            How many labels are none of the K columns and could have a score too.

        Returns
        -------
        shares : float64 array, shape (N, K), or (N, 2) where one score is all
        fault : int8 array, shape (N,)
            For :meth:`sentence`. A sum below 1 is a fault, with the named scores as high as rounding allows and the
            others as high as the lowest of them: as in a list of the best. So is a sum above 1 of the named scores
            as low as rounding allows.
        """
        silent = np.zeros(values.shape, np.bool_) if unsaid is None else unsaid
        if self.missing_score is not None:
            silent = silent | (values == self.missing_score)
        fault = np.zeros(len(values), np.int8)
        wrong: NDArray[np.bool_] = ~silent & ~np.isfinite(values)
        safe = np.where(silent | wrong, 0.0, values)
        if self.scores_are == "logits":
            shares = _softmax(safe)
            fault[silent.any(axis=1) & ~silent.all(axis=1)] = SOME_LOGITS
        elif self.scores_are == "logit-of-second":
            shares = np.where(safe < 0, np.exp(np.minimum(safe, 0)), 1.0) / (1 + np.exp(-np.abs(safe)))
        else:
            shares = safe / _UNIT.get(self.scores_are, 1.0)
            possible = (shares >= -1e-6) & (shares <= 1 + _RELATIVE)
            fault[~possible.all(axis=1)] = _RANGE
            shares = np.clip(shares, 0.0, 1.0)
        fault[wrong.any(axis=1)] = _FINITE
        shares = np.where(silent, np.nan, shares)
        if self.alone:
            return self._both(shares), fault
        said = ~silent
        fault[(fault == 0) & said.any(axis=1) & ~(np.where(said, shares, 0) > 0).any(axis=1)] = _ZERO
        if self.exclusive:
            side = _sides(shares, silent.sum(axis=1) + beside, self.step if step is None else step)
            fault[(fault == 0) & (side > 0)] = _ABOVE
            fault[(fault == 0) & (side < 0)] = _BELOW
        return shares, fault

    def _both(self, second: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return both classes' probabilities (N, 2) of the second one's (N, 1).

        A threshold other than .5 moves the log-odds, so that a score at the threshold becomes .5: which class is the
        likelier one is then what the platform would say, and the order of the scores is kept (ours).
        """
        at = 0.5 if self.threshold is None else self.threshold
        for_it, against = second * (1 - at), (1 - second) * at
        moved = second if at == 0.5 else for_it / (for_it + against)
        return np.concatenate([1 - moved, moved], axis=1)

    def sentence(self, fault: int, values: NDArray[np.float64]) -> str:
        """Return what is wrong with one row, of its scores as they were sent."""
        if self.missing_score is not None:
            values = values[values != self.missing_score]
        if fault == _FINITE:
            return "Expected scores as finite numbers, got NaN, null or infinity."
        if fault == SOME_LOGITS:
            return "Expected a logit for every class, got only some of them: a softmax needs them all."
        if fault == _ZERO:
            return "Expected scores of which one is above 0, got none: which class is meant is not said."
        kinds = ", ".join(get_args(ScoresAre))
        whole = _UNIT.get(self.scores_are, 1.0)
        if fault == _RANGE:
            lowest, highest, *_ = apart(values.min(), values.max(), 0.0, whole)
            return (
                f"Expected scores as {self.scores_are}, got {lowest} to {highest}. "
                f"Set scores_are to what the platform gives: {kinds}."
            )
        total = f"{apart(values.sum(), whole, digits=6)[0]} in sum ({', '.join(f'{v:.4g}' for v in values[:6])}"
        total += ", …)" if len(values) > 6 else ")"
        if fault == _ABOVE:
            return (
                f"Expected {self.scores_are} that sum to {whole:g}, got {total}. Set scores_are to what the platform "
                'gives; where each class is scored by itself, that is "confidences".'
            )
        return (
            f"Expected {self.scores_are} that sum to {whole:g}, or to so little less that no class left out is "
            f"likelier than one that is named, got {total}. Set scores_are, or resolution if the platform rounds."
        )


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    total: NDArray[np.float64] = np.maximum(shifted.sum(axis=1, keepdims=True), 1e-300)
    return np.asarray(shifted / total)


def _sides(shares: NDArray[np.float64], unnamed: NDArray[np.float64], step: float) -> NDArray[np.int8]:
    """Return 1 for rows whose sum no rounding brings down to 1, −1 for those that none brings up, 0 for the others."""
    side = _side(shares, unnamed, step)
    for likely in _STEPS if step == 0 else ():
        rows = np.flatnonzero(side)
        if not len(rows):
            break
        # float32 cannot say 0.1 exactly.
        off = np.abs(shares[rows] - np.round(shares[rows] / likely) * likely)
        rows = rows[(np.isnan(off) | (off <= 1.5e-7 * shares[rows])).all(axis=1)]
        side[rows] = np.where(_side(shares[rows], unnamed[rows], likely) == 0, 0, side[rows])
    return side


def _side(shares: NDArray[np.float64], unnamed: NDArray[np.float64], step: float) -> NDArray[np.int8]:
    said = ~np.isnan(shares)
    # Rounded to the nearest step, or cut off.
    low = np.where(said, np.maximum(shares * (1 - _RELATIVE) - step / 2, 0), 0).sum(axis=1)
    high = np.where(said, np.minimum(shares * (1 + _RELATIVE) + step, 1), 0)
    lowest = np.where(said, high, 1.0).min(axis=1, initial=1.0)
    return np.where(low > 1, 1, np.where(high.sum(axis=1) + unnamed * lowest < 1, -1, 0)).astype(np.int8)
