"""Tests of earlier names, which had British spelling: each does what the new one does, and says so."""

from __future__ import annotations

import importlib
import inspect
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import worlds
from ttca.config import PlatformSection, read_action, read_contribution, read_platform
from ttca.errors import ConfigError
from ttca.fairness import SubgroupReport
from ttca.platforms.http import HttpPlatform
from ttca.progress import Reporter
from ttca.settings import Settings
from ttca.terminal import Terminal

OLD = [
    ("ttca.fairness", "equalised_odds_difference", "equalized_odds_difference"),
    ("ttca.fairness", "equalised_odds_ratio", "equalized_odds_ratio"),
    ("ttca.training_time.relabelling", "LabelledRows", "LabeledRows"),
    ("ttca.training_time.relabelling", "equalised_odds", "equalized_odds"),
    ("ttca.data.hub", "LabelledImages", "LabeledImages"),
    ("ttca.equaliser", "Equaliser", "Equalizer"),
    ("ttca.proxies.architectures", "Normalised", "Normalized"),
    ("ttca.asking", "equalised", "equalized"),
]


@pytest.mark.parametrize(("module", "old", "new"), OLD)
def test_a_function_or_class_is_found_under_its_old_name(module: str, old: str, new: str) -> None:
    """The old name is the same object, with a warning; a name that never was is none."""
    home = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{old} is now called {new}"):
        assert getattr(home, old) is getattr(home, new)
    assert new in home.__all__
    assert old not in home.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = home.nothing


def test_parameters_and_attributes_have_their_old_names() -> None:
    """Settings, a platform's section and a platform take the old word and warn; both words are refused."""
    british: dict[str, Any] = {"equalise": True}
    with pytest.warns(DeprecationWarning, match="is now called equalize"):
        old: Any = Settings(**british)
    assert old == Settings(equalize=True)
    with pytest.warns(DeprecationWarning, match=r"Settings.equalise is now called equalize"):
        assert old.equalise is True
    with pytest.raises(ConfigError, match="Expected equalize alone, got equalise too"):
        replace(old, **british)
    table: dict[str, Any] = {"url": "https://example.org", "classes": ("a", "b"), "model": "m", "authorised_by": "me"}
    with pytest.warns(DeprecationWarning, match="authorized_by"):
        section = PlatformSection(**table)
    assert section.authorized_by == "me"
    with pytest.warns(DeprecationWarning, match="authorized_by"), HttpPlatform(**table):
        pass
    assert "equalize" in inspect.signature(Settings).parameters


def test_a_report_of_fairness_has_its_old_attributes() -> None:
    """What the report said under the old name it still says."""
    report: Any = SubgroupReport.from_predictions([0, 1, 0, 1], [0, 1, 1, 1], ["a", "a", "b", "b"])
    with pytest.warns(DeprecationWarning, match="equalized_odds_difference_mean"):
        assert report.equalised_odds_difference_mean == report.equalized_odds_difference_mean


def test_files_under_old_names_are_read_and_say_so(tmp_path: Path) -> None:
    """An action file and a member's file of an earlier version mean what they meant; a sentence names each old key."""
    text = worlds.action_file("http://127.0.0.1:1", action="equalise = true\n", platform='authorised_by = "me"\n')
    (tmp_path / "action.toml").write_text(text, encoding="utf-8")
    found = read_action(tmp_path)
    assert found.settings.equalize is True
    assert found.platform.authorized_by == "me"
    assert [note.split(" ")[0] for note in found.notes] == ["equalise", "authorised_by"]
    assert all("is now called" in note and str(tmp_path) in note for note in found.notes)
    (tmp_path / "action.toml").write_text(text.replace("equalise = true", "equalise = true\nequalize = true"))
    with pytest.raises(ConfigError, match="equalize alone"):
        read_action(tmp_path)
    mine = tmp_path / "mine.toml"
    platform = text.partition("[platform]")[2].partition("\n[")[0]
    mine.write_text(f'[contribute]\nhub = "http://127.0.0.1:1"\ntoken_variable = "TTCA_T"\n[platform]{platform}\n')
    assert [note.split(" ")[0] for note in read_contribution(mine).notes] == ["authorised_by"]
    said = io.StringIO()
    assert read_platform(mine, Reporter(Terminal(file=said))).authorized_by == "me"
    assert said.getvalue().startswith("authorised_by in [platform]")
    # What stands in a file is set by hand, for every recipe, under whatever name.
    (tmp_path / "action.toml").write_text(text.replace("equalise = true", 'equalise = false\nrecipe = "auto"'))
    assert "equalize" in read_action(tmp_path).settings.set_by_hand
