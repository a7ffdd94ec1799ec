"""Tests of platforms that retrain: what they decide, and that their suboptimality is the smallest there is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from tests.examples import examples
from tests.training_time.worlds import people_of, seeds
from ttca.errors import ConfigError, DataError
from ttca.training_time.bounds import Suboptimality
from ttca.training_time.platform import (
    Adversary,
    CountArgmax,
    GradientBoosting,
    LogisticRegression,
    NeuralNetwork,
    RetrainingPlatform,
    suboptimality,
)
from ttca.training_time.signals import Domain, Integers

TRAINED: tuple[RetrainingPlatform, ...] = (
    LogisticRegression(),
    GradientBoosting(iterations=20),
    NeuralNetwork(epochs=20, batch=100),
)


def _least_total_variation(counts: Integers, decisions: Integers) -> float:
    """Return ε by a linear programme over P̃, written from the definition."""
    p = (counts / counts.sum()).ravel()
    n, labels = p.size, counts.shape[1]
    # Variables: P̃ (n), and |P̃ − P| (n); minimise half the sum of the latter.
    rows, limits = [], []
    for i in range(n):
        for sign in (1, -1):
            row = np.zeros(2 * n)
            row[i], row[n + i] = sign, -1
            rows.append(row)
            limits.append(sign * p[i])
        x = i // labels
        row = np.zeros(2 * n)
        row[i] += 1
        row[x * labels + decisions[x]] -= 1
        rows.append(row)
        limits.append(0.0)
    whole = np.concatenate([np.ones(n), np.zeros(n)])[None]
    cost = np.concatenate([np.zeros(n), np.full(n, 0.5)])
    found = linprog(cost, np.array(rows), limits, whole, [1.0]).fun
    assert found is not None
    return float(found)


@examples(40)
@given(seeds, st.integers(1, 4), st.integers(2, 5))
def test_suboptimality_is_the_smallest(seed: int, cells: int, labels: int) -> None:
    """The measured ε under total variation is that of a linear programme over all P̃."""
    generator = np.random.default_rng(seed)
    counts = people_of(Domain((cells,), labels), 500, generator)
    decisions = generator.integers(0, labels, cells)
    assert suboptimality(counts, decisions, "tv") == pytest.approx(_least_total_variation(counts, decisions), abs=1e-7)


@examples(40)
@given(seeds, st.integers(1, 4), st.integers(2, 5))
def test_contamination_is_made_good_by_its_own_mass(seed: int, cells: int, labels: int) -> None:
    """At the measured ε a Q of mass ε makes every decision optimal, and total variation is never the larger."""
    generator = np.random.default_rng(seed)
    counts = people_of(Domain((cells,), labels), 500, generator)
    decisions = generator.integers(0, labels, cells)
    epsilon = suboptimality(counts, decisions, "contamination")
    p = counts / counts.sum()
    gap = p.max(axis=1) - p[np.arange(cells), decisions]
    mixed = (1 - epsilon) * p
    mixed[np.arange(cells), decisions] += (1 - epsilon) * gap
    assert mixed.sum() == pytest.approx(1)
    assert (mixed[np.arange(cells), decisions] >= mixed.max(axis=1) - 1e-12).all()
    assert suboptimality(counts, decisions, "tv") <= epsilon + 1e-12
    assert 0 <= epsilon < 1


def test_the_example_of_the_methods() -> None:
    """P = (.60, .40) decided as the second label is .1 away under total variation, and 1/6 by contamination."""
    counts = np.array([[60, 40]])
    assert suboptimality(counts, np.array([1]), "tv") == pytest.approx(0.1)
    assert suboptimality(counts, np.array([1]), "contamination") == pytest.approx(0.2 / 1.2)


def test_the_count_argmax_is_optimal() -> None:
    """The platform of the theory takes the most frequent label, breaks ties low, and guesses where nobody is."""
    domain = Domain((4,), 3)
    counts = np.array([[1, 5, 2], [3, 0, 3], [0, 0, 0], [0, 1, 0]])
    decisions = CountArgmax().decide(counts, domain)
    assert decisions.tolist() == [1, 0, 1, 1]
    assert suboptimality(counts, decisions, "tv") == suboptimality(counts, decisions, "contamination") == 0


@examples(40)
@given(seeds, st.floats(0, 0.4), st.sampled_from(["tv", "contamination"]))
def test_an_adversary_stays_within_its_budget(seed: int, epsilon: float, kind: Suboptimality) -> None:
    """An adversary is ε-suboptimal, differs only at the chosen cells, and there only denies the target."""
    generator = np.random.default_rng(seed)
    domain = Domain((5,), 3)
    counts = people_of(domain, 1_000, generator)
    cells = np.array([0, 2, 3])
    decisions = Adversary(epsilon, kind, cells, 1, generator.integers(0, 50, 3)).decide(counts, domain)
    assert suboptimality(counts, decisions, kind) <= epsilon + 1e-12
    changed = np.flatnonzero(decisions != CountArgmax().decide(counts, domain))
    assert set(changed.tolist()) <= set(cells.tolist())
    assert (CountArgmax().decide(counts, domain)[changed] == 1).all()
    assert (decisions[changed] != 1).all()


@pytest.mark.parametrize("platform", TRAINED, ids=lambda p: type(p).__name__)
def test_trained_platforms_learn_a_plain_rule(platform: RetrainingPlatform) -> None:
    """Each learns that the label is the first feature, the same every time, and its ε is then 0."""
    domain = Domain((2, 3), 2)
    counts = np.zeros((6, 2), np.int64)
    counts[:3, 0] = counts[3:, 1] = 200
    counts[0, 1] = 20
    decisions = platform.decide(counts, domain)
    assert decisions.tolist() == [0, 0, 0, 1, 1, 1]
    assert decisions.dtype == np.int64
    assert (platform.decide(counts, domain) == decisions).all()
    assert suboptimality(counts, decisions, "tv") == 0


@pytest.mark.parametrize("platform", [CountArgmax(), *TRAINED], ids=lambda p: type(p).__name__)
def test_one_label_is_what_everybody_gets(platform: RetrainingPlatform) -> None:
    """Where all people have one label, every cell is given it."""
    counts = np.zeros((6, 3), np.int64)
    counts[1:3, 2] = 5
    assert (platform.decide(counts, Domain((2, 3), 3)) == 2).all()


def test_logistic_regression_cannot_give_one_combination_its_own_label() -> None:
    """On a label that is the exclusive or of two features, the measured ε of the linear platform is above 0."""
    domain = Domain((2, 2), 2)
    counts = np.array([[100, 20], [20, 100], [20, 100], [300, 20]])
    assert suboptimality(counts, LogisticRegression().decide(counts, domain), "tv") > 0.05
    assert suboptimality(counts, GradientBoosting().decide(counts, domain), "tv") == 0


def test_scikit_learn_is_loaded_when_it_is_needed() -> None:
    """Importing the platforms loads no scikit-learn, and without it a trained one says what to install."""
    code = (
        "import sys, numpy as np\n"
        "import ttca.training_time.aggregator\n"
        "from ttca.training_time.platform import *\n"
        "from ttca.training_time.signals import Domain\n"
        "assert 'sklearn' not in sys.modules and 'scipy' not in sys.modules\n"
        "sys.modules['sklearn'] = None\n"
        "for model in (LogisticRegression(), GradientBoosting(), NeuralNetwork()):\n"
        "    try: model.decide(np.ones((2, 2), int), Domain((2,), 2))\n"
        "    except Exception as error: print(type(error).__name__, error.extra)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["MissingExtraError data"] * 3


DOMAIN = Domain((2,), 2)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: CountArgmax().decide(np.zeros((2, 2), int), DOMAIN), DataError, "Expected records to train on"),
        (lambda: CountArgmax().decide(np.ones((3, 2), int), DOMAIN), DataError, "shape (2, 2)"),
        (lambda: LogisticRegression(strength=0), ConfigError, "Expected strength of more than 0"),
        (lambda: GradientBoosting(iterations=0), ConfigError, "Expected iterations of more than 0"),
        (lambda: GradientBoosting(seed=-1), ConfigError, "Expected a seed of 0 or more"),
        (
            lambda: GradientBoosting().decide(np.ones((300, 2), int), Domain((300,), 2)),
            ConfigError,
            "at most 255 values",
        ),
        (lambda: NeuralNetwork(hidden=()), ConfigError, "Expected hidden of more than 0"),
        (lambda: Adversary(1.0, "tv", np.zeros(1, int), 0, np.ones(1)), ConfigError, "Expected ε within"),
        (lambda: Adversary(0.1, "tv", np.zeros(1, int), 0, np.ones(2)), DataError, "one number of people per cell"),
        (lambda: suboptimality(np.zeros((2, 2), int), np.zeros(2, int), "tv"), DataError, "not all 0"),
        (lambda: suboptimality(np.ones((2, 2), int), np.full(2, 2), "tv"), DataError, "one label within 0..1"),
        (
            lambda: suboptimality(np.ones((2, 2), int), np.zeros(2, int), "l2"),  # type: ignore[arg-type]
            ConfigError,
            "Expected the suboptimality to be one of",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], error: type[Exception], said: str) -> None:
    """Empty records, other domains and parameters out of range are refused with a sentence."""
    with pytest.raises(error, match=re.escape(said)):
        make()
