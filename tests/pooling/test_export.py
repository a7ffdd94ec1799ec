"""Books in a file: whoever reads them learns what was paid and by how many, and nobody's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pooling.places import BACKENDS, fresh_ledger, use
from tests.pooling.scripted import KEYS, labels, pay
from ttca.answers import Answers
from ttca.errors import ChargeState, LedgerError
from ttca.pooling.export import export_books, read_books, to_text
from ttca.pooling.ledger import Ledger


def written(ledger: Ledger) -> None:
    """Let two members pay in all the ways there are."""
    ledger.enrol({"zoe": 50, "ada": 50})
    ledger.settle(pay(ledger, KEYS[:2]), KEYS[:2], labels(0, 1))
    for member, n, state in (("zoe", 3, ChargeState.REFUNDED), ("ada", 2, ChargeState.CHARGED), ("zoe", 1, None)):
        charge = ledger.charge(member, KEYS[:n], request_id=member, number=1, purpose="verification")
        if state is not None:
            ledger.abandon(charge, state, detail="ada's picture was refused")
    half = Answers.concatenate([labels(2), Answers.failed(1, 3)], classes=3)
    ledger.settle(ledger.charge("ada", KEYS[2:4], request_id="r", number=1, purpose="pool"), KEYS[2:4], half)


@pytest.mark.parametrize("backend", BACKENDS)
def test_books_add_up_and_name_nobody(backend: str, tmp_path: Path) -> None:
    """What is exported is what the ledger says, read back whole, without a name, a key or a note."""
    with use(backend), fresh_ledger() as ledger:
        written(ledger)
        text = to_text(export_books(ledger, "ours"))
        named = export_books(ledger, "ours", names=True)
        balances = ledger.balances()
    # As some editors save it, with a byte-order mark.
    (tmp_path / "books.json").write_text(text, encoding="utf-8-sig")
    read = read_books(tmp_path / "books.json")
    assert read.charged == sum(b.charged for b in balances) == 7
    assert sorted(named.members, key=lambda b: b.member) == balances
    numbers = [b.charged for b in read.members]
    assert sorted(numbers) == sorted(b.charged for b in balances)
    assert {b.member for b in read.members} == {"member 1", "member 2"}
    for secret in ("ada", "zoe", "picture", *(k.hex() for k in KEYS)):
        assert secret not in text
    assert sum(sum(r.get(e, 0) for e in ("answered", "unusable", "unknown")) for r in read.requests) == 7


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    """Return what an export says."""
    with fresh_ledger() as ledger:
        written(ledger)
        books: dict[str, Any] = json.loads(to_text(export_books(ledger, "ours")))
    return books


@given(data=st.data())
def test_books_that_do_not_add_up_are_refused(data: st.DataObject, said: dict[str, Any]) -> None:
    """Any number of any member or request that is changed, or left out, makes a sentence."""
    from tempfile import TemporaryDirectory

    books = json.loads(json.dumps(said))
    rows = books["members"] + books["requests"]
    row = data.draw(st.sampled_from(rows))
    names = sorted(set(row) - {"quota", "at", "purpose"})
    name = data.draw(st.sampled_from(names))
    wrong: Any = data.draw(st.sampled_from([None, -1, 0, 1, 2, 3, 99, "member 1", "member 3", [], 0.5]))
    if row[name] == wrong or (row in books["requests"] and wrong == 0 == row[name]):
        return
    row[name] = wrong
    with TemporaryDirectory() as folder:
        path = Path(folder) / "books.json"
        path.write_text(json.dumps(books))
        with pytest.raises(LedgerError, match="Expected"):
            read_books(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "ttca-books-2"}', '{"format": "ttca-books-1"}', "[" * 10000]
)
def test_what_is_no_export_is_a_sentence(text: str, tmp_path: Path) -> None:
    """A file that is something else is refused with what was expected."""
    (tmp_path / "books.json").write_text(text)
    with pytest.raises(LedgerError, match="Expected books in the format ttca-books-1"):
        read_books(tmp_path / "books.json")
