"""What a program says reaches its reader, whatever the streams can hold; and no error of ours shows a secret."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import os
import sys
import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO, cast

from rich.markup import escape

from ttca.errors import TTCAError
from ttca.interruption import Interrupted, Interruption, interruptible
from ttca.masking import masked_everywhere
from ttca.terminal import Terminal, visible

__all__ = ["COME_BACK", "OutputError", "error_object", "run_program", "steady_streams"]

# How a character is written where the encoding lacks it; any other becomes a question mark.
_SPELLED = {
    "ε": "epsilon", "δ": "delta", "Δ": "Delta", "α": "alpha", "σ": "sigma", "τ": "tau", "η": "eta", "ŷ": "y",
    "…": "...", "±": "+-", "×": "x", "−": "-", "–": "-", "—": "-", "→": "->", "≤": "<=", "≥": ">=", "≠": "!=",
    "·": "*", "•": "*", "‖": "||", "∞": "infinity", "²": "^2", "³": "^3", "✓": "yes", "✗": "no", "\u00a0": " ",
    "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip
_SPELL = "ttca.spell"
_TAIL = 2000
_CLOSED = {errno.EPIPE, errno.ESHUTDOWN}


#: The status of a program that waiting will help: EX_TEMPFAIL of sysexits.h.
COME_BACK = 75
_INTERRUPTED = "Interrupted. Nothing that came back is lost; run it again to resume."
_BUG = "This is a bug in ttca. Please report it, with the lines above."


class OutputError(TTCAError):
    """Standard output cannot be written to."""


def error_object(error: BaseException, status: int) -> dict[str, Any]:
    """Return an error as JSON values: the sentence, its kind, the exit status, when to come back, and what it cost.

    ``come_back_s`` is None where waiting does not help, ``queries_charged`` where nothing was counted.
    """
    bill = getattr(error, "bill", None)
    notes = [note for note in getattr(error, "__notes__", ()) if note != bill]
    return {
        **_object(masked_everywhere("\n".join([str(error), *notes])), type(error).__name__, status),
        "come_back_s": getattr(error, "come_back_s", None),
        "queries_charged": getattr(error, "queries_charged", None),
    }


def _object(said: str, kind: str, status: int) -> dict[str, Any]:
    said = visible(said)
    return {"error": said, "kind": kind, "status": status, "come_back_s": None, "queries_charged": None}


def run_program(name: str, work: Callable[[], int | None], *, as_json: bool = False) -> NoReturn:
    """Do a program's work and end the process with the status it returns or exits with, 0 if it says none.

    A TTCAError becomes its sentence, each of its notes a line, and status 1, or :data:`COME_BACK` where waiting is all
    it needs, or more quota. So does a standard output that cannot be written to; where its reader has gone
    (``ttca … | head``) nothing is said. Ctrl-C and SIGTERM become one sentence and the status 130 or 143, once what was
    in flight is written. Any other error is a bug of ours: its traceback is shown, without local variables and without
    the environment's keys and tokens.

    With ``as_json``, whatever ends the program is one JSON object on standard output instead (:func:`error_object`),
    unless a result stands there already.

    Parameters
    ----------
    name : str
        The program's, before each sentence.
    work : callable
        May raise SystemExit.
    as_json : bool
    """
    with steady_streams(), interruptible() as interruption:
        try:
            _run(name, work, interruption, as_json)
        except Exception as error:
            # Even where the error cannot be told: Python's own traceback would go past the mask.
            _show(error)
            sys.exit(1)


def _run(name: str, work: Callable[[], int | None], interruption: Interruption, as_json: bool) -> NoReturn:
    told: dict[str, Any]
    for_people = ""
    try:
        try:
            status = work()
        except SystemExit as ended:
            # A library of command lines makes an exit of KeyboardInterrupt.
            if interruption.signal and ended.code:
                raise _interrupt(ended) from None
            if as_json and isinstance(ended.code, int) and ended.code:
                _tell(_object(_last_words(), "UsageError", ended.code))
            sys.stdout.flush()
            raise ended from None
        sys.stdout.flush()
        sys.exit(status)
    except KeyboardInterrupt as interrupt:
        told = _object(_INTERRUPTED, "Interrupted", interruption.status)
        if isinstance(interrupt, Interrupted):
            told, for_people = told | {"queries_charged": interrupt.queries_charged}, f" {interrupt.told}"
    except TTCAError as error:
        told = error_object(error, COME_BACK if error.unfinished or error.come_back_s is not None else 1)
        for_people = "" if error.bill is None else f"\n{error.bill}"
        # Nothing more goes to where nothing could be written.
        as_json = as_json and not isinstance(error, OutputError)
    except Exception as error:
        _show(error)
        told = _object(_BUG, type(error).__name__, 1)
    if not (as_json and _tell(told)):
        _say_error(name, told["error"] + for_people)
    sys.exit(told["status"])


def _interrupt(ended: BaseException) -> KeyboardInterrupt:
    """Return the interruption that an exit was made of."""
    cause: BaseException | None = ended
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause or KeyboardInterrupt()


def _tell(told: dict[str, Any]) -> bool:
    """Write the one object of a program that has ended otherwise than it should, unless a result stands there."""
    if getattr(sys.stdout, "wrote", False):
        return False
    sys.stdout.write(json.dumps(told).replace("\x7f", "\\u007f") + "\n")
    sys.stdout.flush()
    return True


def _last_words() -> str:
    """Return what a library of command lines has said is wrong, the last of it."""
    return str(getattr(sys.stderr, "tail", "")).rpartition("Error: ")[2].strip() or "Wrong usage."


def _show(error: Exception) -> None:
    """Write a traceback without locals, which would hold keys; in messages, standard error masks them."""
    sys.stderr.write("".join(traceback.format_exception(error)))


def _say_error(name: str, sentence: str) -> None:
    console = Terminal(stderr=True)
    console.print(f"[bold red]{name}:[/] {escape(sentence)}", highlight=False, soft_wrap=True)


@contextmanager
def steady_streams() -> Iterator[None]:
    """Let both standard streams spell out what their encoding lacks, and go on without standard error if it fails."""
    before = sys.stdout, sys.stderr
    result, notes = _Result(sys.stdout), _Notes(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, result), cast(TextIO, notes)
    try:
        yield
    finally:
        # What is left in the buffers must not fail when the interpreter ends.
        with contextlib.suppress(OutputError, SystemExit):
            result.flush()
        notes.flush()
        sys.stdout, sys.stderr = before


class _Stream(io.TextIOBase):
    """A text stream before another, or before none where the process was started without one.

    Whatever is written to it comes without control characters: a warning or a traceback may quote a stranger.
    """

    def __init__(self, inner: TextIO | None) -> None:
        self._inner = inner
        self._broken: OSError | ValueError | None = None
        #: For a :class:`~ttca.terminal.Terminal`, whose escapes are its own.
        self.styled = _Styled(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own, which rich and click ask for."""
        return getattr(self._inner, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._inner is not None and self._inner.isatty()

    def fileno(self) -> int:
        return super().fileno() if self._inner is None else self._inner.fileno()

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):  # as click finds out what a stream takes
            raise TypeError(f"Expected text to write, got {type(text).__name__}.")
        self.put(visible(text))
        return len(text)

    def put(self, text: str) -> None:
        """Write a text as it is, what the encoding lacks spelled out."""
        if text:
            shown = text.encode(self.encoding, _SPELL).decode(self.encoding)
            self._try(lambda inner: inner.write(shown))

    def flush(self) -> None:
        if self._inner is not None:
            self._try(lambda inner: inner.flush())

    def _try(self, work: Callable[[TextIO], object]) -> None:
        """Do something with the stream beneath; once that failed, fail without it."""
        if self._broken is None:
            try:
                if self._inner is None:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                work(self._inner)
            except (OSError, ValueError) as error:  # a ValueError where it was closed
                self._broken = error
                self._drop()
        if self._broken is not None:
            self._failed(self._broken)

    def _drop(self) -> None:
        """Let what is still buffered go nowhere, so that it does not fail when the interpreter ends."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self.fileno())
            finally:
                os.close(nowhere)

    @abstractmethod
    def _failed(self, error: OSError | ValueError) -> None:
        """Do what follows from a failure."""


class _Styled(io.TextIOBase):
    """The same stream, written to as it is."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        self._stream.put(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


