"""The one tree of errors: every message says what was expected, what came, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

__all__ = [
    "ActionError",
    "AnswerError",
    "ChangedPlatformError",
    "ChargeState",
    "ConfigError",
    "DataError",
    "ImageError",
    "LedgerError",
    "MissingExtraError",
    "ModelError",
    "NothingHelpsError",
    "PerturbationError",
    "PlatformError",
    "QuotaError",
    "RateError",
    "SanityError",
    "TTCAError",
    "TransportError",
    "Trouble",
    "UnconfirmedError",
    "WorthlessProxyError",
    "as_sentence",
]


class TTCAError(Exception):
    """Root of every error a user of ttca can meet; ``str(error)`` is a sentence for people.

    Attributes
    ----------
    come_back_s : float or None
        In so many seconds the same work can go on, where waiting is all it needs; the sentence says when that is.
    unfinished : bool
        Whether the work had begun, and goes on where it stopped once somebody does what the sentence says; nothing is
        wrong with it.
    queries_charged : int or None
        What the work that it ended had charged; None where nothing was counted.
    bill : str or None
        The same for people, one of its notes.
    """

    come_back_s: float | None = None
    unfinished: bool = False
    queries_charged: int | None = None
    bill: str | None = None


class ConfigError(TTCAError):
    """An action file, a parameter or the environment is not as it must be.

    Attributes
    ----------
    sentences : tuple of str
        What is wrong, one by one, where a whole file was read; empty elsewhere.
    """

    sentences: tuple[str, ...] = ()


class ImageError(TTCAError):
    """An image is not uint8 NHWC RGB at the platform's size; raised before any query is sent."""


class DataError(TTCAError):
    """A data set, folder or table of people cannot be read as asked."""


class ActionError(TTCAError):
    """A step of an action cannot go on: its people, its files or its order are wrong."""


class UnconfirmedError(ActionError):
    """What cannot be undone was not agreed to: it is not done."""


class ChangedPlatformError(ActionError):
    """The platform is another one than before, or read otherwise, and answers would be paid again."""


class SanityError(ActionError):
    """The first answers do not fit what is known of their images: the action stops before it pays for more."""


class WorthlessProxyError(ActionError):
    """The proxy knows no more of the platform than its favorite answer: the action stops before it pays for more."""


class NothingHelpsError(ActionError):
    """No candidate was shown to beat doing nothing: there is no δ to verify or to hand out."""


class PerturbationError(TTCAError):
    """A perturbation set is not what it says it is (ε, classes, geometry or format)."""


class LedgerError(TTCAError):
    """The ledger cannot be opened, read or written."""


class QuotaError(TTCAError):
    """A member's quota or the pool's cap does not allow the queries asked for.

    Attributes
    ----------
    look_again : callable or None
        Returns whether more may be paid now, where somebody can raise quotas while the program waits.
    """

    look_again: Callable[[], bool] | None = None


class RateError(QuotaError):
    """A member's rate does not allow the queries *yet*; ``wait_s`` says in how many seconds it will.

    ``room`` is how many it allows now.
    """

    def __init__(self, message: str, *, wait_s: float, room: int = 0) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        self.room = room


class MissingExtraError(TTCAError):
    """An optional part of ttca is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the optional packages of ttca[{extra}], which are not installed. "
            f"Install them with: pip install 'ttca[{extra}]'"
        )
        self.extra = extra


class ChargeState(StrEnum):
    """What an attempt that brought no answer cost.

    ``REFUNDED``: the platform surely did not process it. ``UNKNOWN``: nobody can tell.
    ``CHARGED``: the platform processed it and its answer could not be used.
    """

    REFUNDED = "refunded"
    UNKNOWN = "unknown"
    CHARGED = "charged"


class Trouble(StrEnum):
    """Why an attempt brought no answer, where that decides what to do next, whatever the status was.

    ``THROTTLED``: it came too fast. ``USED_UP``: the key's quota or credit has ended, and waiting a little brings
    nothing. ``TIMED_OUT``: it was sent, and no answer came in time. ``UNREACHABLE``: there was no connection.
    """

    THROTTLED = "throttled"
    USED_UP = "used up"
    TIMED_OUT = "timed out"
    UNREACHABLE = "unreachable"


class PlatformError(TTCAError):
    """The platform, or the way to it, failed.

    Parameters
    ----------
    message : str
        The sentence for people. It must never hold a key.
    platform : str
        The platform's name or URL.
    status : int, optional
        The HTTP status, where one came.
    request_id : str, optional
        The platform's or our own id of the request.
    member : str, optional
        Who paid for the attempt.

    Attributes
    ----------
    attempt : int or None
        1 for the first try of a request, 2 for the first retry, and so on; set by whoever tries again.
    """

    def __init__(
        self,
        message: str,
        *,
        platform: str,
        status: int | None = None,
        request_id: str | None = None,
        member: str | None = None,
    ) -> None:
        super().__init__(message)
        self.platform = platform
        self.status = status
        self.request_id = request_id
        self.member = member
        self.attempt: int | None = None

    def __str__(self) -> str:
        known = {
            "platform": self.platform,
            "status": self.status,
            "request": self.request_id,
            "member": self.member,
            "attempt": self.attempt,
        }
        context = ", ".join(f"{k} {v}" for k, v in known.items() if v is not None)
        return f"{super().__str__()} [{context}]"


class TransportError(PlatformError):
    """One attempt brought no usable answer.

    Parameters
    ----------
    charge : ChargeState
        What is known about whether the platform processed the attempt.
    retryable : bool
        Whether another attempt may succeed (connection errors, timeouts, 408, 409, 425, 429, 5xx).
    retry_after : float, optional
        Seconds the platform asked us to wait.

    Attributes
    ----------
    trouble : Trouble or None
        Why, where that decides what to do next; a 429 says ``THROTTLED`` by itself.
    body : bytes or None
        What came and could not be used, where the platform may read it otherwise one day; see
        the ``body`` of :class:`ttca.answers.Answers`.
    """

    def __init__(
        self,
        message: str,
        *,
        platform: str,
        charge: ChargeState,
        retryable: bool,
        retry_after: float | None = None,
        status: int | None = None,
        request_id: str | None = None,
        member: str | None = None,
    ) -> None:
        super().__init__(message, platform=platform, status=status, request_id=request_id, member=member)
        self.charge = charge
        self.retryable = retryable
        self.retry_after = retry_after
        self.trouble: Trouble | None = Trouble.THROTTLED if status == 429 else None
        self.body: bytes | None = None


class ModelError(TransportError):
    """The model of a platform in this process raised an error of its own, its ``__cause__``.

    Nobody knows how far it came, and another attempt would end in the same error.
    """

    def __init__(self, message: str, *, platform: str, request_id: str, member: str) -> None:
        super().__init__(
            message,
            platform=platform,
            charge=ChargeState.UNKNOWN,
            retryable=False,
            request_id=request_id,
            member=member,
        )


class AnswerError(TransportError):
    """The platform answered, and the answer cannot be read as its protocol says.

    It is charged (the platform processed the query) and never retried blindly: the same question would bring
    the same unreadable answer.
    """

    def __init__(
        self,
        message: str,
        *,
        platform: str,
        status: int | None = None,
        request_id: str | None = None,
        member: str | None = None,
    ) -> None:
        super().__init__(
            message,
            platform=platform,
            charge=ChargeState.CHARGED,
            retryable=False,
            status=status,
            request_id=request_id,
            member=member,
        )


def as_sentence(said: object) -> str:
    """Return what a stranger's error says with its full stop, so that a sentence can follow."""
    text = str(said).rstrip().removesuffix(":")
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
