"""Tests of learning side by side: what comes out, what is the same as alone, and what happens when a piece fails."""

from __future__ import annotations

import io
import re
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from ttca.progress import Reporter, silent
from ttca.proxies.distillation import Targets, train_proxy
from ttca.proxies.options import Distilling
from ttca.proxies.runtime import fixed_threads
from ttca.side_by_side import Piece, learning_threads, side_by_side

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
TARGETS = Targets.from_labels(np.arange(24) % 2, 2)


def trained(seed: int, _reporter: Reporter) -> str:
    """Return the digest of a small network that was trained for a moment."""
    options = Distilling(architectures=("small-cnn",), epochs=2, shift=1, seed=seed)
    return train_proxy(IMAGES, TARGETS, options).proxy.digest()


def test_what_is_learned_beside_others_is_what_is_learned_alone() -> None:
    """Networks that are made and trained at the same time have the weights of those trained one after the other, and
    come in the order of their tasks."""
    tasks = [partial(trained, seed) for seed in (0, 1, 0, 2)]
    alone = side_by_side(tasks, what="learning", reporter=silent, threads=1)
    with fixed_threads(2):
        assert side_by_side(tasks, what="learning", reporter=silent, threads=None) == alone
        assert torch.get_num_threads() == 2
    assert alone[0] == alone[2] != alone[1]


def test_a_piece_that_fails_ends_the_others_at_their_next_step() -> None:
    """What a task raises is raised; a task that still works is told so at its next step, and one that waits never
    begins."""
    began, ended, waited = threading.Event(), threading.Event(), threading.Event()

    def endless(reporter: Reporter) -> None:
        with reporter.track("counting", 10**9) as advance:
            try:
                while True:
                    began.set()
                    advance(1)
            finally:
                ended.set()

    def failing(_reporter: Reporter) -> None:
        began.wait(10)
        raise ValueError("no")

    with fixed_threads(2), pytest.raises(ValueError, match=r"^no$"):
        side_by_side([endless, failing, lambda _: waited.set()], what="x", reporter=silent, threads=None)
    assert ended.is_set()
    assert not waited.is_set()


@pytest.mark.parametrize(
    ("cores", "pieces", "used"), [(2, 1, 1), (2, 2, 1), (8, 1, 4), (8, 2, 4), (8, 8, 1), (1, 1, 1)]
)
def test_cores_are_shared_out(cores: int, pieces: int, used: int) -> None:
    """Pieces at once share the cores; one alone takes half of them; what a hand chose holds."""
    with fixed_threads(cores):
        with learning_threads(None, pieces=pieces) as found:
            assert found == used
        with learning_threads(3) as found:
            assert found == 3
        assert torch.get_num_threads() == cores


@pytest.mark.parametrize("how", [{"threads": 2}, {"threads": None, "alone": True}])
def test_pieces_that_must_not_meet_follow_one_another(how: dict[str, Any]) -> None:
    """Where a hand chose the threads, or a guest's attack learns, every task runs in the caller's own thread and shows
    its progress itself."""

    def where(reporter: Reporter) -> tuple[int, bool]:
        return threading.get_ident(), reporter is silent

    with fixed_threads(2):
        here = side_by_side([where, where], what="x", reporter=silent, **how)
        there = side_by_side([where, where], what="x", reporter=silent, threads=None)
    assert here == [(threading.get_ident(), True)] * 2
    assert all(ident != threading.get_ident() and not own for ident, own in there)


@pytest.mark.parametrize("threads", [1, None])
def test_named_pieces_are_told_by_name_and_number(threads: int | None) -> None:
    """One after the other or at once, a log names the piece that is worked on and its step, how many of how many are
    done, and how long the rest takes."""
    said, now = io.StringIO(), iter(range(0, 10**6, 20))

    def learned(reporter: Reporter) -> None:
        with reporter.track("training", 2) as advance:
            advance(1)
            advance(1)

    pieces = [Piece("zero-query", seconds=30.0), Piece("mixed", count=2, seconds=60.0)]
    with fixed_threads(1 if threads else 2):
        side_by_side(
            [learned, learned],
            what="learning",
            reporter=Reporter(Console(file=said, width=200), clock=lambda: float(next(now))),
            threads=threads,
            pieces=pieces,
            unit="recipes",
        )
    told = said.getvalue()
    assert "learning (zero-query" in told
    assert "1/3 recipes" in told if threads else "/3 recipes" in told
    assert "3/3 recipes in" in told
    if threads:
        assert "learning (zero-query: training 1/2): 0/3 recipes after" in told
        assert re.search(r"learning \(mixed: training 1/2\): 1/3 recipes, \d+ s per recipe, 0:\d\d:\d\d left", told)
