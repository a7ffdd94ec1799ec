"""Tests of refinement on the platform: what is sent, what answers speak for, and where δ moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ttca.attacks.refinement import AMPLITUDE, Probes, draw_probes, steer, support

SHAPE = (16, 16, 3)


def grey(n: int) -> NDArray[np.uint8]:
    """Return n different images far from black and white."""
    return np.random.default_rng(0).integers(100, 156, (n, *SHAPE), dtype=np.uint8)


def slopes(seed: int = 1) -> NDArray[np.float64]:
    """Return what a linear platform of two classes wants, constant in 2×2 squares, float64 (2, 16, 16, 3)."""
    coarse = np.random.default_rng(seed).normal(0, 1, (1, 8, 8, 3))
    one = coarse.repeat(2, axis=1).repeat(2, axis=2)
    return np.concatenate([one, -one])


def answered(images: NDArray[np.uint8], want: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of a platform that is linear in the pixels, and noisy from person to person."""
    pushed = np.einsum("nhwk,chwk->nc", images.astype(float) - 128, want) / 1000
    noise = np.random.default_rng(2).normal(0, 0.1, len(images))
    return np.asarray(pushed + np.stack([noise, -noise], 1))


@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([1, 2, 4]))
def test_a_pair_is_an_image_with_its_pattern_added_and_taken_away(pairs: int, people: int, block: int) -> None:
    """Every pair differs by twice the amplitude in squares of whole blocks, and people take turns."""
    images = grey(people)
    probes = draw_probes(images, pairs=pairs, rng=np.random.default_rng(0), block=block)
    up, down = probes.images[:pairs].astype(int), probes.images[pairs:].astype(int)
    squares = probes.signs.shape[1]
    assert squares == {1: 8, 2: 8, 4: 4}[block]
    width = 16 // squares
    pattern = probes.signs.repeat(width, axis=1).repeat(width, axis=2)
    assert np.array_equal(up - down, 2 * AMPLITUDE * pattern.astype(int))
    used = [next(i for i, image in enumerate(images) if np.array_equal(image, m)) for m in (up + down) // 2]
    turns = np.bincount(used, minlength=people)
    assert turns.max() - turns.min() <= 1


def test_probes_stay_images() -> None:
    """Next to black and white a pattern is cut off, never wrapped round."""
    images = np.stack([np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8)])
    probes = draw_probes(images, pairs=2, rng=np.random.default_rng(0))
    for image in probes.images:
        assert set(np.unique(image)) <= {0, AMPLITUDE} or set(np.unique(image)) <= {255 - AMPLITUDE, 255}


def test_nobody_to_probe_is_refused() -> None:
    """No image, or no pair, is a sentence and no empty question."""
    for people, pairs in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="Expected at least one image and one pair"):
            draw_probes(grey(people), pairs=pairs, rng=np.random.default_rng(0))


def test_scores_speak_in_log_odds_and_labels_in_ones() -> None:
    """Complete scores give log-odds, cut at half a rounding step; labels give 1 for the class named; silence is NaN."""
    labels = np.array([0, 1, -1])
    scores = np.array([[0.75, 0.25], [0.0, 1.0], [np.nan, np.nan]], np.float32)
    found = support(labels, scores, np.array([0.01, 0.01, 0.0], np.float32))
    assert np.allclose(found[0], [np.log(3), -np.log(3)])
    assert np.allclose(found[1], [np.log(0.005 / 0.995), np.log(0.995 / 0.005)])
    assert np.isnan(found[2]).all()
    bare = support(labels, np.full((3, 2), np.nan, np.float32), np.zeros(3, np.float32))
    assert np.array_equal(bare[:2], [[1, 0], [0, 1]])
    assert np.isnan(bare[2]).all()


def test_one_answer_without_scores_makes_all_of_them_labels() -> None:
    """Log-odds and labels are never mixed in one regression."""
    scores = np.array([[0.75, 0.25], [np.nan, 0.9]], np.float32)
    assert np.array_equal(support(np.array([0, 1]), scores, np.zeros(2, np.float32)), [[1, 0], [0, 1]])


def test_without_a_proxy_the_probes_alone_find_the_direction() -> None:
    """From δ = 0 and answers about 120 pairs, most of a linear platform's wishes are met, at full strength."""
    want = slopes()
    probes = draw_probes(grey(60), pairs=120, rng=np.random.default_rng(3))
    steered, foretold = steer(np.zeros((2, *SHAPE), np.int8), probes, answered(probes.images, want), epsilon=5)
    assert steered.dtype == np.int8
    assert set(np.unique(steered)) <= {-5, 5}
    assert (np.sign(steered) == np.sign(want)).mean() > 0.75
    assert (foretold > 0.2).all()


def test_proxy_and_probes_together_know_more_than_either() -> None:
    """A proxy that is right about two signs of three is improved by probes, beyond what probes find alone."""
    want = slopes()
    flips = np.random.default_rng(5).random((1, 8, 8, 3)).repeat(2, axis=1).repeat(2, axis=2) < 1 / 3
    proxy = (np.sign(want) * np.where(flips, -5, 5)).astype(np.int8)
    probes = draw_probes(grey(60), pairs=80, rng=np.random.default_rng(3))
    said = answered(probes.images, want)

    def right(delta: NDArray[np.int8]) -> float:
        return float((np.abs(want) * (np.sign(delta) == np.sign(want))).sum() / np.abs(want).sum())

    together = right(steer(proxy, probes, said, epsilon=5)[0])
    assert together > right(proxy) + 0.05
    assert together > right(steer(np.zeros_like(proxy), probes, said, epsilon=5)[0]) + 0.02


def test_a_platform_that_feels_nothing_moves_nothing() -> None:
    """Equal answers to both of every pair, noise, or silence leave δ as the proxy had it."""
    proxy = np.random.default_rng(4).integers(-5, 6, (2, *SHAPE), dtype=np.int8)
    probes = draw_probes(grey(20), pairs=20, rng=np.random.default_rng(3))
    for said in (np.zeros((40, 2)), np.full((40, 2), np.nan)):
        steered, foretold = steer(proxy, probes, said, epsilon=5)
        assert np.array_equal(steered, proxy)
        assert not foretold.any()


def test_pairs_with_silence_are_left_out() -> None:
    """A pair of which one answer is missing changes no bit of what the others say."""
    want = slopes()
    probes = draw_probes(grey(40), pairs=40, rng=np.random.default_rng(3))
    said = answered(probes.images, want)
    said[[3, 45]] = np.nan
    rows = np.setdiff1d(np.arange(40), [3, 5])
    fewer = Probes(probes.signs[rows], probes.images[np.concatenate([rows, rows + 40])], probes.rows[rows])
    proxy = np.zeros((2, *SHAPE), np.int8)
    whole = steer(proxy, probes, said, epsilon=5)
    clean = steer(proxy, fewer, said[np.concatenate([rows, rows + 40])], epsilon=5)
    assert np.array_equal(whole[0], clean[0])
    assert np.array_equal(whole[1], clean[1])


@pytest.mark.parametrize("said", [np.zeros((39, 2)), np.zeros((40, 3))])
def test_what_does_not_fit_is_refused(said: Any) -> None:
    """Evidence of another number of probes or classes is a sentence, not a broadcast."""
    probes = draw_probes(grey(20), pairs=20, rng=np.random.default_rng(3))
    with pytest.raises(ValueError, match=r"Expected support \(40, 2\)"):
        steer(np.zeros((2, *SHAPE), np.int8), probes, said, epsilon=5)
