"""Tests that simulated verifications have the rates and the dependence they are asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks._simulated_actions import Setting, draw, draws, least_favourable, one_image_each
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
        replace(PLAIN, reference_persons=40, images=2, reference_images=3, icc=0.1),
    ],
)
def test_no_dependence_changes_a_rate(setting: Setting) -> None:
    """Whatever goes together, the shares of right answers are those asked for, and S rises with ε person by person."""
    found = draw(setting, 4000, np.random.default_rng(0))
    people = (setting.reference_persons or setting.persons) * (setting.reference_images or setting.images)
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


def test_answers_at_two_epsilons_go_together_as_asked() -> None:
    """With less in common, fewer persons are right at both or at neither of two ε; S keeps its rates."""
    same = replace(PLAIN, success=(0.8, 0.8))

    def agreed(alike: float) -> float:
        found = draw(replace(same, alike=alike), 2000, np.random.default_rng(6)).outcomes
        assert found.mean(axis=(0, 2)) == pytest.approx(same.success, abs=0.005)
        return float((found[:, 0] == found[:, 1]).mean())

    assert agreed(0.0) == pytest.approx(0.8**2 + 0.2**2, abs=0.01)
    assert agreed(0.0) < agreed(0.8) < agreed(1.0) == 1


def test_one_image_of_each_person_is_drawn() -> None:
    """Of several images one is left for each person and group, with its answers at every ε, and rates stay."""
    several = replace(PLAIN, reference_persons=40, images=3, reference_images=5, icc=0.3)
    found = draw(several, 2000, np.random.default_rng(7))
    one = one_image_each(several, found, np.random.default_rng(8))
    assert one.reference.shape == (2000, 40)
    assert one.outcomes.shape == (2000, 3, 100)
    assert one.reference.mean() == pytest.approx(several.accuracy, abs=0.01)
    # Still the answers of one image: who is right at an ε is right at every larger one.
    assert np.all(one.outcomes[:, :-1] <= one.outcomes[:, 1:])
    theirs = found.outcomes.reshape(2000, 3, 100, 3)
    assert np.all((theirs == one.outcomes[..., None]).any(axis=3))
    plain = draw(PLAIN, 5, np.random.default_rng(9))
    assert one_image_each(PLAIN, plain, np.random.default_rng(9)) is plain


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
        {"accuracy": 1.0},
        {"persons": 0},
        {"icc": 1.0},
        {"alike": 1.1},
        {"reference_images": 2},
        {"reference_images": 0, "reference_persons": 50},
        {"unresolved": -0.1},
        {"reference_persons": 50, "dependence": 0.3},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    """Rates that are no rates, other numbers of images of the same persons, and their dependence are refused."""
    with pytest.raises(ConfigError, match="Correct the setting"):
        replace(PLAIN, **wrong)  # type: ignore[arg-type]
