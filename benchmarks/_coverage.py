"""How often intervals hold the truth: simulated worlds whose true rates are known, small and large, fair and not."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.intervals import (
    Span,
    difference_interval,
    fairness_intervals,
    gap_closed_interval,
    rate_interval,
)

__all__ = ["METRICS", "interval_coverage"]

_SIZES = (50, 100, 200, 400, 800)
_RATES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)

Floats = NDArray[np.float64]
Random = np.random.Generator
#: A true value and its interval, of one or more metrics.
World = dict[str, tuple[float, Span | None]]


def interval_coverage(worlds: int = 2000, seed: int = 0, confidence: float = 0.95) -> dict[str, Any]:
    """Return, for every metric, by how much the coverage of its interval exceeds what is stated.

    Parameters
    ----------
    worlds : int
        How many worlds each metric is measured in.
    seed : int
    confidence : float
        What the intervals state.

    Returns
    -------
    dict
        ``above_stated``: share of worlds whose interval holds the true value, minus the confidence, by metric; worlds
        without an interval make no claim and are left out. ``withheld``: their share. ``smallest``: the smallest of
        the first. ``gap_shown_at_parity``: how often a gap closed was printed where there is no gap.
    """
    held: dict[str, list[bool]] = {}
    asked: dict[str, int] = {}
    for name, world in METRICS.items():
        # Each metric has its own stream, so that a new one changes none.
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        for _ in range(worlds):
            for metric, (truth, span) in world(rng, confidence).items():
                asked[metric] = asked.get(metric, 0) + 1
                held.setdefault(metric, [])
                if span is not None:
                    held[metric].append(span.low <= truth <= span.high)
    parity = held.pop("no_gap")
    above = {name: float(np.mean(each)) - confidence for name, each in held.items()}
    return {
        "worlds": worlds,
        "seed": seed,
        "confidence": confidence,
        "above_stated": above,
        "withheld": {name: 1 - len(each) / asked[name] for name, each in held.items()},
        "smallest": min(above.values()),
        "gap_shown_at_parity": len(parity) / asked["no_gap"],
    }


def _answers(rng: Random, size: int, rates: tuple[float, ...], together: float) -> list[Floats]:
    """Return answers of the same persons under several conditions, each right at its own rate."""
    from scipy.special import ndtri

    common, own = rng.standard_normal(size), rng.standard_normal((len(rates), size))
    latent = math.sqrt(together) * common + math.sqrt(1 - together) * own
    return [(row < ndtri(rate)).astype(np.float64) for row, rate in zip(latent, rates, strict=True)]


def _drawn(rng: Random) -> tuple[int, float, float]:
    """Return a size and two rates, alike in half of the worlds."""
    first = float(rng.choice(_RATES))
    return int(rng.choice(_SIZES)), first, first if rng.random() < 0.5 else float(rng.choice(_RATES))


def _rate(rng: Random, confidence: float) -> World:
    size, rate, _ = _drawn(rng)
    return {"rate": (rate, rate_interval(*_answers(rng, size, (rate,), 0), confidence=confidence))}


def _clustered(rng: Random, confidence: float) -> World:
    """Persons bring from 1 to 8 images, and differ in how often they are served well."""
    size, rate, _ = _drawn(rng)
    alike = float(rng.choice([0.05, 0.3, 0.8]))
    right = _alike(rng, rate, alike, (size, 8))
    images = rng.integers(1, 9, size)
    kept = np.arange(8) < images[:, None]
    persons = np.repeat(np.arange(size), images)
    return {"rate_of_several_images": (rate, rate_interval(right[kept], persons, confidence=confidence))}


def _alike(rng: Random, rate: float, share: float, shape: tuple[int, int]) -> Floats:
    """Return answers (persons, images) of which the given share of the latent variance is the persons'."""
    from scipy.special import ndtri

    latent = math.sqrt(share) * rng.standard_normal((shape[0], 1)) + math.sqrt(1 - share) * rng.standard_normal(shape)
    return np.asarray(latent < ndtri(rate), np.float64)


def _seeds(rng: Random, confidence: float) -> World:
    """Two to five seeds ask about the same persons; not everybody is asked in each, and seeds may differ in luck."""
    from scipy.special import ndtri

    size, rate, _ = _drawn(rng)
    seeds = int(rng.choice([2, 3, 5]))
    of_person, of_seed = float(rng.choice([0.3, 0.6, 0.9])), float(rng.choice([0, 0.003, 0.02]))
    latent = (
        math.sqrt(of_person) * rng.standard_normal(size)
        + math.sqrt(of_seed) * rng.standard_normal((seeds, 1))
        + math.sqrt(1 - of_person - of_seed) * rng.standard_normal((seeds, size))
    )
    right = np.where(rng.random(latent.shape) < 0.05, np.nan, latent < ndtri(rate))
    return {"rate_over_seeds": (rate, rate_interval(right, confidence=confidence))}


