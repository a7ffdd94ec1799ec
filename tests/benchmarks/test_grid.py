"""Tests of the grid: its order, what is kept of it, what a run that ends early costs, and its page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as runner
from benchmarks import _engines, grid
from benchmarks._document import WIDEST
from benchmarks._engines import Engine, Order
from benchmarks._grid import STUDIES, TRACKS_OF_GRID, Planned, planned
from benchmarks._listing import names
from benchmarks._pages.grid import _helped, marks, table_file
from benchmarks._tracks import TRACKS, Track
from tests.benchmarks.cells import in_this_process
from tests.benchmarks.test_effect import people, platform
from ttca.errors import ConfigError

SHORT = {"architectures": ("perceptron",), "epochs": 2, "public_epochs": 2, "steps": 5}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put a tiny track among the tracks, with short recipes and cells that are made in this process."""
    monkeypatch.setitem(TRACKS, "tiny", Track("tiny", ("scores", "label"), platform, people, {"own": {}}))
    monkeypatch.setattr("benchmarks._grid._FEW", {"tiny": 100})
    monkeypatch.setenv("TTCA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TTCA_WEIGHTS", raising=False)
    monkeypatch.setattr(_engines, "numbered", in_this_process)

    def racing(track: Track, _platform: Any) -> dict[str, Any]:
        return {"recipe": "auto", "left_out": track.hand_made, **SHORT}

    monkeypatch.setattr(grid, "racing", racing)
    return tmp_path


# --- what there is -----------------------------------------------------------------------------------------------


def test_the_cells_come_in_the_order_that_was_asked_for() -> None:
    """Own, labels, public, other budgets, two more seeds; every track before the next seed; each name once."""
    cells = list(planned())
    assert [cell.part for cell in cells] == sorted((c.part for c in cells), key=[c.part for c in cells].index)
    assert len({cell.name for cell in cells}) == len(cells) == 65
    first = [(cell.track, cell.seed) for cell in cells if cell.part == "own, richest answers"]
    assert first == [(track, seed) for seed in (0, 1, 2) for track in TRACKS_OF_GRID]
    counts = {part: [c for c in cells if c.part == part] for part in dict.fromkeys(c.part for c in cells)}
    assert [len(of) for of in counts.values()] == [15, 15, 15, 10, 10]
    assert {(c.regime, c.answers) for c in counts["own, labels"]} == {("own", "label")}
    assert {c.queries for c in counts["own, other budgets"]} == {500, 2000}
    assert {c.seed for c in counts["own, two more seeds"]} == {3, 4}
    # A track with few images has no budget twice.
    assert {c.queries for c in planned(["digits"])} == {420}
    assert len(list(planned(["digits"]))) == 11


def test_every_study_is_a_command_that_runs() -> None:
    """Its benchmark takes the arguments, three seeds, one track of small pictures and one of faces."""
    seen: dict[str, set[str]] = {}
    for file, command in STUDIES.items():
        words = command.split()
        assert words[:3] == ["python", "-m", "benchmarks"]
        assert words[3] in names()
        assert words[-1] == runner.KEEP
        track = words[words.index("--track") + 1]
        assert file.startswith(f"{words[3]}-{track}")
        assert words[words.index("--seeds") + 1] == "3"
        seen.setdefault(words[3], set()).add(track)
    assert set(seen) == {"what_queries_buy", "collective_size", "harm", "defences", "query_budget"}
    assert {frozenset(tracks) for tracks in seen.values()} == {frozenset({"cifar10-resnet56", "fairface-agegender"})}
    assert {track for tracks in seen.values() for track in tracks} <= TRACKS.keys()


def test_a_list_runs_nothing(tmp_path: Path) -> None:
    """Every cell is named with what is there of it; a pattern that fits none, and bad numbers, are errors."""
    found = grid.main(["--list"], folder=tmp_path)
    assert [cell["name"] for cell in found["cells"]] == [cell.name for cell in planned()]
    assert {cell["is"] for cell in found["cells"]} <= {"not run", "finished, not kept"}
    assert (found["kept"], found["of"]) == (0, 65)
    assert list(tmp_path.iterdir()) == []
    # A name says its track: it need not be one of the grid's own.
    fog = "cifar10-resnet56-fog-own-richest-q1000-s0"
    assert [c["name"] for c in grid.main(["--list", "--only", fog], folder=tmp_path)["cells"]] == [fog]
    with pytest.raises(ConfigError, match="got 'nothing-\\*', which is the name of none of"):
        grid.main(["--list", "--only", "nothing-*"], folder=tmp_path)
    for wrong in (["--hours", "0"], ["--hours", "nan"], ["--most", "0"]):
        with pytest.raises(ConfigError, match="Expected --hours above 0"):
            grid.main(wrong, folder=tmp_path)


def test_what_is_not_here_is_a_sentence(tiny: Path) -> None:
    """A track that is missing, and a regime without people."""
    facts = {"track": "moon", "regime": "own", "answers": "richest", "queries": 1, "seed": 0, "final": False}
    with pytest.raises(ConfigError, match="got moon"):
        grid.cell_of({**facts, "epsilons": [2]})
    with pytest.raises(ConfigError, match="The protocol has no people for it"):
        grid.cell_of({**facts, "track": "tiny", "regime": "public", "epsilons": [2]})


# --- what is run and kept ----------------------------------------------------------------------------------------


