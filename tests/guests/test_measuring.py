"""Tests that a metric and a control from outside take part in a whole action: in row, cost and report."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import worlds
from tests.worlds import Recorder, open_action
from ttca import cli
from ttca.conditions import CONTROLS, Control, Measuring, Scene
from ttca.data.folder import write_people
from ttca.errors import ActionError, TTCAError
from ttca.images import Images
from ttca.people import People
from ttca.platforms.server import background_app, create_app
from ttca.row import Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guests-measuring.md"


def blocks(section: str) -> list[str]:
    """Return the Python blocks of a section of the page, which must be short."""
    text = PAGE.read_text(encoding="utf-8")
    (part,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    found: list[str] = re.findall(r"^```python\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
    assert all(len(code.splitlines()) <= 30 for code in found)
    return found


@pytest.fixture(scope="module")
def platform() -> Recorder:
    """Return the platform of this file's action."""
    return Recorder()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, platform: Recorder) -> tuple[Path, Row]:
    """Return the folder of an action that was measured without a guest, and its row."""
    folder = tmp_path_factory.mktemp("finished") / "action"
    with open_action(folder, platform) as action:
        row, _ = action.measure()
    return folder, row


@pytest.fixture
def copied(finished: tuple[Path, Row], tmp_path: Path) -> Path:
    """Return a copy of the finished action."""
    return Path(shutil.copytree(finished[0], tmp_path / "action"))


def honest(row: Row) -> dict[str, Any]:
    """Return what the row says without guests, but for how long it took here."""
    return {k: v for k, v in row.to_dict().items() if not k.startswith(("seconds", "peak", "extra"))}


