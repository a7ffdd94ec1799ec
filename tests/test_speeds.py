"""Tests of speeds: a busy machine changes no estimate, and a file of times that cannot be read costs nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import worlds
from ttca import speeds
from ttca.action import CollectiveAction
from ttca.speeds import SPEEDS_FILE, Speeds, Workload
from ttca.weights import Start

WORK = Workload(
    start=Start(("small-cnn",)), side=(8, 8), classes=3, precision="float32", training=100, descending=10, looking=1
)
TIMES = st.floats(min_value=1e-6, max_value=10)


def timed(monkeypatch: pytest.MonkeyPatch, times: Sequence[float]) -> None:
    """Let one image take so many seconds, in training, in descending and in looking."""
    monkeypatch.setattr(speeds, "_seconds_per_image", lambda *_: tuple(times))


@given(st.lists(st.tuples(TIMES, TIMES, TIMES), min_size=1, max_size=5))
def test_the_shortest_time_ever_measured_counts(measured: list[tuple[float, float, float]]) -> None:
    """Whoever measures again gets the shortest of each kind so far, from a process of its own too."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for count, times in enumerate(measured, 1):
            timed(patch, times)
            found = Speeds(folder=Path(folder)).seconds(WORK)
            timed(patch, [min(kind) for kind in zip(*measured[:count], strict=True)])
            assert found == Speeds().seconds(WORK)


@pytest.mark.parametrize("content", ["", "no JSON", "[1]", '{"other": [1.0]}', "DAMAGED"])
def test_times_that_cannot_be_read_are_measured_again(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file of times stops nothing, and a time that is none does not count."""
    timed(monkeypatch, [3.0, 2.0, 1.0])
    expected = Speeds(folder=tmp_path).seconds(WORK)
    path = tmp_path / SPEEDS_FILE
    path.write_text(content if content != "DAMAGED" else path.read_text().replace("3.0", "-3.0"), encoding="utf-8")
    assert Speeds(folder=tmp_path).seconds(WORK) == expected
    assert "3.0" in path.read_text(encoding="utf-8")


def test_other_models_have_other_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one model took says nothing of another, or of more threads."""
    timed(monkeypatch, [1.0, 1.0, 1.0])
    few = Speeds(folder=tmp_path).seconds(WORK)
    timed(monkeypatch, [2.0, 2.0, 2.0])
    other = Workload(**{**vars(WORK), "side": (16, 16)})
    assert Speeds(folder=tmp_path).seconds(other) == Speeds(2, tmp_path).seconds(WORK) == 2 * few


def test_who_races_does_not_depend_on_what_else_the_machine_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone who looks ahead in a quiet moment, and runs in a busy one, sees the same recipes race."""

    def races() -> tuple[object, ...]:
        settings = worlds.settings(recipe="auto", epochs=6, public_epochs=6, race_share=0.2, most_minutes=1)
        roster, members = worlds.roster(), worlds.members()
        platform = worlds.Recorder()
        with CollectiveAction(tmp_path, platform=platform, roster=roster, members=members, settings=settings) as action:
            runners = action.runners
        assert platform.queries == 0
        assert runners is not None
        return [r.name for r in runners.recipes], runners.length, runners.seconds

    timed(monkeypatch, [1e-4] * 3)
    quiet = races()
    timed(monkeypatch, [1.0] * 3)
    assert races() == quiet
    (tmp_path / SPEEDS_FILE).unlink()
    assert races() != quiet
