"""How a platform's words become answers: one reading of labels, scores and refusals, whatever format carried them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers, Status, contradicted
from ttca.errors import ConfigError
from ttca.platforms.protocols.grammar import Grammar, Said
from ttca.platforms.protocols.labels import OTHER, REFUSED, UNKNOWN, OtherLabels, Vocabulary
from ttca.platforms.protocols.scores import SOME_LOGITS, Scale, ScoresAre
from ttca.platforms.protocols.unreadable import UnreadableError, excerpt, read_json
from ttca.rounding import apart
from ttca.telling import tell_unreadable

__all__ = [
    "REFUSED",
    "UNKNOWN",
    "UNSAID",
    "Reading",
    "ScoresAre",
    "UnreadableError",
    "check_choice",
    "excerpt",
    "read_json",
]

#: What a row's label is where the platform gave scores alone.
UNSAID = -3
#: How many labels a platform may have that nobody knows of.
_COUNTLESS = 1e9
#: Reasons that are told; a platform that always says something new would fill the screen.
_MOST_TOLD = 10


def check_choice(name: str, value: object, kind: Any, *, optional: bool = False) -> None:
    """Raise a ConfigError where an option is not one of a Literal's values."""
    if value not in get_args(kind) and not (optional and value is None):
        raise ConfigError(f"Expected {name} to be one of {', '.join(get_args(kind))}, got {value!r}. Choose one.")


def _itself(one: object) -> object:
    return one


