"""The outbox: what a member has for the hub is a file until the hub has it, so that no kill loses what was paid for."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ttca.errors import ConfigError, DataError
from ttca.platforms.protocols.reading import UnreadableError, read_json
from ttca.pooling.hub_client import HandedOut, HubClient, HubError

__all__ = ["Outbox"]

#: What a hub says for good of an answer that it will not take; anything else may change.
_REFUSED = (400, 404, 409, 410, 413, 422)


class Outbox:
    """Replies to a hub's leases, each in a file of its own until it was delivered.

    Parameters
    ----------
    folder : Path
        Made if there is none; for this user alone.
    client : HubClient
        What is kept here for another hub is left alone.
    """

    def __init__(self, folder: Path, client: HubClient) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"Expected to keep what cannot be delivered in {folder}, got: {error.strerror}. Move your file to "
                "where you may write. No query was sent."
            ) from None
        self.folder, self._client = folder, client

    @property
    def waiting(self) -> list[Path]:
        """What was not delivered, for whatever hub."""
        return sorted(self.folder.glob("*.json"))

    @property
    def told(self) -> str:
        """What was not delivered, for people; empty where there is nothing."""
        n = len(self.waiting)
        if not n:
            return ""
        return (
            f"{n} {'reply' if n == 1 else 'replies'} to the hub could not be delivered and {'is' if n == 1 else 'are'} "
            f"kept in {self.folder}; run this again to deliver {'it' if n == 1 else 'them'}."
        )

    def bring(self, lease: HandedOut, what: Literal["answers", "failure"], body: dict[str, Any]) -> None:
        """Keep what is to be brought back for a lease, and deliver it; as :meth:`deliver` does."""
        try:
            path = self.keep(lease, what, body)
        except OSError:
            # A full disk is no reason to lose it.
            self._client.post(_path(lease, what), body)
        else:
            self.deliver(path)

    def keep(self, lease: HandedOut, what: Literal["answers", "failure"], body: dict[str, Any]) -> Path:
        """Write down what is to be brought back for a lease; whole or not at all."""
        # Under our own name for it: a hub may call two leases the same.
        path = self.folder / f"{lease.wished}.json"
        partial = path.with_suffix(".partial")
        said = {"hub": self._client.url, "path": _path(lease, what), "body": body}
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            # NaN is no JSON: it must have become None before.
            json.dump(said, file, allow_nan=False)
        partial.replace(path)
        return path

    def deliver(self, path: Path) -> bool:
        """Bring one reply to the hub; return False where it is another hub's.

        Bringing it twice does no harm. What the hub refuses for good is set aside under another name.

        Raises
        ------
        HubError
            If the hub is away, or does not take it.
        DataError
            If the file is none that was kept here.
        """
        try:
            said = read_json(path.read_bytes())
            url, where, body = said["hub"], said["path"], said["body"]
            if not (isinstance(url, str) and where.startswith("/v1/leases/") and isinstance(body, dict)):
                raise TypeError
        except FileNotFoundError:
            return True  # another program of the member's was faster
        except (OSError, UnreadableError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"Expected a reply to a hub in {path}, got something else. Move it out of the folder to go on."
            ) from None
        if url != self._client.url:
            return False
        try:
            self._client.post(where, body)
        except HubError as error:
            if error.status in _REFUSED:
                aside = path.with_suffix(".refused")
                with contextlib.suppress(FileNotFoundError):  # another program of the member's was faster
                    path.replace(aside)
                error.args = (f"{error.args[0]} What it refused is kept in {aside}.", *error.args[1:])
            raise
        path.unlink(missing_ok=True)
        return True

    def deliver_all(self, say: Callable[[str], None]) -> None:
        """Bring what earlier runs could not deliver; say what the hub refuses for good, and what is another hub's.

        Raises
        ------
        HubError
            If the hub is away.
        """
        for path in self.waiting:
            try:
                if not self.deliver(path):
                    say(f"{path} is for another hub, and is left for it.")
            except HubError as error:
                if error.status not in _REFUSED:
                    raise
                say(str(error))


def _path(lease: HandedOut, what: str) -> str:
    return f"/v1/leases/{lease.name}/{what}"
