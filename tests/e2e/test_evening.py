"""The organizer's evening keeps its word: every command of docs/evening.md works in its order, small and whole."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import evening
from benchmarks._document import MISSING
from benchmarks._pages.evening import tables
from benchmarks.evening import filled_in, steps
from tests.test_cli import Terminal
from ttca.config import read_action
from ttca.demo.photographs import photographs, reader
from ttca.errors import ActionError
from ttca.platforms.server import background_server
from ttca.templates import action_template

pytestmark = pytest.mark.e2e

#: What the small form has otherwise than the page: small pictures, and a proxy and a δ of a second.
_SIDE = 32
_QUICKER = """
[action]
recipe = "plain"
architectures = ["perceptron"]
true_classes = true
public_epochs = 30
epochs = 5
steps = 10
control_lengths = [1.0]
controls_people = 8
recheck_people = 2
"""


def test_the_evenings_commands_work_in_their_order_in_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From mixed photographs to a report: each command of the page, with small pictures and a quick proxy."""
    terminal = Terminal(monkeypatch, capsys)
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "evening" / "photos", seed=0, number=120, longest=200)
    said: dict[str, str] = {}
    with background_server(reader(seed=0, size=_SIDE)) as url:
        for language, remark, text in steps():
            text = text.replace("http://127.0.0.1:8124", url).replace("224", str(_SIDE))
            if remark == "background":
                assert text.split() == ["ttca", "demo", "photographs", "evening"]
            elif language == "toml":
                file = tmp_path / remark.removeprefix("into=")
                whole = filled_in(filled_in(file.read_text(encoding="utf-8"), text), _QUICKER)
                file.write_text(whole, encoding="utf-8")
            else:
                for command in text.splitlines():
                    name, *words = shlex.split(command)
                    assert name == "ttca"
                    done = terminal(*words)
                    assert done.code == 0, f"{command}\n{done.err}"
                    said[words[0]] = done.out + done.err
    assert said.keys() == {"init", "prepare", "run", "ask", "audit", "plan"}
    assert "quota = " in said["init"]
    assert "120 prepared" in said["prepare"]
    assert "turned (EXIF 6)" in said["prepare"]
    assert "Prepared: turned (EXIF 6); crop to 32×32." in said["ask"]
    assert "1 charged to member-01" in said["ask"]
    assert "behind the reference by" in said["audit"] or "No gap was shown" in said["audit"]
    assert (tmp_path / "evening" / "report.html").is_file()
    assert (tmp_path / "evening" / "certificate.json").is_file()


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_the_evening_works_as_printed() -> None:
    """With and without a gap, at 224 pixels and at defaults; where there is none, nobody who verifies is asked."""
    found = evening.main(["--seeds", "1"])
    assert len(found["evenings"]) == 2
    assert found["certified"] == 1, found
    assert found["stopped_before_verification"] == 1, found


def test_a_measured_evening_becomes_the_pages_table() -> None:
    """Each evening is a line, with its times and its end; without a result the page says that it is not measured."""
    one = {"seed": 0, "gap": True, "seconds": 90.0, "steps": {"run": 60.0}, "certified": True, "verified": True}
    other = {**one, "gap": False, "certified": False, "verified": False, "commit": "1"}
    record = {
        "benchmark": "evening",
        "commit": "0",
        "arguments": [],
        "hardware": {},
        "photographs": 300,
        "size": 224,
        "evenings": [one, other],
    }
    text = tables([("evening.json", record)])["evening"]
    assert "| 0 | 30 points | 0 s | 0 s | 0 s | 60 s | 1.5 min | certified | 0 |" in text
    assert "| 0 | none | 0 s | 0 s | 0 s | 60 s | 1.5 min | stopped before verification | 1 |" in text
    assert tables([]) == {"evening": MISSING}


def test_evenings_that_were_kept_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --known, those of the same world are taken with their commit, and none of another world."""
    monkeypatch.setattr(evening, "RESULTS", tmp_path)
    one = {"seed": 0, "gap": True, "seconds": 90.0, "certified": True, "verified": True}
    kept = [one, {**one, "gap": False, "commit": "1"}]
    record = {"arguments": ["--seeds", "1", "--json"], "commit": "0", "evenings": kept}
    (tmp_path / "evening.json").write_text(json.dumps(record))
    found = evening.main(["--seeds", "1", "--known"])
    assert [(e["gap"], e["commit"]) for e in found["evenings"]] == [(True, "0"), (False, "1")]
    (tmp_path / "evening.json").write_text(json.dumps(record | {"arguments": ["--size", "32"]}))
    monkeypatch.setattr(evening, "_evening", lambda seed, gap, _options: {**one, "gap": gap, "commit": "new"})
    assert {e["commit"] for e in evening.main(["--seeds", "1", "--known"])["evenings"]} == {"new"}


def test_photographs_are_of_every_kind_and_size(tmp_path: Path) -> None:
    """Every fourth is turned, a tenth each is CMYK, gray and RGBA, and the longest side is what was asked for."""
    photographs(tmp_path, seed=1, number=40, longest=400)
    found = sorted(tmp_path.rglob("IMG_*"), key=lambda path: path.name)
    kinds = []
    for number, path in enumerate(found):
        with Image.open(path) as image:
            kinds.append((image.mode, max(image.size)))
            assert (image.getexif().get(0x0112) == 6) == (number % 4 == 0)
    assert [sum(mode == one for mode, _ in kinds) for one in ("CMYK", "L", "RGBA")] == [4, 4, 4]
    assert max(side for _, side in kinds) == 400
    assert min(side for _, side in kinds) == 160


def test_keys_are_set_where_they_stand(tmp_path: Path) -> None:
    """A key behind a mark is set in its own table alone, and one that does not stand there is refused."""
    text = action_template(tmp_path)
    (tmp_path / "action.toml").write_text(filled_in(text, "[people]\npreparation = {size = 8}\n[pool]\nper_day = 7\n"))
    known = read_action(tmp_path)
    assert (known.people.preparation, known.pool.per_day) == ({"size": 8}, 7)
    assert (known.pool.quota, known.settings.recipe) == (100, "auto")
    with pytest.raises(ActionError, match="Expected the key qouta"):
        filled_in(text, "[pool]\nqouta = 1\n")
    assert filled_in(text, "") == text
