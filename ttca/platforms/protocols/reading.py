"""How a platform's words become answers: one reading of labels, scores and refusals, whatever format carried them."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers, Status, contradicted
from ttca.errors import ConfigError, TTCAError
from ttca.names import canonical

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

ScoresAre = Literal["probabilities", "logits", "percent"]

#: What a row's label may be instead of a class: the platform refused, named no class of ours, or gave scores alone.
REFUSED, UNKNOWN, UNSAID = -1, -2, -3

_LABEL_KEYS = ("label", "class", "class_name", "name")
_SCORE_KEYS = ("score", "probability", "confidence")
_VECTOR_KEYS = ("scores", "probabilities")
_ERROR_KEYS = ("error", "errors", "detail", "message")
#: Names are hardly longer, and a stranger's text of millions of accents would take a while to spell.
_LONGEST_NAME = 1000


class UnreadableError(TTCAError):
    """Bytes are not an answer as their protocol writes it; the reader adds who sent them."""


def excerpt(value: object, length: int = 120) -> str:
    """Return a short, printable form of what a stranger sent."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = " ".join(text[: 4 * length].split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= length else text[:length] + "…"


def read_json(body: bytes) -> Any:
    """Return what the JSON says, or raise an UnreadableError that says what came instead.

    An object that has one name twice says two things, and is not read as either.
    """
    try:
        return json.loads(body, object_pairs_hook=_each_name_once)
    except (ValueError, RecursionError):
        start = body.lstrip()[:1]
        kind = "HTML or XML" if start == b"<" else "an empty body" if not start else "a broken or truncated one"
        raise UnreadableError(f"Expected a JSON object, got {kind}: {excerpt(body)!r}.") from None


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnreadableError(f"Expected each name once in a JSON object, got {excerpt(twice, 40)!r} twice.")
    return found


