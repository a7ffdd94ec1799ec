"""Tests of heads: what was signed before verification still verifies, whoever is forgotten, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.test_sitting import EVES, forget, with_eve, without
from tests.worlds import Recorder, open_action
from ttca.answers import Answers
from ttca.errors import ChargeState, LedgerError
from ttca.heads import HEADS_FILE, Head, read_heads, sign_head
from ttca.pooling.booking import Bill
from ttca.pooling.chain import chain_start, extend, links_of
from ttca.pooling.ledger import Ledger
from ttca.pooling.schema import SCHEMA_VERSION
from ttca.signing import CollectiveKey

ACTION = "tiny"


def head_of(ledger: Ledger, action: str, rows: int) -> str:
    """Compute a head from the commitments alone, as anybody would."""
    head = chain_start(action)
    for link in links_of(ledger, action)[:rows]:
        head = hashlib.sha256(head + link.commitment).digest()
    return head.hex()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a verified action, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    with open_action(folder, Recorder(), roster=with_eve()) as action:
        action.verify()
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the verified action."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_heads_are_signed_before_the_first_question_and_after_the_last(folder: Path) -> None:
    """The first fixes no verification query, yet every seat and what it will be asked; the second fixes them all."""
    before, after = read_heads(folder)
    with Ledger(folder / "ledger.sqlite") as ledger:
        rows = [json.loads(link.content or "{}") for link in links_of(ledger, before.action)]
        assert [head_of(ledger, h.action, h.rows) for h in (before, after)] == [before.head, after.head]
    kinds = [row.get("purpose", row["row"]) for row in rows]
    late = {"baseline", "verification"}
    assert (before.moment, after.moment, after.rows) == ("before verification", "after verification", len(rows))
    assert not late & set(kinds[: before.rows])
    assert set(kinds[before.rows :]) == late
    assert kinds[: before.rows].count("seat") == 160
    assert "terms" in kinds
    named = {name for row in rows if row["row"] == "seat" for name in row["asks"].values()}
    assert {row["query"] for row in rows[before.rows :]} <= named
    signature = CollectiveKey.open_or_make(folder).signature_of(before.signed_text.encode(), "head")
    assert before.signature == signature
    assert before.head in before.told
    assert "before the first verification query" in before.told


def test_a_head_is_signed_once(folder: Path) -> None:
    """Whoever runs the action again gets neither another head nor another row."""
    kept = (folder / HEADS_FILE).read_bytes()
    with open_action(folder, Recorder(), roster=with_eve()) as action:
        action.verify()
    assert (folder / HEADS_FILE).read_bytes() == kept


def test_no_head_claims_to_be_from_before_what_was_asked_already(folder: Path) -> None:
    """Where verification began without one, none is signed later."""
    (folder / HEADS_FILE).unlink()
    (folder / "certificate.json").unlink()
    (folder / "certificate.json.sig").unlink()
    with open_action(folder, Recorder(), roster=with_eve()) as action:
        action.verify()
    assert read_heads(folder) == []


def test_whoever_is_forgotten_takes_rows_and_salts_along_and_every_head_still_verifies(folder: Path) -> None:
    """Neither content nor salt is left, not in the file's pages either; what was paid is chained anew, without a name.

    Before, nothing was chained; a chain over bare rows would break here.
    """
    with Ledger(folder / "ledger.sqlite") as ledger:
        (name,) = {h.action for h in read_heads(folder)}
        whole = links_of(ledger, name)
    forget(folder)
    content = b"".join(path.read_bytes() for path in folder.glob("ledger.sqlite*"))
    with Ledger(folder / "ledger.sqlite") as ledger:
        left = links_of(ledger, name)
        heads = [(h.head, head_of(ledger, name, h.rows)) for h in read_heads(folder)]
        rows, _ = extend(ledger, name)
        added = [json.loads(link.content or "") for link in links_of(ledger, name)[len(left) :]]
        again = extend(ledger, name)
    sealed = [i for i, link in enumerate(left) if link.content is None]
    assert all(signed == found for signed, found in heads)
    assert [link.commitment for link in left] == [link.commitment for link in whole]
    # Three seats, and what was asked about each of them.
    asked = sum(json.loads(whole[i].content or "")["row"] == "query" for i in sealed)
    assert len(sealed) - asked == len(EVES)
    assert asked >= len(EVES)
    assert not any((whole[i].salt or b"?") in content or (whole[i].content or "?").encode() in content for i in sealed)
    assert len(added) == asked == rows - len(left)
    assert all(row["forgotten"] and "answer" not in row for row in added)
    assert again[0] == rows
    with open_action(folder, Recorder(), roster=without(with_eve(), *EVES)) as action:
        action.verify()


@pytest.mark.parametrize("statement", [
    "UPDATE links SET content = replace(content, '\"class\":1', '\"class\":2') WHERE content LIKE '%\"class\":1%'",
    "DELETE FROM links WHERE number = 3",
    "UPDATE links SET salt = NULL WHERE number = 3",
    "UPDATE links SET commitment = zeroblob(32) WHERE number = 3",
])  # fmt: skip
def test_an_edited_row_is_noticed(statement: str, folder: Path) -> None:
    """No head is signed over rows that are not what was committed to."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection, connection:
        assert connection.execute(statement).rowcount
    with Ledger(folder / "ledger.sqlite") as ledger, pytest.raises(LedgerError, match="Somebody edited the ledger"):
        sign_head(folder, ledger, read_heads(folder)[0].action, "export", epoch="")


def test_what_settles_after_a_head_is_chained_once_more(tmp_path: Path) -> None:
    """A query in flight is a row of its own, and so is what became of it; the later row says how it ended."""
    with Ledger(tmp_path / "ledger.sqlite", clock=lambda: 1.0) as ledger:
        ledger.enrol({"ada": 10})
        key = bytes(32)
        (charge,) = ledger.book([Bill("ada", [key], "r", 1, "pool", ACTION, ["ada"])], [])
        assert extend(ledger, ACTION)[0] == 1
        ledger.settle(charge, [key], Answers.from_labels(np.array([2]), 3))  # type: ignore[arg-type]
        assert extend(ledger, ACTION)[0] == 2 == extend(ledger, ACTION)[0]
        first, last = (json.loads(link.content or "") for link in links_of(ledger, ACTION))
    assert (first["outcome"], first["answer"]) == (ChargeState.UNKNOWN.value, None)
    assert (last["outcome"], last["answer"], last["attempt"]) == ("answered", [0, 2], first["attempt"])


def test_a_ledger_of_the_version_before_gets_a_chain(tmp_path: Path) -> None:
    """It is brought up to date when it is opened, and what it holds is chained with the first head."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.enrol({"ada": 10})
        ledger.charge("ada", [bytes(32)], request_id="r", number=1, purpose="pool")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE links")
        connection.execute("UPDATE meta SET value = '5' WHERE name = 'schema'")
    with Ledger(path) as ledger:
        assert extend(ledger, ACTION)[0] == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() == (str(SCHEMA_VERSION),)


def test_heads_are_read_back_or_refused(tmp_path: Path) -> None:
    """What cannot be read is a sentence."""
    assert read_heads(tmp_path) == []
    head = Head(moment="export", action=ACTION, epoch="", rows=0, head="0" * 64, at="2026-01-01T00:00:00+00:00")
    assert "key" not in json.loads(head.signed_text)
    (tmp_path / HEADS_FILE).write_text('{"format": "ttca-heads-1", "heads": [{"rows": 1}]}')
    with pytest.raises(Exception, match="Expected signed heads"):
        read_heads(tmp_path)
