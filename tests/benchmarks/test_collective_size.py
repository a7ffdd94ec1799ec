"""Tests of the collective's size: who takes part in tiny actions, their altered copies, and S_ρ against its formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from benchmarks import collective_size as benchmark
from benchmarks._document import filled
from benchmarks._pages import collective_size as page
from benchmarks._tracks import TRACKS, Track
from benchmarks.collective_size import RHOS, Part, altered, mixed, of_part
from tests import worlds
from tests.benchmarks.test_effect import QUICK, people, platform
from tests.examples import examples
from ttca.errors import ConfigError
from ttca.people import People
from ttca.row import Row

TINY = Track("tiny", ("scores",), platform, people, {"own": QUICK})


def asked(share: float, quota: int, seed: int = 0) -> tuple[People, People]:
    """Return the tiny track's pool and selection people of which so many take part."""
    roster = of_part(TINY, Part(share, quota)).people(0, "own", seed, False).roster
    return roster.pool, roster.selection


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the result of a small grid on the tiny track, as it would be read back from its file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRACKS, "tiny", TINY)
        patch.setenv("TTCA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(benchmark._MEANT_FOR, "tiny", 50)
        arguments = ["--track", "tiny", "--epsilon", "12", "--quotas", "2"]
        found = benchmark.main([*arguments, "--shares", "0.3", "1", "--seeds", "2"])
        found["again"] = benchmark.main([*arguments, "--shares", "1", "--seeds", "1"])["cells"]
    return json.loads(json.dumps({**found, "benchmark": "collective_size", "arguments": ["--track", "tiny"],
                                  "commit": "abc", "hardware": {}}, allow_nan=False))  # fmt: skip


@pytest.mark.full
def test_every_cell_has_an_honest_row_of_those_who_took_part(record: Any) -> None:
    """Queries are participants times quota, and every row has all its controls."""
    cells = record["cells"]
    assert [(c["share"], c["seed"]) for c in cells] == [(0.3, 0), (1, 0), (0.3, 1), (1, 1)]
    for cell in cells:
        row = Row(**cell["row"])
        assert row.queries == cell["images"] == 2 * (cell["members"] + cell["volunteers"])
        assert cell["bought"] == row.subgroup_after - max(row.zero_query_control, row.subgroup_before)
        assert cell["persons"] == cell["members"] + cell["volunteers"]
        assert cell["verification_persons"] == 120
    assert [c["members"] for c in cells[:2]] == [28, 95]
    assert [c["selection_persons"] for c in cells[:2]] == [6, 19]


def test_on_digits_volunteers_are_members_with_a_second_image() -> None:
    """Whoever takes part does so with all their images, and no volunteer is another person."""
    roster = of_part(TRACKS["digits"], Part(0.1, 2)).people(0, "own", 0, False).roster
    took_part = People.concatenate([roster.pool, roster.selection])
    images = np.unique(took_part.persons, return_counts=True)[1]
    assert set(took_part.persons[~took_part.subgroup]) < set(took_part.persons[took_part.subgroup])
    assert set(images.tolist()) == {2, 4}


@pytest.mark.full
def test_collectives_with_few_selection_people_stand_apart(record: Any) -> None:
    """They get no verdict and no line in the grid, whether they stopped themselves or not."""
    few = [{**c, "share": 0.01, "selection_persons": 1} for c in record["cells"] if c["share"] == 1]
    few[0] = {k: v for k, v in few[0].items() if k != "row"} | {"failed": "Expected more."}
    both = {**record, "cells": [*record["cells"], *few]}
    both["summary"] = benchmark._summary(both["cells"])
    assert both["summary"][-1]["judged"] is False
    assert "verdict" not in both["summary"][-1]
    written = page.tables([("x.json", both)])
    assert "1.0%" not in written["size-grid"]
    parts = [part.splitlines() for part in written["size-unjudged"].split("\n\n")]
    # One line, beside its head.
    assert all(len(part) == 3 and len({line.count("|") for line in part}) == 1 for part in parts)
    assert "| 2 (1) |" in parts[-1][2]
    assert "cannot be judged: 1 selection person |" in parts[-1][2]


@pytest.mark.full
def test_a_kept_cell_says_the_same_again(record: Any) -> None:
    """Measured again from what was kept, a cell's S and its S_ρ are the same to the last digit."""
    (again,) = record["again"]
    first = record["cells"][1]
    assert again["participation"] == first["participation"]
    assert again["row"]["subgroup_after"] == first["row"]["subgroup_after"]


@pytest.mark.full
def test_participation_runs_from_nobody_to_everybody(record: Any) -> None:
    """With everybody S_ρ, its interval and the metrics are the row's."""
    for cell in record["cells"]:
        points = dict(zip(RHOS, cell["participation"], strict=False))
        row = cell["row"]
        assert points[1.0]["s_rho"] == pytest.approx(row["subgroup_after"], abs=1e-12)
        assert points[1.0]["worst_group_accuracy"] == row["worst_group_after"]
        assert points[1.0]["demographic_parity_ratio"] == row["demographic_parity_ratio_after"]
        assert points[1.0]["lower"] == row["subgroup_after_lower"]
        assert points[1.0]["upper"] == row["subgroup_after_upper"]
        for point in cell["participation"]:
            assert point["lower"] < point["upper"]
            assert point["lower"] <= point["s_rho"] <= point["upper"]
        assert cell["participation"][-1]["rho"] == cell["share"]


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 1), st.integers(1, 4), st.integers(0, 5))
def test_nobody_and_no_copy_has_two_roles(share: float, quota: int, seed: int) -> None:
    """Whatever the share, each participant has as many images as queries, all different, all in one role."""
    pool, selection = asked(share, quota, seed)
    assert not set(pool.persons) & set(selection.persons)
    assert pool.subgroup.any()
    assert selection.subgroup.any()
    for part in (pool, selection):
        assert set(np.unique(part.persons, return_counts=True)[1].tolist()) == {quota}
    images = [image.tobytes() for part in (pool, selection) for image in part.images]
    assert len(set(images)) == len(images)


