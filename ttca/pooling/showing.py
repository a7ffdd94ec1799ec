"""Showing: a member looks at what a hub would have them send, and sends nothing of it."""

from __future__ import annotations

import time
from pathlib import Path

from PIL import Image

from ttca.errors import ChargeState, ConfigError
from ttca.platforms.base import Platform
from ttca.pooling.allowance import Effort
from ttca.pooling.hub_client import MOST_QUERIES, HandedOut, HubAccess, HubClient, images_of
from ttca.pooling.outbox import Outbox
from ttca.private import private
from ttca.progress import Reporter, silent

__all__ = ["show_pictures"]


def show_pictures(
    hub: HubAccess,
    platform: Platform,
    *,
    folder: Path,
    out: Path,
    effort: Effort | None = None,
    reporter: Reporter = silent,
) -> list[Path]:
    """Lease as :func:`~ttca.pooling.contribute.contribute` does, write the pictures down, and give the lease back.

    It is a lease like any other, so that no hub can show other pictures than it has members send. The hub is told that
    nothing was sent, and refunds it; the platform gets no picture.

    Parameters
    ----------
    hub, platform, folder, effort, reporter
        As for :func:`~ttca.pooling.contribute.contribute`.
    out : Path
        A folder for the pictures, new or empty; for this user alone, since they show other people.

    Returns
    -------
    list of Path
        PNG files of the exact pixels; none where the hub has nothing for the member now.

    Raises
    ------
    ConfigError
        If the folder holds something, the token is missing, or the hub's platform is another one than the member's.
    HubError
        If the hub is away, refuses the member or says what cannot be.
    SignatureError
        If the lease is not signed with the hub's key.
    """
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = not any(out.iterdir())
    except OSError as error:
        raise ConfigError(f"Expected a folder for the pictures at {out}, got: {error.strerror}.") from None
    if not free:
        raise ConfigError(f"Expected a new or empty folder for the pictures, got {out}, which holds something.")
    client = HubClient(hub, patience_s=0.0, sleep=time.sleep)
    outbox = Outbox(folder / "undelivered", client)
    outbox.deliver_all(reporter.say)
    info = client.check_platform(platform)
    lease = client.lease(min((effort or Effort()).size, info.max_batch, MOST_QUERIES))
    if not isinstance(lease, HandedOut):
        return []
    try:
        files = []
        for number, image in enumerate(images_of(lease, info, hub.key), 1):
            files.append(out / f"{number:02d}.png")
            with open(files[-1], "xb", opener=private) as file:
                Image.fromarray(image).save(file, "PNG")
        return files
    finally:
        outbox.bring(lease, "failure", {"charge": ChargeState.REFUNDED.value, "detail": "looked at, and not sent"})
