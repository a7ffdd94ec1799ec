"""Tests of the controls: the zero-query control is the action's twin, at its best training length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests import worlds
from tests.worlds import Recorder, open_action
from ttca.controls import MOST_CHOOSERS
from ttca.errors import ConfigError
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, QueryPool

LENGTHS = (0.5, 1.0, 2.0)


@pytest.mark.parametrize("public", [False, True], ids=["own", "public"])
def test_the_best_training_length_on_selection_people_is_the_control(tmp_path: Path, public: bool) -> None:
    """Of several lengths the one whose δ is right for most selection people on the platform counts, and is told."""
    levers = worlds.settings(control_lengths=LENGTHS, public_epochs=6)
    known = worlds.crowd("public", 60, 60, seed=200) if public else None
    platform = Recorder()
    with open_action(tmp_path, platform, settings=levers, public=known) as action:
        most = action.plan()["controls"].queries
        row, _ = action.measure()
        asked = platform.queries
        chosen = action.opponents(row.epsilon)
        selection = action.questions.selection[:MOST_CHOOSERS]
        stored = load_file(tmp_path / "controls.safetensors")
        right = {}
        for length in LENGTHS:
            delta = stored[f"zero_query-{row.epsilon}" if length == 1 else f"zero_query-x{length:g}-{row.epsilon}"]
            moved = selection.images.astype(np.int64) + delta[selection.classes]
            said = worlds.model(np.clip(moved, 0, 255).astype(np.uint8)).argmax(axis=1)
            right[length] = int((said == selection.classes).sum())
            if right[length] == max(right.values()) and (chosen.zero_query.delta == delta).all():
                best = length
    assert platform.queries == asked, "the choice is read back, not asked again"
    assert right[best] == max(right.values())
    assert row.zero_query_epochs == round((6 if public else 12) * best)
    assert not row.shortened
    assert row.queries_controls <= most
    assert len({tuple(stored[name].ravel()) for name in stored if name.startswith("zero_query")}) > 1


def test_a_benchmark_pays_for_its_own_choice(tmp_path: Path) -> None:
    """Where test people are measured, members pay nothing for the choice among the control's lengths."""
    levers = worlds.settings(control_lengths=LENGTHS)
    with (
        open_action(tmp_path / "action", Recorder(), settings=levers) as action,
        Ledger(tmp_path / "evaluation.sqlite") as ledger,
    ):
        action.verify()
        spent = action.ledger.paid()
        action.measure(worlds.strangers(), pool=QueryPool(Recorder(), ledger, [Member("benchmark", 5000)]))
        assert action.ledger.paid() == spent
        assert ledger.paid()["controls"] == 3 * len(action.questions.selection)


@pytest.mark.parametrize("lengths", [(), 1.0, (2.0,), (1.0, 1.0), (0.0, 1.0), (1.0, -2.0), (1.0, "2")])
def test_lengths_that_are_none_are_refused(lengths: object) -> None:
    """The action's own length is always among them, and each is a multiple of it."""
    with pytest.raises(ConfigError, match="control_lengths"):
        worlds.settings(control_lengths=lengths)


def _learned(folder: Path, threads: int | None, torch_takes: int) -> tuple[bytes, int | None]:
    before = torch.get_num_threads()
    torch.set_num_threads(torch_takes)
    try:
        with open_action(folder, Recorder(), settings=worlds.settings(threads=threads)) as action:
            row, _ = action.measure()
        assert torch.get_num_threads() == torch_takes, "what the program set is put back"
        return (folder / "controls.safetensors").read_bytes(), row.threads
    finally:
        torch.set_num_threads(before)


def test_fixed_threads_give_one_result_whatever_the_machine_takes(tmp_path: Path) -> None:
    """With threads in the settings, a machine of one core and one of two learn the same δ; the row says how many."""
    one, two = (_learned(tmp_path / str(n), 1, n) for n in (1, 2))
    assert one == two
    assert one[1] == 1
    assert _learned(tmp_path / "free", None, 2)[1] == 2


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, 5000])
def test_threads_that_are_none_are_refused(threads: object) -> None:
    """Threads are a whole number, or left out."""
    with pytest.raises(ConfigError, match="threads"):
        worlds.settings(threads=threads)
