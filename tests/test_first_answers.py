"""Tests of `ttca ask`, of what a wrong table costs, and of prices: an API that nobody knows, over real HTTP."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests import worlds
from tests.test_cli import Terminal, people, ttca
from ttca.config import PlatformSection, read_action
from ttca.errors import ConfigError
from ttca.first_answers import shown_answer
from ttca.platforms.server import background_app, background_server
from ttca.prices import Price
from ttca.terminal import visible

__all__ = ["people", "ttca"]

KEY = "sk-2/9f+Qz=71aa"
RIGHT = 'scores = "result.items[*].{label: name, score: score}"'


class Api:
    """An API of its own making around the tiny world's model."""

    def __init__(self) -> None:
        self.asked = 0
        self.say: Callable[[dict[str, float]], Any] = said_plainly
        self.url = ""

    async def answer(self, request: Request) -> Response:
        """Answer one PNG."""
        self.asked += 1
        with Image.open(io.BytesIO(await request.body())) as image:
            scores = worlds.model(np.asarray(image.convert("RGB"))[None])[0]
        return JSONResponse(self.say(dict(zip(worlds.CLASSES, scores.tolist(), strict=True))))


def said_plainly(scores: dict[str, float]) -> Any:
    """Return names and numbers, the best first, somewhere inside."""
    best = sorted(scores.items(), key=lambda item: -item[1])
    return {
        "id": "\x1b[2J",
        "result": {"items": [{"name": name, "score": score, "box": [0, 8]} for name, score in best]},
    }


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    """Serve the API."""
    api = Api()
    with background_app(Starlette(routes=[Route("/look", api.answer, methods=["POST"])])) as url:  # type: ignore[arg-type]
        api.url = url
        yield api


@pytest.fixture
def api(served: Api) -> Api:
    """Return the API, not asked yet."""
    served.asked, served.say = 0, said_plainly
    return served


@pytest.fixture
def home(tmp_path: Path, people: Path, api: Api) -> Path:
    """Return the folder of an action whose table is right."""
    shutil.copytree(people, tmp_path / "mine" / "people")
    return table(tmp_path / "mine", api, RIGHT)


def table(home: Path, api: Api, places: str, *, platform: str = "") -> Path:
    """Write an action file that looks for answers at these places."""
    listed = ", ".join(f'"{name}"' for name in worlds.CLASSES)
    text = worlds.action_file(api.url)
    old = text[text.index("[platform]") : text.index("[people]")]
    new = (
        f'[platform]\nurl = "{api.url}"\nprotocol = "template"\nclasses = [{listed}]\n{platform}\n'
        f'[platform.options]\npath = "look"\nsend = "png"\nimage_shape = [8, 8, 3]\n{places}\n\n'
    )
    (home / "action.toml").write_text(text.replace(old, new))
    return home


def charged(home: Path) -> int:
    """Return the queries that the ledger says were charged."""
    connection = sqlite3.connect(home / "ledger.sqlite")
    try:
        return int(connection.execute("SELECT sum(charged) FROM members").fetchone()[0])
    finally:
        connection.close()


def pictures(home: Path, n: int) -> list[Path]:
    """Return files of pool people."""
    return sorted((home / "people" / "images").glob("*.png"))[:n]


# -- ask --------------------------------------------------------------------------------------------------------


def test_ask_prepares_a_photograph_as_a_run_does_and_says_so(home: Path, ttca: Terminal, api: Api) -> None:
    """A large turned photograph goes out as the pool's would, so that the pool need not pay for it again."""
    file = home / "action.toml"
    way = 'preparation = {fit = "crop", size = 8, filter = "area-lanczos", color = "sRGB"}'
    file.write_text(file.read_text().replace('source = "people"\n', f'source = "people"\n{way}\n'))
    mine = next(one.path for one in read_action(home).list_files("people") if one.path.name.endswith("000000.png"))
    picture = Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(mine, exif=exif)
    done = ttca("ask", home, mine)
    assert done.code == 0, done.err
    assert "Prepared: turned (EXIF 6); crop to 8×8." in done.out
    assert ttca("ask", home, mine, "--json").json["images"][0]["done"] == ["turned (EXIF 6)", "crop to 8×8"]
    with read_action(home).open() as action:
        rows = [action.queries.in_hand(people.images).resolved.any() for people in action.roster.roles().values()]
    assert any(rows)
    file.write_text(file.read_text().replace("size = 8", "size = 9"))
    assert "Expected a preparation to the 8×8 pixels" in ttca("ask", home, mine).sentence


