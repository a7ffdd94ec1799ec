"""Tests of the members' page in a browser: the same levels as in Python, every control, and nothing that leaves it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks._browser import Browser, chromium
from tests import worlds
from ttca.data.photographs import read_photograph
from ttca.images import Images
from ttca.members import Output, Photo, apply_photos
from ttca.perturbations import PerturbationSet
from ttca.preparation import Preparation
from ttca.publishing import publish_page
from ttca.signing import CollectiveKey, signature_file

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed"),
]

CLASSES = ("cat", "dog", "bird", "ship")
SIZE = 96


def apply_set(folder: Path, photo: Path, true_class: str, box: tuple[int, int, int, int] | None = None) -> None:
    """Write what `ttca apply` makes of a photograph to ``out.png``."""
    chosen = PerturbationSet.load(folder / "set.safetensors")
    asked = Photo(path=photo, name=photo.name, true_class=true_class, box=box)
    (done,) = apply_photos(chosen, [asked], Output(place=folder / "out.png", force=True))
    assert done.state != "refused", done.problem


#: What axe-core holds against a page.
FAULTS = (
    "axe.run({resultTypes: ['violations']}).then((r) => r.violations.map((v) => "
    "[v.impact, v.id, v.nodes.map((n) => n.html + n.failureSummary).join(' | ')]))"
)
#: Makes a picture of Lehmer's generator, opaque, and what the page makes of it as digests: of every class.
NOISE = """
async function digests({w, h, seed, fit, size, box}) {
  const picture = new ImageData(w, h);
  const pixels = picture.data;
  for (let i = 0, state = seed; i < pixels.length; i++) {
    if (i % 4 === 3) pixels[i] = 255;
    else pixels[i] = (state = (state * 48271) % 2147483647) >> 8 & 255;
  }
  const bitmap = await createImageBitmap(picture);
  const levels = prepared(pictureOf(bitmap), {fit, size}, box);
  bitmap.close();
  const found = [];
  for (const delta of the.set.delta) {
    const after = moved(levels, delta, the.set.epsilon);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", after));
    found.push(Array.from(digest.subarray(0, 8), (byte) => byte.toString(16).padStart(2, "0")).join(""));
  }
  return found;
}
"""


def noise(width: int, height: int, seed: int) -> Images:
    """Return the picture that the page makes of a seed, in blocks: a·s mod (2³¹ − 1) for all powers of a at once."""
    prime, count, block = 2**31 - 1, width * height * 3, 1 << 16
    powers = np.empty(block, np.uint64)
    power = 1
    for i in range(block):
        power = power * 48271 % prime
        powers[i] = power
    levels, state = np.empty(count, np.uint8), np.uint64(seed)
    for start in range(0, count, block):
        states = powers[: min(block, count - start)] * state % np.uint64(prime)
        levels[start : start + block] = (states >> np.uint64(8)).astype(np.uint8)
        state = states[-1]
    return levels.reshape(height, width, 3)


def made(**changes: Any) -> PerturbationSet:
    """Return a certified set of four classes."""
    delta = np.random.default_rng(0).integers(-8, 9, (4, SIZE, SIZE, 3)).astype(np.int8)
    evidence = {
        "certificate": worlds.certified(99, epsilon=8).to_dict(),
        "verified": "2026-11-01T00:00:00+00:00",
        "abuse_rate": 0.25,
    }
    known = PerturbationSet(
        delta,
        8,
        CLASSES,
        "people in fog",
        "f" * 64,
        service="faces at api.example",
        evidence=evidence,
        preparation=Preparation(size=SIZE),
    )
    return replace(known, **changes)


def published(home: Path, **changes: Any) -> tuple[Path, CollectiveKey]:
    """Write the page of a signed set, whatever it is, and return where and whose."""
    key = CollectiveKey.open_or_make(home / "collective")
    key.write_signed(home / "set.safetensors", "perturbations", made(**changes).save)
    return publish_page(home / "set.safetensors", home / "page.html", anyway=True, force=True).page, key


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Start a browser, and end it."""
    with Browser() as started:
        yield started


