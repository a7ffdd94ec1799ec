"""The platform that retrains: from a histogram of records to one decision per cell, and how far from optimal it is.

On a finite domain a classifier is a table of decisions. :class:`CountArgmax` is the platform of the theory (ε = 0);
the trained ones are scikit-learn's, and :func:`suboptimality` measures their ε exactly on what they were trained on.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ConfigError, DataError, MissingExtraError
from ttca.training_time.bounds import Suboptimality, margin_needed
from ttca.training_time.signals import Domain, Integers
from ttca.values import OneLine

__all__ = [
    "Adversary",
    "CountArgmax",
    "GradientBoosting",
    "LogisticRegression",
    "NeuralNetwork",
    "RetrainingPlatform",
    "suboptimality",
]


class RetrainingPlatform(Protocol):
    """A platform that trains on everybody's records, changed or not. *Published* (arXiv 2502.04879)."""

    def decide(self, counts: ArrayLike, domain: Domain) -> Integers:
        """Return f, the label of each cell, int64, shape (#X,).

        Parameters
        ----------
        counts : integers, shape (#X, #Y)
            The records it trains on, not all 0.
        domain : Domain

        Raises
        ------
        DataError
            If counts is no histogram of the domain, or empty.
        """


def _records(counts: ArrayLike, domain: Domain) -> Integers:
    table = domain.counts(counts)
    if not table.any():
        raise DataError("Expected records to train on, got none. Pass the histogram of all people.")
    return table


@dataclass(frozen=True)
class CountArgmax:
    """The platform of the theory: the most frequent label of each cell.

    Notes
    -----
    *Published* (arXiv 2502.04879, ε = 0). *Ours*: ties go to the lowest label, and a cell that nobody is in takes the
    label most frequent among all people. The theory allows any choice in both.
    """

    def decide(self, counts: ArrayLike, domain: Domain) -> Integers:
        """Return f, int64, shape (#X,); parameters and errors as :class:`RetrainingPlatform`."""
        table = _records(counts, domain)
        said: Integers = table.argmax(axis=1).astype(np.int64)
        said[table.sum(axis=1) == 0] = int(table.sum(axis=0).argmax())
        return said


@dataclass(frozen=True, eq=False, repr=False)
class Adversary(OneLine):
    """A platform that spends all the suboptimality it is allowed on denying one label at chosen cells.

    It decides like :class:`CountArgmax`, but for as many of those cells as it can pay for, the cheapest per person
    first. It is a hard test of bounds with ε > 0, not the hardest there is: which cells to flip best is a knapsack.

    Parameters
    ----------
    epsilon : float
        ε, in [0, 1).
    kind : {"tv", "contamination"}
        What ε means.
    cells : int64 array, shape (k,)
        Where to deny.
    target : int
        Which label.
    people : numbers, shape (k,)
        What denying each of the cells is worth.

    Raises
    ------
    ConfigError
        If ε or kind is not allowed.
    DataError
        If cells and people have different shapes.

    Notes
    -----
    *Ours*. A flip from the target to the runner-up costs their difference in P; all flips together may cost τ of
    :func:`~ttca.training_time.bounds.margin_needed`.
    """

    epsilon: float
    kind: Suboptimality
    cells: Integers
    target: int
    people: NDArray[Any]

    def __post_init__(self) -> None:
        margin_needed(self.epsilon, self.kind)
        if np.ndim(self.cells) != 1 or np.shape(self.cells) != np.shape(self.people):
            raise DataError(
                f"Expected one number of people per cell, got shapes {np.shape(self.cells)} and "
                f"{np.shape(self.people)}. Count the people whom the signal sends to each cell."
            )

    def decide(self, counts: ArrayLike, domain: Domain) -> Integers:
        """Return f, int64, shape (#X,); parameters and errors as :class:`RetrainingPlatform`."""
        table = _records(counts, domain)
        said = CountArgmax().decide(table, domain)
        shares = table / table.sum()
        open_to = self.cells[said[self.cells] == self.target]
        worth = np.asarray(self.people, dtype=np.float64)[said[self.cells] == self.target]
        rivals = shares[open_to].copy()
        rivals[:, self.target] = -1
        cost = shares[open_to, self.target] - rivals.max(axis=1)
        order = np.argsort(cost / np.maximum(worth, 1e-12), kind="stable")
        affordable = np.cumsum(cost[order]) <= margin_needed(self.epsilon, self.kind)
        flipped = order[affordable]
        said[open_to[flipped]] = rivals[flipped].argmax(axis=1)
        return said.astype(np.int64)


# --- trained platforms --------------------------------------------------------------------------------------


def _one_hot(domain: Domain, cells: Integers) -> NDArray[np.float64]:
    features = domain.decode(cells)
    columns = [np.eye(n)[features[:, i]] for i, n in enumerate(domain.levels)]
    return np.concatenate(columns, axis=1)


