"""Tests of the chain on both databases: rows are added once, and whoever is forgotten leaves commitments alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.pooling.places import BACKENDS, fresh_ledger, use
from ttca.answers import Answers
from ttca.pooling.booking import Bill, Charge, Settlement
from ttca.pooling.chain import Fact, extend, links_of, payers
from ttca.pooling.ledger import Ledger


@pytest.fixture(params=BACKENDS)
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """Return an empty ledger with two members."""
    with use(request.param), fresh_ledger() as made:
        made.enrol({"ada": 10, "ben": 10})
        yield made


def ask(ledger: Ledger, payer: str, owner: str, number: int) -> bytes:
    """Book and answer one query about an owner's image."""
    key = bytes([number]) * 32
    (charge,) = ledger.book([Bill(payer, [key], f"r{number}", 1, "pool", "first", [owner])], [])
    assert isinstance(charge, Charge)
    ledger.book([], [Settlement(charge, [key], Answers.from_labels(np.array([1]), 3), None)])
    return key


def test_who_is_forgotten_leaves_commitments_and_nothing_else(ledger: Ledger) -> None:
    """Rows about others stay open, also where the forgotten one paid; what was paid is chained anew, once."""
    for number, (payer, owner) in enumerate([("ada", "ben"), ("ben", "ada"), ("ben", "ben")]):
        ask(ledger, payer, owner, number)
    fact = Fact({"row": "seat", "seat": 0}, owner="ada")
    count, head = extend(ledger, "first", [fact])
    assert (count, head) == extend(ledger, "first", [fact])
    before = links_of(ledger, "first")
    ledger.forget("ada")
    after = links_of(ledger, "first")
    assert [link.commitment for link in after] == [link.commitment for link in before]
    assert [link.content is None for link in after] == [True, False, True, False]
    assert [link.salt is None for link in after] == [True, False, True, False]
    assert extend(ledger, "first")[0] == 5 == extend(ledger, "first")[0]
    paid, gone = payers(ledger, "first")
    assert sorted(name in gone for name in paid.values()) == [False, False, True]
    assert "ada" not in paid.values()


def test_every_action_has_a_chain_of_its_own(ledger: Ledger) -> None:
    """On a ledger that several share, each sees its own rows, and another head."""
    ask(ledger, "ada", "ada", 1)
    assert extend(ledger, "first")[0] == 1
    count, head = extend(ledger, "second")
    assert count == 0
    assert head != extend(ledger, "third")[1]