def begin(browser: Browser, page: Path) -> None:
    """Open a page and wait until it has checked the browser and its own file."""
    browser.open(page)
    browser.run("ready")


def shown(browser: Browser, element: str) -> bool:
    """Whether a person can see an element."""
    return bool(browser.run(f"byId('{element}').checkVisibility()"))


def load(browser: Browser, photo: Path, chosen: str | None = None) -> None:
    """Choose a photograph, and a class."""
    browser.choose_file("#file", photo)
    # What the page shows of a photo is there when the next task runs.
    browser.run(
        "new Promise((done) => { const look = () => the.photo && the.before && !waiting ? done() : "
        "byId('photo-status').classList.contains('bad') ? done() : setTimeout(look, 20); look(); })"
    )
    if chosen is not None:
        browser.run(
            f"byId('class').value = '{CLASSES.index(chosen)}'; byId('class').dispatchEvent(new Event('change')); 0"
        )


def save(browser: Browser, folder: Path) -> Images:
    """Press the button and return the levels of the file that comes."""
    browser.downloads_into(folder)
    browser.run("byId('save').click()")
    begun = browser.wait_for("Browser.downloadWillBegin")
    browser.wait_for("Browser.downloadProgress", state="completed")
    with Image.open(folder / begun["suggestedFilename"]) as image:
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
        return np.asarray(image)


# -- the same levels --------------------------------------------------------------------------------------------