def test_larger_shares_have_the_same_people_and_more() -> None:
    """Growing a collective keeps who was in it, so that its curve is of one collective."""
    small, large = (set(np.concatenate([part.persons for part in asked(s, 1)])) for s in (0.2, 0.6))
    assert small < large


def test_copies_are_altered_a_little_and_mirrored_only_where_that_is_allowed() -> None:
    """The first images are those people have; copies keep class and person, and stay near the image when put back."""
    crowd = worlds.crowd("copies", 12, 0, seed=3)
    found = altered(crowd, 3, flip=False, seed=0)
    assert len(found) == 36
    assert np.array_equal(found.images[:12], crowd.images)
    for column in ("classes", "persons", "members", "subgroup"):
        assert np.array_equal(getattr(found, column), np.tile(getattr(crowd, column), 3))
    bound = benchmark._BRIGHTER + benchmark._GRAIN
    for copy, image in zip(found.images[12:].astype(int), np.tile(crowd.images, (2, 1, 1, 1)).astype(int), strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
        moved = [padded[d : d + 8, r : r + 8] for d in range(5) for r in range(5)]
        assert min(int(np.abs(copy - m).max()) for m in moved) <= bound
    mirrored = altered(crowd, 3, flip=True, seed=0)
    assert not np.array_equal(mirrored.images, found.images)


def test_epochs_follow_the_number_of_images() -> None:
    """Few images are seen more often and many less often, within bounds, and public data keep their own epochs."""
    digits = TRACKS["digits"]
    assert [benchmark._settings(digits, "own", n)["epochs"] for n in (4, 420, 4200, 10**6)] == [300, 60, 6, 3]
    cifar = TRACKS["cifar10-resnet56"]
    assert benchmark._settings(cifar, "own", 2000)["public_epochs"] == 60
    assert benchmark._settings(cifar, "public", 2000)["public_epochs"] == 10


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=5, max_size=60), st.floats(0, 1), st.integers(0, 9))
@examples(20)
def test_s_rho_is_what_comes_of_people_who_apply_it_at_random(
    said: list[tuple[bool, bool]], rho: float, seed: int
) -> None:
    """Drawing who applies δ gives S_ρ on average, and the interval of people drawn from a crowd holds the crowd's."""
    before, after = (np.array(column) for column in zip(*said, strict=True))
    found = mixed(before, after, rho)
    assert found["lower"] < found["upper"]
    rng = np.random.default_rng(seed)
    draws = 4000
    mean = np.where(rng.random((draws, len(said))) < rho, after, before).mean()
    assert found["s_rho"] == pytest.approx(mean, abs=5 * (rho * (1 - rho) / len(said) / draws) ** 0.5 + 1e-6)
    drawn = [mixed(before[rows], after[rows], rho) for rows in rng.integers(0, len(said), (300, 40))]
    # Within five standard deviations of 95 times of 100.
    assert np.mean([d["lower"] <= found["s_rho"] <= d["upper"] for d in drawn]) > 0.88


