"""Tests that an attack from outside takes part in a whole action, is not trusted, and is found by its name."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import worlds
from tests.guests.documents import block
from tests.worlds import Recorder, open_action
from ttca.attacks.options import Perturbing
from ttca.attacks.universal import Attack, SignDescent, Universal
from ttca.config import read_action
from ttca.errors import ActionError, ConfigError


@pytest.fixture
def my_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the documents' module, lying in a folder of its own."""
    home = tmp_path / "mine"
    home.mkdir()
    (home / "my_attacks.py").write_text(block("An attack of your own"), encoding="utf-8")
    monkeypatch.syspath_prepend(home)
    monkeypatch.delitem(sys.modules, "my_attacks", raising=False)
    return importlib.import_module("my_attacks")


def test_a_guest_learns_every_delta_of_a_whole_action(my_attacks: Any, tmp_path: Path) -> None:
    """δ of members and of controls are the guest's, verified and measured, and read back for the same guest alone."""
    levers = worlds.settings(rounds=1)

    def deltas(attack: Attack | None, *, whole: bool = False) -> dict[int, Any]:
        with open_action(tmp_path / "action", Recorder(), settings=levers, attack=attack) as action:
            if whole:
                assert action.verify().epsilon is not None
                row, _ = action.measure()
                assert row.subgroup_after > row.subgroup_before
            return {e: s.delta for e, s in action.learn().items()}

    found = deltas(my_attacks.MeanSign(), whole=True)
    # A step of full strength in every pixel: nothing that ttca's own attack would do.
    assert set(np.unique(found[12])) <= {-12, 0, 12}
    home = tmp_path / "action" / "perturbations" / "epsilon-012.safetensors"
    written = home.stat().st_mtime_ns
    deltas(my_attacks.MeanSign())
    assert home.stat().st_mtime_ns == written
    assert set(np.unique(deltas(my_attacks.MeanSign(strength=0.5))[12])) <= {-6, 0, 6}
    assert (deltas(None)[12] != found[12]).any()


@dataclass(frozen=True)
class Saying:
    """An attack that returns whatever it was told to."""

    what: Any

    def learn(self, model: Any, examples: Any, *, epsilon: int, groups: int, **_: Any) -> Any:
        """Return it."""
        return self.what


@pytest.mark.parametrize(
    ("what", "got"),
    [
        (None, "NoneType"),
        (Universal(np.zeros((3, 8, 8, 3)), 0.0, 0), r"float64 \(3, 8, 8, 3\)"),  # type: ignore[arg-type]
        (Universal(np.zeros((3, 8, 8), np.int8), 0.0, 0), r"int8 \(3, 8, 8\)"),
        (Universal(np.zeros((1, 8, 8, 3), np.int8), 0.0, 0), r"int8 \(1, 8, 8, 3\)"),
    ],
)
def test_what_is_no_delta_is_refused(tmp_path: Path, what: Any, got: str) -> None:
    """An attack that returns another type, another shape or nothing stops the action before a verification query."""
    with open_action(tmp_path, Recorder(), attack=Saying(what)) as action:
        with pytest.raises(ActionError, match=rf"int8 \(3, 8, 8, 3\) from the attack .*Saying, got {got}"):
            action.verify()
        assert set(action.ledger.paid()) == {"pool"}


@pytest.mark.parametrize("level", [127, -128])
def test_a_guest_cannot_leave_the_budget(tmp_path: Path, level: int) -> None:
    """δ beyond ε is clipped to it, whatever the attack meant."""
    loud = Saying(Universal(np.full((3, 8, 8, 3), level, np.int8), 1.0, 0))
    with open_action(tmp_path, Recorder(), attack=loud) as action:
        for epsilon, found in action.learn().items():
            assert (found.delta == (epsilon if level > 0 else -epsilon)).all()


def test_an_attack_that_does_not_say_its_options_is_refused(tmp_path: Path) -> None:
    """Nobody could tell whether a kept δ is that of an attack that prints only where it lies in memory."""

    class Silent:
        learn = SignDescent().learn

    with (
        open_action(tmp_path, Recorder(), attack=Silent()) as action,
        pytest.raises(ConfigError, match=r"Expected an attack that prints its options, got .*Silent"),
    ):
        action.distil()
    with (
        open_action(tmp_path, Recorder(), attack=object()) as action,
        pytest.raises(ConfigError, match="Expected an attack with a method learn"),
    ):
        action.distil()


def test_an_installed_package_offers_its_attack_by_name(
    my_attacks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An action file names an attack of another package; a name that none offers is refused with those there are."""
    home = Path(my_attacks.__file__).parent
    with (home / "my_attacks.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef make(options):\n    return MeanSign(strength=1 / options.steps)\n")
    package = home / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n", encoding="utf-8")
    (package / "entry_points.txt").write_text("[ttca.attacks]\nmean-sign = my_attacks:make\n", encoding="utf-8")
    monkeypatch.delitem(sys.modules, "my_attacks")
    importlib.invalidate_caches()
    lines = {"action": 'attack = "mean-sign"\n'}
    (tmp_path / "action.toml").write_text(worlds.action_file("http://127.0.0.1:9", **lines), encoding="utf-8")
    levers = read_action(tmp_path).settings
    assert levers.attack == "mean-sign"
    with open_action(tmp_path / "action", Recorder(), settings=levers) as action:
        assert repr(action.learner.attack()) == "MeanSign(strength=0.1)"
        assert set(np.unique(action.learn()[12].delta)) <= {-1, 0, 1}
    with pytest.raises(ConfigError, match=r"Expected an attack that .* offers \(found: mean-sign\), got 'mean'"):
        worlds.settings(attack="mean")
    with (
        open_action(tmp_path / "both", Recorder(), settings=levers, attack=SignDescent()) as action,
        pytest.raises(ConfigError, match="Expected one attack"),
    ):
        action.distil()


def test_ttcas_own_attack_is_an_attack(tmp_path: Path) -> None:
    """Given as an object, ttca's own attack learns with the options it was given, to the last bit as without."""
    with open_action(tmp_path / "own", Recorder()) as action:
        own = action.learn()[12].delta
    given = SignDescent(Perturbing(steps=10, shift=0, batch_size=128))
    with open_action(tmp_path / "given", Recorder(), attack=given) as action:
        np.testing.assert_array_equal(action.learn()[12].delta, own)