def check_choice(name: str, value: object, kind: Any, *, optional: bool = False) -> None:
    """Raise a ConfigError where an option is not one of a Literal's values."""
    if value not in get_args(kind) and not (optional and value is None):
        raise ConfigError(f"Expected {name} to be one of {', '.join(get_args(kind))}, got {value!r}. Choose one.")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a platform's labels and scores mean.

    Parameters
    ----------
    classes : sequence of str
        Class names in the order of the scores.
    scores_are : {'probabilities', 'logits', 'percent'}
        How scores are written. Logits go through a softmax, percent are divided by 100.
    resolution : float
        The step to which the platform rounds its scores, as a probability (0.01 for whole percent); 0 for exact ones.
    missing_score : float, optional
        The number that stands for "not said" among the scores of a platform that gives only its top k.
    refused_labels : sequence of str
        Labels by which the platform refuses ("no face").
    refused_errors : sequence of str
        Texts by which an error of the platform refuses the image it was asked about ("no face found"); upper and
        lower case are the same.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    classes: Sequence[str]
    scores_are: ScoresAre = "probabilities"
    resolution: float = 0.0
    missing_score: float | None = None
    refused_labels: Sequence[str] = ()
    refused_errors: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_choice("scores_are", self.scores_are, ScoresAre)
        if not 0 <= self.resolution < 1:
            raise ConfigError(f"Expected resolution in [0, 1), got {self.resolution}. Use 0.01 for whole percent.")
        if self.missing_score is not None and self.scores_are == "logits":
            raise ConfigError(
                "Expected missing_score only with probabilities or percent, got it with logits: a softmax needs every "
                "logit. Remove one of them."
            )
        for name in ("refused_labels", "refused_errors"):
            texts = getattr(self, name)
            if isinstance(texts, str) or not all(isinstance(t, str) and t.strip() for t in texts):
                raise ConfigError(f"Expected {name} as a list of texts, got {texts!r}. Correct it.")
        if self.missing_score is not None and not math.isfinite(self.missing_score):
            raise ConfigError(f"Expected missing_score as a finite number, got {self.missing_score}. Correct it.")
        refusals = {canonical(text) for text in self.refused_labels}
        overlap = sorted(name for name in self.classes if canonical(name) in refusals)
        if overlap:
            raise ConfigError(f"Expected refused_labels that are no classes, got {', '.join(overlap)}. Remove them.")

    @property
    def reading_identity(self) -> dict[str, str]:
        """What decides how an answer is read, beside the class names; it makes no answer another."""
        return {
            "scores_are": self.scores_are,
            "resolution": repr(self.resolution),
            "missing_score": repr(self.missing_score),
            "refused_labels": json.dumps(sorted(self.refused_labels)),
            **({"refused_errors": json.dumps(sorted(self.refused_errors))} if self.refused_errors else {}),
        }

    # -- one value ------------------------------------------------------------------------------------------------

    @cached_property
    def _exact(self) -> dict[str, int]:
        """Classes and refusals as they were configured."""
        known = dict.fromkeys(self.refused_labels, REFUSED)
        return known | {name: i for i, name in reversed(list(enumerate(self.classes)))}

    @cached_property
    def _alike(self) -> dict[str, int]:
        """The same in one spelling; what two of them would share is none of both."""
        found: dict[str, int] = {}
        for name, index in self._exact.items():
            if found.setdefault(canonical(name), index) != index:
                found[canonical(name)] = UNKNOWN
        return found

    def named(self, said: str) -> int:
        """Return the class of this name, REFUSED or UNKNOWN; as configured, or else the one name spelled alike."""
        if said in self._exact:
            return self._exact[said]
        return self._alike.get(canonical(said), UNKNOWN) if len(said) <= _LONGEST_NAME else UNKNOWN

    def are_classes(self, said: Sequence[object]) -> bool:
        """Whether a platform's own list of classes is the configured one, in its order."""
        return [canonical(str(name)) for name in said] == [canonical(name) for name in self.classes]

    def index_of(self, said: object, *, numbered: bool = False) -> int:
        """Return the class a label names, by name, by index or by an index written as text; REFUSED or UNKNOWN.

        A number that is also the name of another class is UNKNOWN, unless the protocol says that labels are numbered.
        """
        if isinstance(said, str):
            if (index := self.named(said)) != UNKNOWN:
                return index
            if not (said.isascii() and said.isdecimal() and len(said) < 10):
                return UNKNOWN
            said = int(said)
        if isinstance(said, float) and said.is_integer():
            # Some platforms write whole numbers as floats.
            said = int(said)
        if not isinstance(said, int) or isinstance(said, bool):
            return UNKNOWN
        if said == -1 or str(said) in self.refused_labels:
            return REFUSED
        if not numbered and self._exact.get(str(said), said) != said:
            return UNKNOWN
        return said if 0 <= said < len(self.classes) else UNKNOWN

    def refuses(self, text: object) -> bool:
        """Whether an error's text is one of ``refused_errors``."""
        if not self.refused_errors:
            return False
        told = text.decode("utf-8", "replace") if isinstance(text, bytes) else json.dumps(text, ensure_ascii=False)
        with contextlib.suppress(UnreadableError):
            # As it reads, not as it is escaped.
            told += json.dumps(read_json(told.encode()), ensure_ascii=False)
        return any(t.casefold() in told.casefold() for t in self.refused_errors)

    # -- one image ------------------------------------------------------------------------------------------------

    def row(self, said: object) -> tuple[int, NDArray[np.float64] | None]:
        """Return the label and the scores (C,), NaN where not said, of one image's answer in any usual form.

        Parameters
        ----------
        said : JSON value
            A label; a list of C numbers; a list of class names, best first; an object of class names and scores; a
            list of objects with a label and a score, or of pairs of them, in any order; or an object with a ``label``
            and, perhaps, ``scores`` or a ``score``. An empty list or object refuses, and so does a true ``refused``.

        Raises
        ------
        UnreadableError
            If it is none of them, names a class that is not ours, one class twice, or holds a score that is null, not
            finite or not there: a list of several labels is in no known order without their scores.
        """
        if said == [] or said == {}:
            return REFUSED, None
        if isinstance(said, Mapping):
            return self._object(said)
        if isinstance(said, list):
            if all(v is None or _is_number(v) for v in said):
                return UNSAID, self._vector(said)
            if all(isinstance(v, str) for v in said):
                return self._once([self._known(v) for v in said])[0], None
            return self._named([self._pair(item) for item in said])
        return self._known(said), None

    def _object(self, said: Mapping[Any, Any]) -> tuple[int, NDArray[np.float64] | None]:
        if said.get("refused") is True and "refused" not in self.classes:
            return REFUSED, None
        for key in _ERROR_KEYS:
            if key in said and key not in self.classes and said[key]:
                if self.refuses(said[key]):
                    return REFUSED, None
                # A message may stand beside an answer, an error contradicts it.
                failed = key in ("error", "errors") and not _is_number(said[key])
                if failed or not any(k in said for k in (*_LABEL_KEYS, *_VECTOR_KEYS)):
                    raise UnreadableError(f"Expected an answer, got the platform's error: {excerpt(said[key])!r}.")
        if all(_is_number(v) for v in said.values()) and all(self.index_of(k) != UNKNOWN for k in said):
            return self._named([(self._known(k), float(v)) for k, v in said.items()])
        label = self._label_of(said)
        beside = [k for k in said if k in self._exact and k not in (*_LABEL_KEYS, *_SCORE_KEYS, *_VECTOR_KEYS)]
        if beside:
            raise UnreadableError(f"Expected a score for each class that is named, got {excerpt(said)!r}.")
        vectors = [said[k] for k in _VECTOR_KEYS if k in said]
        if not vectors:
            return self._named([self._pair(said)])
        if label == REFUSED:
            return REFUSED, None
        if not isinstance(vectors[0], list | Mapping) or any(v != vectors[0] for v in vectors):
            raise UnreadableError(f"Expected scores as one list or object of numbers, got {excerpt(said)!r}.")
        best, scores = self.row(vectors[0])
        if label is None:
            return best, scores
        if scores is None or best == REFUSED or (best != label and np.isnan(scores[label])):
            raise UnreadableError(f"Expected a label and its scores, got a label without one: {excerpt(said)!r}.")
        return label, scores

    def _vector(self, said: Sequence[float]) -> NDArray[np.float64]:
        if len(said) != len(self.classes):
            raise UnreadableError(f"Expected {len(self.classes)} scores, one for each class, got {len(said)}.")
        return _finite(said)

    def _known(self, said: object) -> int:
        label = self.index_of(said)
        if label == UNKNOWN:
            raise UnreadableError(
                f"Expected a label among the {len(self.classes)} classes, got {excerpt(said, 60)!r}. Check classes, "
                "and name the platform's refusals in refused_labels."
            )
        return label

    def _label_of(self, item: Mapping[Any, Any]) -> int | None:
        """Return the label that an object names, None where it names none."""
        found = [item[k] for k in _LABEL_KEYS if k in item]
        if not found:
            return None
        label = self._known(found[0])
        # A name of something else, such as the file's, says nothing about the class.
        if any(self.index_of(other) not in (label, UNKNOWN) for other in found[1:]):
            raise UnreadableError(f"Expected one label, got several: {excerpt(item)!r}.")
        return label

    def _pair(self, item: object) -> tuple[int, float | None]:
        """Return the label and score of one entry of a list."""
        if isinstance(item, list | tuple) and len(item) == 2 and _is_number(item[1]):
            return self._known(item[0]), float(item[1])
        if isinstance(item, Mapping):
            label = self._label_of(item)
            scores = [item[k] for k in _SCORE_KEYS if k in item]
            if label == REFUSED and not all(_is_number(v) for v in scores):
                return REFUSED, None
            if label is not None and all(_is_number(v) and v == scores[0] for v in scores):
                return label, float(scores[0]) if scores else None
            if len(item) == 1 and all(_is_number(v) for v in item.values()):
                ((key, value),) = item.items()
                return self._known(key), float(value)
        raise UnreadableError(f"Expected a label and its score, got {excerpt(item)!r}.")

    def _once(self, labels: list[int]) -> list[int]:
        named = [label for label in labels if label >= 0]
        if len(set(named)) != len(named):
            raise UnreadableError("Expected each class once, got one twice.")
        return labels

    def _named(self, pairs: Sequence[tuple[int, float | None]]) -> tuple[int, NDArray[np.float64] | None]:
        """Return the answer of labels with scores, in any order, perhaps not of all classes."""
        labels = self._once([label for label, _ in pairs])
        numbers = [score for _, score in pairs]
        if any(n is None for n in numbers):
            if len(pairs) > 1:
                raise UnreadableError(
                    f"Expected a score for each of {len(pairs)} labels, got none for some: which is the highest is "
                    "not said."
                )
            return labels[0], None
        values = _finite(numbers)
        ranked = values if self.missing_score is None else np.where(values == self.missing_score, -np.inf, values)
        best = int(ranked.argmax())
        if len(pairs) > 1 and self.scores_are != "logits" and not ranked[best] > 0:
            raise UnreadableError("Expected a score above 0, got none: which class is meant is not said.")
        scores = np.full(len(self.classes), np.nan)
        for label, value in zip(labels, values.tolist(), strict=True):
            if label >= 0:
                scores[label] = value
        if self.scores_are == "logits" and np.isnan(scores).any():
            raise UnreadableError("Expected a logit for every class, got only some of them: a softmax needs them all.")
        return labels[best], scores

    # -- many images ----------------------------------------------------------------------------------------------

    def rows(self, said: Sequence[object], find: Callable[[object], object] = lambda one: one) -> Answers:
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
        n, count = len(said), len(self.classes)
        labels = np.full(n, UNSAID, np.int64)
        values = np.full((n, count), np.nan)
        problem: UnreadableError | None = None
        for i, one in enumerate(said):
            try:
                labels[i], scores = self.row(find(one))
            except UnreadableError as error:
                labels[i], problem = UNKNOWN, problem or error
                continue
            if scores is not None:
                values[i] = scores
        if problem is not None and (labels == UNKNOWN).all():
            raise problem
        # A row that was read has NaN only where it named other classes and left this one out.
        return self.answers(values, labels=labels, missing=np.isnan(values))

    def answers(
        self,
        values: NDArray[np.float64] | None,
        *,
        labels: NDArray[np.int64] | None = None,
        missing: NDArray[np.bool_] | None = None,
        refused: NDArray[np.bool_] | None = None,
        resolution: float | None = None,
    ) -> Answers:
        """Return scores and labels, as the platform wrote them, as answers; a bad row fails alone.

        Parameters
        ----------
        values : float64 array, shape (N, C), optional
            Scores as they were sent.
        labels : int64 array, shape (N,), optional
            Classes, REFUSED, UNKNOWN or UNSAID. A label whose score is lower than another one, by more than the
            resolution, contradicts them, and is no label.
        missing : bool array, shape (N, C), optional
            Scores that were not said, beside those equal to ``missing_score``.
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
        if values is None:
            values = np.full((0 if labels is None else len(labels), len(self.classes)), np.nan)
            missing = np.ones(values.shape, np.bool_)
        n = len(values)
        step = self.resolution if resolution is None else resolution
        if labels is None and missing is None and self._plain(values, refused):
            # What nearly every answer is, read in few steps; all else goes the long way to the same end.
            named = values.argmax(axis=1)
            return Answers(np.zeros(n, np.int8), named, values.astype(np.float32), np.full(n, step, np.float32))
        labels = np.full(n, UNSAID, np.int64) if labels is None else labels
        refused = (labels == REFUSED) | (np.zeros(n, np.bool_) if refused is None else refused)
        scores, sound = self.probabilities(values, missing)
        # The highest of the numbers sent, not of the float32 probabilities, where two may become equal.
        best = np.where(np.isnan(scores), -np.inf, np.nan_to_num(values)).argmax(axis=1)
        unsaid = labels == UNSAID
        named = np.where(unsaid, best, labels)
        good = sound & (named >= 0) & (named < len(self.classes)) & ~refused
        # All zeros say nothing, and their highest would be the first class.
        good &= ~unsaid | (np.nan_to_num(scores) > 0).any(axis=1)
        # Exact scores as they were sent; rounded ones as they are kept, so that who takes them later finds the same.
        sent = np.where(sound[:, None] & ~np.isnan(scores), values, np.nan) if step == 0 else scores.astype(np.float32)
        against = contradicted(np.where(good & ~unsaid, labels, -1), sent, step)
        good &= ~against
        bad = ~good & ~refused
        if bad.any() and not good.any():
            if against.any():
                raise UnreadableError(_why_against(self, int(labels[against][0]), sent[against][0]))
            raise UnreadableError(_why_bad(self, values, missing, labels))
        status = np.where(good, Status.ANSWERED, np.where(refused, Status.REFUSED, Status.FAILED)).astype(np.int8)
        scores[~good] = np.nan
        return Answers(
            status,
            np.where(good, named, -1).astype(np.int64),
            scores.astype(np.float32),
            np.full(n, step, np.float32),
        )

    def _plain(self, values: NDArray[np.float64], refused: NDArray[np.bool_] | None) -> bool:
        """Whether every row is answered, by a probability for each class."""
        if self.scores_are != "probabilities" or self.missing_score is not None:
            return False
        if refused is not None and refused.any():
            return False
        # NaN fails both comparisons, and a row of zeros names no class.
        return bool(values.size and values.min() >= 0 and values.max() <= 1 and values.any(axis=1).all())

    def probabilities(
        self, values: NDArray[np.float64], missing: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return scores as probabilities, NaN where not said, and which rows are sound."""
        unsaid = np.zeros(values.shape, np.bool_) if missing is None else missing.copy()
        if self.scores_are == "logits":
            nothing: NDArray[np.bool_] = np.asarray(unsaid.all(axis=1))
            finite: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
            safe = np.where(finite[:, None], values, 0.0)
            shifted = np.exp(safe - safe.max(axis=1, keepdims=True, initial=-np.inf))
            shares = shifted / np.maximum(shifted.sum(axis=1, keepdims=True), 1e-300)
            return np.where(nothing[:, None], np.nan, shares), finite | nothing
        if self.missing_score is not None:
            unsaid |= values == self.missing_score
        shares = values / 100 if self.scores_are == "percent" else values
        with np.errstate(invalid="ignore"):
            possible: NDArray[np.bool_] = unsaid | np.asarray((shares >= -1e-6) & (shares <= 1 + 1e-4))
        sound: NDArray[np.bool_] = np.asarray(possible.all(axis=1))
        # All zeros say nothing, and their highest would be the first class.
        sound &= unsaid.any(axis=1) | (np.nan_to_num(shares, posinf=0, neginf=0).sum(axis=1) > 0)
        safe = np.where(sound[:, None], shares, 0.0)
        return np.where(unsaid, np.nan, np.clip(safe, 0.0, 1.0)), sound