def test_cells_are_kept_one_by_one_and_a_later_run_goes_on(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption costs no finished cell; what an earlier run did not keep is kept; other code's only if told."""
    folder = tiny / "results" / "grid"
    one, two = ("tiny-own-richest-q100-s0", "tiny-own-richest-q100-s1")
    arguments = ["--tracks", "tiny", "--only", one, two, "--threads", "1"]
    sent, ran = _engines.sent, list[int]()

    def breaking(orders: Sequence[Order], engine: Engine, **more: Any) -> Iterator[Any]:
        for found in sent(orders, engine, **more):
            ran.append(found[1]["facts"]["seed"])
            yield found
            raise KeyboardInterrupt

    monkeypatch.setattr(grid, "sent", breaking)
    with pytest.raises(KeyboardInterrupt):
        grid.main(arguments, folder=folder)
    assert not folder.exists()
    with pytest.raises(KeyboardInterrupt):
        grid.main(arguments, folder=folder, keeps=True)
    assert ran == [0, 1]
    assert [path.stem for path in folder.iterdir()] == [two]
    # Both are finished: nothing is left to run, and the first is kept, too.
    found = grid.main(arguments, folder=folder, keeps=True)
    assert ran == [0, 1]
    assert [cell["is"] for cell in found["cells"]] == ["kept", "kept"]
    monkeypatch.setattr(grid, "code_digest", lambda: "other")
    assert {c["is"] for c in grid.main([*arguments, "--list"], folder=folder)["cells"]} == {"kept, made by other code"}
    before = (folder / f"{one}.json").read_bytes()
    grid.main(arguments, folder=folder, keeps=True)
    assert (folder / f"{one}.json").read_bytes() == before
    monkeypatch.undo()
    kept = json.loads(before)
    assert kept["name"] == one
    assert kept["peak_rss_mb"] == 1
    assert kept["cell"]["people"] == "dev-test"
    assert {line["row"]["recipe"] for line in kept["cell"]["rows"]} != {None}
    # Why it was proposed, or not, is kept beside it.
    race = kept["cell"]["rows"][0]["race"]
    assert race["won"] + race["lost"] <= race["tested"]
    assert race["proposed"] == (kept["cell"]["rows"][0]["certificate"] is not None)
    assert len(before) < 100_000
    _is_whole_page(folder.parent, [one, two])


def _is_whole_page(results: Path, there: list[str]) -> None:
    """Every kept cell stands in the tables and the CSV file, and no table is wide."""
    page = marks(results)
    for text in page.values():
        for line in text.splitlines():
            assert line.count(" | ") < WIDEST
    assert page["run"] == "0 of 65 cells have been run."
    # The tiny track is none of the grid's: as if it were one.
    with pytest.MonkeyPatch.context() as patch:
        cells = [
            Planned(part="p", track="tiny", regime="own", answers="richest", queries=100, seed=s) for s in (0, 1, 2)
        ]

        def of(own: bool, tracks: Sequence[str] = TRACKS_OF_GRID, *, final: bool = False) -> list[Planned]:
            return cells if (tracks == TRACKS_OF_GRID) == own and not final else []

        patch.setattr("benchmarks._pages.grid.planned", partial(of, False))
        others = marks(results)
        assert others["run"] == "0 of 0 cells have been run. So have 2 cells of other tracks."
        patch.setattr("benchmarks._pages.grid.planned", partial(of, True))
        page, written = marks(results), list(csv.DictReader(io.StringIO(table_file(results))))
    assert page["run"] == "2 of 3 cells have been run."
    assert page["rows"] == others["rows"]
    assert "tiny: 2" in page["missing"]
    assert all(f"`{name}`" in page["costs"] for name in there)
    kept = [json.loads((results / "grid" / f"{name}.json").read_text(encoding="utf-8")) for name in there]
    rows = [line["row"] for record in kept for line in record["cell"]["rows"]]
    assert [float(line["subgroup_after"]) for line in written] == [row["subgroup_after"] for row in rows]
    assert [line["people"] for line in written] == ["dev-test"] * len(rows)
    seeds = {row["seed"] for row in rows}
    assert seeds == {0, 1}
    lines = page["rows"].splitlines()[2:]
    counts = [tuple(map(int, line.split(" | ")[4].split(", "))) for line in lines]
    certified = sum(bool(row["parity_certified"]) for row in rows)
    assert tuple(map(sum, zip(*counts, strict=True))) == (len(rows), certified)


def test_a_control_that_beats_the_action_is_seen() -> None:
    """The table says in how many seeds queries bought less than nothing asked, not only where they bought more."""

    def row(after: float, p: float) -> dict[str, float]:
        return {"subgroup_after": after, "zero_query_control": 0.9, "paired_p": p}

    assert _helped([row(0.95, 0.01), row(0.8, 0.01), row(0.7, 0.2)]).endswith("; 1 of 3, less in 1")
    assert _helped([row(0.95, 0.01)]) == "0.900; 1 of 1"


def test_the_runner_gives_the_grid_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--keep`` reaches it and writes no file of the whole; the benchmark itself does not see the word."""
    arguments = ["grid", "--list", "--only", "cifar10-resnet56-own-richest-q1000-s0", "--json"]
    assert runner.main([*arguments, "--keep"], tmp_path) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record["arguments"] == arguments[1:]
    assert "Kept" in said.err
    assert list(tmp_path.iterdir()) == []
    assert runner.main(["grid", "--list", "--engine", "nowhere"], tmp_path) == 1
    assert "Expected --engine to be local" in capsys.readouterr().err
