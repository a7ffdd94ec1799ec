"""Tests of what queries buy: tiny actions in every part, public data made poorer as stated, and verdicts in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from benchmarks import what_queries_buy as benchmark
from benchmarks._cells import CellKey
from benchmarks._credit import credited, verdict
from benchmarks._document import filled
from benchmarks._pages import what_queries_buy as page
from benchmarks._tracks import TRACKS, Cell, Track
from benchmarks.what_queries_buy import Degree, poorer, printed_digits, wins_up_to
from tests.benchmarks.test_effect import QUICK, people, platform
from ttca.action import CollectiveAction
from ttca.answers import Answers
from ttca.errors import ActionError, ConfigError, WorthlessProxyError
from ttca.measurement import Measurement, Outcome
from ttca.people import People
from ttca.row import Row

TINY = Track("tiny", ("scores",), platform, people, {"own": QUICK, "public": QUICK})


def public_of(cell: Cell) -> People:
    """Return a cell's public people, who must be there."""
    assert cell.public is not None
    return cell.public


@contextmanager
def tiny_grid(cache: Path) -> Iterator[pytest.MonkeyPatch]:
    """Put the tiny track among the tracks, with a quick grid of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRACKS, "tiny", TINY)
        patch.setenv("TTCA_CACHE", str(cache))
        patch.setattr(
            benchmark, "quick_key", lambda track, q, seed: CellKey(track, "public", "scores", q, (6, 12), seed)
        )
        patch.setattr(benchmark, "_STEPS", 10)
        patch.setitem(benchmark._STEPS_OF_FEW, "tiny", 8)
        yield patch


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the result of all parts on the tiny track, as it would be read back from its file."""
    with tiny_grid(tmp_path_factory.mktemp("cache")) as patch:
        arguments = ["--track", "tiny", "--epsilon", "12"]
        degrees = ["--degrees", "share-100", "share-10", "wrong-60"]
        found = benchmark.main(
            [*arguments, *degrees, "--part", "own", "public", "poor", "--queries", "60", "150", "--seeds", "2"]
        )
        found["alone"] = benchmark.main([*arguments, "--part", "public", "--queries", "60", "--seeds", "1"])
        patch.setitem(benchmark._CURVES, "tiny", {"own": (60,)})
        found["again"] = benchmark.main([*arguments, *degrees, "--part", "poor", "--queries", "150", "--seeds", "1"])
    found |= {"benchmark": "what_queries_buy", "arguments": ["--track", "tiny"], "commit": "abc", "hardware": {}}
    return json.loads(json.dumps(found, allow_nan=False))


@pytest.mark.full
def test_every_part_has_honest_rows_of_the_budgets_asked_for(record: Any) -> None:
    """Curves have each budget, the poor part the largest with each degree, and every row has all its controls."""
    cells = record["cells"]
    assert [(c["part"], c["queries"], c["degree"]) for c in cells if c["seed"] == 0] == [
        ("own", 60, "share-100"), ("own", 150, "share-100"), ("public", 60, "share-100"), ("public", 150, "share-100"),
        ("poor", 150, "share-100"), ("poor", 150, "share-10"), ("poor", 150, "wrong-60"),
    ]  # fmt: skip
    for cell in cells:
        row = Row(**cell["row"])
        assert (row.queries, row.epsilon, row.seed) == (cell["queries"], 12, cell["seed"])
        assert row.regime == ("own" if cell["part"] == "own" else "public")
    assert [c["public_images"] for c in cells if c["part"] == "poor"] == [100, 10, 100] * 2
    assert record["epsilons"] == [6, 12]