def balanced_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Return the mean over classes of the share of right answers."""
    return np.mean([np.mean(y_pred[y_true == c] == c) for c in np.unique(y_true)])


def darker(scene: Scene) -> Images:
    """Return images with δ, ten levels darker."""
    return np.clip(scene.with_delta.astype(np.int16) - 10, 0, 255).astype(np.uint8)


DARKER = Control(name="darker", label="With δ, <darker> $^$", sends=darker, meaning="S in the dark.")


# -- a metric -----------------------------------------------------------------------------------------------------


def test_a_metric_added_to_a_finished_action_asks_nothing(
    finished: tuple[Path, Row], copied: Path, platform: Recorder
) -> None:
    """It stands in row, row.json and report by group, costs nothing, and moves no other value."""
    before = platform.queries
    with open_action(copied, platform, measuring=Measuring(metrics={"balanced": balanced_accuracy})) as action:
        assert sum(cost.queries for cost in action.plan().values()) == 0
        paid = action.ledger.paid()
        row, measurement = action.measure()
        page = action.report().read_text(encoding="utf-8")
        assert action.ledger.paid() == paid
        assert platform.queries == before
        verification = action.panel.first(action.settings.controls_people)
    for key, condition, group in (
        ("balanced", "subgroup_after", True),
        ("balanced_subgroup_before", "subgroup_before", True),
        ("balanced_reference_before", "reference_before", False),
        ("balanced_reference_after", "reference_after", False),
    ):
        truth = verification.classes[verification.subgroup == group]
        # By hand: everybody was resolved here.
        right = [measurement.correct[condition][truth == c].mean() for c in range(3)]
        assert row.extra[key] == pytest.approx(np.mean(right))
        assert f'value="{row.extra[key]!r}"' in page
    assert honest(row) == honest(finished[1])
    assert json.loads((copied / "row.json").read_text())["extra"] == row.extra
    assert "Metrics of your own" in page


def test_without_guests_row_and_report_hold_nothing_of_theirs(finished: tuple[Path, Row], copied: Path) -> None:
    """No key, no table and no heading stands there for what nobody brought."""
    with open_action(copied, Recorder()) as action:
        page = action.report().read_text(encoding="utf-8")
    assert tuple(finished[1].to_dict()) == Row.keys()
    assert "of your own" not in page
    assert "guests" not in json.loads((copied / "controls.json").read_text())


# -- a control ----------------------------------------------------------------------------------------------------


def test_a_control_added_to_a_finished_action_is_all_that_is_paid(
    finished: tuple[Path, Row], copied: Path, platform: Recorder
) -> None:
    """The plan says what it costs, exactly that is paid and once, and row and report show what the platform said."""
    with open_action(copied, platform, measuring=Measuring(controls=[DARKER])) as action:
        members = action.roster.verification[action.roster.verification.subgroup]
        assert action.plan()["controls"].queries == len(members)
        before, paid = platform.queries, action.ledger.paid()
        row, measurement = action.measure()
        page = action.report().read_text(encoding="utf-8")
        assert platform.queries - before == len(members)
        assert action.ledger.paid()["controls"] - paid["controls"] == len(members)
        assert action.plan()["controls"].queries == 0
        delta = action.learn()[row.epsilon]
    sent = np.clip(delta.apply(members.images, members.classes).astype(np.int16) - 10, 0, 255).astype(np.uint8)
    assert row.extra == {"darker": float(np.mean(worlds.model(sent).argmax(1) == members.classes))}
    assert measurement.rate("darker") == row.extra["darker"]
    # The guest's own query and interval stand beside ours, which do not move.
    cost, interval = row.queries_controls - finished[1].queries_controls, row.intervals["darker"]
    ours = {key: span for key, span in row.intervals.items() if key != "darker"}
    assert cost == len(members)
    assert interval is not None
    assert honest(replace(row, queries_controls=finished[1].queries_controls, intervals=ours)) == honest(finished[1])
    assert page.count("With δ, &lt;darker&gt; $^$") == 2
    assert "S in the dark." in page
    assert f'value="{row.extra["darker"]!r}"' in page


def test_the_plan_counts_every_control_and_a_guests_for_its_group(tmp_path: Path) -> None:
    """Before anything is asked, a control of the reference costs one query per reference person."""
    ours = open_action(tmp_path / "ours", Recorder())
    theirs = Control(name="theirs", label="Theirs", sends=lambda scene: scene.images, whose="reference")
    with ours, open_action(tmp_path / "all", Recorder(), measuring=Measuring(controls=[theirs, DARKER])) as action:
        others = int((~action.roster.verification.subgroup).sum())
        members = int(action.roster.verification.subgroup.sum())
        assert ours.plan()["controls"].queries == 8 * members + others
        assert action.plan()["controls"].queries == 9 * members + 2 * others
    assert {c.asked_as for c in CONTROLS} == {"reference", "before", "delta", None}


@pytest.mark.parametrize(
    "images",
    [
        lambda scene: scene.images[:-1],
        lambda scene: scene.images.astype(np.float64),
        lambda scene: scene.images[:, 1:],
    ],
)
def test_images_of_a_control_that_cannot_be_sent_cost_nothing(images: Any, copied: Path) -> None:
    """Too few, other numbers or another size are refused with a sentence, before the platform is asked."""
    platform = Recorder()
    with open_action(copied, platform, measuring=Measuring(controls=[Control(name="x", label="X", sends=images)])) as a:
        with pytest.raises(TTCAError, match="Expected"):
            a.measure()
        assert platform.queries == 0


def test_hits_of_a_control_are_one_class_a_person(copied: Path) -> None:
    """A control may count another class than the true one; other shapes are refused."""
    wrong = Control(name="wrong", label="Says something wrong", sends=lambda s: s.images, hit=lambda s: s.wrong)
    with open_action(copied, Recorder(), measuring=Measuring(controls=[wrong])) as action:
        row, measurement = action.measure()
        assert row.extra["wrong"] <= 1 - measurement.rate("subgroup_before")
    short = Control(name="short", label="Short", sends=lambda s: s.images, hit=lambda s: s.wrong[1:])
    with (
        open_action(copied, Recorder(), measuring=Measuring(controls=[short])) as action,
        pytest.raises(ActionError, match="one class number per person as the hits of the control short"),
    ):
        action.measure()


def test_the_command_line_prints_a_guests_values_as_rows(
    finished: tuple[Path, Row], copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has a line for each value, and the JSON has them under extra."""
    monkeypatch.setenv("COLUMNS", "200")
    row = replace(finished[1], extra={"darker": 0.25, "undefined": float("nan")})
    with open_action(copied, Recorder()) as action:
        certificate = action.verify()
    for as_json in (False, True):
        cli._finish(row, certificate, copied, as_json)
        out, err = capsys.readouterr()
        lines = {
            words[0]: words[1:]
            for line in (err if as_json else out).splitlines()
            if (words := re.findall(r"[\w.]+", line))
        }
        assert (lines["darker"], lines["undefined"]) == (["0.250"], ["not", "defined"])
        assert "extra" not in lines
    assert json.loads(out)["extra"] == {"darker": 0.25, "undefined": None}


# -- the page -----------------------------------------------------------------------------------------------------


@pytest.fixture
def reader(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a reader's folder, with an action of theirs and the page's two files."""
    home = tmp_path / "reader"
    roles = worlds.roster().roles()
    named = [role for role, group in roles.items() for _ in range(len(group))]
    write_people(home / "my-action" / "people", People.concatenate(list(roles.values())), worlds.CLASSES, named)
    for section, name in (("A metric of your own", "my_metrics"), ("A control of your own", "my_controls")):
        (home / f"{name}.py").write_text(blocks(section)[0], encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(home)
    monkeypatch.chdir(home)
    with background_app(create_app(Recorder().inner)) as url:
        (home / "my-action" / "action.toml").write_text(worlds.action_file(url))
        yield home


def test_the_pages_code_runs_as_printed(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader's metric, and then their control, are measured by the code on the page, on one action."""
    for section in ("A metric of your own", "A control of your own"):
        exec(compile(blocks(section)[1], section, "exec"), {})
    metric, cost, control = capsys.readouterr().out.splitlines()
    assert 0 <= float(metric) <= 1
    assert cost == "80"
    row = json.loads((reader / "my-action" / "row.json").read_text())
    assert control.startswith(f"{row['extra']['darker']} (")
    assert "With δ, then darker" in (reader / "my-action" / "report.html").read_text(encoding="utf-8")