def test_a_thousand_pictures_come_out_as_in_python(tmp_path: Path, browser: Browser) -> None:
    """A thousand random pictures of 100 to 4,000 pixels or of the platform's size, every fit and class: equal bytes."""
    known = made()
    begin(browser, published(tmp_path)[0])
    browser.run(NOISE + "0")
    draw = np.random.default_rng(0)
    for i in range(1000):
        sides = np.exp(draw.uniform(np.log(100), np.log(4000), 2)).astype(int) if i % 4 else (SIZE, SIZE)
        w, h = (int(side) for side in sides)
        fit = ("crop", "pad", "squash")[i % 3]
        box = [w // 7, h // 9, w // 2, h // 3] if i % 5 == 1 else None
        task = {"w": w, "h": h, "seed": i + 1, "fit": fit, "size": [SIZE, SIZE], "box": box}
        found = browser.run(f"digests({json.dumps(task)})")
        way = Preparation.from_dict({"fit": fit, "size": SIZE})
        before = way.of(noise(w, h, i + 1), None if box is None else (box[0], box[1], box[2], box[3]))
        after = known.apply(np.broadcast_to(before, (4, *before.shape)), np.arange(4))
        assert found == [hashlib.sha256(one.tobytes()).hexdigest()[:16] for one in after], task


@pytest.mark.parametrize("way", ["as it comes", "framed by keys", "framed by mouse", "a turned JPEG", "of that size"])
def test_a_saved_file_is_what_apply_writes(tmp_path: Path, browser: Browser, way: str) -> None:
    """A photograph that goes through the page as a person does it becomes the file that `ttca apply` writes."""
    page, _ = published(tmp_path)
    photo = tmp_path / "me.png"
    rng = np.random.default_rng(3)
    if way == "a turned JPEG":
        photo = tmp_path / "me.jpg"
        exif = Image.Exif()
        exif[0x0112] = 6
        # Blocks of one level each: every decoder of JPEG agrees on them.
        blocks = rng.integers(0, 256, (20, 30)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
        Image.fromarray(blocks).save(photo, quality=95, exif=exif)
    else:
        shape = (SIZE, SIZE, 3) if way == "of that size" else (300, 421, 3)
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(photo)
    browser.look(width=1000, height=1600)
    begin(browser, page)
    load(browser, photo, "dog")
    if way == "framed by keys":
        browser.run("document.querySelector('[data-corner=nw]').focus()")
        for key, shift in (("ArrowRight", True), ("ArrowRight", False), ("ArrowDown", True)):
            browser.press(key, shift=shift)
        browser.run("byId('frame').focus()")
        for key in ("ArrowLeft", "ArrowUp"):
            browser.press(key)
    elif way == "framed by mouse":
        browser.run("byId('stage').scrollIntoView()")
        middle, corner = (
            browser.run(
                f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({what}.getBoundingClientRect())"
            )
            for what in ("byId('frame')", "document.querySelector('[data-corner=se]')")
        )
        browser.drag(tuple(corner), (corner[0] - 120, corner[1] - 90))
        browser.drag(tuple(middle), (middle[0] + 37, middle[1] + 11))
    browser.run("renew()")
    box = tuple(browser.run("the.box"))
    found = save(browser, tmp_path / "saved")
    framed = way.startswith("framed")
    assert (
        box != tuple(browser.run("keptPart([0, 0, the.photo.w, the.photo.h], 'crop', the.set.w, the.set.h)"))
    ) == framed
    assert box[2] == box[3]
    apply_set(tmp_path, photo, "dog", box if framed else None)
    with Image.open(tmp_path / "out.png") as image:
        np.testing.assert_array_equal(found, np.asarray(image))
    assert "read back and exact" in browser.run("byId('saved').textContent")
    assert browser.requests == [page.resolve().as_uri(), *[r for r in browser.requests if r.startswith("blob:")]]
    assert browser.complaints == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_photographs_are_turned_and_shown_as_in_python(tmp_path: Path, browser: Browser, kind: str) -> None:
    """Whatever EXIF asks for, in whatever file, what is prepared and what is shown is as upright as Python's."""
    begin(browser, published(tmp_path)[0])
    blocks = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    for way in (None, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
        exif = Image.Exif()
        exif[0x010E] = "where I live"
        if way is not None:
            exif[0x0112] = way
        photo = tmp_path / f"me-{way}.{kind.lower()}"
        options = {"lossless": True} if kind == "WEBP" else {"quality": 95}
        Image.fromarray(blocks).convert("RGB").save(photo, kind, exif=exif, **options)
        upright = read_photograph(photo.read_bytes()).pixels
        browser.run("the.photo = the.before = null")
        load(browser, photo)
        before = np.array(browser.run("Array.from(the.before)"), dtype=np.uint8)
        np.testing.assert_array_equal(before.reshape(SIZE, SIZE, 3), Preparation(size=SIZE).of(upright))
        whole = browser.run(
            "(({width, height}) => [height, width, Array.from("
            "byId('whole').getContext('2d').getImageData(0, 0, width, height).data)])(byId('whole'))"
        )
        shown_ = np.array(whole[2], dtype=np.uint8).reshape(whole[0], whole[1], 4)[..., :3]
        np.testing.assert_array_equal(shown_, upright)


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_photo_is_dropped_or_pasted(tmp_path: Path, browser: Browser, how: str) -> None:
    """A file that is dropped anywhere, or pasted, is opened like a chosen one, and its class is asked anew."""
    begin(browser, published(tmp_path)[0])
    Image.fromarray(noise(200, 150, 1)).save(tmp_path / "first.png")
    load(browser, tmp_path / "first.png", "cat")
    given = "clipboardData" if how == "paste" else "dataTransfer"
    kind = "ClipboardEvent" if how == "paste" else "DragEvent"
    browser.run(
        "new Promise((done) => { const canvas = new OffscreenCanvas(140, 130);"
        "canvas.getContext('2d').fillRect(0, 0, 9, 9);"
        "canvas.convertToBlob().then((blob) => { const data = new DataTransfer();"
        "data.items.add(new File([blob], 'second.png', {type: 'image/png'}));"
        f"document.body.dispatchEvent(new {kind}('{how}', {{bubbles: true, cancelable: true, {given}: data}}));"
        "const look = () => the.photo.w === 140 && !waiting ? done() : setTimeout(look, 20); look(); }); })"
    )
    assert "second.png: 140 × 130" in browser.run("byId('photo-status').textContent")
    assert browser.run("byId('class').value") == ""
    browser.run("byId('save').click()")
    assert "First choose a photo and its true class" in browser.run("byId('saved').textContent")
    assert browser.run("document.activeElement.id") == "class"


def test_without_compression_streams_the_page_does_it_itself(tmp_path: Path, browser: Browser) -> None:
    """A browser that can neither pack nor unpack opens the same file and saves the same levels."""
    page, _ = published(tmp_path)
    browser.before_every_page("delete globalThis.CompressionStream; delete globalThis.DecompressionStream;")
    Image.fromarray(noise(200, 150, 1)).save(tmp_path / "me.png")
    begin(browser, page)
    load(browser, tmp_path / "me.png", "ship")
    apply_set(tmp_path, tmp_path / "me.png", "ship")
    with Image.open(tmp_path / "out.png") as image:
        np.testing.assert_array_equal(save(browser, tmp_path / "saved"), np.asarray(image))


#: Ways out of a page, each to an address.
WAYS_OUT = (
    "fetch('ADDRESS', {mode: 'no-cors'}).catch(() => 0)",
    "new Image().src = 'ADDRESS'",
    "navigator.sendBeacon('ADDRESS')",
    "document.body.append(Object.assign(document.createElement('script'), {src: 'ADDRESS'}))",
    "document.body.append(Object.assign(document.createElement('iframe'), {src: 'ADDRESS'}))",
    "document.head.append(Object.assign(document.createElement('link'), {rel: 'stylesheet', href: 'ADDRESS'}))",
    "document.body.append(Object.assign(document.createElement('form'), {action: 'ADDRESS', target: '_blank'})); "
    "document.querySelector('form').submit()",
)


def test_nothing_could_leave_the_page(tmp_path: Path, browser: Browser) -> None:
    """Whatever else might run in the page, its policy lets nothing out: a server beside it hears all but that page."""
    page, _ = published(tmp_path)
    (tmp_path / "other.html").write_text("<!doctype html><body>", encoding="utf-8")
    heard: list[str] = []

    class Ear(BaseHTTPRequestHandler):
        """A server that hears everything."""

        def handle_one_request(self) -> None:
            heard.append(self.rfile.readline().decode())
            self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Ear) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for place in (page, tmp_path / "other.html"):
            browser.open(place)
            for number, script in enumerate(WAYS_OUT):
                way = f"http://127.0.0.1:{server.server_port}/{place.stem}/{number}"
                browser.run(f"{script.replace('ADDRESS', way)}; 0")
            browser.run("document.body.append(Object.assign(document.createElement('script'), {text: 'mine = 1'}))")
            assert browser.run("typeof mine") == ("undefined" if place == page else "number")
            browser.run("new Promise((done) => setTimeout(done, 500))")
        server.shutdown()
    asked = {line.split()[1] for line in heard if line.strip()}
    assert {f"/other/{number}" for number in range(4)} <= asked
    assert not [line for line in asked if line.startswith("/page/")]


# -- what the page refuses --------------------------------------------------------------------------------------


def test_a_browser_that_adds_noise_is_refused(tmp_path: Path, browser: Browser) -> None:
    """Where one level in a thousand is off by one, as protection against recognition does it, the page stops."""
    page, _ = published(tmp_path)
    browser.before_every_page(
        "const read = CanvasRenderingContext2D.prototype.getImageData;"
        "CanvasRenderingContext2D.prototype.getImageData = function (...where) {"
        "  const found = read.apply(this, where);"
        "  for (let i = 500; i < found.data.length; i += 4000) found.data[i] ^= 1;"
        "  return found; };"
    )
    begin(browser, page)
    assert shown(browser, "stop")
    assert not shown(browser, "steps")
    assert "changes the pixels" in browser.run("byId('stop-why').textContent")
    assert browser.run("byId('save').click(), the.checked") is False
    browser.run("document.dispatchEvent(new Event('visibilitychange'))")
    assert not shown(browser, "steps")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"expires": "2020-01-01T00:00:00+00:00"}, "expired on January 1, 2020"),
        ({"evidence": {}}, "Nobody has shown that this change helps"),
        ({"evidence": {"certificate": worlds.certified(50, epsilon=8).to_dict()}}, "Nobody has shown"),
    ],
)
def test_what_should_not_be_used_works_only_for_who_insists(
    tmp_path: Path, browser: Browser, changes: dict[str, Any], sentence: str
) -> None:
    """The page of a set that expired or was not certified says so, and shows its steps only to who insists."""
    begin(browser, published(tmp_path, **changes)[0])
    assert shown(browser, "gate")
    assert not shown(browser, "steps")
    assert sentence in browser.run("byId('gate-why').textContent")
    assert browser.run("document.querySelectorAll('.badge.care').length") == 1
    browser.run("byId('insist').click()")
    assert shown(browser, "steps")
    assert not shown(browser, "gate")


