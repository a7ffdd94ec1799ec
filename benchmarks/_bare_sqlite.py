"""The ledger beside bare SQLite: the same rows written and read, as durable, in as many transactions."""

from __future__ import annotations

import gc
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks._slow_platform import CLASSES
from ttca.answers import Answers
from ttca.errors import TTCAError
from ttca.pooling.booking import Bill, Charge, Settlement, Words
from ttca.pooling.ledger import Ledger
from ttca.pooling.seals import packed

__all__ = ["against_bare"]

#: Queries of one transaction, and of one look-up.
_BATCH = 1000
_BODY_BYTES = 2000
_LOOKUPS = 20
#: Statements, with the rows of each, that make one transaction.
_Transaction: TypeAlias = list[tuple[str, list[Any]]]


def against_bare(queries: int, turns: int, *, of_request: int) -> dict[str, Any]:
    """Return bare SQLite's seconds over the ledger's, medians over turns, in which they take turns.

    Parameters
    ----------
    queries : int
        Rounded up to whole transactions of 1,000.
    turns : int
    of_request : int
        Queries of one request, which has one body of 2 kB.
    """
    rows, lookups, rates = [], [], []
    for turn in range(turns):
        with tempfile.TemporaryDirectory() as name:
            kept, copy = Path(name) / "ledger.sqlite", Path(name) / "bare.sqlite"
            written = _write_ledger(kept, queries, of_request, turn)
            tables, transactions = _written(kept, of_request)
            bare_written = _write_bare(copy, tables, transactions)
            del transactions
            wanted = _some(kept, turn)
            read, bare_read = _timed(kept, copy, wanted)
            rows.append(bare_written / written)
            lookups.append(bare_read / read)
            rates.append([queries / written, queries / bare_written, _BATCH * _LOOKUPS / read])
    per_second = np.median(np.asarray(rates), axis=0)
    return {
        "rows_vs_bare": statistics.median(rows),
        "lookups_vs_bare": statistics.median(lookups),
        "of_each_turn": [rows, lookups],
        "rows_per_s": float(per_second[0]),
        "bare_rows_per_s": float(per_second[1]),
        "lookups_per_s": float(per_second[2]),
        "queries_of_a_request": of_request,
    }


def _write_ledger(path: Path, queries: int, of_request: int, seed: int) -> float:
    """Charge, settle and answer queries as a pool under load does; return the seconds."""
    rng = np.random.default_rng(seed)
    seconds = 0.0
    settlements: list[Settlement] = []
    with Ledger(path) as ledger:
        ledger.enrol({"ada": 2 * queries + _BATCH})
        for start in range(0, queries + _BATCH, _BATCH):
            # The last transaction settles alone.
            keys = [rng.bytes(32) for _ in range(_BATCH)] if start < queries else []
            cut = [keys[i : i + of_request] for i in range(0, len(keys), of_request)]
            bills = [Bill("ada", part, rng.bytes(16).hex(), 1, "pool") for part in cut]
            said = [
                (Answers.from_scores(_scores(rng, len(part))), rng.bytes(_BODY_BYTES // 2).hex().encode())
                for part in cut
            ]
            began = time.perf_counter()
            done = ledger.book(bills, settlements)
            seconds += time.perf_counter() - began
            settlements = []
            began = time.perf_counter()
            for part, charge, (answers, body) in zip(cut, done, said, strict=True):
                if not isinstance(charge, Charge):
                    raise TTCAError(f"Expected every request to be charged, got {charge!r}.")
                settlements.append(Settlement(charge, part, answers, words=Words(None, packed(body))))
            seconds += time.perf_counter() - began
    return seconds


def _scores(rng: np.random.Generator, n: int) -> Any:
    scores = rng.random((n, len(CLASSES)), np.float32)
    return scores / scores.sum(axis=1, keepdims=True)


def _written(path: Path, of_request: int) -> tuple[list[str], list[_Transaction]]:
    """Return how the ledger's tables were made, and all it wrote, as the same transactions of plain rows."""
    with sqlite3.connect(path) as kept:
        made = [s for (s,) in kept.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")]
        requests = kept.execute("SELECT * FROM requests ORDER BY id").fetchall()
        inserts = {}
        for table in ("members", "requests", "attempts", "outcomes", "answers", "bodies"):
            marks = ",".join("?" for _ in kept.execute(f"PRAGMA table_info({table})"))
            inserts[table] = f"INSERT INTO {table} VALUES ({marks})"
        batches: list[_Transaction] = []
        size = _BATCH // of_request
        settled: _Transaction = []
        for i in range(0, len(requests), size):
            first, last = requests[i][0], requests[min(i + size, len(requests)) - 1][0]

            def theirs(table: str, first: int = first, last: int = last) -> list[Any]:
                return kept.execute(f"SELECT * FROM {table} WHERE request BETWEEN ? AND ?", (first, last)).fetchall()

            charged = [(inserts["requests"], requests[i : i + size]), (inserts["attempts"], theirs("attempts"))]
            paid = [("UPDATE members SET charged = charged + ? WHERE id = ?", [(_BATCH, 1)])]
            batches.append([*settled, *paid, *charged])
            settled = [(inserts[table], theirs(table)) for table in ("outcomes", "answers", "bodies")]
        members = [(inserts["members"], kept.execute("SELECT * FROM members").fetchall())]
        return made, [members, *batches, settled]


def _write_bare(path: Path, tables: list[str], transactions: list[_Transaction]) -> float:
    connection = _connected(path)
    for sentence in tables:
        connection.execute(sentence)
    gc.collect()
    began = time.perf_counter()
    for transaction in transactions:
        connection.execute("BEGIN IMMEDIATE")
        for statement, rows in transaction:
            connection.executemany(statement, rows)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    return seconds


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    # The ledger's own.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA secure_delete=ON")
    return connection


def _some(path: Path, seed: int) -> list[list[bytes]]:
    """Return random keys, in batches."""
    with sqlite3.connect(path) as kept:
        keys = [k for (k,) in kept.execute("SELECT key FROM answers")]
    rng = np.random.default_rng(seed)
    return [[keys[i] for i in rng.integers(0, len(keys), _BATCH)] for _ in range(_LOOKUPS)]


def _timed(kept: Path, copy: Path, wanted: list[list[bytes]]) -> tuple[float, float]:
    """Return the seconds in which the ledger, and bare SQLite, find the same answers; both are asked once before."""
    connection = _connected(copy)
    marks = ",".join("?" * _BATCH)
    # What the ledger reads: of an answer also which request it came by, how it was read, and its seal.
    columns = "key, status, label, scores, resolution, request, reading, seal"
    statement = f"SELECT {columns} FROM answers WHERE key IN ({marks})"

    def bare(keys: list[bytes]) -> int:
        return len(connection.execute(statement, keys).fetchall())

    with Ledger(kept) as ledger:

        def ours(keys: list[bytes]) -> int:
            return int(ledger.lookup(keys, classes=len(CLASSES))[0].sum())

        seconds = []
        for find in (ours, bare):
            find(wanted[0])
            seconds.append(_seconds(find, wanted))
    connection.close()
    return seconds[0], seconds[1]


def _seconds(find: Callable[[list[bytes]], int], wanted: list[list[bytes]]) -> float:
    began = time.perf_counter()
    found = sum(map(find, wanted))
    seconds = time.perf_counter() - began
    if not found:
        raise TTCAError("Expected answers that were written to be found, got none.")
    return seconds