def test_one_answer_serves_every_table_that_is_tried(home: Path, ttca: Terminal, api: Api) -> None:
    """Wrong tables are tried on the answer that is there: one query is paid, whatever the order, until one reads it."""
    (picture,) = pictures(home, 1)
    wrong = ('scores = "result.things"', 'label = "result.items[0].id"', 'scores = "result.items[*].box"')
    for places in (*wrong, RIGHT, *wrong[1:], RIGHT):
        done = ttca("ask", table(home, api, places), picture)
        assert ("Read as: nothing" in done.out, "It said (status 200)" in done.out) == (places != RIGHT, True)
        assert ("A table that would read it" in done.out) == (places != RIGHT)
    assert (api.asked, charged(home)) == (1, 1)


def test_the_same_table_asks_again_where_nothing_was_read(home: Path, ttca: Terminal, api: Api) -> None:
    """An answer that was no answer, such as an error's page, is no reason not to ask again with the same table."""
    (picture,) = pictures(home, 1)
    api.say = lambda _: {"wait": "a moment"}
    assert "Read as: nothing" in ttca("ask", home, picture).out
    api.say = said_plainly
    assert "Read as: nothing" not in ttca("ask", home, picture).out
    assert api.asked == 2


def test_ask_names_every_file_that_is_no_picture(home: Path, ttca: Terminal, api: Api, tmp_path: Path) -> None:
    """Of several files that are no pictures all are named, and nothing is sent."""
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(b"")
    said = ttca("ask", home, tmp_path / "one.png", *pictures(home, 1), tmp_path / "two.png").sentence
    assert "one.png: " in said
    assert "two.png: " in said
    assert api.asked == 0


def test_ask_shows_binary_answers_as_json_and_never_a_control_character(
    tmp_path: Path, people: Path, ttca: Terminal
) -> None:
    """What KServe's binary extension says is told as JSON with the numbers in it, on a terminal and with --json."""
    shutil.copytree(people, tmp_path / "mine" / "people")
    with background_server(worlds.Recorder().inner) as url:
        (tmp_path / "mine" / "action.toml").write_text(worlds.action_file(url))
        (picture,) = pictures(tmp_path / "mine", 1)
        shown = ttca("ask", tmp_path / "mine", picture)
        said = ttca("ask", tmp_path / "mine", picture, "--json").json["images"][0]["said"]
    assert shown.code == 0, shown.err
    found = json.loads(said)
    data = {one["name"]: one["data"] for one in found["outputs"]}
    assert any(len(values) == len(worlds.CLASSES) and abs(sum(values) - 1) < 1e-5 for values in data.values())
    for text in (shown.out, said):
        assert all(character.isprintable() or character == "\n" for character in text)
        assert "\ufffd" not in text


