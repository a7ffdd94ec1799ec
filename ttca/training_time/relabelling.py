"""A minority that relabels: which members report a positive label, and how unfair the retrained model then is.

Source: Ben-Dov, Samadi, Sanyal, Țifrea (arXiv 2508.15374), *published*: only members of the minority act, they change
nothing but their own label, those with a negative label are ranked and the first M report a positive one. Scores
RB-prob, RB-label, RB-dist and Random are theirs. *Ours*: whom the draw of members takes, the ways to choose M, and
everything said about validation people.

Arrays only: a table of numbers, labels, a flag per person. The firm is a plain callable, so that any model will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ConfigError, DataError
from ttca.fairness import equalized_odds_difference
from ttca.renamed import old_names
from ttca.values import Value

__all__ = [
    "Classifier",
    "Firm",
    "FirmErrors",
    "LabeledRows",
    "Predict",
    "Trial",
    "collective",
    "equalized_odds",
    "fewest_flips",
    "firm_errors",
    "flip_first",
    "least_violation",
    "least_violation_within",
    "pareto_front",
    "random_scores",
    "rb_dist",
    "rb_label",
    "rb_prob",
    "sweep",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

Predict = Callable[[Floats], Integers]
"""What a trained firm is to users: features of shape (N, D) in, labels 0 or 1 of shape (N,) out."""

Firm = Callable[[Floats, Integers], Predict]
"""A firm that trains: features (N, D) and labels (N,) in, its model out. It must be deterministic."""

# Distances are taken for so many (pool, majority) pairs at once: 64 MiB of float64.
_PAIRS = 8_000_000
# Squared distances are alike within so much of the squared lengths: more than rounding adds, less than data differ by.
_ALIKE = 1e-12


class Classifier(Protocol):
    """A scikit-learn classifier, as far as RB-prob needs one (*ours*: which model, the paper does not say)."""

    def fit(self, X: Floats, y: Integers) -> object:
        """Learn from features (N, D) and labels (N,)."""
        ...

    def predict_proba(self, X: Floats) -> Floats:
        """Return probabilities, shape (N, 2): of label 0, of label 1."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class LabeledRows(Value):
    """Rows of people with one role: to train on, to choose by (*ours*), or to be tested on.

    Parameters
    ----------
    features : float64 array, shape (N, D)
        What the firm sees of them.
    labels : int64 array, shape (N,)
        Their true labels, 0 or 1; 1 is the favorable one.
    minority : bool array, shape (N,)
        Who is of the minority.

    Raises
    ------
    DataError
        If shapes or values are not as above, or one of the groups is empty.
    """

    features: Floats
    labels: Integers
    minority: Flags

    def __post_init__(self) -> None:
        for name in ("features", "labels", "minority"):
            if not isinstance(getattr(self, name), np.ndarray):
                kind = type(getattr(self, name)).__name__
                raise DataError(f"Expected {name} as a numpy array, got {kind}. Pass numpy.asarray({name}).")
        if self.features.ndim != 2 or self.features.dtype.kind not in "fiub" or not np.isfinite(self.features).all():
            raise DataError(
                f"Expected finite features of shape (N, D), got {self.features.dtype} of shape {self.features.shape}. "
                "Encode the table first."
            )
        rows = len(self.features)
        if self.labels.shape != (rows,) or self.minority.shape != (rows,) or self.minority.dtype != np.bool_:
            raise DataError(
                f"Expected one label and one flag (bool) per row, got shapes {self.labels.shape} and "
                f"{self.minority.shape} for {rows} rows. Pass the rows of the same people."
            )
        if not np.isin(self.labels, (0, 1)).all():
            raise DataError("Expected labels 0 and 1, got others. Number the favorable label 1.")
        if self.minority.all() or not self.minority.any():
            raise DataError("Expected people of both groups, got only one group. Check how the rows were chosen.")

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.labels)


# --- who takes part, and in which order they flip ----------------------------------------------------------