def _found(find: Callable[[object], object], one: object) -> object:
    """Return the part that answers, or why there is none."""
    try:
        return find(one)
    except UnreadableError as error:
        return error


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a platform's labels and scores mean.

    Parameters
    ----------
    classes : sequence of str
        Class names in the order of the scores.
    scores_are : str
        How scores are written. ``'probabilities'``, ``'percent'`` and ``'bytes'`` (0 to 255) sum to a whole over all
        classes, which is checked. ``'logits'`` go through a softmax. ``'confidences'`` are in [0, 1], each class by
        itself. ``'probability-of-second'`` and ``'logit-of-second'`` are one score for two classes: the second one's.
    resolution : float
        The step to which the platform rounds its scores, as a probability (0.01 for whole percent); 0 for exact ones.
    missing_score : float, optional
        The number that stands for "not said" among the scores of a platform that gives only its top k.
    threshold : float, optional
        Where one score is all: the probability from which on the second class is meant, 0.5 if None. The log-odds
        are moved by it, so that a score at the threshold is kept as 0.5.
    first_label : int
        The number of the first class, where labels are numbers.
    labels : mapping of str to str, optional
        The platform's word, and the class it stands for. Names are compared without upper case and outer spaces.
    others : {'error', 'ignore', 'refuse'}
        What a word is that names no class: unreadable, of no matter, or a refusal.
    refused_labels : sequence of str
        Labels by which the platform refuses ("no face").
    refused_errors : sequence of str
        Texts by which an error of the platform refuses the image it was asked about ("no face found"); upper and
        lower case are the same.
    json_in_text : bool
        Whether the answer is a text that holds JSON, alone or in one fence.
    word_in_text : bool
        Whether the answer is a sentence that names one class as a whole word, and denies nothing.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    classes: Sequence[str]
    scores_are: ScoresAre = "probabilities"
    resolution: float = 0.0
    missing_score: float | None = None
    threshold: float | None = None
    first_label: int = 0
    labels: Mapping[str, str] | None = None
    others: OtherLabels = "error"
    refused_labels: Sequence[str] = ()
    refused_errors: Sequence[str] = ()
    json_in_text: bool = False
    word_in_text: bool = False

    def __post_init__(self) -> None:
        check_choice("scores_are", self.scores_are, ScoresAre)
        check_choice("others", self.others, OtherLabels)
        for name in ("refused_labels", "refused_errors"):
            texts = getattr(self, name)
            if isinstance(texts, str) or not all(isinstance(t, str) and t.strip() for t in texts):
                raise ConfigError(f"Expected {name} as a list of texts, got {texts!r}. Correct it.")
        if self.json_in_text and self.word_in_text:
            raise ConfigError("Expected json_in_text or word_in_text, got both. Say which of them the text holds.")
        # Its parts check themselves when they are made.
        if self._grammar.scale.alone and len(self.classes) != 2:
            raise ConfigError(
                f"Expected two classes with scores_are = {self.scores_are!r}, got {len(self.classes)}. One score says "
                "how much the second class is meant, and how little the first."
            )

    @property
    def reading_identity(self) -> dict[str, str]:
        """What decides how an answer is read, beside the class names; it makes no answer another.

        What is as in version 0.1 is left out, so that whoever set none of it is whom they were.
        """
        told: dict[str, Any] = {
            "refused_errors": sorted(self.refused_errors),
            "threshold": self.threshold,
            "first_label": self.first_label,
            "labels": dict(sorted((self.labels or {}).items())),
            "others": self.others if self.others != "error" else None,
            "json_in_text": self.json_in_text,
            "word_in_text": self.word_in_text,
        }
        return {
            "scores_are": self.scores_are,
            "resolution": repr(self.resolution),
            "missing_score": repr(self.missing_score),
            "refused_labels": json.dumps(sorted(self.refused_labels)),
            **{name: json.dumps(value) for name, value in told.items() if value},
        }

    @property
    def columns(self) -> int:
        """How many scores a row has: one for each class, or one that is all."""
        return 1 if self._scale.alone else len(self.classes)

    def one_column(self, shapes: Sequence[Sequence[int]]) -> str:
        """Return what a sentence about outputs of these shapes, without the batch, adds where one score may be all."""
        if self.columns == 1:
            return ", or remove scores_are if each class has a score"
        if len(self.classes) != 2 or not any(list(shape) in ([], [1]) for shape in shapes):
            return ""
        return ', or set scores_are = "probability-of-second" or "logit-of-second" if one score is all'

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(
            classes=self.classes,
            refused_labels=self.refused_labels,
            labels={} if self.labels is None else self.labels,
            first_label=self.first_label,
            others=self.others,
        )

    @cached_property
    def _scale(self) -> Scale:
        return Scale(
            scores_are=self.scores_are,
            resolution=self.resolution,
            missing_score=self.missing_score,
            threshold=self.threshold,
        )

    @cached_property
    def _grammar(self) -> Grammar:
        text: Any = "json" if self.json_in_text else "sentence" if self.word_in_text else "label"
        return Grammar(vocabulary=self._vocabulary, scale=self._scale, refuses=self.refuses, text=text)

    @cached_property
    def _told(self) -> set[str]:
        """The sentences that were told already."""
        return set()

    # -- one value ------------------------------------------------------------------------------------------------

    def are_classes(self, said: Sequence[object]) -> bool:
        """Whether a platform's own list of classes is the configured one, in its order."""
        return self._vocabulary.are_classes(said)

    def index_of(self, said: object, *, numbered: bool = False) -> int:
        """Return the class a label names, by name, by number or by a number written as text; REFUSED or UNKNOWN.

        A number that is also the name of another class is UNKNOWN, unless the protocol says that labels are numbered.
        """
        return self._vocabulary.index_of(said, numbered=numbered)

    def refuses(self, text: object) -> bool:
        """Whether an error's text is one of ``refused_errors``."""
        if not self.refused_errors:
            return False
        told = text.decode("utf-8", "replace") if isinstance(text, bytes) else json.dumps(text, ensure_ascii=False)
        with contextlib.suppress(UnreadableError):
            # As it reads, not as it is escaped.
            told += json.dumps(read_json(told.encode("utf-8", "replace")), ensure_ascii=False)
        return any(t.casefold() in told.casefold() for t in self.refused_errors)

    # -- one image ------------------------------------------------------------------------------------------------

    def row(self, said: object) -> tuple[int, NDArray[np.float64] | None]:
        """Return the class, or REFUSED, and the probabilities (C,), NaN where not said, of one image's answer.

        Parameters
        ----------
        said : JSON value
            In any form of the grammar in :mod:`ttca.platforms.protocols.grammar`.

        Raises
        ------
        UnreadableError
            If it is of none, or names a class that is not ours or one class twice. Also if its scores are null, not
            finite, or none as ``scores_are`` says, or contradict each other or the label.
        """
        found = self._grammar.read(said)
        if found.scores is None:
            return REFUSED if found.label is None else found.label, None
        plain = self._scale.one_plain(found.label, found.scores, len(self.classes))
        return self._settled(found, found.scores) if plain is None else plain

    def _settled(self, found: Said, scores: Sequence[tuple[int, float]]) -> tuple[int, NDArray[np.float64] | None]:
        """Return the class and the probabilities of scores by label, once nothing speaks against them."""
        labels, values = np.array([label for label, _ in scores]), np.array([value for _, value in scores])
        ours = labels >= 0
        if len(set(labels[ours])) != ours.sum():
            twice = int(np.bincount(labels[ours]).argmax())
            raise UnreadableError(f"Expected each class once, got {excerpt(self.classes[twice], 40)!r} twice.")
        scale, weighed = self._scale, labels != OTHER
        if not weighed.any():
            raise UnreadableError(
                f"Expected at least one of the classes ({excerpt(', '.join(self.classes), 60)}), got others alone. Set "
                'others = "refuse" if the platform says so that it is none of them.'
            )
        if scale.alone and labels.tolist() != [1]:
            raise UnreadableError(
                f"Expected one score, of {self.classes[1]!r}, got {excerpt(scores)}. Remove scores_are if each class "
                "has a score."
            )
        if self.scores_are == "logits" and ours.sum() < len(self.classes):
            raise UnreadableError(scale.sentence(SOME_LOGITS, values))
        unnamed = len(self.classes) - ours.sum() + max(0, len(self.refused_labels) - (labels == REFUSED).sum())
        # A softmax is over all that a platform has a logit for.
        weighed = weighed | (self.scores_are == "logits")
        shares, fault = scale.judge(
            values[None, weighed], beside=float(unnamed) if self.others == "error" else _COUNTLESS
        )
        if fault[0]:
            raise UnreadableError(scale.sentence(int(fault[0]), values[weighed]))
        labels, kept = (np.arange(2) if scale.alone else labels[weighed]), shares[0]
        lone = len(scores) == 1 and found.label is None and len(self.classes) > 1 and not scale.alone
        if lone and (self.others != "error" or not scale.exclusive) and kept[0] < 0.5:
            raise UnreadableError(
                f"Expected a score of .5 or more where one label has one, got {apart(kept[0], 0.5)[0]} for "
                f"{excerpt(self._name(int(labels[0])), 40)!r}: which other class is meant instead is not said."
            )
        return self._agreed(found.label, labels, kept)

    def _agreed(
        self, called: int | None, labels: NDArray[np.int64], kept: NDArray[np.float64]
    ) -> tuple[int, NDArray[np.float64] | None]:
        """Return the class with the highest probability, which the label must be, too, and all probabilities."""
        counted = np.where(np.isnan(kept) | (labels == OTHER), -1.0, kept)
        best = int(counted.argmax())
        label = int(labels[best]) if called is None else called
        own = counted[labels == label]
        if counted[best] < 0 and (called is None or label == REFUSED):
            raise UnreadableError("Expected a score, got none: which class is meant is not said.")
        if called is not None and (own.size == 0 or (own[0] < 0 and counted[best] >= 0)):
            raise UnreadableError(
                f"Expected a label and its score, got {self._name(label)!r}, which has none among the scores."
            )
        step = self._scale.step
        if called is not None and counted[best] - own[0] > (step + 1e-6 if step > 0 else 0):
            raise UnreadableError(self._against(label, own[0], int(labels[best]), counted[best]))
        if label == REFUSED:
            return REFUSED, None
        probabilities = np.full(len(self.classes), np.nan)
        probabilities[labels[labels >= 0]] = kept[labels >= 0]
        return label, probabilities

    def _name(self, label: int) -> str:
        return self.classes[label] if label >= 0 else "a refusal"

    def _against(self, label: int, own: float, best: int, highest: float) -> str:
        less, more = apart(own, highest)
        return (
            f"Expected the label {excerpt(self._name(label), 40)!r} to have the highest score, got {less} for it "
            f"and {more} for {excerpt(self._name(best), 40)!r}. Put classes in the platform's order, set "
            "first_label if it numbers them from 1, and resolution if it rounds its scores."
        )

    # -- many images ----------------------------------------------------------------------------------------------

    def rows(self, said: Sequence[object], find: Callable[[object], object] = _itself) -> Answers:
        """Return the answers to several images, each in any form that :meth:`row` reads; a bad row fails alone.

        Parameters
        ----------
        said : sequence of JSON values
            One for each image.
        find : callable, optional
            Returns the part of one of them that answers, or raises an UnreadableError.

        Raises
        ------
        UnreadableError
            If no row can be read.
        """
        n = len(said)
        found = [_found(find, one) for one in said]
        if n and (table := self._table(found)) is not None:
            return self.answers(table)
        status, labels = [int(Status.FAILED)] * n, [-1] * n
        scores = np.full((n, len(self.classes)), np.nan, np.float32)
        problems: list[UnreadableError] = []
        for i, one in enumerate(found):
            try:
                if isinstance(one, UnreadableError):
                    raise one
                label, shares = self.row(one)
            except UnreadableError as error:
                problems.append(error)
                continue
            status[i], labels[i] = (int(Status.ANSWERED if label >= 0 else Status.REFUSED), max(label, -1))
            if shares is not None:
                scores[i] = shares
        if problems and len(problems) == n:
            raise problems[0]
        for problem in problems:
            self._tell(str(problem))
        steps = np.array([self._scale.step] * n, np.float32)
        return Answers(np.array(status, np.int8), np.array(labels, np.int64), scores, steps)

    def _table(self, found: Sequence[object]) -> NDArray[np.float64] | None:
        """Return the scores of all images where each has a list of them, as nearly every batch: it is read at once."""
        rows: list[list[float]] = []
        for row in found:
            if type(row) is not list or len(row) != self.columns or {*map(type, row)} != {float}:
                return None
            rows.append(row)
        return np.array(rows)

    def answers(
        self,
        values: NDArray[np.float64] | None,
        *,
        labels: Sequence[object] | None = None,
        refused: NDArray[np.bool_] | None = None,
        resolution: float | None = None,
    ) -> Answers:
        """Return scores and labels of tensors, as the platform wrote them, as answers; a bad row fails alone.

        Parameters
        ----------
        values : float64 array, shape (N, C), or (N, 1) where one score is all, optional
            Scores as they were sent.
        labels : sequence of N names or numbers, optional
            A number counts the classes, whatever they are called. A label whose score is lower than another one, by
            more than the resolution, contradicts them, and is no label.
        refused : bool array, shape (N,), optional
            Rows refused in another way.
        resolution : float, optional
            What the answer itself says of its rounding.

        Raises
        ------
        UnreadableError
            If there is neither a score nor a label, or no row is good.
        """
        if values is None and labels is None:
            raise UnreadableError("Expected scores or labels, got neither.")
        n = len(values) if values is not None else len(labels or ())
        step = resolution or self._scale.step
        steps = np.full(n, step, np.float32)
        if (
            values is not None
            and labels is None
            and (refused is None or not refused.any())
            and self._scale.plain(values)
        ):
            # What nearly every answer is, read in few steps; all else goes the long way to the same end.
            return Answers(np.zeros(n, np.int8), values.argmax(axis=1), values.astype(np.float32), steps)
        problems: dict[int, str] = {}
        called = np.full(n, UNSAID, np.int64)
        for row, word in enumerate(labels or ()):
            try:
                called[row] = self._called(word)
            except UnreadableError as error:
                called[row], problems[row] = UNKNOWN, str(error)
        silent = np.full((n, len(self.classes)), np.nan)
        shares, fault = (silent, np.zeros(n, np.int8)) if values is None else self._scale.judge(values, step=step)
        away = (called == REFUSED) | (np.zeros(n, np.bool_) if refused is None else refused)
        # The highest of the numbers sent, not of the float32 probabilities, where two may become equal.
        best = np.nan_to_num(shares, nan=-np.inf).argmax(axis=1)
        named = np.where(called == UNSAID, best, called)
        nothing = np.isnan(shares).all(axis=1) & (called == UNSAID)
        good: NDArray[np.bool_] = (fault == 0) & (named >= 0) & ~nothing & ~away
        # Exact scores as they were sent; rounded ones as they are kept, so that who takes them later finds the same.
        sent = shares if step == 0 else shares.astype(np.float32)
        against = contradicted(np.where(good & (called >= 0), called, -1), sent, step)
        unscored = good & np.isnan(shares[np.arange(n), np.maximum(named, 0)]) & ~np.isnan(shares).all(axis=1)
        good &= ~against & ~unscored
        bad = np.flatnonzero(~good & ~away)
        for row in bad[:_MOST_TOLD]:
            said = np.array([]) if values is None else values[row]
            problem = problems.get(int(row)) or self._why(int(called[row]), said, shares[row], int(fault[row]))
            self._tell(problem)
            if not good.any():
                raise UnreadableError(problem)
        status = np.where(good, Status.ANSWERED, np.where(away, Status.REFUSED, Status.FAILED)).astype(np.int8)
        kept = np.where(good[:, None], shares, np.nan).astype(np.float32)
        return Answers(status, np.where(good, named, -1).astype(np.int64), kept, steps)

    def _called(self, word: object) -> int:
        """Return the class that a tensor's label names, or REFUSED; a number counts the classes."""
        if isinstance(word, str) and (self.json_in_text or self.word_in_text):
            return self.row(word)[0]
        label = self.index_of(word, numbered=True)
        return self._grammar.label(word) if label == UNKNOWN else label

    def _why(self, called: int, said: NDArray[np.float64], shares: NDArray[np.float64], fault: int) -> str:
        """Return why a row of tensors, whose label is known if it has one, is no answer."""
        if fault:
            return self._scale.sentence(fault, said)
        if np.isnan(shares).all():
            return "Expected a score, got none: which class is meant is not said."
        best = int(np.nan_to_num(shares, nan=-np.inf).argmax())
        return self._against(called, float(shares[called]), best, float(shares[best]))

    def _tell(self, problem: str) -> None:
        """Tell once why rows have no answer: a row alone would fail without a word."""
        if problem not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(problem)
            tell_unreadable(problem)