def test_nobody_vouches_for_what_a_set_says_that_nobody_signed(tmp_path: Path, browser: Browser) -> None:
    """The page of a certified set calls it certified; without the signature anybody could have written that."""
    page, _ = published(tmp_path)
    begin(browser, page)
    assert browser.run("document.querySelectorAll('.badge.good').length") == 1
    signature_file(tmp_path / "set.safetensors").unlink()
    begin(browser, publish_page(tmp_path / "set.safetensors", page, anyway=True, force=True).page)
    assert browser.run("document.querySelectorAll('.badge.good').length") == 0
    assert "Not signed" in browser.run("byId('badges').textContent")


def test_a_page_that_stays_open_until_its_set_expires_holds_back(tmp_path: Path, browser: Browser) -> None:
    """In a tab of last month the steps go when the member comes back, or presses the button, and the reason is said."""
    page, _ = published(tmp_path, expires="2999-01-01T00:00:00+00:00")
    Image.fromarray(noise(SIZE, SIZE, 1)).save(tmp_path / "me.png")
    for later in ("document.dispatchEvent(new Event('visibilitychange'))", "byId('save').click()"):
        begin(browser, page)
        load(browser, tmp_path / "me.png", "cat")
        assert shown(browser, "steps")
        browser.run(f"Date.now = () => 1e14; {later}; 0")
        assert not shown(browser, "steps")
        assert "expired on January 1, 2999" in browser.run("byId('gate-why').textContent")
        browser.run("byId('insist').click()")
        assert shown(browser, "save")


