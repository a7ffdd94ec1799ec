"""What several tests of the pool start: a hub that says anything, once for a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pooling.anyhub import AnyHub, any_hub


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, AnyHub]]:
    """Serve a hub that says anything; give its URL."""
    with any_hub() as served:
        yield served
