"""Tests of results as tables of pandas and as figures: what they hold is what the result holds."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest

from tests.test_audit import of_two
from tests.test_row import row
from tests.worlds import certified
from ttca.errors import MissingExtraError
from ttca.pooling.ledger import Ledger
from ttca.race_record import Entrant, Raced
from ttca.row import Row


@pytest.fixture(autouse=True)
def _no_windows() -> Iterator[None]:
    """Draw without a screen, and leave no figure open."""
    before = mpl.get_backend()
    mpl.use("Agg")
    yield
    from matplotlib import pyplot as plt

    plt.close("all")
    mpl.use(before)


def dots_of(axes: Any) -> dict[str, float]:
    """Return where each dot lies, by the name beside it."""
    names = [label.get_text() for label in axes.get_yticklabels()]
    dots = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "o"]
    return {names[int(y)]: float(x) for x, y in dots}


def test_a_row_is_one_line_of_a_frame() -> None:
    """Each key is a column, intervals are two, and rows can be put below each other."""
    one = row(intervals={"subgroup_after": [0.5, 0.75], "gap_before": None}, extra={"mine": 0.25})
    table = pd.concat([one.to_frame(), row(seed=7).to_frame()], ignore_index=True)
    assert set(Row.keys()) - {"intervals"} <= set(table.columns)
    assert table.loc[0, ["subgroup_after_low", "subgroup_after_high", "mine"]].tolist() == [0.5, 0.75, 0.25]
    assert table["seed"].tolist() == [one.seed, 7]
    assert math.isnan(table.loc[1, "mine"])


def test_a_certificate_is_a_line_for_each_budget() -> None:
    """Right, asked, lower bound and verdict of each test stand in the frame and in the figure."""
    certificate = certified(95, epsilon=8)
    table = certificate.to_frame()
    assert table["epsilon"].tolist() == [test.epsilon for test in certificate.tests]
    assert table["passed"].tolist() == [test.passed for test in certificate.tests]
    assert (table["rate"] == table["right"] / table["asked"]).all()
    assert (table["lower"] <= table["rate"]).all()
    axes = certificate.plot()
    dots = [line.get_xydata().tolist()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == table[["epsilon", "rate"]].to_numpy().tolist()


def test_a_ledger_is_a_line_for_each_member(tmp_path: Path) -> None:
    """The frame holds the balances."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.enrol({"ada": 5, "ben": 7})
        table = ledger.to_frame()
    assert table[["member", "quota", "charged"]].to_numpy().tolist() == [["ada", 5, 0], ["ben", 7, 0]]


def test_an_audit_is_a_line_for_each_group() -> None:
    """Rates and intervals stand in the frame, and in the figure under the group's name."""
    audit = of_two(60, 150, 130, 150)
    table = audit.to_frame()
    assert table[["by", "group", "right", "images"]].to_numpy().tolist() == [
        ["group", "subgroup", 60, 150],
        ["group", "reference", 130, 150],
    ]
    assert table["rate"].tolist() == pytest.approx([0.4, 130 / 150])
    assert (table["low"] < table["rate"]).all()
    assert (table["rate"] < table["high"]).all()
    axes = audit.plot()
    assert dots_of(axes) == {"subgroup": 0.4, "reference": 130 / 150}


def test_a_race_is_a_line_for_each_recipe() -> None:
    """Who was not asked about stands in the frame without a difference, and not in the figure; the winner's dot is
    full."""
    raced = Raced(
        epsilon=4,
        entrants=(
            Entrant(name="mixed", about="three", persons=0, mean=None, difference=None, out=0, seconds=2.0),
            Entrant(name="true-first", about="true", persons=60, mean=0.8, difference=0.25, out=None, seconds=3.0),
            Entrant(name="zero-query", about="no answer", persons=20, mean=0.6, difference=0.05, out=1, seconds=1.0),
        ),
        winner="true-first",
        proposed=True,
        won=9,
        lost=1,
        tested=40,
        p=0.006,
        level=0.05,
        fresh=True,
        queries=100,
        persons=100,
    )
    table = raced.to_frame()
    assert table["name"].tolist() == ["mixed", "true-first", "zero-query"]
    assert table["difference"].isna().tolist() == [True, False, False]
    axes = raced.plot()
    assert dots_of(axes) == {"true-first (60 people)": 0.25, "zero-query (20 people)": 0.05}
    full = [
        line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o" and line.get_markerfacecolor() != "none"
    ]
    assert full == [0.25]


def test_a_row_is_drawn_with_its_controls() -> None:
    """Every rate that is defined has a dot where it lies, under its name."""
    axes = row(subgroup_after=0.9, abuse_rate=0.25, jpeg75_control=math.nan).plot()
    where = dots_of(axes)
    assert where["Subgroup with δ (S)"] == 0.9
    assert where["Abuse rate"] == 0.25
    assert "After JPEG 75" not in where


@pytest.mark.parametrize(("package", "call"), [("pandas", "to_frame"), ("matplotlib.pyplot", "plot")])
def test_what_is_missing_is_named(package: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas or matplotlib the extra that brings it is named."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"ttca\[(frames|learn)\]"):
        getattr(row(), call)()
