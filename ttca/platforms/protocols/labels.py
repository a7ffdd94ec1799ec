"""Which class a platform's word or number names, which word refuses, and which one class a sentence names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from ttca.errors import ConfigError
from ttca.names import canonical
from ttca.platforms.protocols.unreadable import UnreadableError, excerpt

__all__ = ["OTHER", "REFUSED", "UNKNOWN", "OtherLabels", "Vocabulary"]

OtherLabels = Literal["error", "ignore", "refuse"]

#: What a label may be instead of a class: the platform refused, named no class of ours, or named what is of no matter.
REFUSED, UNKNOWN, OTHER = -1, -2, -4

#: Names are hardly longer, and a stranger's text of millions of accents would take a while to spell.
_LONGEST_NAME = 1000
#: What turns a sentence around, or takes it back. A sentence that has one names no class: who denies what, only a
#: reader of the language knows. Other languages than these have theirs, which is why a bare word is the better answer.
_DENIALS = re.compile(
    r"\w+n['’]t\b|\?|\b(?:no|not|non|none|nor|never|neither|nothing|nobody|without|cannot|can['’]?t|dont|isnt|nope|"
    r"hardly|barely|scarcely|unlikely|doubtful|unclear|unsure|uncertain|unable|impossible|false|wrong|incorrect|deny|"
    r"denied|but|except|excluding|rather|instead|opposite|unless|if|than|lacks?|lacking|fails?|rules?|ruled|absent|"
    r"nicht|kein|keine|keinen|keiner|nie|weder|noch|ohne|ne|pas|ni|jamais|sans|aucune?|sin|nunca|ninguna?|nem|não|"
    r"sem|niet|geen|nooit|inte|ikke|nie|bez)\b"
)


def _folded(name: str) -> str:
    """Return the spelling in which labels are compared: Unicode NFC, no space around it, no upper case."""
    return unicodedata.normalize("NFC", canonical(name).casefold())


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The words and numbers by which a platform names classes.

    Parameters
    ----------
    classes : sequence of str
    refused_labels : sequence of str
        Words by which it refuses.
    labels : mapping of str to str
        The platform's word for a class, and the class. It comes before the class's own name.
    first_label : int
        The number of the first class.
    others : {'error', 'ignore', 'refuse'}
        What a word is that names nothing of these.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    classes: Sequence[str]
    refused_labels: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    first_label: int = 0
    others: OtherLabels = "error"

    def __post_init__(self) -> None:
        table = self.labels
        if not isinstance(table, Mapping) or not all(
            isinstance(k, str) and k.strip() and isinstance(v, str) for k, v in table.items()
        ):
            raise ConfigError(
                f"Expected labels as a table of the platform's words and classes, got {excerpt(table)}. Write {{ \"its "
                'word" = "the class" }.'
            )
        wrong = sorted(v for v in table.values() if v not in self.classes)
        if wrong:
            raise ConfigError(
                f"Expected labels to stand for classes ({excerpt(', '.join(self.classes))}), got "
                f"{excerpt(', '.join(wrong))}. Write the platform's word on the left, the class on the right."
            )
        refusals = {_folded(text) for text in self.refused_labels}
        overlap = sorted(name for name in (*self.classes, *table) if _folded(name) in refusals)
        if overlap:
            raise ConfigError(f"Expected refused_labels that are no classes, got {', '.join(overlap)}. Remove them.")
        if type(self.first_label) is not int or self.first_label < 0:
            raise ConfigError(f"Expected first_label as 0 or more, got {self.first_label!r}. Use 0 or 1.")

    @cached_property
    def _exact(self) -> dict[str, int]:
        """Words as they were configured."""
        known = dict.fromkeys(self.refused_labels, REFUSED)
        known |= {name: i for i, name in reversed(list(enumerate(self.classes)))}
        return known | {word: list(self.classes).index(name) for word, name in self.labels.items()}

    @cached_property
    def _alike(self) -> dict[str, int]:
        """The same in one spelling; what two of them would share is none of both."""
        found: dict[str, int] = {}
        for name, index in self._exact.items():
            if found.setdefault(_folded(name), index) != index:
                found[_folded(name)] = UNKNOWN
        return found

    def named(self, said: str) -> int:
        """Return the class of this name, REFUSED or UNKNOWN; as configured, or else the one name spelled alike."""
        if said in self._exact:
            return self._exact[said]
        return self._alike.get(_folded(said), UNKNOWN) if len(said) <= _LONGEST_NAME else UNKNOWN

    def are_classes(self, said: Sequence[object]) -> bool:
        """Whether a platform's own list of classes is the configured one, in its order."""
        return [self.named(str(name)) for name in said] == list(range(len(self.classes)))

    def index_of(self, said: object, *, numbered: bool = False) -> int:
        """Return the class that a label names, by name or by number, also written as text; REFUSED or UNKNOWN.

        A number that is also the name of another class is UNKNOWN, unless the protocol says that labels are numbered.
        """
        if isinstance(said, bool):
            return self.labelled(str(said).lower())
        if isinstance(said, str):
            if (index := self.named(said)) != UNKNOWN:
                return index
            if not (said.strip().isascii() and said.strip().isdecimal() and len(said) < 10):
                return UNKNOWN
            said = int(said)
        if isinstance(said, float) and said.is_integer():
            # Some platforms write whole numbers as floats.
            said = int(said)
        # Text of thousands of digits is no class's name.
        if not isinstance(said, int) or abs(said) >= 10**9:
            return UNKNOWN
        if (index := self.labelled(str(said))) != UNKNOWN:
            return index
        if said == -1 or str(said) in self.refused_labels:
            return REFUSED
        index = said - self.first_label
        if not numbered and self._exact.get(str(said), index) != index:
            return UNKNOWN
        return index if 0 <= index < len(self.classes) else UNKNOWN

    def labelled(self, word: str) -> int:
        """Return the class that the table ``labels`` gives for a word, UNKNOWN where it has none."""
        return self._exact[word] if word in self.labels else UNKNOWN

    def known(self, said: object) -> int:
        """Return the class of a label, REFUSED, or, where ``others`` is 'ignore', OTHER.

        Raises
        ------
        UnreadableError
            If it is none of them. The sentence has the platform's word, and the line of the table that would read it.
        """
        label = self.index_of(said)
        if label == UNKNOWN and isinstance(said, str) and said.strip() and self.others != "error":
            return OTHER if self.others == "ignore" else REFUSED
        if label == UNKNOWN:
            raise self.unknown(said)
        return label

    def unknown(self, said: object) -> UnreadableError:
        """Return the error for a label that names no class."""
        begin = f"Expected a label among the {len(self.classes)} classes ({excerpt(', '.join(self.classes), 60)}), got "
        if isinstance(said, str) and said.strip():
            word = excerpt(said, 60)
            return UnreadableError(
                f"{begin}{word!r}, which is none of them. If it is the platform's word for one, set labels = "
                f'{{ "{word}" = "the class" }}; if it is a refusal, name it in refused_labels; if it does not matter, '
                'set others = "ignore".'
            )
        hint = "Check classes."
        if not isinstance(said, bool) and said == len(self.classes) + self.first_label and self.first_label == 0:
            hint = "Set first_label = 1 if the platform numbers its classes from 1."
        if isinstance(said, float) and not said.is_integer():
            hint = 'If it is a score, say which by scores_are, as in scores_are = "probability-of-second".'
        return UnreadableError(f"{begin}{excerpt(said, 60)!r}. {hint}")

    # -- sentences ------------------------------------------------------------------------------------------------

    @cached_property
    def _words(self) -> re.Pattern[str]:
        """Every word of the vocabulary as a whole word, the longest first."""
        names = sorted(filter(None, self._alike), key=len, reverse=True)
        return re.compile(r"(?<![\w'’-])(?:" + "|".join(map(re.escape, names)) + r")(?![\w'’-])")

    def in_text(self, text: str) -> int:
        """Return the one class that a sentence names as a whole word, or REFUSED.

        Raises
        ------
        UnreadableError
            If it names none or several, denies something, asks something, or is no sentence.
        """
        if text.lstrip()[:1] in ("{", "[", "<"):
            raise UnreadableError(f"Expected a class in a sentence, got JSON or HTML: {excerpt(text)!r}.")
        if (whole := self.index_of(text)) != UNKNOWN:
            return whole
        sentence = _folded(text[: 10 * _LONGEST_NAME])
        words = self._words.findall(sentence)
        found = {self._alike[word] for word in words}
        if found == {REFUSED}:
            return REFUSED
        if len(found) != 1 or len(text) > 10 * _LONGEST_NAME:
            got = "none" if not found else ", ".join(sorted({excerpt(w, 40) for w in words}))
            raise UnreadableError(
                f"Expected one class named in a sentence, got {got}: {excerpt(text)!r}. Have the platform answer with "
                "the class alone, and name other words in labels or refused_labels."
            )
        denial = _DENIALS.search(self._words.sub(" ", sentence))
        if denial is not None or UNKNOWN in found:
            got = "a name that several share" if denial is None else f"{denial.group()!r} beside it"
            raise UnreadableError(
                f"Expected one class named in a sentence, got {got}, and what that does to it is not known: "
                f"{excerpt(text)!r}. Have the platform answer with the class alone."
            )
        return found.pop()
