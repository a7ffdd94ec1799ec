"""The one grammar of an answer about one image: a label, scores by label, or both; or that there is none.

In JSON, where NUMBER may also be written as text ("0.93", "93.1%"), and LABEL is a name or a number::

    ANSWER  = [] | {} | {"refused": true}               a refusal
            | LABEL | [LABEL]                           a label
            | SCORES                                    scores
            | {label: LABEL, scores: SCORES}            both
            | ENTRY                                     both, of one class
            | [ANSWER]                                  a list of the one image
    SCORES  = [NUMBER, …]                               one for each class, in order
            | {LABEL: NUMBER, …} | [ENTRY, …]           by label, in any order, perhaps not of all classes
            | NUMBER                                    where one score is all
    ENTRY   = [LABEL, NUMBER] | {LABEL: NUMBER} | {label: LABEL, score: NUMBER}

``label``, ``scores`` and ``score`` have the usual other names. What is not of this form is unreadable: several labels
without scores are in no known order, and a number under a name that nobody reads may be the one that counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ttca.platforms.protocols.labels import OTHER, REFUSED, UNKNOWN, Vocabulary
from ttca.platforms.protocols.scores import Scale
from ttca.platforms.protocols.unreadable import UnreadableError, excerpt, read_json

__all__ = ["Grammar", "Said"]

_LABEL_KEYS = ("label", "class", "class_name", "name")
_SCORE_KEYS = ("score", "probability", "confidence")
_VECTOR_KEYS = ("scores", "probabilities")
_ERROR_KEYS = ("error", "errors", "detail", "message")
_READ_KEYS = (*_LABEL_KEYS, *_SCORE_KEYS, *_VECTOR_KEYS)
_FENCED = re.compile(r"\s*```[a-zA-Z]*\s*\n(.*)\n\s*```\s*", re.DOTALL)
_NAN = float("nan")


@dataclass(frozen=True)
class Said:
    """What an answer says.

    Parameters
    ----------
    label : int, optional
        The class it is called by, or REFUSED; None where scores alone say it.
    scores : sequence of (int, float), optional
        Classes, REFUSED or OTHER, with scores as they were sent.
    """

    label: int | None = None
    scores: Sequence[tuple[int, float]] | None = None


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """The grammar with one platform's words and numbers in it.

    Parameters
    ----------
    vocabulary : Vocabulary
    scale : Scale
    refuses : callable
        Whether an error's text is a refusal.
    text : {'label', 'json', 'sentence'}
        What a text is that stands where an answer is expected.
    """

    vocabulary: Vocabulary
    scale: Scale
    refuses: Callable[[object], bool]
    text: Literal["label", "json", "sentence"] = "label"

    def read(self, said: object) -> Said:
        """Return what an answer about one image says.

        Raises
        ------
        UnreadableError
            If it is not of the grammar.
        """
        try:
            return self._text(said) if isinstance(said, str) and self.text != "label" else self._answer(said)
        except RecursionError:
            raise UnreadableError("Expected an answer, got lists in lists in lists.") from None

    def _text(self, said: str) -> Said:
        if self.text == "sentence":
            return Said(self.vocabulary.in_text(said))
        fenced = _FENCED.fullmatch(said)
        try:
            inner = read_json((said if fenced is None else fenced[1]).encode("utf-8", "replace"))
        except UnreadableError as error:
            raise UnreadableError(
                f"In the text of the answer: {error} Have the platform answer with JSON alone."
            ) from None
        return self._answer(inner)

    def _answer(self, said: object) -> Said:
        if said == [] or said == {}:
            return Said(REFUSED)
        if isinstance(said, Mapping):
            return self._object(said)
        if isinstance(said, list):
            return self._list(said)
        if self.scale.alone and (score := self.scale.number(said)) is not None:
            return Said(scores=[(1, score)])
        return Said(self.label(said))

    def label(self, said: object) -> int:
        """Return the class that a label alone names, or REFUSED.

        Raises
        ------
        UnreadableError
            If it names none.
        """
        return self._alone(self.vocabulary.known(said), said)

    def _alone(self, label: int, said: object) -> int:
        """Return a label that stands without scores."""
        if label == OTHER:
            raise UnreadableError(
                f'Expected a class, got {excerpt(said, 60)!r} alone, which others = "ignore" passes over. Set others '
                '= "refuse" if the platform says so that it is none of the classes.'
            )
        return label

    # -- lists ----------------------------------------------------------------------------------------------------

    def _list(self, said: list[Any]) -> Said:
        numbers = [_NAN if v is None else self.scale.number(v) for v in said]
        labels = [v for v in said if isinstance(v, str)]
        if None not in numbers and (len(labels) < len(said) or any(self._index(v) == UNKNOWN for v in labels)):
            return Said(scores=self._vector([n for n in numbers if n is not None]))
        if len(labels) == len(said):
            return self._only(said)
        if len(said) == 1 and isinstance(said[0], list) and not _is_pair(said[0]):
            return self._answer(said[0])
        entries = [self._entry(item) for item in said]
        if len(entries) == 1 and entries[0].scores is None:
            return entries[0]
        scores: list[tuple[int, float]] = []
        for item, entry in zip(said, entries, strict=True):
            if entry.scores is None:
                raise UnreadableError(
                    f"Expected a score for each of {len(entries)} labels, got none for {excerpt(item, 60)!r}: which is "
                    "the highest is not said."
                )
            scores += entry.scores
        return Said(scores=scores)

    def _index(self, said: str) -> int:
        return self.vocabulary.index_of(said)

    def _only(self, said: list[str]) -> Said:
        """Return the one label of a list of labels: others are in an order that nobody states."""
        labels = [label for label in map(self.vocabulary.known, said) if label != OTHER]
        if len(labels) > 1:
            raise UnreadableError(
                f"Expected one label, or scores, got {len(labels)} labels without scores: {excerpt(said)!r}. Which of "
                'them is the answer, protocol = "template" can say: label = "[0]" is the first, and pick and box '
                "choose among several things found."
            )
        return Said(self._alone(labels[0] if labels else OTHER, said))

    def _vector(self, numbers: list[float]) -> list[tuple[int, float]]:
        wanted = 1 if self.scale.alone else len(self.vocabulary.classes)
        if len(numbers) != wanted:
            if self.scale.alone:
                raise UnreadableError(
                    f"Expected one score, of the second class, got {len(numbers)}. Remove scores_are if each has one."
                )
            hint = "Give the platform's own classes, all of them, in its order"
            if len(numbers) == 1 and wanted == 2:
                hint = 'If it is the second class\'s, set scores_are = "probability-of-second" or "logit-of-second"'
            raise UnreadableError(f"Expected {wanted} scores, one for each class, got {len(numbers)}. {hint}.")
        return [(1, numbers[0])] if self.scale.alone else list(enumerate(numbers))

    def _entry(self, item: object) -> Said:
        """Return the label and score of one entry of a list."""
        if isinstance(item, list) and len(item) == 2 and (score := self.scale.number(item[1])) is not None:
            return Said(scores=[(self.vocabulary.known(item[0]), score)])
        if isinstance(item, Mapping):
            if len(item) == 1 and not any(k in _READ_KEYS for k in item):
                ((key, value),) = item.items()
                if (score := self.scale.number(value)) is not None:
                    return Said(scores=[(self.vocabulary.known(key), score)])
            label, said = self._label_of(item)
            if label is not None:
                score = self._score_of(item, label)
                return Said(self._alone(label, said)) if score is None else Said(scores=[(label, score)])
        raise UnreadableError(f"Expected a label and its score, got {excerpt(item)!r}.")

    # -- objects --------------------------------------------------------------------------------------------------

    def _object(self, said: Mapping[Any, Any]) -> Said:
        if said.get("refused") is True and "refused" not in self.vocabulary.classes:
            return Said(REFUSED)
        if self._is_refusing_error(said):
            return Said(REFUSED)
        if (named := self._named(said)) is not None:
            return Said(scores=named)
        label, word = self._label_of(said)
        self._check_no_class_is_beside(said)
        found = self._scores_of(said, label)
        if label == REFUSED or (label is not None and found is None):
            return Said(self._alone(label, word))
        if found is None:
            raise UnreadableError(f"Expected a label and its score, got {excerpt(said)!r}.")
        return Said(label if label != OTHER else None, found)

    def _check_no_class_is_beside(self, said: Mapping[Any, Any]) -> None:
        """Raise where classes have numbers under their names, and something that is none of them stands beside."""
        words = [k for k in said if k not in _READ_KEYS]
        if not any(self._index(str(k)) >= 0 and _numbers(said[k], self.scale) for k in words):
            return
        strangers = [k for k in words if self._index(str(k)) == UNKNOWN and self.scale.number(said[k]) is not None]
        if strangers and len(words) == len(said):
            raise self.vocabulary.unknown(strangers[0])
        raise UnreadableError(f"Expected a score for each class that is named, got {excerpt(said)!r}.")

    def _is_refusing_error(self, said: Mapping[Any, Any]) -> bool:
        """Whether an object is an error that refuses; another one raises."""
        for key in _ERROR_KEYS:
            if key in said and key not in self.vocabulary.classes and said[key]:
                if self.refuses(said[key]):
                    return True
                # A message may stand beside an answer, an error contradicts it.
                failed = key in ("error", "errors") and self.scale.number(said[key]) is None
                if failed or not any(k in said for k in _READ_KEYS):
                    raise UnreadableError(f"Expected an answer, got the platform's error: {excerpt(said[key])!r}.")
        return False

    def _named(self, said: Mapping[Any, Any]) -> list[tuple[int, float]] | None:
        """Return the labels and scores of an object that has nothing else, None where it is none."""
        scores = [self.scale.number(v) for v in said.values()]
        if None in scores:
            return None
        labels = [self._index(str(k)) for k in said]
        if UNKNOWN in labels:
            others = self.vocabulary.others != "error" and not any(k in _READ_KEYS for k in said)
            if not others or {*labels} == {UNKNOWN}:
                return None
            labels = [self.vocabulary.known(k) for k in said]
        return [(label, score) for label, score in zip(labels, scores, strict=True) if score is not None]

    def _label_of(self, item: Mapping[Any, Any]) -> tuple[int | None, object]:
        """Return the label that an object names, and its word; None where it names none."""
        said = [item[k] for k in _LABEL_KEYS if k in item]
        if not said:
            return None, None
        label = self.vocabulary.known(said[0])
        # A name of something else, such as the file's, says nothing about the class.
        if any(self.vocabulary.index_of(other) not in (label, UNKNOWN) for other in said[1:]):
            raise UnreadableError(f"Expected one label, got several: {excerpt(item)!r}.")
        return label, said[0]

    def _scores_of(self, said: Mapping[Any, Any], label: int | None) -> Sequence[tuple[int, float]] | None:
        """Return the scores of an object, beside its label if it has one."""
        vectors = [said[k] for k in _VECTOR_KEYS if k in said]
        if label == REFUSED:
            return None
        score = self._score_of(said, label, elsewhere=bool(vectors))
        if not vectors:
            if score is None or (label is None and not self.scale.alone):
                return None
            return [(1 if self.scale.alone or label is None else label, score)]
        of_all = self.scale.alone and self.scale.number(vectors[0]) is not None
        if not (of_all or (isinstance(vectors[0], list | Mapping) and vectors[0])) or any(
            v != vectors[0] for v in vectors
        ):
            raise UnreadableError(f"Expected scores as one list or object of numbers, got {excerpt(said)!r}.")
        found = self._answer(vectors[0])
        if found.scores is None or found.label is not None:
            raise UnreadableError(f"Expected a label and its scores, got a label without one: {excerpt(said)!r}.")
        if score is not None and score not in [value for _, value in found.scores]:
            raise UnreadableError(f"Expected a score that is among the scores, got {excerpt(said)!r}.")
        return found.scores

    def _score_of(self, item: Mapping[Any, Any], label: int | None, *, elsewhere: bool = False) -> float | None:
        """Return the one score of an object, None where it has none and no number that could be one."""
        scores = [item[k] for k in _SCORE_KEYS if k in item]
        if label == REFUSED and any(self.scale.number(v) is None for v in scores):
            return None
        if scores:
            values = [self._number(v) for v in scores]
            if any(v != values[0] for v in values[1:]):
                raise UnreadableError(f"Expected one score, got several: {excerpt(item)!r}.")
            return values[0]
        stray = [k for k, v in item.items() if k not in _READ_KEYS and _numbers(v, self.scale)]
        if stray and not elsewhere and label != REFUSED:
            raise UnreadableError(
                f"Expected a score under {' or '.join(_SCORE_KEYS)}, or {' or '.join(_VECTOR_KEYS)}, or no number at "
                f"all, got numbers under {excerpt(', '.join(map(str, stray)), 60)!r}, which is not read: "
                f'{excerpt(item)!r}. protocol = "template" says by label and scores where they lie.'
            )
        return None

    def _number(self, said: object) -> float:
        value = self.scale.number(said)
        if value is None:
            raise UnreadableError(f"Expected a label and its score, got {excerpt(said)!r} as a score.")
        return value


def _is_pair(item: list[Any]) -> bool:
    """Whether a list of a list is a label with its score; two numbers are scores."""
    return len(item) == 2 and isinstance(item[0], str)


def _numbers(said: object, scale: Scale) -> bool:
    """Whether there is a number anywhere in it."""
    if isinstance(said, Mapping):
        return any(_numbers(v, scale) for v in said.values())
    if isinstance(said, list):
        return any(_numbers(v, scale) for v in said)
    return scale.number(said) is not None