@pytest.mark.full
def test_an_action_is_credited_with_what_it_adds_to_the_best_that_costs_no_query(record: Any) -> None:
    """Beside public data stands the control of the regime own with the same budget and seed, and always nothing."""
    controls = {
        (c["queries"], c["seed"]): c["row"]["zero_query_control"] for c in record["cells"] if c["part"] == "own"
    }
    for cell in record["cells"]:
        row, rates = Row(**cell["row"]), cell["alternatives"]
        assert rates["zero_query"] == row.zero_query_control
        assert rates["subgroup_before"] == row.subgroup_before
        if cell["part"] == "own":
            assert len(rates) == 2
        else:
            assert rates["own_zero_query"] == controls[cell["queries"], cell["seed"]]
        assert rates[cell["best"]] == max(rates.values())
        assert cell["bought"] == row.subgroup_after - max(rates.values())
    for line in record["summary"]:
        assert (line["verdict"] == "won") == (
            line["bought"] > 0 and 2 * sum(p < 0.05 for p in line["best_mcnemar_p"]) > 2
        )


@pytest.mark.full
def test_the_control_of_the_regime_own_is_compared_where_its_budget_is_known(record: Any) -> None:
    """Without the part own a track's own curve decides, and the file says what was compared."""
    assert all("own_zero_query" in c["alternatives"] for c in record["again"]["cells"])
    assert record["again"]["alternatives"]["poor"] == ["zero_query", "own_zero_query", "subgroup_before"]
    assert record["alone"]["alternatives"] == {"public": ["zero_query", "subgroup_before"]}
    assert "own_zero_query" not in record["alone"]["cells"][0]["alternatives"]


@given(st.lists(st.tuples(*[st.booleans()] * 4), min_size=1, max_size=40))
def test_what_was_bought_is_never_more_than_over_any_alternative(rights: list[tuple[bool, ...]]) -> None:
    """Whoever is right under which condition, doing nothing and every control bound what the queries bought."""
    names = ("subgroup_after", "zero_query", "own_zero_query", "subgroup_before")
    correct = {name: np.array(column) for name, column in zip(names, zip(*rights, strict=True), strict=True)}
    truth = np.zeros(len(rights), np.int64)
    outcomes = {
        name: Outcome(Answers.from_labels(np.where(right, 0, -1), 1), truth, truth) for name, right in correct.items()
    }
    found = credited(Measurement(outcomes, 1, 1, None, None), names[1:])  # type: ignore[arg-type]
    after = correct["subgroup_after"]
    assert found["bought"] == min(after.mean() - correct[name].mean() for name in names[1:])
    differ = correct[found["best"]] != after
    assert (found["best_mcnemar_p"] == 1) or differ.any()


def test_own_and_public_learn_δ_for_the_same_family() -> None:
    """Kept cells of both parts have the family of the quick grid, so that a curve differs by its regime alone."""
    for track in (TRACKS["digits"], TRACKS["cifar10-resnet56"]):
        own = benchmark._key(track, "own", 250, 0)
        assert (own.regime, own.epsilons) == ("own", benchmark._quick(track, 0).epsilons)
    assert benchmark._key(TRACKS["cifar10-resnet56"], "public", 250, 0).epsilons == own.epsilons


def test_only_a_worthless_proxy_is_an_action_that_stopped_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cell whose proxy is worthless is a result; any other trouble is raised."""
    error: ActionError = WorthlessProxyError("Expected a proxy, got none.")

    def measure(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(CollectiveAction, "measure", measure)
    arguments = ["--track", "tiny", "--part", "public", "--queries", "60", "--epsilon", "6", "--seeds", "1"]
    with tiny_grid(tmp_path):
        (cell,) = benchmark.main(arguments)["cells"]
        assert cell["failed"] == "Expected a proxy, got none."
        error = ActionError("Expected a file, got none.")
        with pytest.raises(ActionError, match="Expected a file"):
            benchmark.main(arguments)


@pytest.mark.full
def test_a_kept_cell_says_the_same_again(record: Any) -> None:
    """Read back from the cache, an action's shares are the same to the last digit."""
    first = [c for c in record["cells"] if c["part"] == "poor" and c["seed"] == 0]
    for one, other in zip(first, record["again"]["cells"], strict=True):
        clocks = {"seconds", "peak_rss_mb"}
        assert {k: v for k, v in one["row"].items() if k not in clocks} == {
            k: v for k, v in other["row"].items() if k not in clocks
        }


