"""What holds for every test: nothing is judged by its speed, waiting threads sleep, workers share the cores."""

import gc
import os
import sys

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.examples import LONG, SHORT
from ttca.proxies.runtime import wait_asleep

# A busy machine slows tests only in proportion.
wait_asleep()

# Whatever weights lie on a machine, no test begins with them unless it brings them itself.
os.environ.pop("TTCA_WEIGHTS", None)
os.environ["HF_HUB_CACHE"] = os.devnull
os.environ["HF_HUB_OFFLINE"] = "1"

# Before torch is imported; programs that a test starts inherit it.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // _WORKERS, 1)))

#: Files whose tests read the finished demo; it is made once, for all of them.
DEMO = ("tests/e2e/test_demo.py", "tests/e2e/test_documents.py", "tests/e2e/test_wheel.py")

# Speed is measured in benchmarks: a slow example is no failure. `make test` says the same of the same code every time;
# `make test-full` looks for examples that nobody has seen.
for name in (LONG, SHORT):
    settings.register_profile(
        name, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=name == SHORT
    )
settings.load_profile(LONG)


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores: a worker waits for servers and disks a third of its time."""
    return (os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    """Where long forms are left out, expensive properties get fewer examples, the same on every machine."""
    if "not full" in config.getoption("markexpr"):
        settings.load_profile(SHORT)
        # Hypothesis also draws constants of the modules that happen to be imported: what a worker ran before decided
        # what a test saw, although the profile says `derandomize`.
        providers._get_local_constants = lambda: providers._local_constants


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the demo, then whole programs, then long files: what begins last should be short, so nobody waits."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(group_of(item.nodeid), []).append(item)

    def length(name: str) -> tuple[bool, bool, int]:
        whole_programs = any(item.get_closest_marker("e2e") for item in groups[name])
        return name == DEMO[0], whole_programs, len(groups[name])

    items[:] = [item for name in sorted(groups, key=length, reverse=True) for item in groups[name]]


_LOADED = [0]


def pytest_runtest_teardown() -> None:
    """Let no search for garbage go through what was imported: it took a third of the time of small actions."""
    if len(sys.modules) > _LOADED[0] + 50:
        gc.collect()
        gc.freeze()
        _LOADED[0] = len(sys.modules)


def group_of(test: str) -> str:
    """Return the name of the tests that one worker runs, so that their fixtures are made once: a file's, or the demo's.

    By the test's name, not by xdist's marks: pytest 9.2 loses those without a word.
    """
    file = test.partition("::")[0]
    return DEMO[0] if file in DEMO else file


class _Together(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Give each group of tests to one worker."""
    return _Together(config, log)


_WORKERS_OF: dict[str, set[str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note which worker ran a group."""
    if (worker := getattr(report, "worker_id", None)) is not None:
        _WORKERS_OF.setdefault(group_of(report.nodeid), set()).add(worker)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a group was torn apart: its fixtures would be made, and paid for, again on every worker."""
    torn = sorted(name for name, workers in _WORKERS_OF.items() if len(workers) > 1)
    if torn and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        sentence = f"Expected each file's tests on one worker, got several for {', '.join(torn)}."
        session.config.get_terminal_writer().line(f"\n{sentence}")
