"""Tests of what is never paid again: answers of version 0.1, and answers that are only read otherwise."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.platforms.scripted import METADATA, Exchange, ScriptedServer, scripted
from tests.pooling.scripted import CLASSES, IMAGE_SHAPE, KEYS, ScriptedPlatform, distinct, patient, truth
from ttca.answers import Answers, Status
from ttca.errors import LedgerError, TransportError
from ttca.platforms.http import HttpPlatform, Key
from ttca.platforms.protocols.tensors import Tensor, join_body
from ttca.pooling.booking import Settlement, Words
from ttca.pooling.leases import LeaseDesk
from ttca.pooling.ledger import Ledger
from ttca.pooling.lookup import Reader
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.pooling.seals import LARGEST_BODY

KEPT = Path(__file__).parents[1] / "kept" / "version-0.1" / "ledger.sql"


def pool_on(
    ledger: Ledger, platform: HttpPlatform, *, batch: int = 1, quota: int = 50, action: str | None = None
) -> QueryPool:
    """Return a pool of one patient member."""
    pace = Pace(concurrency=batch, batch=batch, policy=patient())
    return QueryPool(platform, ledger, [Member("ada", quota)], pace=pace, action=action)


# -- answers of version 0.1 -------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Ledger]:
    """Give the ledger that version 0.1 wrote: six images asked at http://localhost:9, and a hub with a lease out."""
    path = tmp_path / "ledger.sqlite"
    path.with_name("ledger.sqlite.key").write_bytes(bytes(range(32)))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(KEPT.read_text(encoding="utf-8"))
    with Ledger(path, clock=lambda: 1_700_000_020.0) as ledger:
        yield ledger


def as_then(**changes: Any) -> HttpPlatform:
    """Return the platform that was asked; where it is now, nobody answers."""
    options: dict[str, Any] = {"refused_labels": ["no face"], "resolution": 0.01, **changes}
    return HttpPlatform(
        "http://localhost:9", classes=CLASSES, protocol="torchserve", model="m", image_shape=IMAGE_SHAPE, **options
    )


def test_what_version_0_1_paid_for_is_found(kept: Ledger) -> None:
    """Every answer of an older ledger is found under today's fingerprint, without a query, also when opened again."""
    for _ in range(2):
        with as_then() as platform, Ledger(kept.target) as ledger:
            pool = pool_on(ledger, platform, quota=20)
            assert pool.cost(distinct(6)).queries == 0
            assert pool.ask(distinct(6)) == truth(distinct(6))
            assert pool.in_hand(distinct(7)).resolved.tolist() == [True] * 6 + [False]
            assert ledger.balances()[0].charged == 8


def test_a_hub_of_version_0_1_goes_on(kept: Ledger) -> None:
    """A lease that is out comes back, and no image of an older hub's is handed out to whom it was handed before."""
    with as_then() as platform:
        desk = LeaseDesk(kept, platform.info)
        assert desk.load(distinct(4, start=100), ["ben"] * 4) == 0
        images = distinct(2, start=102)
        assert desk.take_back("lease-out", "ben", truth(images)) == 2
        assert desk.progress().answered == 4
        assert desk.load(distinct(6), ["ada"] * 6) == 6
        assert desk.progress().answered == desk.progress().inputs == 6
        assert pool_on(kept, platform, quota=20).ask(distinct(4, start=100)) == truth(distinct(4, start=100))


# -- read again -------------------------------------------------------------------------------------------------

Options = dict[str, Any]