def test_public_data_are_as_poor_as_stated() -> None:
    """So many are left, so many labels are another class's, and everybody else of the cell stays who they were."""
    whole = people(150, "public", 0, False)
    cell = poorer(TINY, Degree(0.5, 0.4)).people(150, "public", 0, False)
    public, known = public_of(cell), public_of(whole)
    truth = {image.tobytes(): c for image, c in zip(known.images, known.classes.tolist(), strict=True)}
    differ = [c != truth[image.tobytes()] for image, c in zip(public.images, public.classes.tolist(), strict=True)]
    assert len(public) == len(known) // 2
    assert sum(differ) == round(0.4 * len(public))
    assert cell.roster.pool.digest() == whole.roster.pool.digest()
    assert cell.test.digest() == whole.test.digest()
    assert public_of(poorer(TINY, Degree()).people(150, "public", 0, False)).digest() == known.digest()


def test_digits_have_public_data_of_their_own() -> None:
    """The digits' public data are sharp, are nobody's of the cell, and the camera shows them as the subgroup's."""
    cell = poorer(TRACKS["digits"], Degree(0.1)).people(70, "public", 0, False)
    public = public_of(cell)
    assert cell.views is not None
    assert len(public) == len(cell.views) == 58
    assert (public.images.min(axis=(1, 2, 3)) == 0).all()
    # A light veil lies over everything that the subgroup's camera shows.
    assert cell.views.images.min() > 20
    assert np.array_equal(cell.views.classes, public.classes)
    exam = {image.tobytes() for image in cell.test.images}
    assert not exam & {image.tobytes() for image in public.images}


def test_printed_digits_are_another_domain_of_the_same_kind() -> None:
    """They are bright on black, all ten in turn, no two alike, and the same for the same seed."""
    images, classes = printed_digits(40, seed=3)
    assert images.shape == (40, 16, 16, 3)
    assert classes.tolist() == [*range(10)] * 4
    assert len({image.tobytes() for image in images}) == 40
    assert (images[:, 0, 0] < 60).all()
    assert (images.max(axis=(1, 2, 3)) > 120).all()
    assert np.array_equal(printed_digits(40, seed=3)[0], images)
    cell = poorer(TRACKS["digits"], Degree(domain="other")).people(70, "public", 0, False)
    assert np.array_equal(public_of(cell).images[:40], printed_digits(580, seed=0)[0][:40])