class _Result(_Stream):
    """Standard output: what was asked for, so a failure ends the program."""

    #: Whether anything was written.
    wrote = False

    def put(self, text: str) -> None:
        self.wrote |= bool(text)
        super().put(text)

    def _failed(self, error: OSError | ValueError) -> None:
        if isinstance(error, OSError) and error.errno in _CLOSED:
            # Whoever read it has seen enough; as Python's own documentation has it, status 1.
            raise SystemExit(1)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OutputError(
            f"Expected to write the result to standard output, got: {reason}. Send the output somewhere else."
        )


class _Notes(_Stream):
    """Standard error: progress and remarks, which are lost where it fails, and nothing else is.

    A server's log comes here too, with whatever a failed request had in hand; never with a secret of this process.
    """

    #: The last of what was written.
    tail = ""

    def write(self, text: str, /) -> int:
        shown = masked_everywhere(text) if isinstance(text, str) else text
        super().write(shown)
        self.tail = (self.tail + shown)[-_TAIL:]
        return len(text)

    def _failed(self, error: OSError | ValueError) -> None:
        pass


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):  # pragma: no cover - streams here are written only
        raise error
    return "".join(map(_spelled, error.object[error.start : error.end])), error.end


def _spelled(character: str) -> str:
    # Lines of tables and bars, where rich does not choose plain ones itself.
    return "-" if "\u2500" <= character <= "\u257f" else _SPELLED.get(character, "?")


codecs.register_error(_SPELL, _spell)