def collective(minority: Flags, alpha: float, generator: np.random.Generator) -> Integers:
    """Return the row numbers of the members who take part, int64 of shape (round(α · minority),).

    Parameters
    ----------
    minority : bool array, shape (N,)
        Who is of the minority.
    alpha : float
        Share of the *minority* that takes part, in (0, 1].
    generator : numpy.random.Generator
        Source of the draw. The same seed gives nested collectives: the members of a smaller α are among those of a
        larger one, so that a curve over α compares like with like.

    Raises
    ------
    ConfigError
        If alpha is outside (0, 1], or the generator is none.

    Notes
    -----
    α as a share of the minority is *published*; that members are drawn uniformly, whatever their label, is *ours*.
    """
    if not 0 < alpha <= 1:
        raise ConfigError(f"Expected a share of the minority in (0, 1], got {alpha!r}. Try 0.3.")
    if not isinstance(generator, np.random.Generator):
        raise ConfigError(f"Expected a generator, got {generator!r}. Try numpy.random.default_rng(0).")
    order = generator.permutation(np.flatnonzero(minority))
    return np.asarray(order[: round(alpha * len(order))], np.int64)


def _matrices(pool: Floats, majority: Floats, labels: Integers) -> None:
    if not (np.isfinite(pool).all() and np.isfinite(majority).all()):
        raise DataError("Expected finite features, got missing ones. Fill them in, or leave these people out.")
    if pool.ndim != 2 or majority.ndim != 2 or pool.shape[1] != majority.shape[1]:
        raise DataError(
            f"Expected features with the same columns, got shapes {pool.shape} and {majority.shape}. Encode both alike."
        )
    if labels.shape != (len(majority),):
        raise DataError(
            f"Expected one label per majority row, got {labels.shape} for {len(majority)} rows. Pass the same rows."
        )


def rb_prob(pool: Floats, majority: Floats, labels: Integers, *, classifier: Classifier) -> Floats:
    """Return p(label 1 | x) of a model that has seen the majority alone: *RB-prob*, *published*.

    A member whom that model calls positive would have had a positive label, had they been of the majority.

    Parameters
    ----------
    pool : float64 array, shape (P, D)
        Members with a negative label.
    majority : float64 array, shape (Q, D)
        Majority people the collective knows of.
    labels : int64 array, shape (Q,)
        Their labels, both 0 and 1 among them.
    classifier : Classifier
        Fitted here. Which model the authors used is not known to us.

    Returns
    -------
    float64 array, shape (P,)

    Raises
    ------
    DataError
        If shapes do not fit, a feature is missing, or the majority's labels are all alike.
    """
    _matrices(pool, majority, labels)
    if len(np.unique(labels)) < 2:
        raise DataError("Expected majority people with both labels, got only one label. Take more people.")
    if not len(pool):
        return np.empty(0)
    classifier.fit(majority, labels)
    return np.asarray(classifier.predict_proba(pool)[:, 1], np.float64)


