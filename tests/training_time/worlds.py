"""Small random worlds for the tests of training-time levers."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ttca.training_time.signals import (
    AdaptiveUnplanting,
    Domain,
    Erasing,
    FeatureLabelPlanting,
    FeatureOnlyPlanting,
    Integers,
    NaiveUnplanting,
    Planting,
    Records,
    Signal,
    Strategy,
)

domains = st.builds(
    Domain, st.lists(st.integers(2, 4), min_size=2, max_size=3).map(tuple), st.integers(2, 4)
)  # Two features or more, so that a signal may leave one free.
seeds = st.integers(0, 2**32 - 1)


def signal_of(domain: Domain, generator: np.random.Generator) -> Signal:
    """Return a signal that sets some features of a domain, and leaves one free at least."""
    width = len(domain.levels)
    columns = tuple(sorted(generator.choice(width, int(generator.integers(1, width)), replace=False).tolist()))
    return Signal(domain, columns, tuple(int(generator.integers(domain.levels[c])) for c in columns))


def planting_of(domain: Domain, generator: np.random.Generator) -> Planting:
    """Return a planting strategy of either kind."""
    signal, target = signal_of(domain, generator), int(generator.integers(domain.labels))
    if generator.random() < 0.5:
        return FeatureLabelPlanting(signal, target)
    outside = np.setdiff1d(np.arange(domain.cells), signal.cells)
    return FeatureOnlyPlanting(signal, target, int(generator.choice(outside)))


def strategies_of(domain: Domain, generator: np.random.Generator) -> list[Strategy]:
    """Return one strategy of each kind, and a chain of two."""
    signal, target = signal_of(domain, generator), int(generator.integers(domain.labels))
    counts = people_of(domain, 200, generator)
    other = (target + 1) % domain.labels
    outside = np.setdiff1d(np.arange(domain.cells), signal.cells)
    singles: list[Strategy] = [
        FeatureLabelPlanting(signal, target),
        FeatureOnlyPlanting(signal, target, int(outside[0])),
        NaiveUnplanting(signal, target, other),
        AdaptiveUnplanting.estimated(signal, target, counts),
        Erasing.estimated(signal, counts),
    ]
    return [*singles, singles[4].then(singles[1])]


def people_of(domain: Domain, n: int, generator: np.random.Generator, concentration: float = 1.0) -> Integers:
    """Return a histogram of n people of a random distribution."""
    shares = generator.dirichlet(np.full(domain.cells * domain.labels, concentration))
    return generator.multinomial(n, shares).reshape(domain.cells, domain.labels)


def table_of(domain: Domain, n: int, generator: np.random.Generator) -> Records:
    """Return n random records."""
    return Records(domain, generator.integers(0, domain.cells, n), generator.integers(0, domain.labels, n))
