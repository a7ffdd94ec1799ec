"""What holds for every test: nothing is judged by its speed, waiting threads sleep, workers share the cores."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.examples import LONG, SHORT
from ttca.proxies.runtime import wait_asleep

# A busy machine slows tests only in proportion.
wait_asleep()

# Before torch is imported; programs that a test starts inherit it.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // _WORKERS, 1)))

DEMO = "demo"

# Speed is measured in benchmarks: a slow example is no failure.
for name in (LONG, SHORT):
    settings.register_profile(name, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(LONG)


def pytest_configure(config: pytest.Config) -> None:
    """Where long forms are left out, expensive properties get fewer examples too."""
    if "not full" in config.getoption("markexpr"):
        settings.load_profile(SHORT)


# First: xdist reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file on one worker, and all that read the finished demo on the same one; the longest begin.

    The demo is made once. What begins last should be short: then no worker waits long for another.
    """
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        name = DEMO if "finished_demo" in getattr(item, "fixturenames", ()) else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(name))
        groups.setdefault(name, []).append(item)

    def length(name: str) -> tuple[bool, bool, int]:
        whole_programs = any(item.get_closest_marker("e2e") for item in groups[name])
        return name == DEMO, whole_programs, len(groups[name])

    items[:] = [item for name in sorted(groups, key=length, reverse=True) for item in groups[name]]