def _weighted_rows(table: Integers) -> tuple[Integers, Integers, NDArray[np.float64]]:
    """Return cell, label and number of people of every pair that somebody has."""
    cells, labels = np.nonzero(table)
    return cells.astype(np.int64), labels.astype(np.int64), table[cells, labels].astype(np.float64)


def _people(table: Integers) -> tuple[Integers, Integers]:
    """Return cell and label of every person.

    Trees look at how many rows a category has, whatever the rows weigh, and older neural networks of scikit-learn take
    no weights: for both, people must be rows.
    """
    pairs = np.repeat(np.arange(table.size), table.ravel())
    cells, labels = np.divmod(pairs, table.shape[1])
    return cells.astype(np.int64), labels.astype(np.int64)


@dataclass(frozen=True)
class LogisticRegression:
    """Multinomial logistic regression on one-hot features: it cannot give one combination a label of its own.

    Parameters
    ----------
    strength : float
        scikit-learn's C, over 0.
    iterations : int
        At most so many, 1 or more.

    Raises
    ------
    ConfigError
        If a parameter is out of range.

    Notes
    -----
    The model is *published* (scikit-learn's); its use here is *ours*.
    """

    strength: float = 1.0
    iterations: int = 200

    def __post_init__(self) -> None:
        _positive(strength=self.strength, iterations=self.iterations)

    def decide(self, counts: ArrayLike, domain: Domain) -> Integers:
        """Return f, int64, shape (#X,).

        Parameters and errors as :class:`RetrainingPlatform`; MissingExtraError if scikit-learn is not installed.
        """
        table = _records(counts, domain)
        try:
            from sklearn.linear_model import LogisticRegression as Model
        except ImportError as error:
            raise MissingExtraError("A trained platform", "data") from error
        if (one := _only_label(table, domain)) is not None:
            return one
        cells, labels, weights = _weighted_rows(table)
        model = Model(C=self.strength, max_iter=self.iterations)
        _fit(model, _one_hot(domain, cells), labels, weights)
        return np.asarray(model.predict(_one_hot(domain, np.arange(domain.cells))), dtype=np.int64)


@dataclass(frozen=True)
class GradientBoosting:
    """Gradient-boosted trees (histogram) on features taken as categories, trained person by person.

    Parameters
    ----------
    iterations : int
        Trees per label, 1 or more.
    seed : int
        Of scikit-learn's random state, 0 or more.

    Raises
    ------
    ConfigError
        If a parameter is out of range.

    Notes
    -----
    The model is *published* (scikit-learn's); its use here is *ours*.
    """

    iterations: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(iterations=self.iterations)
        _seed(self.seed)

    def decide(self, counts: ArrayLike, domain: Domain) -> Integers:
        """Return f, int64, shape (#X,).

        Parameters and errors as :class:`RetrainingPlatform`; ConfigError if a feature has more than 255 values, which
        the trees cannot take; MissingExtraError if scikit-learn is not installed.
        """
        table = _records(counts, domain)
        if max(domain.levels) > _MOST_CATEGORIES:
            raise ConfigError(
                f"Expected features of at most {_MOST_CATEGORIES} values, got {max(domain.levels)}. "
                "Make the feature coarser, or use another platform."
            )
        try:
            from sklearn.ensemble import HistGradientBoostingClassifier
        except ImportError as error:
            raise MissingExtraError("A trained platform", "data") from error
        if (one := _only_label(table, domain)) is not None:
            return one
        cells, labels = _people(table)
        model = HistGradientBoostingClassifier(
            max_iter=self.iterations,
            categorical_features=list(range(len(domain.levels))),
            # As many trees as were asked for, whatever a validation part would have said.
            early_stopping=False,
            random_state=self.seed,
        )
        _fit(model, domain.decode(cells).astype(np.float64), labels, None)
        everything = domain.decode(np.arange(domain.cells)).astype(np.float64)
        return np.asarray(model.predict(everything), dtype=np.int64)


