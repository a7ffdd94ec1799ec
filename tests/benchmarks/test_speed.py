"""The speed benchmark compares like with like, says how, and leaves the process as it found it."""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import speed
from ttca.attacks.blackbox import PerUser
from ttca.errors import ConfigError

RATIOS = (
    "universal_over_bare",
    "distil_vs_art_same_batch",
    "distil_vs_art_default",
    "universal_vs_art",
    "square_vs_art_seconds",
    "square_vs_art_queries",
)
TINY = ["--architecture=perceptron", "--repeats=1", "--transfer=64", "--epochs=1", "--steps=2"]
TINY += ["--attacked=6", "--budget=8", "--patience=3", "--epochs-default=1", "--patience-default=3"]


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    """Run the whole benchmark once, on digits and with next to no work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TTCA_DATA", raising=False)
        return speed.main(TINY)


def test_every_ratio_is_a_number_or_says_why_not(tiny: dict[str, Any]) -> None:
    """Each ratio is positive and finite, or null with its reason beside it; and each says how it was made."""
    for key in RATIOS:
        assert tiny[key] is None or (math.isfinite(tiny[key]) and tiny[key] > 0), key
        if tiny[key] is None:
            assert tiny["square_vs_art_reason" if key.startswith("square") else f"{key}_reason"]
        assert tiny["how"][key]


def test_the_result_is_plain_json(tiny: dict[str, Any]) -> None:
    """What main returns can be kept as a file, without NaN or infinity, which JSON has not."""
    assert json.loads(json.dumps(tiny, allow_nan=False)) == tiny


def test_art_leaves_the_global_generators_as_they_were() -> None:
    """ART draws from global generators: they are seeded for it and put back."""
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    with speed._seeded(3):
        drawn = random.random(), np.random.rand(), float(torch.rand(1))  # noqa: NPY002
    with speed._seeded(3):
        assert drawn == (random.random(), np.random.rand(), float(torch.rand(1)))  # noqa: NPY002
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_both_squares_are_counted_by_the_same_rule() -> None:
    """One query at the start, one per iteration until success, for ART as for ours, within the same budget."""
    world = speed._digits()
    wrong = world.box(world.images).argmax(1) != world.labels
    images, targets = world.images[wrong][:8], world.labels[wrong][:8]
    with speed._art(), speed._seeded(0):
        searches = (
            speed._our_square(world, images, targets, 16, 12, 0),
            speed._art_square(world, images, targets, 16, 12),
        )
    for search in searches:
        # All are wrong at the initial query, so nothing is found before the second.
        assert search.found_at[search.found_at > 0].min(initial=2) >= 2
        assert search.found_at.max() <= 12
        assert search.clock == sorted(search.clock)
        assert search.sent[0] == len(images)
        last = 12 if search.solved() < len(images) else search.found_at.max()
        assert len(search.clock) == last
    assert searches[0].sent[-1] == np.where(searches[0].found_at > 0, searches[0].found_at, 12).sum()


def test_equal_success_is_read_off_both_searches() -> None:
    """Until the second success of (3, 9, never, 5) five queries were spent, by those found at 3 and at 5, and all."""
    search = speed._Search(np.array([3, 9, 0, 5]), [float(k) for k in range(1, 11)], [4 * k for k in range(1, 11)])
    assert search.solved() == 3
    assert search.until(2) == (5.0, (3 + 5 + 5 + 5) / 4, 5.0)
    assert search.until(3) == (9.0, (3 + 9 + 9 + 5) / 4, 9.0)


@pytest.mark.parametrize(
    ("reached", "ratio", "least"),
    [((True, True, True), 4.0, None), ((True, False, True), 6.0, None), ((False, True, False), None, 4.0)],
)
def test_a_run_that_never_got_there_counts_as_infinite(
    reached: tuple[bool, ...], ratio: float | None, least: float | None
) -> None:
    """A median of times that were cut off is a lower bound, and is not given out for the ratio."""
    runs = [
        {"reached": there, "seconds": s, "fidelity_best": 0.5, "goal": 0.6}
        for there, s in zip(reached, (2.0, 4.0, 6.0), strict=True)
    ]
    result = speed._reached_ratio("key", runs, [1.0, 1.0, 1.0])
    assert result["key"] == ratio
    assert result.get("key_at_least") == least
    assert ("key_reason" in result) == (ratio is None)


@pytest.mark.parametrize(
    ("firsts", "ratio"), [((2.0, 4.0), 1.0), ((None, 4.0), 2.0), ((None, None), None), ((6.0, None), 3.0)]
)
def test_the_first_look_at_the_goal_is_told_beside_the_held_one(
    firsts: tuple[float | None, ...], ratio: float | None
) -> None:
    """ART's clock is also stopped at its first look at the goal, and a run without one counts as infinite."""
    assert speed._first_look([{"seconds_first": first} for first in firsts], [2.0, 2.0]) == ratio


def test_the_settings_that_favour_art_are_in_the_result(tiny: dict[str, Any]) -> None:
    """A shorter distil, the first look and our own default options stand beside the ratios, with or without a value."""
    assert {
        "distil_vs_art_same_batch_brief",
        "distil_vs_art_same_batch_first_look",
        "distil_vs_art_same_batch_brief_first_look",
        "distil_vs_art_default_first_look",
        "universal_vs_art_own_options",
    } <= tiny.keys()


def test_a_platform_that_errs_nowhere_leaves_square_nothing_to_do() -> None:
    """Without wrong answers there is no attack to time: null, with a reason."""
    world = speed._digits()
    right = speed.World("right", world.images, world.box(world.images).argmax(1), 10, world.box, world.floats, False)
    result = speed._square(right, argparse.Namespace(attacked=5))
    assert result["square_vs_art_seconds"] is None
    assert "every image right" in result["square_vs_art_reason"]


@pytest.mark.parametrize(
    "option",
    ["--repeats 0", "--steps 0", "--epochs 0", "--attacked 0", "--epsilon 1", "--epsilon 128", "--budget 0",
     "--transfer 1", "--patience 0"],
)  # fmt: skip
def test_a_setting_without_work_is_refused(option: str) -> None:
    """A ratio of nothing to nothing is refused in words before anything is loaded."""
    with pytest.raises(ConfigError, match=r"Expected .*, got "):
        speed.main(option.split())


def test_a_data_folder_without_the_platform_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TTCA_DATA promises a platform: without one the benchmark does not silently measure something else."""
    monkeypatch.setenv("TTCA_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="Expected a platform at"):
        speed.main([])


def test_an_unsuccessful_square_reports_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """If nobody is helped there is no equal success to compare at: null, with a reason."""

    def helpless(box: Any, images: Any, targets: Any, **_: Any) -> PerUser:
        box(images)
        return PerUser(images, np.zeros(len(images), np.bool_), np.full(len(images), 5), 5)

    monkeypatch.setattr(speed, "square", helpless)
    with speed._art(), speed._seeded(0):
        result = speed._square(speed._digits(), argparse.Namespace(attacked=4, epsilon=8, budget=5, repeats=1))
    assert result["square_vs_art_seconds"] is None
    assert result["square_vs_art_reason"]
