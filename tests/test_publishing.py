"""Tests of the members' page as a file: what is in it, what is refused, and its own code in node."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tomllib
import zlib
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests import worlds
from ttca.cli import app
from ttca.data.photographs import read_photograph
from ttca.errors import ConfigError, PerturbationError, TTCAError
from ttca.expiry import Expiry, expire
from ttca.perturbations import PerturbationSet
from ttca.preparation import Preparation
from ttca.publishing import members_page, publish_page
from ttca.signing import KEY_FILE, CollectiveKey, SignatureError, signature_file

HOME = Path(__file__).resolve().parents[1]
PAGE = HOME / "ttca" / "page"
CLASSES = ("cat", "dog </script> & “co”")
TABLE: dict[str, dict[str, str]] = json.loads((PAGE / "strings.json").read_text(encoding="utf-8"))


def made(**changes: Any) -> PerturbationSet:
    """Return a certified set of two classes for pictures of 6×5 pixels, one value of whose evidence is no JSON."""
    delta = np.random.default_rng(0).integers(-8, 9, (2, 6, 5, 3)).astype(np.int8)
    certificate = worlds.certified(99, epsilon=8).to_dict()
    facts: dict[str, Any] = {
        "service": "faces at api.example",
        "expires": (datetime.now(UTC) + timedelta(days=90)).isoformat(timespec="seconds"),
        "evidence": {
            "certificate": certificate,
            "verified": "2026-11-01T00:00:00+00:00",
            "odd": float("nan"),
            "words": 'a "NaN", -Infinity \\',
        },
        "preparation": Preparation(size=(6, 5)),
        **changes,
    }
    return PerturbationSet(delta, 8, CLASSES, "people in fog", "f" * 64, **facts)


def signed(home: Path, **changes: Any) -> tuple[Path, CollectiveKey]:
    """Write a set and its signature, and return where and whose."""
    key = CollectiveKey.open_or_make(home / "collective")
    key.write_signed(home / "set.safetensors", "perturbations", made(**changes).save)
    return home / "set.safetensors", key


class Elements(HTMLParser):
    """What a document consists of, as a browser reads it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = f"{tag}#{dict(attrs).get('id', '')}"

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


# -- the file ---------------------------------------------------------------------------------------------------