@given(st.binary(max_size=6000))
def test_whatever_was_said_is_shown_without_control_characters(said: bytes) -> None:
    """Any bytes, with a header's length or without, become a text of bounded length that a terminal can show."""
    for length in (None, "0", str(len(said) // 2), "x"):
        shown = shown_answer(said, length)
        assert all(character.isprintable() or character in "\n\t" for character in visible(shown).replace("\xa0", " "))
        assert len(shown) < 5000


def test_ask_shows_words_reading_and_charge_and_pays_once(home: Path, ttca: Terminal, api: Api) -> None:
    """The words, the class, the scores and one query each; asked again, and by the pool, nothing is charged."""
    done = ttca("ask", home, *pictures(home, 2))
    assert done.code == 0
    assert '"name": "stripes"' in done.out
    assert "Read as: stripes (stripes 0." in done.out
    assert "1 charged to member-0" in done.out
    assert "Queries charged: 2." in done.out
    # What a stranger sent commands no terminal.
    assert "\x1b[2J" not in done.out
    assert api.asked == charged(home) == 2
    again = ttca("ask", home, *pictures(home, 3), "--member", "member-3", "--json").json
    assert [one["charged"] for one in again["images"]] == [0, 0, 1]
    assert again["images"][2]["member"] == "member-3"
    assert all(one["answered"] and one["status"] == 200 for one in again["images"])
    assert ttca("pool", "run", home, "--json").json["answered"] == 205
    assert api.asked == charged(home) == 205


def test_ask_proposes_a_table_and_applies_none(home: Path, ttca: Terminal, api: Api) -> None:
    """Where nothing lies at the place, the line that would read it is shown; with it, nothing is paid again."""
    table(home, api, 'scores = "result.tags[*].{label: name, score: confidence}"')
    before = (home / "action.toml").read_bytes()
    done = ttca("ask", home, *pictures(home, 1))
    assert RIGHT in done.out
    assert 'At scores = "result.tags[*].{label: name, score: confidence}": nothing' in done.out
    assert "got nothing there" in done.out
    assert (home / "action.toml").read_bytes() == before
    table(home, api, RIGHT)
    (one,) = ttca("ask", home, *pictures(home, 1), "--json").json["images"]
    assert (one["charged"], one["answered"]) == (0, True)
    assert api.asked == 1


def test_ask_masks_keys_and_cuts_what_is_long(
    home: Path, ttca: Terminal, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that the platform echoes is not shown, nor a list of ten thousand numbers."""
    monkeypatch.setenv("TTCA_KEY_API", f"127.0.0.1 {KEY}")
    table(home, api, RIGHT, platform='key_variable = "TTCA_KEY_API"\n')
    api.say = lambda scores: {**said_plainly(scores), "echo": KEY, "embedding": [0.5] * 10_000, "text": "x" * 5000}
    done = ttca("ask", home, *pictures(home, 1))
    assert KEY not in done.out + done.err
    assert "… and 9980 more" in done.out
    assert "(5000 characters)" in done.out
    assert len(done.out) < 3000


def test_ask_says_who_cannot_pay_and_what_is_no_image(home: Path, ttca: Terminal, api: Api) -> None:
    """A stranger, a member without quota and a file that is no image cost nothing and are sentences."""
    assert "member-99" in ttca("ask", home, *pictures(home, 1), "--member", "member-99").sentence
    assert "nothing.png" in ttca("ask", home, home / "nothing.png").sentence
    (home / "text.png").write_text("no image")
    assert "text.png" in ttca("ask", home, home / "text.png").sentence
    (home / "action.toml").write_text((home / "action.toml").read_text().replace("quota = 500", "quota = 1"))
    assert ttca("ask", home, pictures(home, 1)[0], "--member", "member-0").code == 0
    assert "query left" in ttca("ask", home, pictures(home, 2)[1], "--member", "member-0").sentence
    assert ttca("ask", home, pictures(home, 2)[1], "--json").json["images"][0]["member"] == "member-1"
    assert api.asked == 2


def test_an_ask_that_ends_in_an_error_says_what_it_cost(home: Path, ttca: Terminal, api: Api) -> None:
    """The last line counts what was charged before the error, and what nobody knows of; so does a run's."""

    def ending(scores: dict[str, float]) -> Any:
        if api.asked > 1:
            raise HTTPException(status)
        return said_plainly(scores)

    api.say, status = ending, 401
    assert ttca("ask", home, *pictures(home, 2)).err.splitlines()[-1] == "Queries charged: 1."
    status = 500
    told = ttca("ask", home, *pictures(home, 3)).err.splitlines()[-1]
    assert told == "Queries charged: 5, of which 5 unknown (nobody knows whether the platform processed them)."
    assert ttca("pool", "run", home).err.splitlines()[-1] == told
    assert charged(home) == 11


# -- what a wrong table costs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ('scores = "result.tags[*].{label: name, score: score}"', RIGHT),
        ('scores = "result.items[*].{label: name, score: confidense}"', RIGHT),
        ('label = "best"', RIGHT),
        ('scores = "result.items[?score > `2`].{label: name, score: score}"', "ttca ask"),
        ("", RIGHT),
    ],
    ids=["wrong list", "misspelt", "no label", "empty in all answers", "no place"],
)
def test_a_table_that_finds_nothing_costs_three_queries(
    home: Path, ttca: Terminal, api: Api, places: str, said: str
) -> None:
    """`ttca run` ends after three queries and says what would read the answer, or how to look at one."""
    table(home, api, places)
    done = ttca("run", home)
    assert done.code == 1
    assert said in done.err
    assert api.asked == charged(home) == 3
    # The mended table reads what was paid.
    table(home, api, RIGHT)
    assert ttca("pool", "run", home, "--json").json["answered"] == 205
    assert api.asked == charged(home) == 205


@pytest.mark.parametrize("wrong", ["another order", "one class"])
def test_what_only_true_classes_tell_costs_forty_queries(home: Path, ttca: Terminal, api: Api, wrong: str) -> None:
    """`ttca run` stops by its looks, names causes, and goes on with --anyway alone."""
    names = worlds.CLASSES

    def mixed(scores: dict[str, float]) -> Any:
        values = np.roll(list(scores.values()), 1) if wrong == "another order" else (0.8, 0.1, 0.1)
        return said_plainly(dict(zip(names, values, strict=True)))

    api.say = mixed
    for words in ("run", "pool run"):
        done = ttca(*words.split(), home)
        assert done.code == 1
        assert "--anyway" in done.err
        assert "layout" in done.err or "With classes =" in done.err
        assert api.asked == charged(home) <= 40
    done = ttca("pool", "run", home, "--anyway")
    assert done.code == 0
    assert "Gone on all the same (--anyway). Expected answers that fit" in done.err
    assert api.asked == 205


# -- prices -----------------------------------------------------------------------------------------------------


def test_prices_stand_in_the_dry_run_and_in_what_was_paid(home: Path, ttca: Terminal, api: Api) -> None:
    """What operations cost is told before and after, and where no price is given none is guessed."""
    assert ttca("run", home, "--dry-run", "--json").json["cost"] is None
    assert "EUR" not in ttca("run", home, "--dry-run").out
    priced = 'price_per_1000 = 2\ncurrency = "EUR"\noperations = 2\nsmallest = 80\n'
    table(home, api, RIGHT, platform=priced)
    said = ttca("run", home, "--dry-run", "--json").json
    queries = sum(step["queries"] for step in said["steps"].values())
    assert said["cost"] == {"sum": pytest.approx(queries * 2 * 2 / 1000), "currency": "EUR"}
    assert any("8 × 8 pixels" in warning and "below 80" in warning for warning in said["warnings"])
    assert "EUR" in ttca("run", home, "--dry-run").out
    assert api.asked == 0
    done = ttca("pool", "run", home)
    assert "Paid so far: 0.82 EUR (410 operations at 2 EUR per 1,000)." in done.err
    assert ttca("ask", home, *pictures(home, 1), "--json").json["cost"] == {"sum": 0.0, "currency": "EUR"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"price_per_1000": -1.0, "currency": "EUR"},
        {"price_per_1000": float("nan"), "currency": "EUR"},
        {"price_per_1000": 1.0},
        {"price_per_1000": 1.0, "currency": " "},
        {"price_per_1000": 1.0, "currency": "EUR", "operations": 0},
        {"currency": "EUR"},
        {"operations": 2},
        {"smallest": 0},
    ],
)
def test_a_price_without_its_parts_is_refused(wrong: dict[str, Any]) -> None:
    """A price needs a currency, a currency a price, and numbers must be possible."""
    with pytest.raises(ConfigError, match=r"price_per_1000|currency|operations|smallest"):
        PlatformSection(url="http://127.0.0.1:1", model="m", classes=("a", "b"), **wrong)


def test_a_price_is_told_whole() -> None:
    """Nothing costs nothing, and a thousand of two operations cost twice the price."""
    price = Price(per_1000=1.5, currency="USD", operations=2)
    assert price.of(0) == 0
    assert price.of(1000) == 3
    assert Price(per_1000=1.5, currency="USD").told(1000) == "1.50 USD (1,000 queries at 1.5 USD per 1,000)"
