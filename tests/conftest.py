"""What holds for every test: nothing is judged by its speed, waiting threads sleep, workers share the cores."""

import os

import pytest
from hypothesis import HealthCheck, settings

from ttca.proxies.runtime import wait_asleep

# A busy machine slows tests only in proportion.
wait_asleep()

# Before torch is imported; programs that a test starts inherit it.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // _WORKERS, 1)))

# Speed is measured in benchmarks: a slow example is no failure.
settings.register_profile("ttca", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ttca")


# First: xdist reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file on one worker, and all that read the finished demo on the same one: it is made once."""
    for item in items:
        name = "demo" if "finished_demo" in getattr(item, "fixturenames", ()) else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(name))