def _why_against(reading: Reading, label: int, scores: NDArray[np.floating]) -> str:
    best = int(np.nan_to_num(scores, nan=-np.inf).argmax())
    return (
        f"Expected the label {excerpt(reading.classes[label], 40)!r} to have the highest score, got "
        f"{scores[label]:.4g} for it and {scores[best]:.4g} for {excerpt(reading.classes[best], 40)!r}. Put classes "
        "in the platform's order, and set resolution if it rounds its scores."
    )


def _why_bad(
    reading: Reading, values: NDArray[np.float64], missing: NDArray[np.bool_] | None, labels: NDArray[np.int64]
) -> str:
    """Return why no row of an answer could be read."""
    said = values if missing is None else values[~missing]
    if said.size and not np.isfinite(said).all():
        return "Expected scores as finite numbers, got NaN, null or infinity."
    if said.size and reading.scores_are != "logits" and not reading.probabilities(values, missing)[1].any():
        return (
            f"Expected scores as {reading.scores_are}, got {said.min():.4g} to {said.max():.4g}. "
            "Set scores_are to what the platform gives: probabilities, percent or logits."
        )
    if (labels != UNSAID).any():
        return (
            f"Expected labels among the {len(reading.classes)} classes, got others. Check classes, and name the "
            "platform's refusals in refused_labels."
        )
    return "Expected at least one readable row, got none."


def _finite(numbers: Sequence[Any]) -> NDArray[np.float64]:
    values = np.array(numbers, np.float64)
    if not np.isfinite(values).all():
        raise UnreadableError("Expected scores as finite numbers, got NaN, null or infinity.")
    return values


def _is_number(value: object) -> bool:
    """Whether a JSON value is a number that a float can hold, or one of the infinite ones that Python reads."""
    return type(value) in (int, float) and (not isinstance(value, int) or math.log2(abs(value) + 1) < 1000)