def test_signatures_are_checked_and_compared(tmp_path: Path, browser: Browser) -> None:
    """A right signature shows its key; another key pasted stops the page, and so does one changed bit of the file."""
    page, key = published(tmp_path)
    begin(browser, page)
    assert browser.run("byId('key').textContent") == key.public
    assert "proves only that it is undamaged" in browser.run("document.body.textContent")
    paste = (
        "byId('pasted').value = '{}'; byId('pasted').dispatchEvent(new Event('input')); byId('key-answer').textContent"
    )
    assert browser.run(paste.format(f" {key.public} ")) == "It is the same key."
    assert "43 letters" in browser.run(paste.format("cafe"))
    assert shown(browser, "steps")
    stranger = CollectiveKey.open_or_make(tmp_path / "stranger").public
    assert "another key" in browser.run(paste.format(stranger))
    assert shown(browser, "stop")
    assert not shown(browser, "steps")
    text = page.read_text(encoding="utf-8")
    start = text.index('id="signature">')
    place = text.index('"signature":', start) + 16
    page.write_text(text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :], encoding="utf-8")
    begin(browser, page)
    assert shown(browser, "stop")
    assert not shown(browser, "steps")
    assert "is not what was signed" in browser.run("byId('stop-why').textContent")
    page.write_text(text[:start] + 'id="signature">' + text[text.index("</script>", start) :], encoding="utf-8")
    begin(browser, page)
    assert shown(browser, "gate")
    assert "anybody may have written it" in browser.run("byId('gate-why').textContent")


def test_a_browser_without_ed25519_says_so(tmp_path: Path, browser: Browser) -> None:
    """Where the signature cannot be checked, the page works and says that nobody checked it."""
    page, _ = published(tmp_path)
    browser.before_every_page("crypto.subtle.importKey = () => Promise.reject(new Error('NotSupported'));")
    begin(browser, page)
    assert "cannot check the signature" in browser.run("byId('key-said').textContent")
    assert shown(browser, "steps")


