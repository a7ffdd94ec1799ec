"""Tests of progress: it says what goes on where it was told to, and is silent elsewhere."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ttca.progress import Reporter, _rate, silent


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def listening(*, terminal: bool = False, clock: Clock | None = None) -> tuple[Reporter, io.StringIO]:
    """Return a reporter and what it will have said."""
    said = io.StringIO()
    console = Console(file=said, width=200, force_terminal=terminal, color_system=None, legacy_windows=False)
    return (Reporter(console) if clock is None else Reporter(console, clock=clock)), said


def test_silence_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a console, sentences and bars go nowhere."""
    silent.say("Hello.")
    with silent.track("walking", 3) as advance:
        advance(1)
    assert capfd.readouterr() == ("", "")


def test_a_bar_says_what_is_done_and_how_much(capfd: pytest.CaptureFixture[str]) -> None:
    """A bar names the work and the count reached, on its own console only."""
    reporter, said = listening()
    with reporter.track("asking (pool)", 7, unit="queries") as advance:
        advance(3)
        advance(4)
    assert "asking (pool)" in said.getvalue()
    assert "7/7" in said.getvalue()
    assert capfd.readouterr() == ("", "")


def test_a_bar_says_its_rate_in_its_unit() -> None:
    """Once something was done, the bar gives a rate with the unit it was given."""
    reporter, said = listening(terminal=True)
    with reporter.track("asking", 1000, unit="queries") as advance:
        for _ in range(20):
            advance(50)
    assert "queries/s" in said.getvalue()


def test_a_log_gets_a_line_now_and_then() -> None:
    """Where there is no terminal, work that takes long is told in lines with count, rate and what is left: after ten
    seconds, and later more rarely; the last line says what it took."""
    clock = Clock()
    reporter, said = listening(clock=clock)
    with reporter.track("asking", 1000, unit="queries") as advance:
        for _ in range(1000):
            clock.now += 1
            advance(1)
    lines = said.getvalue().splitlines()
    assert lines[0] == "asking: 10/1000 queries, 1 queries/s, 0:16:30 left"
    assert lines[-1] == "asking: 1000/1000 queries in 0:16:40"
    assert 10 < len(lines) < 40
    assert len(set(lines)) == len(lines)


def test_no_number_is_cut_in_a_narrow_terminal() -> None:
    """Where there is no room for all, the name is cut: count, rate and rest are whole."""
    said, clock = io.StringIO(), Clock()
    console = Console(file=said, width=60, force_terminal=True, color_system=None, legacy_windows=False)
    with Reporter(console, clock=clock).track("learning the recipes of everybody", 8, unit="recipes") as advance:
        clock.now += 90
        advance(1, now="published-true-first, half 2: distilling the proxy 23/40")
    last = [line for line in said.getvalue().splitlines() if "1/8" in line][-1]
    assert re.search(r"learning .*… .* 1/8 90 s per recipe 0:10:30", last)


@pytest.mark.parametrize("terminal", [False, True])
def test_slow_pieces_that_are_unlike_have_a_rest(terminal: bool) -> None:
    """Pieces that take minutes each are told with their rate and the rest, by the share of the work that they are; what
    goes on now is named."""
    clock = Clock()
    reporter, said = listening(terminal=terminal, clock=clock)
    with reporter.track("learning", 4, unit="recipes") as advance:
        clock.now += 60
        advance(0, now="mixed: steps 3/9")
        clock.now += 60
        advance(1, share=0.5, now="plain")
    shown = said.getvalue()
    assert terminal or "learning (mixed: steps 3/9): 0/4 recipes after 0:01:00" in shown
    for word in ("learning (plain)", "1/4", "120 s per recipe", "0:02:00"):
        assert word in shown


@pytest.mark.parametrize(
    ("speed", "unit", "said"),
    [
        (12.4, "steps", "12 steps/s"),
        (1.52, "epochs", "1.5 epochs/s"),
        (0.4, "epochs", "2.5 s per epoch"),
        (0.01, "queries", "100 s per query"),
    ],
)
def test_what_is_slow_says_how_long_one_takes(speed: float, unit: str, said: str) -> None:
    """Nobody learns anything from nothing a second."""
    assert _rate(speed, unit) == said


def test_threads_may_advance_one_bar() -> None:
    """No step is lost when many threads advance at once."""
    reporter, said = listening()
    with reporter.track("asking", 800) as advance, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: advance(1), range(800)))
    assert "800/800" in said.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_tracked_within_work_of_the_same_unit_counts_there(terminal: bool) -> None:
    """Many calls are one bar, which ends where they do; other units have bars of their own, and nothing is not told."""
    reporter, said = listening(terminal=terminal)
    with reporter.track("asking people who verify", 90, unit="queries", at_most=True):
        for _ in range(4):
            with reporter.track("asking (verification)", 10, unit="queries") as advance:
                advance(10)
    with reporter.track("asking (test)", 9, unit="queries", at_most=True):
        pass
    shown = said.getvalue()
    assert "40/40" in shown
    assert "asking (verification)" not in shown
    assert "asking (test)" not in shown
    assert terminal or re.fullmatch(r"asking people who verify: 40/40 queries in 0:00:0\d\n", shown)


def test_work_that_fails_says_how_far_it_was() -> None:
    """Where an error ends work that may be less than its total, the total is told, and what follows has its own bar."""
    reporter, said = listening()

    def work() -> None:
        with reporter.track("asking", 9, unit="queries", at_most=True) as advance:
            advance(3)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        work()
    assert said.getvalue().startswith("asking: 3/9 queries")
    with reporter.track("asking again", 2, unit="queries") as advance:
        advance(2)
    assert "asking again: 2/2" in said.getvalue()


def test_one_bar_may_follow_another() -> None:
    """A bar that ended, even by an error, leaves room for the next."""
    reporter, said = listening()
    with pytest.raises(ValueError, match="no"), reporter.track("first", 2):
        raise ValueError("no")
    with reporter.track("second", 2) as advance:
        advance(2)
    assert "2/2" in said.getvalue()


@given(st.text(st.sampled_from("[]/ab\\="), max_size=12))
def test_what_is_said_is_printed_as_it_is(words: str) -> None:
    """A sentence or a bar's name with brackets, as a path may have, is printed letter by letter."""
    reporter, said = listening()
    reporter.say(f"<{words}>")
    assert said.getvalue() == f"<{words}>\n"
    with reporter.track(f"<{words}>", 1) as advance:
        advance(1)
    assert said.getvalue().splitlines()[-1].startswith(f"<{words}>: 1/1 ")