def test_domains_and_tracks_that_are_not_there_are_refused() -> None:
    """A track without public data, or without a known other domain, is no track to make poorer."""
    with pytest.raises(ConfigError, match="whose other domain is known, got tiny"):
        poorer(TINY, Degree(domain="other"))
    with pytest.raises(ConfigError, match="Expected a track with public data, or digits, got tiny"):
        poorer(replace(TINY, settings={"own": QUICK}), Degree())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "0"], "1 seed or more"),
        (["--epsilon", "7"], "Expected ε to be one of 8, 12, 16, the family of digits, got 7"),
        (["--epsilon", "0"], "Expected ε to be one of 8, 12, 16"),
        (["--part", "own", "--degrees", "share-10"], "together with the part poor, got own"),
        (["--track", "cifar100-resnet32", "--part", "poor"], "Expected degrees .* of cifar100-resnet32, got none"),
        (["--track", "cifar100-resnet32", "--part", "poor", "--degrees", "other-domain"], "other domain is known"),
        (["--track", "fairface-trained", "--part", "public", "own"], "Expected the regime to be one of public"),
    ],
)
def test_what_cannot_be_done_is_refused_at_the_door(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No platform is opened for a wrong ε, a part without a plan, or an option that would not be heard."""
    for name, track in TRACKS.items():
        settings = {r: s for r, s in track.settings.items() if (name, r) != ("fairface-trained", "own")}
        closed = replace(track, open_platform=lambda _: pytest.fail("paid"), settings=settings)
        monkeypatch.setitem(TRACKS, name, closed)
    with pytest.raises(ConfigError, match=sentence):
        benchmark.main(arguments)


def test_few_images_get_as_many_training_steps_as_many_do() -> None:
    """A tenth of the public data is trained on for more epochs, each of fewer steps."""
    for degree, steps in ((Degree(), 5), (Degree(0.3), 2), (Degree(0.01), 1)):
        track = poorer(TRACKS["digits"], degree)
        epochs = benchmark._as_many_steps("digits", track, 70, 0)["public_epochs"]
        assert -(-len(public_of(track.people(70, "public", 0, False))) // benchmark._BATCH) == steps
        assert epochs * steps == benchmark._STEPS_OF_FEW["digits"]


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_a_verdict_needs_more_than_half_of_the_seeds(found: list[tuple[float, float]]) -> None:
    """What won has a positive mean and more than half of its seeds clear; turned round it has lost."""
    bought, p_values = [b for b, _ in found], [p for _, p in found]
    said = verdict(bought, p_values, len(found))
    clear = sum(p < 0.05 for p in p_values)
    if said != "nothing":
        assert 2 * clear > len(found)
        assert (sum(bought) > 0) == (said == "won")
    turned = {"won": "lost", "lost": "won", "nothing": "nothing"}
    assert verdict([-b for b in bought], p_values, len(found)) == turned[said]
    # As many seeds again whose actions stopped themselves: no more than half are clear.
    assert verdict(bought, p_values, 2 * len(found)) == "nothing"


def test_the_crossing_is_the_largest_share_below_which_queries_always_win() -> None:
    """A win above a share at which they did not win is no crossing, and wrong labels are no share."""
    lines = [
        {"part": "poor", "degree": name, "verdict": said}
        for name, said in {
            "share-1": "won", "share-3": "won", "share-10": "nothing", "share-30": "won", "wrong-40": "won"
        }.items()
    ]  # fmt: skip
    assert wins_up_to(lines) == {"shares_tried": [0.01, 0.03, 0.1, 0.3], "share": 0.03}
    assert wins_up_to([*lines[1:2], {"part": "poor", "degree": "share-1"}])["share"] is None
    assert wins_up_to([])["share"] is None


@pytest.mark.full
def test_an_action_that_stopped_itself_is_a_line_without_numbers(record: Any) -> None:
    """Stopped seeds are counted beside those that acted; where all stopped, the table says so."""
    cells = [{"part": "own", "queries": 9, "degree": "share-100", "seed": 0, "failed": "Expected more."}]
    summary = benchmark._summary([*record["cells"], *cells])
    assert summary[-1] == {"part": "own", "queries": 9, "degree": "share-100", "seeds": 1, "stopped": 1}
    text = page.tables([("x.json", {**record, "summary": summary})])["queries-curve"]
    parts = [part.splitlines() for part in text.split("\n\n")]
    assert any("action stopped itself" in part[-1] for part in parts)
    assert all(len({line.count("|") for line in part}) == 1 for part in parts)
    with pytest.raises(ConfigError, match="did not stop itself"):
        page.figure({**record, "cells": cells})


@pytest.mark.full
def test_the_picture_has_a_panel_for_each_part(record: Any) -> None:
    """Budgets and degrees of public data stand on labelled axes, with the control in each panel."""
    drawn = page.figure(record)
    assert isinstance(drawn, Figure)
    assert [a.get_xlabel() for a in drawn.axes] == ["queries of the pool, Q"] * 2 + ["public data; Q = 150"]
    for panel in drawn.axes:
        assert {"zero-query control", "best without a query"} <= set(panel.get_legend_handles_labels()[1])


@pytest.mark.full
def test_the_page_takes_its_tables_from_results_alone(record: Any) -> None:
    """Every part's lines come between the marks, the same again and again."""
    document = (Path(__file__).parents[2] / "docs" / "what_queries_buy.md").read_text(encoding="utf-8")
    written = page.tables([("what_queries_buy-tiny.json", record)])
    full = filled(document, written)
    # Lines of the curves and of poor data, the crossing, and the command.
    assert full.count("`what_queries_buy-tiny.json`") == 4 + 3 + 1 + 1
    assert "`python -m benchmarks what_queries_buy --track tiny --keep`" in full
    assert filled(full, written) == full
