"""Tests of the simulated rechecks: a swap is found, and the same seeds say the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from benchmarks._recheck_simulation import Platform, _Watch, false_alarm, queries_to_find, recheck_part
from tests.examples import examples
from ttca.recheck import BATCH, REJECTS_AT, standing


def test_a_large_swap_is_found_fast_and_none_is_no_alarm() -> None:
    """A tenth of all answers moved is found with a look or two; a platform that stays as it was raises no alarm."""
    moved = replace(Platform(), moved=0.1)
    found = [queries_to_find(moved, seed) for seed in range(20)]
    assert found == [queries_to_find(moved, seed) for seed in range(20)]
    assert all(queries is not None and 8 <= queries <= 200 for queries in found)
    assert not any(false_alarm(replace(Platform(), noisy=0.05), 50, seed) for seed in range(3))
    assert queries_to_find(replace(Platform(), moved=0.0, noisy=0.0, persons=40), 0) is None


def test_the_part_of_the_audit_benchmark_says_what_was_simulated() -> None:
    """Its headline is the first line of the curve and the worst kind of steady platform."""
    part = recheck_part(swaps=3, series=2, looks=10, seed=1)
    assert part["recheck_queries"] == part["recheck_curve"][0]["queries"]
    assert part["recheck_false_alarms"] == max(row["false_alarms"] for row in part["recheck_steady"]) == 0
    assert (part["recheck_swaps"], part["recheck_series"], part["recheck_looks"]) == (3, 2, 10)
    assert {row["moved"] for row in part["recheck_curve"]} == {0.01, 0.02, 0.03, 0.05, 0.1}


class _Helped:
    """Persons whom δ helped on the certificate's day."""

    helped = True


@examples(25)
@given(st.lists(st.text("012345678", min_size=4, max_size=20), min_size=1, max_size=12), st.integers(0, 9))
def test_a_watch_that_skips_glances_rejects_where_all_glances_would(looks: list[str], often: int) -> None:
    """What it does not compute could not have rejected: it says the same as the command's e-values at every glance."""
    people: Any = _Helped()
    watch, before = _Watch(people), list[str]()
    for said in [*looks, *["1" * 20] * often, *looks]:
        for stop in range(BATCH, len(said) + BATCH, BATCH):
            watch.saw(said[stop - BATCH : stop])
            state = standing([*before, said[:stop]])
            assert watch.rejects([*before, said[:stop]]) == (max(state["e_changed"], state["e_helps"]) >= REJECTS_AT)
        before.append(said)