@dataclass(frozen=True)
class NeuralNetwork:
    """A multi-layer perceptron on one-hot features, trained person by person.

    Parameters
    ----------
    hidden : tuple of int
        Units per hidden layer, 1 or more each.
    epochs : int
        Passes over all people, 1 or more.
    batch : int
        People per step, 1 or more; all of them if there are fewer.
    seed : int
        Of scikit-learn's random state, 0 or more.

    Raises
    ------
    ConfigError
        If a parameter is out of range.

    Notes
    -----
    The model is *published* (scikit-learn's); its use here is *ours*.
    """

    hidden: tuple[int, ...] = (32,)
    epochs: int = 10
    batch: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(epochs=self.epochs, batch=self.batch, hidden=min(self.hidden, default=0))
        _seed(self.seed)

    def decide(self, counts: ArrayLike, domain: Domain) -> Integers:
        """Return f, int64, shape (#X,).

        Parameters and errors as :class:`RetrainingPlatform`; MissingExtraError if scikit-learn is not installed.
        """
        table = _records(counts, domain)
        try:
            from sklearn.neural_network import MLPClassifier
        except ImportError as error:
            raise MissingExtraError("A trained platform", "data") from error
        if (one := _only_label(table, domain)) is not None:
            return one
        cells, labels = _people(table)
        model = MLPClassifier(
            hidden_layer_sizes=self.hidden,
            max_iter=self.epochs,
            batch_size=min(self.batch, len(cells)),
            random_state=self.seed,
        )
        _fit(model, _one_hot(domain, cells), labels, None)
        return np.asarray(model.predict(_one_hot(domain, np.arange(domain.cells))), dtype=np.int64)


_MOST_CATEGORIES = 255


def _only_label(table: Integers, domain: Domain) -> Integers | None:
    """Return f where all people have one label: scikit-learn refuses to learn a single class."""
    present = np.flatnonzero(table.sum(axis=0))
    return np.full(domain.cells, present[0], np.int64) if len(present) == 1 else None


def _fit(model: Any, inputs: NDArray[np.float64], labels: Integers, weights: NDArray[np.float64] | None) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # A platform that stops early is a platform as well: how far it is from optimal is measured, not assumed.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if weights is None:
            model.fit(inputs, labels)
        else:
            model.fit(inputs, labels, sample_weight=weights)


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise ConfigError(f"Expected {name} of more than 0, got {value!r}. Choose a larger number.")


def _seed(seed: int) -> None:
    if seed < 0:
        raise ConfigError(f"Expected a seed of 0 or more, got {seed!r}. Choose another.")


# --- how far from optimal -----------------------------------------------------------------------------------


def suboptimality(counts: ArrayLike, decisions: ArrayLike, kind: Suboptimality) -> float:
    """Return the smallest ε for which a classifier is ε-suboptimal on what it was trained on.

    Parameters
    ----------
    counts : integers, shape (#X, #Y)
        What it was trained on, not all 0.
    decisions : integers, shape (#X,)
        Its label for each cell.
    kind : {"tv", "contamination"}
        What ε means (:func:`~ttca.training_time.bounds.margin_needed`).

    Returns
    -------
    float
        In [0, 1).

    Raises
    ------
    ConfigError
        If the kind has another name.
    DataError
        If shapes or dtypes do not fit.

    Notes
    -----
    The definition is *published* (arXiv 2502.04879: f(x) ∈ argmax_y P̃(x, y) for a P̃ near P); the solution is *derived*.
    Let gap(x) be the largest P(x, y) less P(x, f(x)).

    *Contamination*: Q must make up (1 − ε)·gap(x) at every x with a mass of ε, so that ε = Σgap/(1 + Σgap).

    *Total variation*: at each x some level L(x) is chosen, what lies above it is taken away and P(x, f(x)) is raised to
    it; ε is the larger of all that is taken and all that is added, the rest being balanced where it does no harm. With
    k labels above L(x), lowering it saves one unit of adding and costs k of taking. So levels are lowered where k is
    smallest first, until both sides are equal.
    """
    margin_needed(0.0, kind)
    table, said = np.asarray(counts), np.asarray(decisions)
    if table.ndim != 2 or table.dtype.kind not in "iu" or (table < 0).any() or not table.any():
        raise DataError(
            f"Expected whole numbers of people of shape (#X, #Y), 0 or more and not all 0, got dtype {table.dtype} and "
            f"shape {table.shape}. Count what the platform was trained on."
        )
    if (
        said.shape != table.shape[:1]
        or said.dtype.kind not in "iu"
        or (said < 0).any()
        or (said >= table.shape[1]).any()
    ):
        raise DataError(
            f"Expected one label within 0..{table.shape[1] - 1} per cell, got dtype {said.dtype} and shape "
            f"{said.shape}. Pass what decide() returned."
        )
    shares = table / table.sum()
    chosen = np.take_along_axis(shares, said[:, None].astype(np.int64), axis=1)
    gap = float((shares.max(axis=1, keepdims=True) - chosen).sum())
    if kind == "contamination":
        return gap / (1 + gap)
    # Labels above the chosen one, descending, down to the chosen one itself.
    above = -np.sort(-np.maximum(shares, chosen), axis=1)
    lengths = (above[:, :-1] - above[:, 1:]).sum(axis=0)
    added, taken = gap, 0.0
    for k, length in enumerate(lengths.tolist(), start=1):
        step = min(length, (added - taken) / (1 + k))
        added, taken = added - step, taken + k * step
    return max(added, taken)