def _disjoint(rng: Random, confidence: float) -> World:
    size, first, second = _drawn(rng)
    (a,), (b,) = _answers(rng, size, (first,), 0), _answers(rng, int(rng.choice(_SIZES)), (second,), 0)
    return {"difference_disjoint": (first - second, difference_interval(a, b, paired=False, confidence=confidence))}


def _paired(rng: Random, confidence: float) -> World:
    size, first, second = _drawn(rng)
    a, b = _answers(rng, size, (first, second), float(rng.choice([0, 0.5, 0.9, 0.99])))
    return {"difference_paired": (first - second, difference_interval(a, b, paired=True, confidence=confidence))}


def _gap(rng: Random, same: bool, confidence: float) -> World:
    """A gap of 5 to 40 points, closed not at all, in part, wholly, or by more."""
    size, gap = int(rng.choice(_SIZES)), float(rng.choice([0.05, 0.1, 0.2, 0.4]))
    reference = float(rng.choice([rate for rate in _RATES if rate >= 0.6 and rate - gap > 0]))
    before, share = reference - gap, float(rng.choice([0, 0.3, 0.7, 1, 1.2]))
    after = min(1.0, before + share * gap)
    together = float(rng.choice([0, 0.5, 0.9]))
    if same:
        b, s, r = _answers(rng, size, (before, after, reference), together)
    else:
        b, s = _answers(rng, size, (before, after), together)
        (r,) = _answers(rng, int(rng.choice(_SIZES)), (reference,), 0)
    span = gap_closed_interval(b, s, r, same=same, confidence=confidence)
    return {f"gap_closed_{'same' if same else 'disjoint'}": ((after - before) / gap, span)}


def _no_gap(rng: Random, confidence: float) -> World:
    size, rate, after = _drawn(rng)
    b, s = _answers(rng, size, (rate, after), 0.5)
    (r,) = _answers(rng, int(rng.choice(_SIZES)), (rate,), 0)
    return {"no_gap": (math.nan, gap_closed_interval(b, s, r, confidence=confidence))}


def _fair(rng: Random, confidence: float) -> World:
    """Two or three groups and up to ten classes; in half of the worlds every group is treated alike."""
    groups, classes = int(rng.choice([2, 2, 3])), int(rng.choice([2, 3, 10]))
    kinds = 1 if rng.random() < 0.5 else groups
    share = rng.dirichlet(np.full(classes, 20.0), kinds)
    accuracy = np.clip(rng.choice(_RATES, (kinds, 1)) + rng.normal(0, 0.03, (kinds, classes)), 0.02, 1.0)
    wrong = rng.dirichlet(np.ones(classes), (kinds, classes)) * (1 - np.eye(classes))
    wrong /= wrong.sum(axis=2, keepdims=True)
    says = np.eye(classes) * accuracy[..., None] + wrong * (1 - accuracy[..., None])
    selected = np.einsum("gc,gcd->gd", share, says)
    truth, said, names = [], [], []
    for group in range(groups):
        kind = group % kinds
        y = rng.choice(classes, int(rng.choice(_SIZES)), p=share[kind])
        truth.append(y)
        said.append((rng.random((len(y), 1)) > says[kind][y].cumsum(axis=1)).sum(axis=1).clip(max=classes - 1))
        names.append(np.full(len(y), group))
    found = fairness_intervals(
        *(np.concatenate(each) for each in (truth, said, names)), classes=range(classes), confidence=confidence
    )
    true = {
        "worst_group": (share * accuracy).sum(axis=1).min(),
        "equal_opportunity_gap": np.ptp(accuracy, axis=0).max(),
        "demographic_parity_ratio": (selected.min(axis=0) / selected.max(axis=0)).min(),
    }
    return {name: (float(value), found[name]) for name, value in true.items()}


#: What is simulated, each a world of its own.
METRICS: dict[str, Callable[[Random, float], World]] = {
    "rate": _rate,
    "rate_of_several_images": _clustered,
    "rate_over_seeds": _seeds,
    "difference_disjoint": _disjoint,
    "difference_paired": _paired,
    "gap_closed_disjoint": lambda rng, confidence: _gap(rng, False, confidence),
    "gap_closed_same": lambda rng, confidence: _gap(rng, True, confidence),
    "no_gap": _no_gap,
    "fairness": _fair,
}
