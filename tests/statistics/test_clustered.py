"""Tests of the approximate person-level test, and of what its size tells apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ttca.errors import ActionError, ConfigError
from ttca.statistics.clustered import layout_size, studentized_person_p

RATES, ICC = (0.5, 0.85, 0.95), (0.05, 0.3)


def size(images: list[int], reference: list[int], alpha: float, margin: float = 0.0) -> float:
    return layout_size(images, reference, alpha, RATES, ICC, 4000, np.random.default_rng(0), margin)


def test_with_an_image_each_it_is_welchs_test() -> None:
    """Where everybody brings as many images, p is that of Welch's t-test over the persons' own rates."""
    drawn = np.random.default_rng(0)
    right, other = drawn.binomial(10, drawn.beta(8, 2, 30)), drawn.binomial(10, drawn.beta(5, 5, 25))
    theirs = stats.ttest_ind(right / 10 + 0.05, other / 10, equal_var=False, alternative="greater").pvalue
    assert studentized_person_p(right, np.full(30, 10), other, np.full(25, 10), 0.05) == pytest.approx(theirs, rel=1e-9)


def test_a_persons_many_images_are_not_many_persons() -> None:
    """Twenty images of each of 15 persons who are all right or all wrong say no more than about one image each."""
    own = np.array([1] * 13 + [0] * 2)
    others = np.array([1] * 9 + [0] * 6)
    many = studentized_person_p(own * 20, np.full(15, 20), others * 20, np.full(15, 20))
    one = studentized_person_p(own, np.ones(15, np.int64), others, np.ones(15, np.int64))
    # The floor of the variance, with two right and two wrong added, counts images, and so differs a little.
    assert many == pytest.approx(one, abs=0.01)
    images = stats.fisher_exact(np.array([[260, 40], [180, 120]]), "greater").pvalue
    assert images < 1e-6 < many


@pytest.mark.parametrize("layout", [[15] * 19, [10] * 30, [2] * 150])
def test_even_layouts_keep_the_error(layout: list[int]) -> None:
    """Where both groups bring the same, a test at .04 claims falsely in at most .05, and in not much less."""
    assert 0.03 < size(layout, layout, 0.04) <= 0.05


def test_uneven_layouts_are_told_apart() -> None:
    """Few persons against many, or one person with most images, exceed alpha, and their size says so."""
    assert size([2] * 20, [20] * 100, 0.05) > 0.055
    assert size([15] * 19, [1] * 150, 0.05) > 0.1


def test_a_margin_moves_the_null_hypothesis() -> None:
    """With a margin S is as far below in the simulation: skewer, so the size grows; and what is claimed is less."""
    even = [10] * 30
    assert size(even, even, 0.04) < size(even, even, 0.04, margin=0.1) < 0.07
    right = np.full(30, 8)
    ten = np.full(30, 10)
    assert (
        studentized_person_p(right, ten, right, ten, 0.1) < 0.05 < studentized_person_p(right, ten, right, ten) <= 0.5
    )


def test_all_right_is_not_certain() -> None:
    """Two groups without an error are not told apart, nor is anything shown about fewer than two persons."""
    ten = np.full(10, 3)
    assert studentized_person_p(ten, ten, ten, ten) == pytest.approx(0.5)
    assert studentized_person_p([30], [30], ten, ten, 0.2) == 1.0
    nobody = np.zeros(0, np.int64)
    assert studentized_person_p(nobody, nobody, ten, ten) == 1.0


def test_persons_without_images_do_not_count() -> None:
    """Somebody who brought no image changes nothing."""
    right, images = [3, 1, 0, 2], [3, 2, 0, 4]
    assert studentized_person_p(right, images, [1, 1], [2, 3]) == studentized_person_p(
        [3, 1, 2], [3, 2, 4], [1, 1], [2, 3]
    )


def test_impossible_layouts_are_refused() -> None:
    """Counts, rates, correlations and runs that cannot be are refused with a sentence."""
    with pytest.raises(ActionError, match="right ≤ m"):
        studentized_person_p([4], [3], [1], [1])
    with pytest.raises(ActionError, match="one number per person"):
        studentized_person_p([1, 2], 3, [1], [1])
    with pytest.raises(ActionError, match="images per person"):
        layout_size([[1]], [1], 0.05, [0.5], [0.1], 10, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="margin"):
        studentized_person_p([1], [1], [1], [1], math.nan)
    for rates, icc, runs in (([1.0], [0.1], 10), ([0.5], [1.0], 10), ([0.5], [0.1], 0), ([], [0.1], 10)):
        with pytest.raises(ConfigError, match="at least one run"):
            layout_size([1, 1], [1, 1], 0.05, rates, icc, runs, np.random.default_rng(0))