@pytest.mark.parametrize("what", ["no picture", "of another size"])
def test_what_is_no_photograph_is_a_sentence(tmp_path: Path, browser: Browser, what: str) -> None:
    """A text named .jpg is told by its name; so is a picture of another size where nothing says how to prepare it."""
    page, _ = published(tmp_path, **({} if what == "no picture" else {"preparation": None}))
    photo = tmp_path / "me.jpg"
    photo.write_text("text", encoding="utf-8")
    if what == "of another size":
        Image.fromarray(noise(97, SIZE, 1)).save(photo)
    begin(browser, page)
    load(browser, photo)
    said = browser.run("byId('photo-status').textContent")
    assert ("cannot open me.jpg" if what == "no picture" else "exactly 96 × 96") in said
    assert not shown(browser, "step-save")


# -- people -----------------------------------------------------------------------------------------------------


def test_a_class_that_the_set_leaves_as_it_is_is_told(tmp_path: Path, browser: Browser) -> None:
    """Whose δ is zero stands among the reasons not to use the page; where no δ is, there is no such reason."""
    whole, lacking = made(), made()
    lacking.delta[[1, 3]] = 0
    for known, told in ((whole, False), (lacking, True)):
        begin(browser, published(tmp_path, delta=known.delta)[0])
        said = browser.run("byId('not').textContent")
        assert ("For these classes, which it does not change: dog, ship." in said) == told


def test_the_page_speaks_the_browsers_language(tmp_path: Path) -> None:
    """A German browser is spoken to in German, dates and numbers too, and the other language is a button away."""
    page, _ = published(tmp_path, expires="2999-02-03T00:00:00+00:00")
    with Browser(language="de-DE") as browser:
        begin(browser, page)
        said = browser.run("document.body.innerText")
        assert "Gültig bis" in said
        assert "3. Februar 2999" in said
        assert "Bestätigt am 1. November 2026" in said
        browser.run("document.querySelector('#languages [lang=en]').click()")
        assert browser.run("document.documentElement.lang") == "en"
        assert "February 3, 2999" in browser.run("document.body.innerText")


def test_every_control_is_reached_by_keys(tmp_path: Path, browser: Browser) -> None:
    """Tab alone goes from the first control to the last, through every corner, and each has a name."""
    page, _ = published(tmp_path)
    Image.fromarray(noise(300, 200, 1)).save(tmp_path / "me.png")
    begin(browser, page)
    load(browser, tmp_path / "me.png", "cat")
    reached = []
    browser.run("document.activeElement.blur(); scrollTo(0, 0)")
    for _ in range(30):
        browser.press("Tab")
        reached.append(
            browser.run(
                "(document.activeElement.id || document.activeElement.dataset.corner || document.activeElement.lang)"
            )
        )
    wanted = [
        "en",
        "de",
        "file",
        "frame",
        "nw",
        "ne",
        "sw",
        "se",
        "reset",
        "class",
        "slider",
        "stronger",
        "save",
        "pasted",
    ]
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_fault(tmp_path: Path, browser: Browser, dark: bool) -> None:
    """axe-core (WCAG 2.2, A and AA) finds nothing serious on a phone and a desk, at 200 %, before and after a photo."""
    got = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(tmp_path), "axe-core@4"],
        capture_output=True,
        text=True,
        check=False,
    )
    if got.returncode:
        pytest.skip(f"axe-core could not be fetched: {got.stderr[-200:]}")
    axe = (tmp_path / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    Image.fromarray(noise(300, 200, 1)).save(tmp_path / "me.png")
    for changes in ({}, {"evidence": {}, "expires": "2020-01-01"}):
        page, _ = published(tmp_path, **changes)
        for width in (390, 640, 1280):
            browser.look(width=width, dark=dark)
            begin(browser, page)
            browser.run(axe + "; 0")
            for step in ("before", "after"):
                if step == "after":
                    browser.run("byId('insist').click()")
                    load(browser, tmp_path / "me.png", "cat")
                    browser.run("byId('stronger').click(); byId('save').click()")
                assert browser.run(FAULTS) == [], (width, step)
                wide = browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
                assert wide, f"the page scrolls sideways at {width}"