def test_a_page_loads_nothing_and_runs_only_its_own_code(tmp_path: Path) -> None:
    """The policy allows the page's one script and one style, by their digests, and no element names an address."""
    path, _ = signed(tmp_path)
    page = Path(publish_page(path, tmp_path / "page.html").page).read_text(encoding="utf-8")
    read = Elements(page)
    policy = next(a["content"] or "" for tag, a in read.found if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    for rule, element in (("script-src", "script#"), ("style-src", "style#")):
        digest = base64.b64encode(hashlib.sha256(read.texts[element].encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    addresses = [a[name] for _, a in read.found for name in ("src", "href", "action", "srcset") if a.get(name)]
    assert all(str(address).startswith(("#", "data:,")) for address in addresses)
    assert not any(name.startswith("on") or name == "style" for _, a in read.found for name in a)
    assert "http" not in read.texts["style#"]
    # The policy comes before all that it governs.
    assert page.index("Content-Security-Policy") < page.index("<style>") < page.index("<script")


def test_the_page_holds_the_signed_bytes(tmp_path: Path) -> None:
    """File and signature are in the page exactly as they lie beside each other, whatever a class is called."""
    path, key = signed(tmp_path)
    done = publish_page(path, tmp_path / "page.html", key=key.public)
    read = Elements(done.page.read_text(encoding="utf-8"))
    assert zlib.decompress(base64.b64decode(read.texts["script#set"])) == path.read_bytes()
    assert json.loads(read.texts["script#signature"]) == json.loads(signature_file(path).read_text())
    assert done.size == done.page.stat().st_size
    assert done.to_dict()["signed_by"] == key.public
    assert json.loads(read.texts["script#strings"]) == TABLE


def test_ten_classes_at_224_pixels_are_less_than_a_megabyte(tmp_path: Path) -> None:
    """Even δ that no program can shorten, evenly drawn from all levels of ε 4, leave a page below 1,000,000 bytes."""
    delta = np.random.default_rng(0).integers(-4, 5, (10, 224, 224, 3)).astype(np.int8)
    names = tuple(f"class {i}" for i in range(10))
    PerturbationSet(delta, 4, names, "s", "f", preparation=Preparation(size=224)).save(tmp_path / "set.safetensors")
    assert len(members_page((tmp_path / "set.safetensors").read_bytes(), "").encode()) < 1_000_000


REFUSED: dict[str, tuple[dict[str, Any], type[TTCAError], str]] = {
    "expired": ({"expires": "2020-01-01T00:00:00+00:00"}, PerturbationError, "expired on 2020-01-01"),
    "not certified": ({"evidence": {}}, PerturbationError, "without a certificate"),
    "failed": (
        {"evidence": {"certificate": worlds.certified(50, epsilon=8).to_dict()}},
        PerturbationError,
        "whose certificate failed",
    ),
    "unsigned": ({}, SignatureError, "Members could not tell whether the page is whole"),
    "another key": ({}, SignatureError, "Another collective wrote it"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_should_not_be_used_is_published_only_by_who_insists(tmp_path: Path, why: str) -> None:
    """A set that expired, failed, or was not signed as expected makes no page, unless `anyway`."""
    changes, error, sentence = REFUSED[why]
    path, key = signed(tmp_path, **changes)
    known = CollectiveKey.open_or_make(tmp_path / "mine").public if why == "another key" else None
    if why == "unsigned":
        signature_file(path).unlink()
    with pytest.raises(error, match=re.escape(sentence)):
        publish_page(path, tmp_path / "page.html", key=known)
    assert not (tmp_path / "page.html").exists()
    done = publish_page(path, tmp_path / "page.html", key=known, anyway=True)
    assert done.signed.key == (None if why == "unsigned" else key.public)


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_published_all_the_same_is_said(tmp_path: Path, why: str) -> None:
    """Whoever insists hears what is wrong with the set, and whether the page holds members back."""
    changes, _, sentence = REFUSED[why]
    path, _ = signed(tmp_path, **changes)
    words = ["publish", str(path), "--out", str(tmp_path / "page.html"), "--anyway"]
    if why == "another key":
        words += ["--key", CollectiveKey.open_or_make(tmp_path / "mine").public]
    if why == "unsigned":
        signature_file(path).unlink()
        sentence = "Not signed: nobody can tell"
    done = CliRunner().invoke(app, words)
    assert sentence in done.stdout
    assert ("Expired on 2020-01-01" in done.stdout) == (why == "expired")
    warned = "works only for members who insist" in done.stderr
    assert warned == (why != "another key")
    assert warned != ("warns nobody. Tell your members." in done.stderr)
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["warns"] == warned


def test_what_its_collective_declared_expired_is_never_published(tmp_path: Path) -> None:
    """The page cannot warn of what lies beside the set, so nobody can insist."""
    path, key = signed(tmp_path)
    shutil.copy(tmp_path / "collective" / KEY_FILE, tmp_path / KEY_FILE)
    known = PerturbationSet.load(path)
    expire(tmp_path, Expiry.of(known, since="2026-01-01T00:00:00+00:00", why="it no longer helps."))
    for anyway in (False, True):
        with pytest.raises(PerturbationError, match="declared expired"):
            publish_page(path, tmp_path / "page.html", key=key.public, anyway=anyway)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("what", ["the file", "the certificate"])
def test_a_changed_file_is_never_published(tmp_path: Path, what: str) -> None:
    """What is not what was signed, or whose certificate contradicts itself, makes no page, whoever insists."""
    certificate = worlds.certified(99, epsilon=8).to_dict() | {"epsilon": 4}
    path, _ = signed(tmp_path, **({"evidence": {"certificate": certificate}} if what == "the certificate" else {}))
    if what == "the file":
        path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises((SignatureError, PerturbationError), match=r"Get both files again|contradicts itself"):
        publish_page(path, tmp_path / "page.html", anyway=True)
    assert not (tmp_path / "page.html").exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    """Another file stays unless forced, the same page may be written again, and a folder is never replaced."""
    path, _ = signed(tmp_path)
    page = tmp_path / "new" / "page.html"
    publish_page(path, page)
    first = page.read_bytes()
    publish_page(path, page)
    page.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="--force"):
        publish_page(path, page)
    assert page.read_text(encoding="utf-8") == "mine"
    publish_page(path, page, force=True)
    assert page.read_bytes() == first
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConfigError, match="Choose another place"):
        publish_page(path, tmp_path / "folder.html", force=True)
    with pytest.raises(ConfigError, match=r"ends in \.html, got 'page.png'"):
        publish_page(path, tmp_path / "page.png")
    assert sorted(p.name for p in tmp_path.rglob("*.partial")) == []


def test_the_command_says_what_was_written_and_what_to_tell_members(tmp_path: Path) -> None:
    """`ttca publish` prints whom it is for and the key to pass on, and with --json one object alone."""
    path, key = signed(tmp_path)
    done = CliRunner().invoke(app, ["publish", str(path), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert "Made for people in fog, on faces at api.example. Certified" in done.stdout
    assert key.public in done.stderr
    again = CliRunner().invoke(app, ["publish", str(path), "--out", str(tmp_path / "page.html"), "--json"])
    said = json.loads(again.stdout)
    assert (said["bytes"], said["classes"]) == ((tmp_path / "page.html").stat().st_size, list(CLASSES))


def test_the_page_is_in_the_package() -> None:
    """Every source of the page has an ending that the wheel takes along."""
    shipped = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert "page/*.*" in shipped["ttca"]
    assert all(file.suffix for file in PAGE.iterdir())


# -- the strings ------------------------------------------------------------------------------------------------


def test_every_language_says_everything(tmp_path: Path) -> None:
    """Languages have the same entries with the same values to fill in, and none stands empty."""
    english = TABLE["en"]
    assert len(TABLE) >= 2
    for language, table in TABLE.items():
        assert list(table) == list(english), language
        for key, words in table.items():
            assert words.strip(), key
            assert set(re.findall(r"\{\w+\}", words)) <= set(re.findall(r"\{\w+\}", english[key])), (language, key)
            if key not in ("language", "proof.none", "key.title") and language != "en" and len(words) > 12:
                assert words != english[key], key


def test_words_stand_in_the_table_alone_and_are_all_used() -> None:
    """Document and script name entries of the table, all that there are, and hold no words of their own."""
    document, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.html", "page.js"))
    named = set(re.findall(r'data-(?:t|label)="([\w.]+)"', document)) | set(re.findall(r'\btext\("([\w.]+)"', script))
    made_of = {"proof", "facts", "not", "gate", "key"}  # text(`not.${name}`)
    for prefix in made_of:
        assert f"text(`{prefix}.$" in script
    known = set(TABLE["en"])
    assert named <= known
    # Others are chosen by a condition.
    named |= set(re.findall(r'"([a-z]+(?:\.\w+)+)"', script))
    left = {key for key in known - named if key.split(".")[0] not in made_of}
    assert left <= {"language", "waiting"}
    plain = re.sub(r"<(style|script|title)[^>]*>.*?</\1>|<[^>]*>|\$\w+", " ", document, flags=re.S)
    assert re.findall(r"[^\W\d]+", plain) == []


# -- the page's own code ----------------------------------------------------------------------------------------


def webp(way: int | None) -> bytes:
    """Return a picture of 7×4 pixels that asks to be seen in one of the ways of EXIF."""
    exif, file = Image.Exif(), BytesIO()
    exif[0x010E] = "where I live"
    if way is not None:
        exif[0x0112] = way
    levels = np.random.default_rng(2).integers(0, 256, (4, 7, 3)).astype(np.uint8)
    Image.fromarray(levels).save(file, "WEBP", lossless=True, exif=exif)
    return file.getvalue()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_pages_code_reads_the_set_and_writes_exact_files(tmp_path: Path) -> None:
    """In node the page's code reads file and signature as Python does, and its PNG files hold Python's levels."""
    path, key = signed(tmp_path)
    known, content = made(), path.read_bytes()
    rng = np.random.default_rng(1)
    pictures = [(rng.integers(0, 256, (6, 5, 3)).astype(np.uint8), c) for c in (0, 1, None)]
    # Longer than the longest block that deflate stores.
    pictures.append((rng.integers(0, 256, (210, 107, 3)).astype(np.uint8), None))
    signature = signature_file(path).read_text(encoding="utf-8")
    stranger = json.loads(signature) | {"key": CollectiveKey.open_or_make(tmp_path / "stranger").public}
    texts = [b"", b"a", bytes(70_000), rng.bytes(70_000), b"the cat and the dog and the cat " * 9000, content]
    streams = [zlib.compress(text, level) for text in texts for level in (0, 1, 9)]
    fixed = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_FIXED)
    streams.append(fixed.compress(texts[4]) + fixed.flush())
    photos = [webp(way) for way in (None, *range(10))]
    stored = [
        np.dstack([np.asarray(Image.open(BytesIO(p)).convert("RGB")), np.full((4, 7), 255, np.uint8)]) for p in photos
    ]
    task = {
        "photos": [
            {"file": base64.b64encode(p).decode(), "levels": base64.b64encode(q.tobytes()).decode(), "w": 7, "h": 4}
            for p, q in zip(photos, stored, strict=True)
        ],
        "set": base64.b64encode(zlib.compress(content)).decode(),
        "signature": signature,
        "spoilt": ["", json.dumps(stranger), "{", json.dumps(json.loads(signature) | {"format": "x"})],
        "streams": [base64.b64encode(stream).decode() for stream in streams],
        "pictures": [
            {"levels": base64.b64encode(p.tobytes()).decode(), "w": p.shape[1], "h": p.shape[0], "c": c}
            for p, c in pictures
        ],
    }
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("page.mjs"))],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said["signed"] == {"state": "right", "key": key.public}
    assert said["damaged"] == "wrong"
    assert said["spoilt"] == ["none", "wrong", "wrong", "wrong"]
    assert said["both"]
    wanted = [text for text in texts for _ in range(3)] + [texts[4]]
    assert [base64.b64decode(text) for text in said["streams"]] == wanted
    facts = said["facts"]
    assert (facts["classes"], facts["epsilon"], facts["h"], facts["w"]) == (list(CLASSES), 8, 6, 5)
    assert facts["preparation"] == {"fit": "crop", "size": [6, 5]}
    assert facts["evidence"]["odd"] is None
    assert facts["evidence"]["words"] == known.evidence["words"]
    for (picture, c), files in zip(pictures, said["files"], strict=True):
        after = picture if c is None else known.apply(picture[None], c)[0]
        for file in files:
            with Image.open(BytesIO(base64.b64decode(file))) as image:
                assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
                np.testing.assert_array_equal(np.asarray(image), after)
    for photo, found in zip(photos, said["upright"], strict=True):
        wanted_ = read_photograph(photo)
        assert found["way"] == (int(wanted_.done[0][-2]) if wanted_.done else 1)
        assert read_photograph(base64.b64decode(found["file"])).done == ()
        part = wanted_.pixels[1:, 1:]
        np.testing.assert_array_equal(
            np.frombuffer(base64.b64decode(found["part"]), np.uint8).reshape(part.shape), part
        )
