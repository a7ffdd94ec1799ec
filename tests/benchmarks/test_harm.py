"""Tests of the harm benchmark: one tiny cell from end to end, its shares counted by hand, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from benchmarks import harm
from benchmarks._cells import CellKey
from benchmarks._document import filled, told
from benchmarks._pages import harm as page
from benchmarks._tracks import TRACKS, Track
from tests.benchmarks.test_effect import QUICK, people, platform
from ttca.errors import ActionError, ConfigError, WorthlessProxyError
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Credential
from ttca.row import Row

SHARES = st.floats(0, 1)
_NOBODY = Credential("nobody")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the result of a run on the tiny track, as it would be read back from its file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRACKS, "tiny", Track("tiny", ("scores",), platform, people, {"own": QUICK}))
        patch.setenv("TTCA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(harm, "quick_key", lambda track, q, seed: CellKey(track, "own", "scores", q, (6, 12), seed))
        found = harm.main(["--track", "tiny", "--queries", "150", "--seeds", "2"])
        again = harm.main(["--track", "tiny", "--queries", "150", "--seeds", "1"])
        delta = next(CellKey("tiny", "own", "scores", 150, (6, 12), 0).home().rglob("epsilon-012.safetensors"))
        found["delta"] = PerturbationSet.load(delta).delta.tolist()
    found |= {"benchmark": "harm", "arguments": ["--track", "tiny", "--json"], "commit": "abc", "hardware": {}}
    found["again"] = [{k: v for k, v in c.items() if k != "row"} for c in again["cells"]]
    return json.loads(json.dumps(found, allow_nan=False))


@pytest.mark.full
def test_every_cell_has_an_honest_row_and_all_its_questions(record: Any) -> None:
    """Each seed and ε has every key of the row, whose numbers the benchmark's own shares repeat."""
    assert [(c["seed"], c["epsilon"]) for c in record["cells"]] == [(0, 6), (0, 12), (1, 6), (1, 12)]
    for cell in record["cells"]:
        row = Row(**cell["row"])
        assert cell["abuse"]["action"]["rate"] == row.abuse_rate
        assert cell["choice"]["right"]["true class"]["rate"] == row.subgroup_after
        assert cell["choice"]["right"]["without δ"]["rate"] == row.subgroup_before
        assert cell["choice"]["right"]["the proxy's guess"]["rate"] == row.proxy_class_control
        assert cell["reference"]["after"]["rate"] == row.reference_after
        assert cell["fairness"]["members"]["demographic_parity_ratio"] == row.demographic_parity_ratio_after
        assert cell["fairness"]["nobody"]["worst_group_accuracy"] == row.worst_group_before
        assert len(cell["others"]) == len(harm.CAMERAS)


@pytest.mark.full
def test_the_matrix_is_what_the_platform_says_to_each_class_under_each_delta(record: Any) -> None:
    """Every entry is counted again from the kept δ and the platform itself, without the benchmark."""
    test = people(150, "own", 0, False).test
    sub = test[test.subgroup]
    delta = np.array(record["delta"], np.int16)
    cell = record["cells"][1]["by_class"]
    with platform("scores") as asked:
        for true in range(3):
            rows = sub.images[sub.classes == true].astype(np.int16)
            for of in range(3):
                moved = np.clip(rows + delta[of], 0, 255).astype(np.uint8)
                said = asked.attempt(moved, _NOBODY, request_id=f"{true}-{of}").labels
                assert cell["says_its_class"][true][of] == pytest.approx(float((said == of).mean()))
    assert cell["people"] == [20, 20, 20]


@pytest.mark.full
def test_a_second_run_says_the_same(record: Any) -> None:
    """A kept cell measured again gives the same shares to the last digit."""
    first = [{k: v for k, v in c.items() if k != "row"} for c in record["cells"] if c["seed"] == 0]
    assert record["again"] == first


@pytest.mark.full
def test_misuse_grows_with_epsilon_and_needs_learned_delta(record: Any) -> None:
    """In a world where δ works, the larger ε is easier to misuse than the smaller and than noise."""
    small, large = record["cells"][:2]
    assert large["abuse"]["action"]["rate"] > small["abuse"]["action"]["rate"]
    assert large["abuse"]["action"]["rate"] > large["abuse"]["noise"]["rate"]
    assert large["choice"]["right"]["a wrong class at random"]["rate"] < large["choice"]["right"]["true class"]["rate"]


