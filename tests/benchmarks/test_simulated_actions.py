"""Tests that simulated verifications have the rates and the dependence they are asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks._simulated_actions import Setting, draw, draws, least_favourable
from ttca.errors import ConfigError
from ttca.statistics.comparisons import mcnemar_p
from ttca.statistics.curtailed import least_won, paired_stopping_time

PLAIN = Setting(success=(0.7, 0.85, 0.9), accuracy=0.8, persons=100)


@pytest.mark.parametrize(
    "setting",
    [
        PLAIN,
        replace(PLAIN, dependence=-0.9),
        replace(PLAIN, dependence=1.0),
        replace(PLAIN, images=5, icc=0.3, dependence=0.6),
        replace(PLAIN, reference_persons=40, images=2, icc=0.1),
    ],
)
def test_no_dependence_changes_a_rate(setting: Setting) -> None:
    """Whatever goes together, the shares of right answers are those asked for, and S rises with ε person by person."""
    found = draw(setting, 4000, np.random.default_rng(0))
    people = (setting.reference_persons or setting.persons) * setting.images
    assert found.reference.shape == (4000, people)
    assert found.outcomes.shape == (4000, 3, setting.persons * setting.images)
    assert found.reference.mean() == pytest.approx(setting.accuracy, abs=0.005)
    assert found.outcomes.mean(axis=(0, 2)) == pytest.approx(setting.success, abs=0.005)
    assert np.all(found.outcomes[:, :-1] <= found.outcomes[:, 1:])


def test_dependence_and_clusters_show() -> None:
    """A person's two answers go together or apart as asked, and images of a person vary together."""

    def together(setting: Setting) -> float:
        found = draw(setting, 2000, np.random.default_rng(1))
        return float(np.corrcoef(found.reference.ravel(), found.outcomes[:, 1].ravel())[0, 1])

    assert (
        together(replace(PLAIN, dependence=-0.9))
        < -0.1
        < together(PLAIN)
        < 0.1
        < together(replace(PLAIN, dependence=0.6))
    )

    def spread(setting: Setting) -> float:
        return float(draw(setting, 2000, np.random.default_rng(2)).outcomes[:, 0].sum(axis=1).var())

    many = replace(PLAIN, persons=20, images=15)
    assert spread(replace(many, icc=0.3)) > 2.5 * spread(many)


def test_unresolved_counts_against_the_claim() -> None:
    """What brings no answer lowers S and raises A by its share."""
    found = draw(replace(PLAIN, unresolved=0.1), 4000, np.random.default_rng(3))
    assert found.reference.mean() == pytest.approx(0.8 + 0.1 * 0.2, abs=0.005)
    assert found.outcomes.mean(axis=(0, 2)) == pytest.approx(0.9 * np.array(PLAIN.success), abs=0.005)


def test_parts_add_up() -> None:
    """Drawn in parts there are as many actions, and none larger than asked for."""
    assert [len(part.reference) for part in draws(PLAIN, 250, np.random.default_rng(4), at_once=100)] == [100, 100, 50]


@pytest.mark.parametrize("paired", [True, False])
def test_least_favourable_settings_are_only_just_false(paired: bool) -> None:
    """There are twelve, of every accuracy and size, and in each any claim would be false by nothing or a hair."""
    for margin in (0.0, 0.05):
        settings = least_favourable(margin, paired=paired)
        assert len({(s.accuracy, s.persons) for s in settings}) == len(settings) == 12
        assert {s.dependence for s in settings} == ({-0.9, 0.0, 0.3, 0.6, 0.9} if paired else {0.0})
        assert {s.unresolved for s in settings} == {0.0, 0.01, 0.03}
        assert {len(s.success) for s in settings} == {1, 3, 8}
        assert all(rate == s.accuracy - margin for s in settings for rate in s.success)


def test_mcnemar_errs_within_alpha_where_it_is_hardest() -> None:
    """At equal rates, stopped early or not, the paired test claims falsely in at most .05, whatever goes together."""
    for setting in least_favourable(paired=True)[::3]:
        least = least_won(lambda won, lost: mcnemar_p(won, lost) <= 0.05, setting.persons)
        found = draw(setting, 3000, np.random.default_rng(5))
        _, passed = paired_stopping_time(found.reference, found.outcomes[:, 0], least)
        assert passed.mean() <= 0.05 + 3 * (0.05 * 0.95 / 3000) ** 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"success": ()},
        {"success": (0.9, 0.8)},
        {"accuracy": 1.0},
        {"persons": 0},
        {"icc": 1.0},
        {"unresolved": -0.1},
        {"reference_persons": 50, "dependence": 0.3},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    """Rates that are no rates, families that fall, and a dependence of different persons are refused."""
    with pytest.raises(ConfigError, match="Correct the setting"):
        replace(PLAIN, **wrong)  # type: ignore[arg-type]
