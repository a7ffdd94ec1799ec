"""What several tests of the pool start, a hub that says anything, and which of them are long on a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pooling.anyhub import AnyHub, any_hub


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make test-full` what is long in PostgreSQL and decided by code that knows no database."""
    for item in items:
        if "[postgres" in item.name and item.get_closest_marker("full_on_a_server"):
            item.add_marker(pytest.mark.full)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, AnyHub]]:
    """Serve a hub that says anything; give its URL."""
    with any_hub() as served:
        yield served
