"""A platform as it was when it answered: what it said of itself is in the ledger, and nothing is sent any more."""

from __future__ import annotations

from typing import Any, NoReturn

from ttca.errors import ActionError
from ttca.images import Images
from ttca.platforms.base import OPTIONAL_MEMBERS, Credential, Platform, PlatformInfo

__all__ = ["RememberedPlatform"]


class RememberedPlatform:
    """A platform that can be read about and not asked.

    Whoever only recomputes what was answered needs no service, and none that is still the same.

    Parameters
    ----------
    inner : Platform
        As the action file describes it today; its answers' bodies are read by it, and it is sent nothing.
    info : PlatformInfo
        What it said of itself when it answered.
    """

    def __init__(self, inner: Platform, info: PlatformInfo) -> None:
        self._inner, self.info = inner, info

    def __repr__(self) -> str:
        return f"RememberedPlatform({self._inner!r})"

    def __getattr__(self, name: str) -> Any:
        if name in (*OPTIONAL_MEMBERS, "authorized_by"):
            return getattr(self._inner, name)
        raise AttributeError(name)

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> NoReturn:
        """Raise ActionError: nobody is asked."""
        raise ActionError(
            f"Expected that everything was answered by {self.info.name}, got {len(images)} images without an answer. "
            "Nothing was sent. Run first: ttca report"
        )
