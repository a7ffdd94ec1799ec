"""What holds for every test: nothing is judged by its speed, waiting threads sleep, and workers share the cores."""

import os

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