def reply_about(exchange: Exchange) -> dict[str, Any]:
    """Return a scripted platform's answer: no face in every third image, numbered by when it comes."""
    number = len(exchange.server.posts)
    if number % 3 == 0:
        return {"found": {"name": "no face", "share": 90}}
    return {"found": {"name": CLASSES[number % 3 - 1], "share": 80}}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Give a platform that says what it found, and counts who asks."""
    with scripted(lambda exchange: exchange.reply(200, json.dumps(reply_about(exchange)).encode())) as running:
        yield running


def template(url: str, **options: Any) -> HttpPlatform:
    """Return the platform, its answers read with these options."""
    given: Options = {"label": "found.name", "image_shape": IMAGE_SHAPE, **options}
    return HttpPlatform(url, classes=given.pop("classes", CLASSES), protocol="template", **given)


def test_a_refusal_that_is_named_later_costs_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    """Answers that could not be read become refusals once refused_labels names them, and no query is sent or paid."""
    images = distinct(6)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with template(server.url) as platform:
            before = pool_on(ledger, platform).ask(images)
        assert before.status.tolist() == [0, 0, Status.FAILED] * 2
        paid, sent = ledger.balances(), len(server.posts)
        with template(server.url, refused_labels=["no face"]) as platform:
            pool = pool_on(ledger, platform)
            assert pool.cost(images).queries == 0
            after = pool.ask(images)
        assert after.status.tolist() == [0, 0, Status.REFUSED] * 2
        assert after.labels.tolist() == [0, 1, -1] * 2
        assert ledger.balances() == paid
        assert len(server.posts) == sent


def test_a_place_that_is_corrected_costs_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    """What a wrong place left unread is read from the right one: every query that was paid for has its answer."""
    images = distinct(3)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with template(server.url, label="wrong") as platform, pytest.raises(TransportError, match="got nothing there"):
            pool_on(ledger, platform).ask(images)
        sent = len(server.posts)
        assert sent == 3
        with template(server.url, refused_labels=["no face"]) as platform:
            assert pool_on(ledger, platform).ask(images).labels.tolist() == [0, 1, -1]
        assert len(server.posts) == sent


def test_an_error_that_was_a_refusal_costs_nothing(tmp_path: Path) -> None:
    """An error's text that ended the asking refuses its image once refused_errors names it."""
    with (
        scripted(lambda e: e.reply(400, b'{"error": "no face found"}')) as server,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        with template(server.url) as platform, pytest.raises(TransportError, match="no face found"):
            pool_on(ledger, platform).ask(distinct(1))
        with template(server.url, refused_errors=["No face"]) as platform:
            assert pool_on(ledger, platform).ask(distinct(1)).status.tolist() == [Status.REFUSED]
        assert len(server.posts) == 1


def test_scores_are_read_as_they_are_meant(server: ScriptedServer, tmp_path: Path) -> None:
    """Labels read before get their scores, in percent, and class names in another order give other numbers."""
    images = distinct(2)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with template(server.url) as platform:
            assert np.isnan(pool_on(ledger, platform).ask(images).scores).all()
        options: Options = {"label": None, "scores": "[found.{label: name, score: share}]", "scores_are": "percent"}
        with template(server.url, classes=("owl", "dog", "cat"), **options) as platform:
            again = pool_on(ledger, platform).ask(images)
        assert again.labels.tolist() == [2, 1]
        assert np.nanmax(again.scores, axis=1).tolist() == pytest.approx([0.8, 0.8])
        with template(server.url) as platform:
            assert pool_on(ledger, platform).ask(images).labels.tolist() == [0, 1]
        assert len(server.posts) == 2


def batch_reply(exchange: Exchange) -> None:
    """Answer a batch of a list of images, in percent."""
    n = len(json.loads(exchange.body)["images"])
    exchange.reply(200, json.dumps({"all": [[10 + i, 80 - i, 10] for i in range(n)]}).encode())


def batches(url: str, **options: Any) -> HttpPlatform:
    """Return a platform that takes several images a request."""
    given: Options = {"send": "json", "body": {"images": "{images}"}, "results": "all", "image_shape": IMAGE_SHAPE}
    return HttpPlatform(url, classes=CLASSES, protocol="template", **given, **options)


def test_a_batch_is_read_again_image_by_image(tmp_path: Path) -> None:
    """One body about four images gives each image its own answer."""
    images = distinct(4)
    with scripted(batch_reply) as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        with batches(server.url, scores_are="logits") as platform:
            pool_on(ledger, platform, batch=4).ask(images)
        with batches(server.url, scores_are="percent") as platform:
            again = pool_on(ledger, platform, batch=4).ask(images[::-1])
        assert again.scores[:, 0].tolist() == pytest.approx([0.13, 0.12, 0.11, 0.1])
        assert len(server.posts) == 1


def test_binary_answers_are_read_again(tmp_path: Path) -> None:
    """KServe V2's binary form, which no body tells without its header, is read again too."""
    metadata = METADATA | {"inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, *IMAGE_SHAPE]}]}

    def reply(exchange: Exchange) -> None:
        scores = np.array([[20.0, 70.0, 10.0]], np.float32)
        body, headers = join_body({"model_name": "m"}, "outputs", [Tensor("p", "FP32", scores)], binary=True)
        exchange.reply(200, body, headers)

    def on(url: str, **options: Any) -> HttpPlatform:
        return HttpPlatform(url, classes=CLASSES, model="m", **options)

    with scripted(reply, metadata=metadata) as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        with on(server.url, scores_are="logits") as platform:
            pool_on(ledger, platform).ask(distinct(1))
        with on(server.url, scores_are="percent") as platform:
            again = pool_on(ledger, platform).ask(distinct(1))
        assert again.scores.tolist() == [pytest.approx([0.2, 0.7, 0.1])]
        assert len(server.posts) == 1


def bodies_in(path: Path) -> list[bytes]:
    """Return the bodies that a ledger's file holds, unpacked."""
    with closing(sqlite3.connect(path)) as connection:
        return [zlib.decompress(body[8:]) for (body,) in connection.execute("SELECT body FROM bodies")]


def test_no_key_is_kept_with_a_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that a platform echoes is not in the ledger, neither with an answer nor with what could not be read."""
    monkeypatch.setenv("TTCA_KEY_ECHO", "a-very-secret-key")
    path = tmp_path / "ledger.sqlite"

    def reply(exchange: Exchange) -> None:
        said = reply_about(exchange) | {"asked_with": exchange.headers["Authorization"]}
        exchange.reply(200, json.dumps(said).encode())

    with scripted(reply) as server, Ledger(path) as ledger:
        key = Key(variable="TTCA_KEY_ECHO")
        with template(server.url, key=key) as platform:
            pool_on(ledger, platform).ask(distinct(3))
        ledger.close()
        bodies = bodies_in(path)
    assert len(bodies) == 3
    assert not any(b"secret" in body for body in bodies)
    assert all(b"Bearer *****************" in body for body in bodies)


def test_who_is_forgotten_leaves_no_body(tmp_path: Path) -> None:
    """The body of a batch goes with one of those it speaks of; the others keep the answers that were read from it."""
    path, images = tmp_path / "ledger.sqlite", distinct(4)
    with scripted(batch_reply) as server, Ledger(path) as ledger, batches(server.url, scores_are="percent") as platform:
        pool = pool_on(ledger, platform, batch=2)
        said = pool.ask(images, owners=["ada", "eve", "ada", "ada"])
        ledger.forget("eve")
        assert pool.in_hand(images).resolved.tolist() == [True, False, True, True]
        assert pool.in_hand(images[2:]) == said[2:]
        ledger.close()
        assert len(bodies_in(path)) == 1


def test_who_is_forgotten_in_flight_leaves_no_body(tmp_path: Path) -> None:
    """A member who is forgotten while the platform answers leaves neither an answer nor its words, good or unread."""
    path = tmp_path / "ledger.sqlite"
    ledgers: list[Ledger] = []

    def reply(exchange: Exchange) -> None:
        ledgers[0].forget("eve" if len(exchange.server.posts) == 1 else "fay")
        exchange.reply(200, json.dumps({"found": {"name": ["cat", "no cat"][len(exchange.server.posts) - 1]}}).encode())

    with scripted(reply) as server, Ledger(path) as ledger, template(server.url) as platform:
        ledgers.append(ledger)
        pool = pool_on(ledger, platform)
        pool.ask(distinct(2), owners=["eve", "fay"])
        ledger.close()
        assert bodies_in(path) == []
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT COUNT(*) FROM unread").fetchone() == (0,)


def long_reply(exchange: Exchange) -> None:
    """Answer with more than is kept."""
    exchange.reply(200, json.dumps({"found": {"name": "dog"}, "noise": "x" * LARGEST_BODY}).encode())


def test_a_long_body_is_not_kept_and_its_answer_is(tmp_path: Path) -> None:
    """What was read of a body too long to keep stands as it was read; read otherwise, its image must be asked again.

    Both answers are then found, each by who reads it so.
    """
    images = distinct(2)
    with scripted(long_reply) as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        for resolution, sent in ((0.0, 2), (0.1, 4), (0.0, 4), (0.1, 4)):
            with template(server.url, resolution=resolution) as platform:
                pool = pool_on(ledger, platform)
                pool.accept_new_version = True
                assert pool.cost(images).queries == (0 if len(server.posts) == sent else 2)
                assert pool.ask(images).labels.tolist() == [1, 1]
                assert len(server.posts) == sent


def test_what_was_read_otherwise_may_be_about_other_classes(tmp_path: Path) -> None:
    """An answer with scores of three classes, read otherwise and without a body, is none of a reader of two."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.enrol({"ada": 2})
        charge = ledger.charge("ada", KEYS[:1], request_id="r", number=1, purpose="pool")
        scores = Answers.from_scores(np.array([[0.2, 0.5, 0.3]]))
        ledger.book([], [Settlement(charge, KEYS[:1], scores, words=Words(b"otherway"))])
        found = ledger.find(KEYS[:2], classes=2, reader=Reader(b"this way"))
        assert (found.known.tolist(), found.readings) == ([False, False], [b"otherway", None])
        with pytest.raises(LedgerError, match="scores of 3 classes"):
            ledger.find(KEYS[:1], classes=2, reader=Reader(b"otherway"))


def test_more_queries_are_looked_up_than_one_statement_takes(tmp_path: Path) -> None:
    """Of 10,070 queries, in any order and some of them twice, those with an answer get their own."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.enrol({"ada": 100})
        keys = [bytes([i]) * 32 for i in range(70)]
        charge = ledger.charge("ada", keys, request_id="r", number=1, purpose="pool")
        ledger.settle(charge, keys, Answers.from_labels(np.arange(70) % 3, 3))
        strangers = [i.to_bytes(32, "big") for i in range(1, 10_001)]
        asked = [*keys[::-1], *strangers, *keys[:5]]
        known, answers = ledger.lookup(asked, classes=3)
        assert np.flatnonzero(known).tolist() == [*range(70), *range(10_070, 10_075)]
        assert answers.labels[known].tolist() == [*(i % 3 for i in range(69, -1, -1)), 0, 1, 2, 0, 1]
        assert not answers.resolved[~known].any()


@pytest.mark.parametrize("where", ["body", "seal"])
def test_words_that_were_changed_are_not_read(where: str, server: ScriptedServer, tmp_path: Path) -> None:
    """A bit that flipped in a body, or in its checksum, is named before anything is read from it."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, template(server.url) as platform:
        pool_on(ledger, platform).ask(distinct(1))
    with closing(sqlite3.connect(path)) as connection, connection:
        (body,) = connection.execute("SELECT body FROM bodies").fetchone()
        place = 0 if where == "seal" else len(body) - 6
        changed = body[:place] + bytes([body[place] ^ 4]) + body[place + 1 :]
        connection.execute("UPDATE bodies SET body = ?", (changed,))
    changed_since = pytest.raises(LedgerError, match="got what the platform said that was changed since")
    with Ledger(path) as ledger, template(server.url, resolution=0.1) as platform, changed_since:
        pool_on(ledger, platform).ask(distinct(1))


def test_a_platform_without_bodies_works_as_ever(tmp_path: Path) -> None:
    """A guest's platform hands no body on, keeps its fingerprint, and its answers are found as they were read."""
    platform = ScriptedPlatform()
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        pool = QueryPool(platform, ledger, [Member("ada", 9)])
        assert pool.ask(distinct(3)) == pool.ask(distinct(3)) == truth(distinct(3))
        ledger.close()
        assert bodies_in(path) == []
    assert platform.queries == 3