@given(SHARES, SHARES, SHARES)
def test_so_many_may_err_and_no_more(before: float, right: float, wrong: float) -> None:
    """At the tolerated share members together fare as they did without δ, and above it worse."""
    share = harm.tolerated(before, right, wrong)
    if share is None:
        assert right <= before
        return
    assert 0 <= share <= 1
    if wrong < before:
        assert (1 - share) * right + share * wrong == pytest.approx(before, abs=1e-9)


def test_nobody_to_ask_is_said_as_nothing() -> None:
    """A share among nobody is None, not a number, and – in a table."""
    assert harm._share_of(np.zeros(0, np.bool_), np.zeros(0, np.bool_))["rate"] is None
    assert told([None]) == "–"
    assert told([0.5]) == "0.500"
    assert told([0.5, 0.7]) == "0.600 ± 0.141"
    assert harm.tolerated(None, 0.5, 0.1) is None


@pytest.mark.full
def test_an_action_that_stopped_itself_is_told_as_such(record: Any, tmp_path: Path) -> None:
    """A failed cell stands in no table and in no picture, and a record of nothing else is refused."""
    record = {**record, "cells": [*record["cells"], {"seed": 9, "failed": "Expected a proxy, got none."}]}
    assert "| 2 |" in page.tables([("a.json", record)])["harm-abuse"]
    with pytest.raises(ConfigError, match="did not stop itself"):
        page.figure({**record, "cells": record["cells"][-1:]})


def test_only_a_worthless_proxy_is_a_result() -> None:
    """An action whose proxy is worth nothing is a line of the record; any other error stops the run."""
    key = CellKey("digits", "own", "scores", 420, (8,), 3)

    def measured(error: Exception) -> list[dict[str, Any]]:
        def verify() -> None:
            raise error

        found: Any = SimpleNamespace(action=SimpleNamespace(verify=verify))
        nobody: Any = None
        return harm.measure_cell(key, found, nobody)

    assert measured(WorthlessProxyError("It knows nothing.")) == [{"seed": 3, "failed": "It knows nothing."}]
    with pytest.raises(ActionError, match="a file is lost"):
        measured(ActionError("a file is lost"))


@pytest.mark.full
def test_the_page_tells_of_no_track_that_was_not_measured(record: Any) -> None:
    """Tracks without a file are named as such, and only those with one say who their other subgroups are."""
    written = page.tables([("harm-tiny.json", record)])
    assert "`fairface-agegender`" in written["harm-files"]
    assert "race" not in "".join(text for name, text in written.items() if name != "harm-files")
    races = {"worst_race": 0.5, "largest_gap_between_races": 0.25}
    cells = [
        {**c, "fairness": {who: {**said, **races} for who, said in c["fairness"].items()}} for c in record["cells"]
    ]
    faces = {**record, "track": "fairface-agegender", "cells": cells}
    written = page.tables([("harm-fairface-agegender.json", faces), ("harm-tiny.json", record)])
    assert "`fairface-agegender`" not in written["harm-files"].partition("Not measured")[2]
    assert [line[2:6] for line in written["harm-who"].splitlines()] == ["fair", "tiny"]
    assert "| 0.500 ± 0.000 | 0.250 ± 0.000 |" in written["harm-fairness"]
    assert "| – | – |" in written["harm-fairness"]


@pytest.mark.full
def test_the_picture_has_its_axes_named(record: Any) -> None:
    """Three panels with labelled axes come of any record, and can be saved."""
    drawn = page.figure(record)
    assert isinstance(drawn, Figure)
    assert [a.get_xlabel() for a in drawn.axes[:3]] == ["ε (levels of 255)", "class of δ", "share answered rightly"]


def test_nothing_to_run_is_refused() -> None:
    """A run over no seed or no query is no result, and no other run takes its place."""
    with pytest.raises(ConfigError, match="1 seed or more"):
        harm.main(["--seeds", "0"])
    with pytest.raises(ConfigError, match=r"budget of the quick grid .* got 0"):
        harm.main(["--queries", "0"])


@pytest.mark.full
def test_the_page_takes_its_tables_from_results_alone(record: Any) -> None:
    """Tables come between their marks, again and again the same; a lost mark is refused."""
    document = (Path(__file__).parents[2] / "docs" / "harm.md").read_text(encoding="utf-8")
    full = filled(document, page.tables([("harm-tiny.json", record)]))
    assert "- `harm-tiny.json`: `python -m benchmarks harm --track tiny --keep` (commit abc)" in full
    assert "| tiny, dev-test | 150 | 12 | bars |" in full
    assert filled(full, page.tables([("harm-tiny.json", record)])) == full
    with pytest.raises(ConfigError, match="Put them back"):
        filled(document.replace("<!-- harm-abuse -->", ""), page.tables([]))
