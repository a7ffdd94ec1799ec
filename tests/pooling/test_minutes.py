"""Tests of minutes and consents in the ledger, on both kinds of database."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.pooling.places import BACKENDS, fresh_ledger, use
from ttca.errors import LedgerError
from ttca.pooling import schema
from ttca.pooling.consent import CONSENT, agree, consents, words
from ttca.pooling.minutes import Minutes

FACES = [bytes([i]) * 32 for i in range(4)]


@pytest.fixture(params=BACKENDS, scope="module", autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test on both kinds of database."""
    with use(request.param):
        yield


def test_who_is_forgotten_leaves_the_seat_and_not_what_came_of_it() -> None:
    """The seat is empty, all others and the minutes are as they were, and nobody is seated twice."""
    with fresh_ledger() as ledger:
        minutes, other = Minutes(ledger, "one"), Minutes(ledger, "two")
        assert (minutes.seats(), minutes.read()) == ({}, {})
        sides = {"subgroup": (FACES[:3], ["ada", "ben", "ada"]), "reference": (FACES[3:], ["ben"])}
        minutes.seat(sides)
        minutes.seat({"subgroup": (FACES[::-1], ["eve"] * 4)})
        other.seat({"subgroup": (FACES[:1], ["ben"])})
        minutes.write("8", 0, "10")
        minutes.write("8", 2, "?")
        minutes.write("reference", 0, "1")
        ledger.forget("ada")
        assert minutes.seats() == {"subgroup": [b"", FACES[1], b""], "reference": FACES[3:]}
        assert minutes.read() == {"8": "10?", "reference": "1"}
        assert (other.seats(), other.read()) == ({"subgroup": FACES[:1]}, {})


def test_minutes_that_were_changed_are_refused() -> None:
    """Another character, another condition or another sitting's row is not what was sealed."""
    changes = {"said": "11"}, {"condition": "16"}, {"epoch": "two"}
    for change in changes:
        with fresh_ledger() as ledger:
            Minutes(ledger, "one").write("8", 0, "10")
            edited = partial(sa.Connection.execute, statement=sa.update(schema.minutes).values(change))
            ledger.database.run(edited, write=True)
            with pytest.raises(LedgerError, match="Expected the minutes"):
                Minutes(ledger, change.get("epoch", "one")).read()


@examples(30)
@given(st.lists(st.tuples(st.integers(0, 6), st.text("10?", min_size=1, max_size=4)), max_size=6))
def test_minutes_hold_the_last_that_was_written_of_every_seat(written: list[tuple[int, str]]) -> None:
    """In whatever order seats are written, each holds its last character, and those never written are unknown."""
    with fresh_ledger() as ledger:
        minutes = Minutes(ledger, "one")
        expected: dict[int, str] = {}
        for start, said in written:
            minutes.write("8", start, said)
            expected |= {start + i: c for i, c in enumerate(said)}
        whole = "".join(expected.get(i, "?") for i in range(max(expected, default=-1) + 1))
        assert minutes.read().get("8", "") == whole


def test_the_page_shows_the_words_that_are_agreed_to() -> None:
    """docs/consent.md and the command say the same."""
    page = (Path(__file__).parents[2] / "docs" / "consent.md").read_text(encoding="utf-8")
    assert f"```text\n{CONSENT.rstrip()}\n```" in page


def test_a_consent_stands_until_the_member_is_forgotten() -> None:
    """It is written once for the same words, anew for others, and withdrawn for all actions with the member's name."""
    times = iter([100.0, 200.0, 300.0, 400.0, 500.0])
    one, two = (words(action=a, subgroup="us", url="http://127.0.0.1:1") for a in ("one", "two"))
    with fresh_ledger(clock=lambda: next(times)) as ledger:
        first = agree(ledger, " Zoe\u0308", action="one", text=one)
        assert (first.member, first.agreed_at, first.withdrawn_at) == ("Zo\u00eb", 100.0, None)
        assert agree(ledger, "Zo\u00eb", action="one", text=one) == first
        agree(ledger, "Zo\u00eb", action="two", text=two)
        agree(ledger, "ben", action="one", text=one)
        alias = ledger.forget("Zo\u00eb").alias
        mine, bens = consents(ledger, action="one")
        assert (mine.member, mine.agreed_at, mine.withdrawn_at, mine.text) == (alias, 100.0, 400.0, one)
        assert mine.told == f"{alias} since 1970-01-01 00:01 UTC, withdrawn 1970-01-01 00:06 UTC"
        assert bens.withdrawn_at is None
        assert [c.withdrawn_at for c in consents(ledger, action="two")] == [400.0]
        assert agree(ledger, "Zo\u00eb", action="one", text=one).agreed_at == 500.0