def _squared_distances(pool: Floats, others: Floats, k: int) -> Iterator[tuple[slice, Floats, Floats]]:
    """Yield pieces of the pool: their place, squared distances to all others, and within how much two are alike."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"Expected k as a whole number of 1 or more, got {k!r}. Try 10.")
    if len(others) < k:
        raise DataError(
            f"Expected at least k = {k} people to find neighbors among, got {len(others)}. Take more people, or a "
            "smaller k."
        )
    squares = np.einsum("ij,ij->i", others, others)
    step = max(1, _PAIRS // len(others))
    for start in range(0, len(pool), step):
        some = pool[start : start + step]
        own = np.einsum("ij,ij->i", some, some)[:, None]
        squared = own + squares - 2 * some @ others.T
        # A copy has distance 0, and rounding may make that a little less.
        np.maximum(squared, 0, out=squared)
        yield slice(start, start + step), squared, _ALIKE * (own + squares.max())


def rb_label(pool: Floats, majority: Floats, labels: Integers, *, k: int) -> Floats:
    """Return how many of the k nearest majority people are positive: *RB-label*, *published*.

    Parameters
    ----------
    pool, majority, labels
        As in :func:`rb_prob`.
    k : int
        Neighbors, 1 or more (Euclidean; the paper's k and distance are not known to us).

    Returns
    -------
    float64 array, shape (P,)
        0 to k, in fractions where neighbors tie. Many members tie; :func:`flip_first` takes them as they come.

    Raises
    ------
    DataError
        If shapes do not fit, a feature is missing, or there are fewer than k majority people.
    ConfigError
        If k is below 1.

    Notes
    -----
    Where several majority people are equally far away at the k-th place, the places left count the average of their
    labels (*ours*): the score does not depend on the order of the majority's rows.
    """
    _matrices(pool, majority, labels)
    scores = np.empty(len(pool))
    positive = labels.astype(np.float64)
    for rows, squared, alike in _squared_distances(pool, majority, k):
        last = np.partition(squared, k - 1, axis=1)[:, k - 1 : k]
        nearer, tied = squared < last - alike, np.abs(squared - last) <= alike
        left = (k - nearer.sum(axis=1)) / tied.sum(axis=1)
        scores[rows] = nearer @ positive + left * (tied @ positive)
    return scores


def rb_dist(pool: Floats, majority: Floats, labels: Integers, *, k: int) -> Floats:
    """Return minus the mean distance to the k nearest *positive* majority people: *RB-dist*, *published*.

    Parameters
    ----------
    pool, majority, labels, k
        As in :func:`rb_label`.

    Returns
    -------
    float64 array, shape (P,)
        0 or less.

    Raises
    ------
    DataError
        If shapes do not fit, a feature is missing, or there are fewer than k positive majority people.
    ConfigError
        If k is below 1.
    """
    _matrices(pool, majority, labels)
    scores = np.empty(len(pool))
    for rows, squared, _ in _squared_distances(pool, majority[labels == 1], k):
        # Of people who tie at the k-th place any will do: their distance is the same.
        scores[rows] = -np.sqrt(np.sort(np.partition(squared, k - 1, axis=1)[:, :k], axis=1)).mean(axis=1)
    return scores


def random_scores(pool: Floats, *, generator: np.random.Generator) -> Floats:
    """Return scores that say nothing, float64 of shape (P,): the *Random* baseline, *published*.

    Parameters
    ----------
    pool : float64 array, shape (P, D)
        Members with a negative label.
    generator : numpy.random.Generator
        Source of all randomness.
    """
    return generator.random(len(pool))


def flip_first(labels: Integers, pool: Integers, scores: Floats, flips: int) -> Integers:
    """Return the labels the firm gets: those of the first members by score are positive (*published*).

    Parameters
    ----------
    labels : int64 array, shape (N,)
        True labels; left as they are.
    pool : int64 array, shape (P,)
        Row numbers of members with a negative label.
    scores : float64 array, shape (P,)
        The highest flip first; of equals the one named first.
    flips : int
        M, from 0 to P.

    Returns
    -------
    int64 array, shape (N,)

    Raises
    ------
    DataError
        If the pool is not row numbers of different people, someone in it has a positive label, or there is not one
        score each.
    ConfigError
        If flips is no whole number from 0 to P.
    """
    if pool.dtype.kind not in "iu" or ((pool < 0) | (pool >= len(labels))).any() or len(np.unique(pool)) < pool.size:
        raise DataError(
            f"Expected a pool of different row numbers within 0..{len(labels) - 1}, got others, or one of them twice. "
            "Number the rows of labels."
        )
    if scores.shape != pool.shape or np.isnan(scores).any():
        raise DataError(
            f"Expected one score per member, got {scores.shape} for {pool.shape}, {int(np.isnan(scores).sum())} of "
            "them missing. Score the same members."
        )
    if labels[pool].any():
        raise DataError("Expected members with a negative label, got a positive one. Leave those out of the pool.")
    if not isinstance(flips, int | np.integer) or isinstance(flips, bool) or not 0 <= flips <= len(pool):
        raise ConfigError(f"Expected 0 to {len(pool)} flips, got {flips!r}. Flip no more than are in the pool.")
    given = labels.copy()
    given[pool[np.argsort(-scores, kind="stable")[:flips]]] = 1
    return given


# --- what the firm's model then does -----------------------------------------------------------------------


def equalized_odds(y_true: ArrayLike, y_pred: ArrayLike, minority: Flags) -> float:
    """Return EqOd, the *mean* of the TPR gap and the FPR gap of the two groups (*published*: not their maximum).

    Parameters
    ----------
    y_true, y_pred : integers, shape (N,)
        0 or 1.
    minority : bool array, shape (N,)
        The groups.

    Returns
    -------
    float
        fairlearn's ``equalized_odds_difference(agg="mean")``; NaN where a group has no positives or no negatives.

    Raises
    ------
    DataError
        As :func:`ttca.fairness.equalized_odds_difference`.
    """
    return equalized_odds_difference(y_true, y_pred, minority, agg="mean")


@dataclass(frozen=True)
class FirmErrors:
    """What a model does to some people, against their *true* labels.

    Parameters
    ----------
    error : float
        Share of wrong labels.
    eqod : float
        :func:`equalized_odds`.
    standard_error : float
        Of ``eqod``, from four binomial rates (*derived*): √(Σ p(1−p)/n)/2. It takes both gaps' signs as known, so it
        says too little about an EqOd near 0.
    minority_error, majority_error : float
        The error of each group apart: who pays.
    """

    error: float
    eqod: float
    standard_error: float
    minority_error: float
    majority_error: float


def firm_errors(predict: Predict, people: LabeledRows) -> FirmErrors:
    """Return what a model does to people: error and EqOd *published*, the standard error *derived*.

    Parameters
    ----------
    predict : callable
        Features (N, D) in, labels 0 or 1 of shape (N,) out.
    people : LabeledRows
        Whom to ask it about; their true labels are what counts as right.

    Raises
    ------
    DataError
        If the model returns another number of labels, or others than 0 and 1.
    """
    said = np.asarray(predict(people.features))
    if said.shape != people.labels.shape or not np.isin(said, (0, 1)).all():
        raise DataError(
            f"Expected a label 0 or 1 for each of {len(people)} people, got shape {said.shape}. Check the firm's model."
        )
    wrong = said != people.labels
    variance = 0.0
    for group in (False, True):
        for label in (0, 1):
            rates = said[(people.minority == group) & (people.labels == label)]
            variance += float(rates.var()) / len(rates) if len(rates) else math.nan
    return FirmErrors(
        error=float(wrong.mean()),
        eqod=equalized_odds(people.labels, said.astype(np.int64), people.minority),
        standard_error=math.sqrt(variance) / 2,
        minority_error=float(wrong[people.minority].mean()),
        majority_error=float(wrong[~people.minority].mean()),
    )


@dataclass(frozen=True)
class Trial:
    """One number of flips, tried: the firm trained on what members reported (*published*), validation people *ours*.

    Parameters
    ----------
    flips : int
        M.
    validation, test : FirmErrors
        On people who chose M, and on people nobody chose by.
    """

    flips: int
    validation: FirmErrors
    test: FirmErrors


def sweep(
    firm: Firm,
    train: LabeledRows,
    validation: LabeledRows,
    test: LabeledRows,
    *,
    pool: Integers,
    scores: Floats,
    flips: Sequence[int],
) -> tuple[Trial, ...]:
    """Return one trial per number of flips: flip, let the firm train, measure (*published*).

    Parameters
    ----------
    firm : callable
        Trains on features and *reported* labels.
    train, validation, test : LabeledRows
        Three lots of people; nobody is in two.
    pool : int64 array, shape (P,)
        Rows of ``train``: members with a negative label.
    scores : float64 array, shape (P,)
        Who flips first.
    flips : sequence of int
        The numbers to try, each 0 to P.

    Raises
    ------
    DataError, ConfigError
        As :func:`flip_first` and :func:`firm_errors`; ConfigError also for no number to try.
    """
    if not flips:
        raise ConfigError("Expected at least one number of flips to try, got none. Try 0 and a tenth of the pool.")
    trials = []
    for number in flips:
        predict = firm(train.features, flip_first(train.labels, pool, scores, number))
        trials.append(Trial(number, firm_errors(predict, validation), firm_errors(predict, test)))
    return tuple(trials)


# --- how many flips: chosen on validation people alone -----------------------------------------------------


def _some(trials: Sequence[Trial]) -> Sequence[Trial]:
    if not trials:
        raise ConfigError("Expected at least one trial to choose from, got none. Try 0 flips too.")
    if any(math.isnan(trial.validation.eqod) for trial in trials):
        raise DataError(
            "Expected validation people of both labels in each group, got a group without one, where EqOd is not "
            "defined. Take more validation people."
        )
    return trials


def least_violation(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the smallest EqOd on validation people; of equals the one with fewer flips.

    The plain reading of "best EqOd over the number of flips" (*published*); that validation people choose is *ours*.

    Raises
    ------
    ConfigError
        If there is no trial.
    DataError
        If EqOd is not defined for validation people.
    """
    return min(_some(trials), key=lambda t: (t.validation.eqod, t.flips))


def fewest_flips(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the fewest flips whose EqOd is within one standard error of the smallest (*ours*).

    Breiman's one-standard-error rule: where validation people cannot tell trials apart, the one that lies least wins.

    Raises
    ------
    ConfigError
        If there is no trial.
    DataError
        If EqOd is not defined for validation people.
    """
    best = least_violation(trials).validation
    near = [t for t in trials if t.validation.eqod <= best.eqod + best.standard_error]
    return min(near, key=lambda t: t.flips)


def least_violation_within(trials: Sequence[Trial], *, rise: float) -> Trial:
    """Return the trial with the smallest EqOd whose error rose by at most ``rise``, on validation people (*ours*).

    Parameters
    ----------
    trials : sequence of Trial
        One of them with 0 flips: the error rises from there.
    rise : float
        Most that the error may rise by, 0 or more.

    Raises
    ------
    ConfigError
        If rise is negative, or no trial has 0 flips.
    DataError
        If EqOd is not defined for validation people.
    """
    before = [t for t in _some(trials) if t.flips == 0]
    if not before or not rise >= 0:
        raise ConfigError(
            f"Expected a rise of 0 or more and a trial with 0 flips to rise from, got {rise!r} and "
            f"{len(before)} such trials. Add 0 to the numbers of flips."
        )
    ceiling = before[0].validation.error + rise
    return least_violation([t for t in trials if t.validation.error <= ceiling])


def pareto_front(points: ArrayLike) -> Integers:
    """Return which points no other beats in both columns, int64, in order of the first column (*ours*).

    Parameters
    ----------
    points : floats, shape (N, 2)
        Error and EqOd, say; less is better in both. Of equal points the first stays.

    Raises
    ------
    DataError
        If the shape is another, or a value is NaN.
    """
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or np.isnan(array).any():
        raise DataError(f"Expected points of shape (N, 2) without NaN, got shape {array.shape}. Drop unknown points.")
    front: list[int] = []
    lowest = math.inf
    for i in np.lexsort((array[:, 1], array[:, 0])):
        if array[i, 1] < lowest:
            front.append(int(i))
            lowest = float(array[i, 1])
    return np.array(front, np.int64)


__getattr__ = old_names(__name__, LabelledRows=LabeledRows, equalised_odds=equalized_odds)
