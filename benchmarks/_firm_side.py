"""What a firm could do itself: four methods against unfairness, beside the minority that relabels.

- fairlearn's ``ThresholdOptimizer`` (Hardt et al. 2016) and ``ExponentiatedGradient`` (Agarwal et al. 2018), as that
  package has them.
- Calibrated equalised odds (Pleiss et al. 2017, arXiv 1709.02012), written from the paper and its public code.
- FARE (Jovanović et al. 2023, arXiv 2210.07213): a representation from a restricted decision tree, written from the
  paper. Its guarantee (an upper bound for every classifier downstream) is not computed here: errors and EqOd are.

Each returns predictors of features *and* group, because the first three need the group of whom they judge. A collective
cannot do any of this; a firm can, and needs no member to lie.
"""

from __future__ import annotations

import heapq
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import EqualizedOdds, ExponentiatedGradient
from numpy.typing import NDArray

from ttca.errors import ConfigError, DataError
from ttca.training_time.relabelling import FirmErrors, LabeledRows, firm_errors

__all__ = [
    "Cost",
    "FairTree",
    "GroupPredict",
    "calibrated_equalised_odds",
    "exponentiated_gradient",
    "fair_gini",
    "fare",
    "measure_with_groups",
    "threshold_optimizer",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Cost = Literal["fnr", "fpr", "weighted"]

GroupPredict = Callable[[Floats, Flags], Integers]
"""Features (N, D) and group (N,) in, labels 0 or 1 of shape (N,) out."""


def measure_with_groups(predict: GroupPredict, people: LabeledRows) -> FirmErrors:
    """Return what a model that knows people's group does to them; errors as in :func:`measure`."""
    return firm_errors(lambda features: predict(features, people.minority), people)


def threshold_optimizer(model: Any, validation: LabeledRows, *, seed: int) -> GroupPredict:
    """Return randomised thresholds per group over a trained model (*published*: Hardt, Price, Srebro 2016).

    Parameters
    ----------
    model : scikit-learn classifier
        Trained by the firm.
    validation : LabeledRows
        Whom the thresholds are chosen by: the same people by whom the collective chooses its flips.
    seed : int
        Of the coin that its decisions need.
    """
    optimizer = ThresholdOptimizer(
        estimator=model, constraints="equalized_odds", prefit=True, predict_method="predict_proba"
    )
    optimizer.fit(validation.features, validation.labels, sensitive_features=validation.minority)

    def predict(features: Floats, minority: Flags) -> Integers:
        said = optimizer.predict(features, sensitive_features=minority, random_state=seed)
        return np.asarray(said, np.int64)

    return predict


def exponentiated_gradient(
    classifier: Any, train: LabeledRows, *, difference: float, most_rounds: int, seed: int
) -> GroupPredict:
    """Return a randomised mixture of classifiers held to equalised odds (*published*: Agarwal et al. 2018).

    Parameters
    ----------
    classifier : scikit-learn classifier
        Unfitted; must take sample weights.
    train : LabeledRows
        The rows the firm trains on, with their true labels.
    difference : float
        Largest violation of equalised odds allowed on training rows.
    most_rounds : int
        Rounds at most; fairlearn's own default is 50, and few are what keeps a benchmark short.
    seed : int
        Of the coin that its decisions need.
    """
    reduction = ExponentiatedGradient(classifier, EqualizedOdds(difference_bound=difference), max_iter=most_rounds)
    with warnings.catch_warnings():
        # fairlearn 0.15 grows pandas series in a way that pandas 3 announces to forbid: not ours to mend.
        warnings.simplefilter("ignore", DeprecationWarning)
        reduction.fit(train.features, train.labels, sensitive_features=train.minority)

    def predict(features: Floats, minority: Flags) -> Integers:
        return np.asarray(reduction.predict(features, random_state=seed), np.int64)

    return predict


# --- calibrated equalised odds -----------------------------------------------------------------------------


def _cost(scores: Floats, labels: Integers, cost: Cost) -> float:
    """Return the generalised cost of scores: 1 − mean score of positives, mean score of negatives, or both weighed."""
    missed = float(1 - scores[labels == 1].mean())
    raised = float(scores[labels == 0].mean())
    if cost == "fnr":
        return missed
    if cost == "fpr":
        return raised
    rate = float(labels.mean())
    return 0.5 * (missed * rate + raised * (1 - rate))


def calibrated_equalised_odds(model: Any, validation: LabeledRows, *, cost: Cost, seed: int) -> GroupPredict:
    """Return a model that withholds its score from some of the better-served group (*published*).

    The group with the smaller generalised cost is made to bear more: a share of its people, drawn at random, get its
    base rate for a score, which keeps the scores calibrated. The share is where the line from its cost to the base
    rate's cost meets the other group's cost (Pleiss et al. 2017, Algorithm 1). Labels are scores of .5 or more
    (*derived*: the paper works with scores).

    Parameters
    ----------
    model : scikit-learn classifier
        Trained by the firm, taken to be calibrated.
    validation : LabeledRows
        Whom costs and share are computed on.
    cost : "fnr", "fpr" or "weighted"
        Which cost the groups are to share.
    seed : int
        Of the draw.

    Raises
    ------
    ConfigError
        If the cost is none of those above.
    DataError
        If a group has no positives or no negatives.
    """
    if cost not in ("fnr", "fpr", "weighted"):
        raise ConfigError(f"Expected the cost as fnr, fpr or weighted, got {cost!r}. Choose one of them.")
    scores = np.asarray(model.predict_proba(validation.features)[:, 1], np.float64)
    costs, trivial, rates = {}, {}, {}
    for group in (False, True):
        rows = validation.minority == group
        labels = validation.labels[rows]
        if labels.all() or not labels.any():
            raise DataError("Expected both labels in each group, got only one. Take more validation people.")
        rates[group] = float(labels.mean())
        costs[group] = _cost(scores[rows], labels, cost)
        trivial[group] = _cost(np.full(len(labels), rates[group]), labels, cost)
    better = costs[True] < costs[False]
    span = trivial[better] - costs[better]
    # A model no better than the base rate has nothing to withhold.
    share = min(1.0, (costs[not better] - costs[better]) / span) if span > 0 else 0.0

    def predict(features: Floats, minority: Flags) -> Integers:
        generator = np.random.default_rng(seed)
        given = np.asarray(model.predict_proba(features)[:, 1], np.float64)
        withheld = (minority == better) & (generator.random(len(given)) < share)
        return (np.where(withheld, rates[better], given) >= 0.5).astype(np.int64)

    return predict


# --- FARE --------------------------------------------------------------------------------------------------


def fair_gini(counts: NDArray[Any], gamma: float) -> Floats:
    """Return FARE's impurity of nodes, for equalised odds.

    (1−γ)·Gini_y + γ·(1/2 − Gini_s): pure in the label, mixed in the group (*published*, for demographic parity).
    For equalised odds Gini_s is taken among people of each label apart and weighed by how many there are; that is how
    the authors' public code does it.

    Parameters
    ----------
    counts : numbers, shape (..., 2, 2)
        People by group, then label.
    gamma : float
        γ in [0, 1].

    Returns
    -------
    float64 array, shape (...)
        0 to 1/2. For nobody it is 0.
    """
    people = counts.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        positive = counts[..., 1].sum(axis=-1) / people
        by_label = counts.sum(axis=-2)
        share = counts[..., 1, :] / by_label
        label = 2 * positive * (1 - positive)
        # Nobody with a label adds nothing to the mean over labels.
        group = np.nansum(by_label * 2 * share * (1 - share), axis=-1) / people
    return np.where(people > 0, (1 - gamma) * label + gamma * (0.5 - group), 0.0)


@dataclass(frozen=True)
class FairTree:
    """A restricted encoder: people in, one of at most k cells out.

    Parameters
    ----------
    feature : int64 array, shape (T,)
        Feature of each node's test, −1 in a leaf.
    threshold : float64 array, shape (T,)
        People at or below it go left.
    left, right : int64 arrays, shape (T,)
        Children; −1 in a leaf.
    label : int64 array, shape (T,)
        What most training people of the node are.
    """

    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    label: Integers

    @property
    def cells(self) -> int:
        """Number of leaves."""
        return int((self.feature < 0).sum())

    def encode(self, features: Floats) -> Integers:
        """Return the leaf of each row, int64 of shape (N,): all that a classifier downstream may see."""
        node = np.zeros(len(features), np.int64)
        while (inner := self.feature[node] >= 0).any():
            at = node[inner]
            goes_left = features[inner, self.feature[at]] <= self.threshold[at]
            node[inner] = np.where(goes_left, self.left[at], self.right[at])
        return node


@dataclass(frozen=True)
class _Binned:
    """Features as few ordered bins, so that every split of a node is one count away."""

    bins: NDArray[np.int64]
    edges: tuple[Floats, ...]
    width: int

    @classmethod
    def of(cls, features: Floats, most: int) -> _Binned:
        edges = []
        for column in features.T:
            values = np.unique(column)
            if len(values) > most:
                values = np.unique(np.quantile(column, np.linspace(0, 1, most + 1)[1:]))
            edges.append(values)
        bins = np.stack([np.searchsorted(edge, column) for edge, column in zip(edges, features.T, strict=True)], axis=1)
        return cls(bins.astype(np.int64), tuple(edges), max(len(edge) for edge in edges))


def _best_split(
    binned: _Binned, kind: Integers, rows: Integers, gamma: float, least: int
) -> tuple[float, int, int] | None:
    """Return the fall in impurity (times people), the feature and the last bin that goes left."""
    features = binned.bins.shape[1]
    place = (np.arange(features) * binned.width + binned.bins[rows]) * 4 + kind[rows, None]
    counts = np.bincount(place.ravel(), minlength=features * binned.width * 4)
    left = counts.reshape(features, binned.width, 2, 2).cumsum(axis=1)
    total = left[0, -1]
    right = total - left
    people_left, people_right = left.sum(axis=(-2, -1)), right.sum(axis=(-2, -1))
    children = people_left * fair_gini(left, gamma) + people_right * fair_gini(right, gamma)
    fall = float(fair_gini(total, gamma)) * len(rows) - children
    fall[(people_left < least) | (people_right < least)] = -np.inf
    best = int(fall.argmax())
    gain = float(fall.ravel()[best])
    # Below this a split is rounding.
    return (gain, best // binned.width, best % binned.width) if gain > 1e-9 else None


def fare(train: LabeledRows, *, gamma: float, cells: int, least: int, bins: int = 64) -> FairTree:
    """Return a tree grown best first by :func:`fair_gini` to at most so many cells.

    Parameters
    ----------
    train : LabeledRows
        The rows the firm trains on, with their true labels.
    gamma : float
        γ in [0, 1]: 0 is an ordinary tree, 1 looks at the group alone.
    cells : int
        Leaves at most, 2 or more; the paper's k.
    least : int
        Training people in each leaf, 1 or more; the paper's n.
    bins : int
        Places at most where a number is cut.

    Raises
    ------
    ConfigError
        If a parameter is out of range.

    Notes
    -----
    Criterion and growth *published*. *Derived*: numbers are cut at ``bins`` quantiles, categories one against the
    rest (the authors order them), and the classifier on top of the cells is the majority label of each, the most
    accurate one there can be on training people, where the authors train a small network on the cells' medians.
    """
    if not 0 <= gamma <= 1 or cells < 2 or least < 1 or bins < 2:
        raise ConfigError(
            f"Expected γ in [0, 1], 2 or more cells and bins and 1 or more people a cell, got {gamma}, {cells}, "
            f"{bins} and {least}. Try 0.5, 32, 64 and 20."
        )
    binned = _Binned.of(train.features, bins)
    kind = 2 * train.minority.astype(np.int64) + train.labels
    feature, threshold, left, right, label = [-1], [0.0], [-1], [-1], [int(train.labels.mean() >= 0.5)]
    order = itertools.count()
    queue: list[tuple[float, int, int, Integers, int, int]] = []

    def offer(node: int, rows: Integers) -> None:
        split = _best_split(binned, kind, rows, gamma, least)
        if split is not None:
            heapq.heappush(queue, (-split[0], next(order), node, rows, split[1], split[2]))

    offer(0, np.arange(len(train)))
    leaves = 1
    while queue and leaves < cells:
        _, _, node, rows, column, last = heapq.heappop(queue)
        goes_left = binned.bins[rows, column] <= last
        feature[node], threshold[node] = column, float(binned.edges[column][last])
        for children, some in ((left, rows[goes_left]), (right, rows[~goes_left])):
            children[node] = len(feature)
            feature.append(-1)
            threshold.append(0.0)
            left.append(-1)
            right.append(-1)
            label.append(int(train.labels[some].mean() >= 0.5))
            offer(children[node], some)
        leaves += 1
    return FairTree(np.array(feature), np.array(threshold), np.array(left), np.array(right), np.array(label))