def test_nonsense_is_refused() -> None:
    """Shares and quotas out of range, no seed, and a regime that is not there are sentences."""
    for share, quota in ((0.0, 1), (1.5, 1), (0.5, 0)):
        with pytest.raises(ConfigError, match="Expected a share in"):
            Part(share, quota)
    with pytest.raises(ConfigError, match="1 seed or more"):
        benchmark.main(["--seeds", "0"])
    with pytest.raises(ConfigError, match="Expected the regime to be one of own for digits"):
        benchmark.main(["--regime", "public"])
    with pytest.raises(ConfigError, match="Expected epsilons as different whole levels"):
        benchmark.main(["--epsilon", "0", "--shares", "0.1", "--quotas", "1"])


@pytest.mark.full
def test_stopped_seeds_are_counted_and_pictures_need_one_that_acted(record: Any) -> None:
    """A share at which every action stopped itself is a line without numbers as wide as the others."""
    cells = [{**record["cells"][0], "share": 0.01, "failed": "Expected more."}]
    del cells[0]["row"]
    both = {**record, "cells": [*record["cells"], *cells]}
    text = page.tables([("x.json", {**both, "summary": benchmark._summary(both["cells"])})])["size-grid"]
    parts = [part.splitlines() for part in text.split("\n\n")]
    assert any("action stopped itself" in part[-1] for part in parts)
    assert all(len({line.count("|") for line in part}) == 1 for part in parts)
    with pytest.raises(ConfigError, match="did not stop itself"):
        page.figure({**record, "cells": cells})


@pytest.mark.full
def test_the_picture_has_its_axes_named(record: Any) -> None:
    """Who takes part and who applies δ stand on labelled axes."""
    drawn = page.figure(record)
    assert isinstance(drawn, Figure)
    assert [a.get_xlabel() for a in drawn.axes] == [
        "share of the subgroup that takes part", "share of the subgroup that applies δ, ρ"
    ]  # fmt: skip


@pytest.mark.full
def test_the_page_takes_its_tables_from_results_alone(record: Any) -> None:
    """Every share and quota is a line between the marks, the same again and again."""
    document = (Path(__file__).parents[2] / "docs" / "collective_size.md").read_text(encoding="utf-8")
    written = page.tables([("collective_size-tiny.json", record)])
    full = filled(document, written)
    # Two shares and the command.
    assert full.count("`collective_size-tiny.json`") == 3
    assert "`python -m benchmarks collective_size --track tiny --keep`" in full
    assert full.count("| tiny, dev-test, own | 100%, 2 |") == len(RHOS)
    assert filled(full, written) == full
