"""Tests of the command line: exit status, one sentence or one JSON object, and no query where nothing can work."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from tests import worlds
from tests.pooling.places import postgres
from tests.published import tensors_file
from tests.test_signing import private_forms
from ttca import __version__
from ttca.certificates import Certificate
from ttca.cli import app, main
from ttca.commands.shared import duration
from ttca.config import PlatformSection, read_action, read_contribution
from ttca.data.folder import write_people
from ttca.evidence.check import check
from ttca.gap import WHOSE
from ttca.people import People
from ttca.perturbations import FORMAT, PerturbationSet
from ttca.platforms.base import Credential
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.server import background_app, background_server, create_app
from ttca.preparation import Preparation
from ttca.row import Row
from ttca.signing import KEY_FILE, CollectiveKey, signature_file
from ttca.training_time.aggregator import Report, read_conflict, save_report
from ttca.training_time.signals import Domain, FeatureLabelPlanting, Signal

SUFFIX = "safetensors"
KEY = "sk-live/4f+9ZQ=7e21"


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Return standard output, which must be exactly one strict JSON object on one line."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        assert self.out.count("\n") == 1
        assert self.out.endswith("\n")
        found = json.loads(self.out, parse_constant=refuse)
        assert isinstance(found, dict)
        return found

    @property
    def sentence(self) -> str:
        """Return what a command that could not be done said last, on standard error or as JSON."""
        assert self.code in (1, 75)
        assert "Traceback" not in self.err
        if self.out:
            # Under --json it is said once, as JSON, and nothing else is on standard output.
            told = self.json
            assert {"error", "kind", "status", "queries_charged"} <= told.keys()
            assert told["status"] == self.code
            assert "ttca: " not in self.err
            return str(told["error"]).strip()
        before, mark, said = self.err.rpartition("ttca: ")
        assert mark
        assert "ttca:" not in before
        return said.strip()


class Terminal:
    """Calls the command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: object) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["ttca", *map(str, words)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        said = self._capsys.readouterr()
        return Done(code if isinstance(code, int) else 0, said.out, said.err)


@pytest.fixture
def ttca(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Return the command line of this process; its retries wait no real time."""
    defaults = RetryPolicy.__init__.__kwdefaults__
    assert defaults is not None
    assert "sleep" in defaults
    monkeypatch.setitem(defaults, "sleep", lambda _: None)
    return Terminal(monkeypatch, capsys)


@dataclass(frozen=True)
class Served:
    """A platform behind HTTP and the log of what it processed."""

    url: str
    log: Path
    authorizations: set[str | None]

    @property
    def rows(self) -> int:
        """Images processed so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return sum(json.loads(line)["rows"] for line in lines)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve the tiny world's platform."""
    log = tmp_path_factory.mktemp("served") / "access.jsonl"
    seen: set[str | None] = set()
    app = create_app(worlds.Recorder().inner, access_log=log)

    @app.middleware("http")
    async def note(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if request.method == "POST":
            seen.add(request.headers.get("authorization"))
        return await call_next(request)

    with background_app(app) as url:
        yield Served(url, log, seen)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of people with roles, to be copied."""
    home = tmp_path_factory.mktemp("people")
    roles = worlds.roster().roles()
    named = [role for role, group in roles.items() for _ in range(len(group))]
    write_people(home / "people", People.concatenate(list(roles.values())), worlds.CLASSES, named)
    return home / "people"


@pytest.fixture
def home(tmp_path: Path, people: Path, served: Served) -> Path:
    """Return the folder of an action that has not begun."""
    shutil.copytree(people, tmp_path / "mine" / "people")
    (tmp_path / "mine" / "action.toml").write_text(worlds.action_file(served.url))
    return tmp_path / "mine"


@pytest.fixture(scope="module")
def finished_home(tmp_path_factory: pytest.TempPathFactory, people: Path, served: Served) -> Path:
    """Return the folder of an action that a program of its own ran to the end, with its output next to it."""
    home = tmp_path_factory.mktemp("finished") / "mine"
    shutil.copytree(people, home / "people")
    (home / "action.toml").write_text(worlds.action_file(served.url, platform='key_variable = "TTCA_KEY_TEST"\n'))
    done = subprocess.run(
        [sys.executable, "-m", "ttca", "run", str(home), "--yes", "--json"],
        env={**os.environ, "TTCA_KEY_TEST": f"127.0.0.1 {KEY}"},
        capture_output=True,
        text=True,
        check=False,
    )
    (home.parent / "done.json").write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    return home


@pytest.fixture
def finished(tmp_path: Path, finished_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the finished action."""
    monkeypatch.setenv("TTCA_KEY_TEST", f"127.0.0.1 {KEY}")
    return Path(shutil.copytree(finished_home, tmp_path / "finished"))


def paid(folder: Path) -> int:
    """Return the queries that a ledger, which must be whole, says were paid."""
    connection = sqlite3.connect(folder / "ledger.sqlite")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM attempts").fetchone()[0])
    finally:
        connection.close()


# -- the whole way ----------------------------------------------------------------------------------------------


def test_run_in_a_program_of_its_own_prints_one_row(finished_home: Path) -> None:
    """`ttca run --json` ends with status 0, one JSON object on standard output, and everything else on the other."""
    done = Done(*json.loads((finished_home.parent / "done.json").read_text()))
    assert done.code == 0, done.err
    assert tuple(done.json) == Row.keys()
    assert done.json["gap_closed"] > 0.8
    assert done.json["seed"] == 0
    assert "What it costs" in done.err
    assert "The result row" in done.err
    assert "Traceback" not in done.err
    assert KEY not in done.out + done.err
    assert json.loads((finished_home / "row.json").read_text()) == done.json
    for name in ("report.html", "certificate.json", f"perturbations.{SUFFIX}", f"proxy.{SUFFIX}"):
        assert (finished_home / name).stat().st_size > 0


def test_no_file_of_an_action_holds_a_key(finished_home: Path, served: Served) -> None:
    """A key that went with every query is in no ledger, report, certificate, perturbation, proxy or log."""
    assert f"Bearer {KEY}" in served.authorizations
    files = [f for f in finished_home.rglob("*") if f.is_file()]
    assert {"ledger.sqlite", "report.html", "certificate.json"} <= {f.name for f in files}
    forms = {KEY, json.dumps(KEY)[1:-1], quote(KEY, safe=""), html.escape(KEY), base64.b64encode(KEY.encode()).decode()}
    for file in (*files, served.log):
        content = file.read_bytes()
        assert not any(form.encode() in content for form in forms), file


def test_run_again_asks_nothing_and_says_the_same(finished: Path, ttca: Terminal, served: Served) -> None:
    """A finished action is read back by every command, without a query."""
    before = served.rows
    row = json.loads((finished / "row.json").read_text())
    report = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    for command in ("run", "report"):
        said = ttca(command, finished, "--json").json
        assert {k: v for k, v in said.items() if "seconds" not in k and k != "peak_rss_mb"} == {
            k: v for k, v in row.items() if "seconds" not in k and k != "peak_rss_mb"
        }
    assert (finished / "report.html").stat().st_size == pytest.approx(len(report), rel=0.01)
    certificate = Certificate.from_dict(ttca("verify", finished, "--json").json)
    assert certificate.lower.value == row["certificate_lower"]
    pooled = ttca("pool", "run", finished, "--json").json
    groups = pooled.pop("groups")
    assert pooled == {"images": 205, "answered": 205, "coverage": 1.0, "whose": WHOSE["pool"]}
    assert {name: group["asked"] for name, group in groups.items()} == {"subgroup": 140, "reference": 65}
    plan = ttca("run", finished / "action.toml", "--dry-run", "--json").json["steps"]
    assert {step: cost["queries"] for step, cost in plan.items()} == {
        "pool": 0,
        "baseline": 0,
        "verification": 0,
        "controls": 0,
    }
    assert served.rows == before


def test_the_last_line_of_a_run_says_what_was_charged_twice(home: Path, ttca: Terminal, served: Served) -> None:
    """Queries whose first answer did not come are counted in the run that paid them again, and in no later one."""
    app, failures = create_app(worlds.Recorder().inner), iter(range(3))

    @app.middleware("http")
    async def fail(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if request.method == "POST" and next(failures, None) is not None:
            return Response(b"out of memory", 500)
        return await call_next(request)

    with background_app(app) as url:
        (home / "action.toml").write_text((home / "action.toml").read_text().replace(served.url, url))
        last = ttca("pool", "run", home).err.splitlines()[-1]
        twice = paid(home) - 205
        # The first request goes alone, so that its first three attempts are the ones that fail.
        assert twice > 0
        assert last.startswith(f"Charged more than once in this run: {twice // 3} quer")
        assert "Charged more than once" not in ttca("pool", "run", home).err


def test_every_step_can_be_a_command_of_its_own(home: Path, ttca: Terminal, served: Served) -> None:
    """pool run, distil, learn and verify each do one step, pay for it alone, and leave its result in the folder."""
    start = served.rows
    assert ttca("pool", "run", home, "--json").json["answered"] == 205
    assert served.rows - start == paid(home) == 205
    fidelity = ttca("distil", home, "--json").json
    assert fidelity.keys() == {"subgroup", "subgroup_interval", "reference", "reference_interval"}
    assert fidelity["subgroup_interval"][0] <= fidelity["subgroup"] <= fidelity["subgroup_interval"][1]
    files = ttca("learn", home, "--json").json["files"]
    assert {e: PerturbationSet.load(path).epsilon for e, path in files.items()} == {"6": 6, "12": 12}
    assert paid(home) == 205
    certificate = Certificate.from_dict(ttca("verify", home, "--yes", "--json").json)
    assert paid(home) == served.rows - start == 205 + certificate.queries
    status = ttca("pool", "status", home, "--json").json
    assert status["paid"] == {"baseline": 80, "pool": 205, "verification": certificate.queries - 80}
    assert sum(member["charged"] for member in status["members"]) == paid(home)
    assert sum(status["days"].values()) == paid(home)
    assert status["asked"] == status["answered"] == paid(home)


def test_people_read_what_programs_read_as_json(finished: Path, ttca: Terminal) -> None:
    """Without --json the result is in words, with how each group is served, its intervals and whose rates they are."""
    said = {}
    for words, expected in (
        (("run", finished), "The result row, of verification people"),
        (("pool", "run", finished), "205 of 205 pool images have an answer."),
        (("pool", "status", finished), "Who paid"),
        (("distil", finished), "the proxy agrees with the platform"),
        (("learn", finished), "Learned δ for ε = 6, 12."),
        (("verify", finished), "parity"),
        (("report", finished), str(finished / "report.html")),
        (("run", finished, "--dry-run"), "What it costs"),
    ):
        done = ttca(*words)
        assert done.code == 0
        assert expected in done.out
        assert "ttca:" not in done.err
        said[" ".join(map(str, words)).replace(f" {finished}", "")] = done
    for command in ("pool run", "run", "verify"):
        told = " ".join((said[command].out + said[command].err).split())
        assert re.search(
            r"subgroup \d+ of 140 \([\d.]+ %, 95 % interval [\d.]+ to [\d.]+\); reference \d+ of 65 \(", told
        )
    for command in ("run", "report"):
        assert "The result row, of verification people" in said[command].out
        assert WHOSE["verification people"] in said[command].out
        assert WHOSE["pool"] in said[command].err
        # Each stands beside its value, under no title of its own.
        assert "Intervals" not in said[command].out
    assert said["pool run"].out.rstrip().endswith(WHOSE["pool"])
    assert WHOSE["verification people"] in (finished / "report.html").read_text(encoding="utf-8")


def test_a_failed_certificate_ends_without_a_members_file(home: Path, ttca: Terminal, served: Served) -> None:
    """`ttca run` and `verify` with a failed certificate say so, write no members' file, and `apply` refuses its δ."""
    text = worlds.action_file(served.url, action="goal = 0.999\ncontrols = false\n")
    (home / "action.toml").write_text(text)
    for command in ("run", "verify"):
        done = ttca(command, home, "--yes")
        assert done.code == 0
        assert "Not certified, so there is no perturbations.safetensors to give to members" in done.err
        assert not (home / "perturbations.safetensors").exists()
    mine, out = home / "people" / "images" / "000000.png", home / "out.png"
    learned = home / "perturbations" / "epsilon-012.safetensors"
    words = ("apply", learned, mine, "--class", worlds.CLASSES[0], "--out", out)
    assert "without a certificate" in ttca(*words).sentence
    assert not out.exists()
    said = ttca(*words, "--anyway")
    assert said.code == 0
    assert "Not certified: nobody has shown that it helps" in said.out
    assert out.is_file()


def test_only_who_said_yes_is_pictured_and_a_public_report_names_nobody(finished: Path, ttca: Terminal) -> None:
    """Pictures in report.html are of persons whose column says yes; for publication there is no picture and no name."""
    assert "An input of class" not in (finished / "report.html").read_text()
    table = finished / "people" / "people.csv"
    header, *lines = table.read_text().splitlines()
    # The column alone decides: it is no part of what was verified, so that a yes can be given, or taken back, later.
    said_yes = [line + (",yes" if "verification-sub-007" in line else ",no") for line in lines]
    table.write_text("\n".join([header + ",shareable", *said_yes]) + "\n")
    assert ttca("report", finished).code == 0
    page = (finished / "report.html").read_text()
    assert page.count("An input of class") == 1
    assert "member-0" in page
    done = ttca("report", finished, "--for-publication")
    assert done.code == 0
    assert "report-for-publication.html" in done.out
    public = (finished / "report-for-publication.html").read_text()
    assert "An input of class" not in public
    assert "member-" not in public


PAYING = [("run",), ("pool", "run"), ("distil",), ("learn",), ("verify",)]


@pytest.mark.parametrize("command", PAYING, ids=" ".join)
def test_a_dry_run_says_the_cost_and_spends_nothing(
    home: Path, ttca: Terminal, served: Served, command: tuple[str, ...]
) -> None:
    """Every command that may cost queries can say how many, in JSON too, and then sends none."""
    before = served.rows
    plan = ttca(*command, home, "--dry-run", "--json").json["steps"]
    assert {step: cost["queries"] for step, cost in plan.items()} == {
        "pool": 205,
        "baseline": 80,
        "verification": 160,
        "controls": 720,
    }
    assert {cost["affordable"] for cost in plan.values()} == {2500}
    assert served.rows == before
    assert paid(home) == 0


@pytest.mark.parametrize("words", [(), ("--dry-run",), ("--yes",)], ids=" ".join)
def test_a_report_of_an_unfinished_action_is_a_sentence(
    home: Path, ttca: Terminal, served: Served, words: tuple[str, ...]
) -> None:
    """It names what is missing and what to run, and neither asks nor learns."""
    before = served.rows
    said = ttca("report", home, *words).sentence
    assert "Expected an action that was verified" in said
    assert f"Run first: ttca run {home}\n" in said
    assert served.rows == before
    assert list(home.rglob("*.safetensors")) == []


def test_photographs_of_any_size_are_asked_about_as_the_action_file_says(
    home: Path, ttca: Terminal, served: Served
) -> None:
    """Larger originals, some turned, are prepared on opening; the dry run says how, and another size is a sentence."""
    originals = home / "originals"
    shutil.copytree(home / "people", originals)
    for i, path in enumerate(sorted(originals.rglob("*.png"))):
        with Image.open(path) as image:
            pixels = np.asarray(image).repeat(5, axis=0).repeat(5, axis=1)
        exif = Image.Exif()
        exif[0x0112] = 6 if i % 4 == 0 else 1
        Image.fromarray(np.rot90(pixels) if i % 4 == 0 else pixels).save(path, exif=exif)
    way = Preparation(size=8)
    told = f'source = "originals"\npreparation = {way}\n'
    file = home / "action.toml"
    first = file.read_text()
    file.write_text(first.replace('source = "people"\n', told))
    dry = ttca("run", home, "--dry-run", "--json").json
    assert dry["preparation"] == way.to_dict()
    assert "Pictures go out at 8×8 pixels" in ttca("run", home, "--dry-run").err
    before = served.rows
    assert ttca("pool", "run", home, "--json").json["answered"] == 205
    assert served.rows == before + 205
    # What ttca prepare writes is what was asked about: nothing is paid again.
    assert ttca("prepare", originals, home / "prepared", "--action", home).code == 0
    file.write_text(first.replace('source = "people"\n', told.replace("originals", "prepared")))
    assert ttca("run", home, "--dry-run", "--json").json["steps"]["pool"]["queries"] == 0
    file.write_text(first.replace('source = "people"\n', 'source = "prepared"\n'))
    assert f"preparation = {way}" in ttca("run", home, "--dry-run").sentence
    file.write_text(first.replace('source = "people"\n', told.replace("size = 8", "size = 9")))
    assert "Expected a preparation to the 8×8 pixels" in ttca("run", home, "--dry-run").sentence
    file.write_text(first.replace('source = "people"\n', 'source = "originals"\n'))
    assert "ttca prepare does" in ttca("run", home, "--dry-run").sentence


def test_a_dry_run_warns_where_few_are_learned_from(home: Path, ttca: Terminal) -> None:
    """Where a class has few learners, the dry run says that the published file can give away who took part."""
    assert ttca("run", home, "--dry-run", "--json").json["warnings"] == []
    table = home / "people" / "people.csv"
    header, *lines = table.read_text().splitlines()
    few = [
        line for line in lines if ",pool-sub-" not in line or (",pool-sub-0" in line and line.split("-sub-")[1] < "033")
    ]
    table.write_text("\n".join([header, *few]) + "\n")
    (warning,) = ttca("run", home, "--dry-run", "--json").json["warnings"]
    assert "3 of 3 classes have fewer than 30 learners in the subgroup, 'stripes' has 11." in warning
    assert "membership test on the published file reached a mean AUC of .66" in warning
    assert warning in ttca("run", home, "--dry-run").err


def test_a_dry_run_says_who_has_agreed(home: Path, ttca: Terminal) -> None:
    """In one line: how many members' consent to today's words is on record, and how to see the words."""
    told = ttca("run", home, "--dry-run").err
    assert told.count("consent") == 2
    assert "0 of 5 members' consent is on record" in told
    assert f"ttca pool consent MEMBER {home / 'action.toml'} --dry-run" in told
    ttca("pool", "consent", "member-1", home)
    assert "1 of 5 members' consent is on record" in ttca("pool", "run", home, "--dry-run").err
    edit(home / "action.toml", "[action]\n", '[action]\nsubgroup = "others"\n')
    assert "0 of 5 members' consent is on record" in ttca("run", home, "--dry-run").err


def test_a_dry_run_says_which_weights_the_proxy_begins_with(
    home: Path, ttca: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies on this machine decides a result where nobody chose: so it is said before anything is paid."""
    assert "The proxy begins with random weights: perceptron." in ttca("run", home, "--dry-run").err
    assert ttca("run", home, "--dry-run", "--json").json["weights"] == []
    (home / "weights").mkdir()
    tensors_file(home / "weights" / "theirs.safetensors", "perceptron")
    monkeypatch.setenv("TTCA_WEIGHTS", str(home / "weights"))
    assert "The proxy begins with published weights: theirs (" in ttca("run", home, "--dry-run").err
    assert [one["name"] for one in ttca("run", home, "--dry-run", "--json").json["weights"]] == ["theirs"]


def test_a_platform_of_another_version_is_not_paid_unasked(home: Path, ttca: Terminal, served: Served) -> None:
    """What has changed and what it costs is said, in a dry run too; --accept-new-version alone pays it."""
    ttca("pool", "run", home, "--json")
    # An option that only says how answers are read costs nothing.
    (home / "action.toml").write_text(
        worlds.action_file(served.url.replace("127.0.0.1", "localhost"), platform="options.resolution = 0.001\n")
    )
    before = served.rows
    assert ttca("pool", "run", home, "--json").json["answered"] == 205
    assert served.rows == before
    with background_app(create_app(worlds.Recorder(version="2").inner)) as url:
        (home / "action.toml").write_text(worlds.action_file(url))
        dry = ttca("pool", "run", home, "--dry-run", "--json")
        assert dry.json["changed"]["again"] == dry.json["steps"]["pool"]["queries"] == 205
        assert dry.json["changed"]["fields"].keys() == {"url", "versions"}
        assert "versions: '1' before, '2' now. 205 of 205 images" in dry.json["error"]
        for command in (("run",), ("pool", "run")):
            sentence = ttca(*command, home).sentence
            assert "versions: '1' before, '2' now" in sentence
            assert "--accept-new-version" in sentence
        assert paid(home) == 205
        assert ttca("pool", "run", home, "--accept-new-version", "--json").json["answered"] == 205
        assert paid(home) == 410
        assert ttca("pool", "run", home, "--dry-run", "--json").json["changed"] is None


def test_books_are_handed_over_and_checked(finished: Path, ttca: Terminal, tmp_path: Path) -> None:
    """Exported books say what the ledger says, name nobody, are signed, and are refused once edited."""
    books = tmp_path / "books.json"
    told = ttca("pool", "export", finished, "--out", books, "--json").json
    status = ttca("pool", "status", finished, "--json").json
    checked = ttca("pool", "check", books, "--key", told["key"], "--json").json
    assert checked["charged"] == told["charged"] == sum(m["charged"] for m in status["members"])
    assert not any(m["member"] in books.read_text() for m in status["members"])
    assert "which exists" in ttca("pool", "export", finished, "--out", books).sentence
    assert "follow from the requests" in ttca("pool", "check", books).out
    books.write_text(books.read_text().replace('"charged": ', '"charged": 1'))
    assert "as it was signed" in ttca("pool", "check", books).sentence
    signature_file(books).unlink()
    assert "to be the sum of the requests" in ttca("pool", "check", books).sentence


def test_evidence_is_a_bundle_that_checks_out_and_holds_no_key(
    finished: Path, ttca: Terminal, served: Served, tmp_path: Path
) -> None:
    """The command asks nothing, says with which key it is signed, and holds neither the platform's key nor a name."""
    before, out = served.rows, tmp_path / "evidence.zip"
    made = ttca("evidence", finished, "--out", out, "--json").json
    assert check(out, made["key"])
    content = out.read_bytes()
    assert served.rows == before
    assert KEY.encode() not in content
    assert not [name for name in worlds.MEMBERS if name.encode() in content]
    assert "have no consent on record" in " ".join(made["warnings"])
    assert "which exists" in ttca("evidence", finished, "--out", out).sentence
    assert "checks it with: python check.py" in ttca("recheck", out).sentence


def test_after_verification_a_changed_platform_is_asked_nothing(finished: Path, ttca: Terminal, tmp_path: Path) -> None:
    """A finished action on another version pays nothing, says what helps, and writes its report all the same."""
    log, path = tmp_path / "access.jsonl", finished / "action.toml"
    row = json.loads((finished / "row.json").read_text())
    with background_app(create_app(worlds.Recorder(version="2").inner, access_log=log)) as url:
        path.write_text(re.sub(r'url = "[^"]*"', f'url = "{url}"', path.read_text()))
        for words in ([], ["--accept-new-version", "--yes"], ["--accept-new-version", "--dry-run", "--json"]):
            said = ttca("run", finished, *words).sentence
            assert "ttca evidence and ttca report write what was found without the platform" in said
            assert "--accept-new-version" not in said
        (finished / "report.html").unlink()
        now = ttca("report", finished, "--json").json
    assert {key for key in row if now[key] != row[key]} <= {"seconds", "peak_rss_mb"}
    assert (finished / "report.html").is_file()
    assert not log.exists()


def test_evidence_needs_no_platform_that_is_still_there(finished: Path, ttca: Terminal, tmp_path: Path) -> None:
    """What was answered is about the platform of that day: gone or another version, the bundle is the same."""
    path, out = finished / "action.toml", tmp_path / "evidence.zip"
    path.write_text(re.sub(r'url = "[^"]*"', 'url = "http://127.0.0.1:1"', path.read_text()))
    said = ttca("evidence", finished, "--out", out, "--json")
    assert "The proxy begins" not in said.err
    assert check(out)
    with zipfile.ZipFile(out) as bundle:
        assert "(http://127.0.0.1:1)" not in bundle.read("letter.md").decode()
        assert json.loads(bundle.read("row.json")) == json.loads((finished / "row.json").read_text())


def test_pool_status_does_not_meet_the_platform(finished: Path, ttca: Terminal) -> None:
    """Who paid what is known while the platform is down."""
    path = finished / "action.toml"
    path.write_text(worlds.action_file("http://127.0.0.1:1"))
    status = ttca("pool", "status", finished, "--json").json
    assert sum(m["charged"] for m in status["members"]) == sum(status["paid"].values()) == paid(finished)
    assert "other quotas" not in ttca("pool", "status", finished).err
    quotas = "[pool.quotas]\nmember-1 = 7\nmembr-2 = 7\nmember-3 = 500\n"
    path.write_text(worlds.action_file("http://127.0.0.1:1", pool=quotas))
    said = ttca("pool", "status", finished)
    assert "has other quotas, which ttca run reads next: member-1 = 7, membr-2 = 7." in " ".join(said.err.split())


def test_pool_status_reads_what_nobody_can_write(finished: Path, ttca: Terminal) -> None:
    """pool status leaves a ledger and its folder as they are, also where they are read-only."""
    before = {p: p.read_bytes() for p in finished.iterdir() if p.is_file()}
    (finished / "ledger.sqlite").chmod(0o400)
    finished.chmod(0o500)
    try:
        status = ttca("pool", "status", finished, "--json").json
    finally:
        finished.chmod(0o700)
    assert sum(m["charged"] for m in status["members"]) == sum(status["paid"].values())
    assert {p: p.read_bytes() for p in finished.iterdir() if p.is_file()} == before


def test_a_ledger_that_was_emptied_is_refused_until_that_is_meant(home: Path, ttca: Terminal) -> None:
    """An action whose ledger is gone pays nothing again by itself; pool accept-loss says that it may."""
    ttca("pool", "run", home, "--json")
    (home / "ledger.sqlite").unlink()
    sentence = ttca("pool", "run", home).sentence
    assert "requests, got none" in sentence
    assert "ttca pool accept-loss" in sentence
    assert ttca("pool", "accept-loss", home, "--json").json == {"folder": str(home)}
    assert ttca("pool", "run", home, "--dry-run", "--json").json["steps"]["pool"]["queries"] == 205


def test_a_forgotten_member_is_in_no_book(home: Path, ttca: Terminal, served: Served) -> None:
    """pool forget deletes the answers about a member's images and the name, and what they paid still adds up."""
    ttca("pool", "run", home, "--json")
    before = {m["member"]: m["charged"] for m in ttca("pool", "status", home, "--json").json["members"]}
    name = sorted(before)[0]
    gone = ttca("pool", "forget", name, home, "--yes", "--json").json
    assert gone["deleted"] == []
    assert str((home / "people" / "people.csv").resolve()) in {left["path"] for left in gone["remains"]}
    assert all(Path(left["path"]).is_file() and left["holds"] and left["do"] for left in gone["remains"])
    status = ttca("pool", "status", home, "--json").json
    after = {m["member"]: m["charged"] for m in status["members"]}
    assert gone["answers"] == gone["images"] > 0
    assert status["answered"] == status["asked"] == 205 - gone["answers"]
    assert after == {**{m: n for m, n in before.items() if m != name}, gone["alias"]: before[name]}
    assert name in ttca("pool", "forget", name, home, "--yes").sentence
    # Their rows are still in the table: nobody asks about them again unasked.
    processed = served.rows
    for words in (("run",), ("run", "--dry-run"), ("pool", "run"), ("hub", "invite", name)):
        assert f"nobody who was forgotten, got '{name}'" in ttca(*words, home).sentence
    assert served.rows == processed
    assert name not in (home / "ledger.sqlite").read_bytes().decode("latin-1")
    assert f"{gone['alias']} was forgotten before" in ttca("pool", "forget", gone["alias"], home, "--yes").out


def test_forgetting_says_what_is_left_and_what_to_do(finished: Path, ttca: Terminal) -> None:
    """In words, every file that still holds something of the member stands by its full path."""
    said = ttca("pool", "forget", "member-2", finished, "--yes").out
    assert re.search(
        r"Forgot member-2\. Deleted: (\d+) answers about \1 queries\. What member-2 paid stands under", said
    )
    for name in ("people/people.csv: names them. Take their rows out.", "report.html: names them. Delete it. Where"):
        assert f"- {finished.resolve()}/{name}" in said


def test_consent_is_a_record_with_a_receipt(home: Path, ttca: Terminal) -> None:
    """Who agreed, when and to what is written down before the first query; forgetting withdraws it under an alias."""
    words = ttca("pool", "consent", "member-1", home, "--dry-run").out
    assert "If you agree:" in words
    assert not (home / "ledger.sqlite").exists()
    first = ttca("pool", "consent", " member-1", home, "--json").json
    assert first["receipt"].startswith(f"Receipt: member-1 agreed to this on {first['agreed']}.\n\n{words.strip()}")
    assert first["sha256"] in first["receipt"]
    again = ttca("pool", "consent", "member-1", home)
    assert again.out.strip() == first["receipt"].strip()
    assert "Did you mean 'member-1'?" in ttca("pool", "consent", "membr-1", home).sentence
    assert f"Agreed: member-1 since {first['agreed']}\n" in ttca("pool", "status", home).out
    alias = ttca("pool", "forget", "member-1", home, "--yes", "--json").json["alias"]
    (record,) = ttca("pool", "status", home, "--json").json["consents"]
    assert record == {**record, "member": alias, "agreed": first["agreed"], "sha256": first["sha256"]}
    assert record["withdrawn"] >= first["agreed"]
    # Whoever comes back agrees anew, though their rows are out of the table; whoever was never there cannot.
    table = home / "people" / "people.csv"
    rows = table.read_text().splitlines()
    table.write_text("\n".join(row for row in rows if "member-1," not in row and not row.endswith("member-1")))
    assert "member-1 agreed to this" in ttca("pool", "consent", "member-1", home).out
    assert len(ttca("pool", "status", home, "--json").json["consents"]) == 2
    assert "Expected the member to be one of" in ttca("pool", "consent", "membr-1", home).sentence


def test_nobody_is_forgotten_unasked(home: Path, ttca: Terminal) -> None:
    """What forgetting costs is said first, and without a terminal it needs --yes: a mistyped name is soon another's."""
    ttca("pool", "run", home)
    said = ttca("pool", "forget", "member-1", home)
    assert said.code != 0
    assert re.search(r"Expected --yes.*member-1 is forgotten for good, with \d+ answers about their", said.sentence)
    assert "a new report or new evidence needs a new action" in said.sentence
    assert said.sentence.endswith("Nobody was forgotten.")
    members = {m["member"] for m in ttca("pool", "status", home, "--json").json["members"]}
    assert "member-1" in members


def test_actions_share_a_ledger_on_a_server(home: Path, tmp_path: Path, ttca: Terminal, served: Served) -> None:
    """With a PostgreSQL URL a second action finds what the first one paid for, and each has a bill of its own."""
    url = postgres().database()
    shutil.copytree(home, tmp_path / "second")
    for folder, name in ((home, "one"), (tmp_path / "second", "two")):
        text = worlds.action_file(served.url, action=f'name = "{name}"\n', pool=f'ledger = "{url}"\n')
        (folder / "action.toml").write_text(text)
    start = served.rows
    assert ttca("pool", "run", home, "--json").json["answered"] == 205
    assert served.rows - start == 205
    sentence = ttca("pool", "run", tmp_path / "second", "--json").sentence
    assert "Expected the ledger's secret in" in sentence
    shutil.copyfile(home / "ledger.key", tmp_path / "second" / "ledger.key")
    text = (tmp_path / "second" / "action.toml").read_text()
    (tmp_path / "second" / "action.toml").write_text(text.replace('"two"', '"one"'))
    sentence = ttca("pool", "run", tmp_path / "second", "--json").sentence
    assert "Expected a name that no other action has" in sentence
    (tmp_path / "second" / "action.toml").write_text(text)
    assert ttca("pool", "run", tmp_path / "second", "--json").json["answered"] == 205
    assert served.rows - start == 205
    assert ttca("pool", "status", home, "--json").json["paid"] == {"pool": 205}
    assert ttca("pool", "status", tmp_path / "second", "--json").json["paid"] == {}
    assert not (home / "ledger.sqlite").exists()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "about 1 s"), (89, "about 89 s"), (600, "about 10 min"), (7200, "about 2 h"), (864000, "about 10 days")],
)
def test_times_are_told_for_people(seconds: float, words: str) -> None:
    """A duration is told in the unit that fits it."""
    assert duration(seconds) == words


def test_a_dry_run_tells_the_time_that_rates_take(home: Path, ttca: Terminal, served: Served) -> None:
    """With ten queries a minute for each of five members, 1165 queries take 23 minutes, and the table says so."""
    (home / "action.toml").write_text(worlds.action_file(served.url, pool="per_minute = 10\n"))
    said = ttca("run", home, "--dry-run", "--json").json
    queries = sum(step["queries"] for step in said["steps"].values())
    assert said["seconds"] == 60 * (-(-queries // 50) - 1)
    assert f"about {said['seconds'] / 60:.0f} min" in " ".join(ttca("run", home, "--dry-run").out.split())


def test_an_action_without_controls_ends_with_its_certificate(home: Path, ttca: Terminal) -> None:
    """With controls = false, run pays for the certificate alone and prints it; a report of an earlier run is named."""
    text = (home / "action.toml").read_text().replace("[action]\n", "[action]\ncontrols = false\n")
    (home / "action.toml").write_text(text)
    done = ttca("run", home, "--yes", "--json")
    certificate = Certificate.from_dict(done.json)
    assert "earlier run" not in done.err
    assert paid(home) == 205 + certificate.queries
    assert not (home / "row.json").exists()
    (home / "report.html").write_text("nothing is proposed")
    assert "report.html is of an earlier run" in " ".join(ttca("run", home, "--yes").err.split())


def test_a_run_in_which_nothing_helps_says_so(home: Path, ttca: Terminal) -> None:
    """A dry run says who races and at what cost, or what came of it; where no recipe beats doing nothing, `ttca run`
    ends well with a plain sentence, a row and a report, and `ttca verify` says why there is nothing to verify."""
    edit(home / "action.toml", "epsilons = [6, 12]", 'recipe = "auto"\nepsilons = [1]\npublic_epochs = 2')
    edit(home / "action.toml", "steps = 10", "steps = 1")
    plan = ttca("run", home, "--dry-run", "--json").json
    assert plan["steps"]["pool"]["queries"] + plan["steps"]["race"]["queries"] == 205
    assert "zero-query" in [recipe["name"] for recipe in plan["race"]["recipes"]]
    assert "recipes race: zero-query" in ttca("run", home, "--dry-run").err
    done = ttca("run", home, "--json")
    assert done.code == 0
    # On one stream, not on both.
    assert "Nothing is proposed" not in done.err
    assert (done.json["recipe"], done.json["certificate"]) == ("nothing", None)
    assert done.json["subgroup_after"] == done.json["subgroup_before"]
    assert done.json["race"]["winner"] in {entrant["name"] for entrant in done.json["race"]["entrants"]}
    again = ttca("run", home, "--dry-run")
    said = ("Nothing is proposed: no recipe", "recipes race", "For the certificate")
    assert [words in again.err for words in said] == [True, False, False]
    assert "0 queries at most" in " ".join(again.out.split())
    for command in (("run", home, "--dry-run"), ("plan", home, "--assume-subgroup", 0.6, "--assume-reference", 0.9)):
        assert ttca(*command, "--json").json["race"] == done.json["race"]
    apply = ttca("apply", home, home / "none.png", "--class", "left")
    assert "In this action no recipe was shown to beat doing nothing" in apply.sentence
    assert "Nothing is proposed: no recipe was shown to beat doing nothing" in ttca("report", home).out
    assert "nothing is proposed" in (home / "report.html").read_text(encoding="utf-8")
    assert not (home / f"perturbations.{SUFFIX}").exists()
    refused = ttca("verify", home)
    assert (refused.code, "no recipe was shown to beat doing nothing" in refused.sentence) == (1, True)
    # Images that δ does not change are answered already.
    assert 125 <= paid(home) <= 205


def test_members_alone_get_numbers_about_themselves_and_strict_json(home: Path, ttca: Terminal) -> None:
    """Without volunteers, what is not known about the reference is null, not NaN, and run says what is missing."""
    shutil.rmtree(home / "people")
    roles = worlds.roster(reference=False).roles()
    named = [role for role, group in roles.items() for _ in range(len(group))]
    write_people(home / "people", People.concatenate(list(roles.values())), worlds.CLASSES, named)
    text = (home / "action.toml").read_text().replace("[action]\n", '[action]\ngoal = "improvement"\n')
    (home / "action.toml").write_text(text)
    assert "reference people among the verification people" in ttca("run", home).sentence
    assert paid(home) == 0
    said = ttca("distil", home, "--json").json
    assert said["reference"] is None
    assert said["subgroup"] > 0.5
    assert "not defined for the reference" in ttca("distil", home).out.replace("\n", " ")
    assert ttca("verify", home, "--yes", "--json").json["terms"]["goal"] == "improvement"


# -- a member's own command -------------------------------------------------------------------------------------


def apply_words(folder: Path, **changes: object) -> list[object]:
    """Return the words that apply a finished action's δ to its first verification image."""
    given: dict[str, object] = {
        "image": folder / "people" / "images" / "000205.png",
        "class": worlds.CLASSES[0],
        "out": folder / "submit.png",
        **changes,
    }
    image = given.pop("image")
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    return ["apply", folder / f"perturbations.{SUFFIX}", image, *options]


def test_a_member_applies_their_own_delta(finished: Path, ttca: Terminal) -> None:
    """apply writes clip(x + δ) of the class as PNG and says what it changed."""
    chosen = PerturbationSet.load(finished / f"perturbations.{SUFFIX}")
    said = ttca(*apply_words(finished, epsilon=chosen.epsilon), "--json").json
    before = np.asarray(Image.open(finished / "people" / "images" / "000205.png"))
    after = np.asarray(Image.open(finished / "submit.png"))
    assert np.array_equal(after, chosen.apply(before[None], 0)[0])
    assert said["set"]["epsilon"] == chosen.epsilon
    assert said["photos"][0]["values_changed"] == int((after != before).sum()) > 0
    assert "Submit them as they are" in ttca(*apply_words(finished)).out


def test_names_with_brackets_are_printed_and_not_obeyed(finished: Path, ttca: Terminal) -> None:
    """A path or class that looks like markup appears letter by letter, in results and in errors."""
    odd = finished / "[bold]x[/red]"
    assert str(odd / "a.png") in ttca(*apply_words(finished, out=odd / "a.png")).out
    assert (odd / "a.png").is_file()
    assert "got '[/b]'" in ttca(*apply_words(finished, **{"class": "[/b]"})).sentence
    assert f"Wrote {odd / 'action.toml'}." in ttca("init", odd / "action.toml").err
    (odd / "action.toml").write_text("[zzz]")
    assert str(odd) in ttca("run", odd).sentence


def spoilt(folder: Path, epsilon: int) -> None:
    """Overwrite the shared file with one that states a smaller ε than its δ keeps."""
    path = folder / f"perturbations.{SUFFIX}"
    known = PerturbationSet.load(path)
    facts = {
        "epsilon": epsilon,
        "classes": known.classes,
        "subgroup": known.subgroup,
        "image_shape": known.image_shape,
        "fingerprint": known.fingerprint,
        "created": known.created,
        "expires": None,
        "evidence": {},
        "signature": None,
    }
    path.write_bytes(save({"delta": known.delta}, metadata={"format": FORMAT, "facts": json.dumps(facts)}))


def test_a_file_of_another_epsilon_is_refused(finished: Path, ttca: Terminal) -> None:
    """--epsilon refuses a file of another ε, and a file that exceeds its own ε is refused whatever is asked."""
    epsilon = PerturbationSet.load(finished / f"perturbations.{SUFFIX}").epsilon
    assert f"ε = 3, got one with ε = {epsilon}" in ttca(*apply_words(finished, epsilon=3)).sentence
    spoilt(finished, 3)
    assert "got other bytes" in ttca(*apply_words(finished)).sentence
    signature_file(finished / f"perturbations.{SUFFIX}").unlink()
    assert "≤ ε = 3 levels" in ttca(*apply_words(finished)).sentence
    assert "≤ ε = 3 levels" in ttca(*apply_words(finished, epsilon=3), "--json").sentence
    assert not (finished / "submit.png").exists()


def test_apply_says_what_is_wrong_with_an_image(finished: Path, ttca: Terminal) -> None:
    """An image of another size, a missing one, an unknown class and a JPEG to write are each a sentence."""
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(finished / "big.png")
    for change, sentence in (
        ({"image": finished / "big.png"}, "8×8"),
        ({"image": finished / "none.png"}, "none.png"),
        ({"class": "dots"}, "'stripes', 'bars', 'checks', got 'dots'"),
        ({"out": finished / "submit.jpg"}, "ending in .png"),
    ):
        assert sentence in ttca(*apply_words(finished, **change)).sentence
    assert not list(finished.glob("submit*"))


# -- whose file it is -------------------------------------------------------------------------------------------


def test_the_public_key_is_told_and_the_private_half_is_nowhere(finished_home: Path) -> None:
    """`ttca run` says the public key and where its private half lies; no output and no other file holds that half."""
    _, out, err = json.loads((finished_home.parent / "done.json").read_text())
    public, forms = CollectiveKey.open_or_make(finished_home).public, private_forms(finished_home)
    assert f"The collective's public key is {public}." in err
    assert str(finished_home / KEY_FILE) in err
    files = [f for f in finished_home.rglob("*") if f.is_file() and f.name != KEY_FILE]
    assert {f"perturbations.{SUFFIX}.sig", "certificate.json.sig", "report.html"} <= {f.name for f in files}
    for content in (out.encode(), err.encode(), *(f.read_bytes() for f in files)):
        assert not any(form in content for form in forms)
    assert public in (finished_home / "report.html").read_text()


def test_apply_tells_whose_file_it_is(finished: Path, ttca: Terminal) -> None:
    """Without --key the signature's key is told, with the right one it is the collective's, with another it stops."""
    public = CollectiveKey.open_or_make(finished).public
    other = CollectiveKey.open_or_make(finished / "other").public
    assert f"Signed with the key {public}. So the file is whole" in ttca(*apply_words(finished)).out
    said = ttca(*apply_words(finished, key=public), "--json").json
    signed = said["set"]["signed_by"], said["set"]["signature"]
    assert signed == (public, f"Signed with the collective's key, {public}.")
    (finished / "submit.png").unlink()
    assert f"to be signed with {other}" in ttca(*apply_words(finished, key=other)).sentence
    assert not (finished / "submit.png").exists()
    assert "another key" in ttca(*apply_words(finished, key=other), "--anyway").out
    (finished / "submit.png").unlink()
    path = finished / f"perturbations.{SUFFIX}"
    path.write_bytes(path.read_bytes()[:-1])
    for more in ((), ("--anyway",)):
        assert "as it was signed, got other bytes" in ttca(*apply_words(finished, key=public), *more).sentence
    assert "run ttca verify again" in ttca("report", finished).sentence.replace("\n", " ")
    assert not (finished / "submit.png").exists()
    signature_file(path).unlink()
    assert ttca("report", finished).code == 0
    assert f"public key is {public}" in ttca("verify", finished).err


def enrolled(home: Path) -> None:
    """Let the ledger be made, and everybody have their quota, without a query."""
    with read_action(home).open():
        pass


def test_an_invitation_can_be_sent_on_as_it_is(home: Path, ttca: Terminal, tmp_path: Path) -> None:
    """It has the install line, a file that is ready, the token and the key to pin; an open key costs no token."""
    enrolled(home)
    public = CollectiveKey.open_or_make(home).public
    done = ttca("hub", "invite", "member-0", home)
    assert "write into [hub] of the action file url (where members reach it) and install (the command" in done.err
    assert "no longer works" not in done.err
    with (home / "action.toml").open("a") as file:
        file.write('\n[hub]\nurl = "https://hub.example.net"\ninstall = "pip install our-ttca"\n')
    done = ttca("hub", "invite", "member-0", home)
    assert "The token that member-0 had until now no longer works." in " ".join(done.err.split())
    text, token = done.out.split("-----\n")[1], done.out.partition("export TTCA_HUB_TOKEN='")[2].partition("'")[0]
    (tmp_path / "member-0.toml").write_text(text)
    mine = read_contribution(tmp_path / "member-0.toml")
    assert mine.platform == read_action(home).platform
    assert (mine.contribute.hub, mine.contribute.hub_key) == ("https://hub.example.net", public)
    for said in ("pip install our-ttca", "at most 500 queries", public, "ttca contribute member-0.toml"):
        assert said in done.out
    again = ttca("hub", "invite", "member-0", home, "--url", "https://another.example.net", "--json").json
    assert (again["key"], again["hub"]) == (public, "https://another.example.net")
    assert again["token"] in again["message"]
    (home / KEY_FILE).chmod(0o640)
    assert "got mode 640" in ttca("hub", "invite", "member-0", home).sentence
    with read_action(home).open_ledger() as ledger:
        assert ledger.member_of(again["token"]) == "member-0"
        assert ledger.member_of(token) is None


@pytest.mark.parametrize("words", [("invite", "member-0"), ("members",), ("revoke", "member-0"), ("member-file", "x")])
def test_a_hub_begins_with_serve(words: tuple[str, ...], home: Path, ttca: Terminal) -> None:
    """Whoever invites before the hub was ever started is told to start it, not to run an action without members."""
    said = ttca("hub", *words, home).sentence
    assert "Start with: ttca hub serve" in said
    assert "ttca run" not in said


def test_members_are_invited_and_taken_back(home: Path, ttca: Terminal) -> None:
    """hub members says who is invited since when; a token taken back is good for nothing, until the next invitation."""
    enrolled(home)
    before = time.time()
    token = ttca("hub", "invite", "member-1", home, "--json").json["token"]
    assert ttca("hub", "revoke", "member-1", home, "--json").json == {"member": "member-1"}
    assert "a member with a token to take back, got 'member-1'" in ttca("hub", "revoke", "member-1", home).sentence
    ttca("hub", "invite", "member-0", home)
    with read_action(home).open_ledger() as ledger:
        assert ledger.member_of(token) is None
    members = ttca("hub", "members", home, "--json").json["members"]
    said = {m["member"]: m for m in members}
    assert [m["member"] for m in members] == sorted(said)
    assert (said["member-0"]["invited"], said["member-0"]["revoked"]) == (True, False)
    assert (said["member-1"]["invited"], said["member-1"]["revoked"]) == (False, True)
    assert (said["member-2"]["invited"], said["member-2"]["revoked"]) == (False, False)
    assert said["member-2"]["invited_at"] is None
    assert before <= said["member-1"]["invited_at"] <= said["member-0"]["invited_at"] <= time.time()
    shown = ttca("hub", "members", home).out
    assert re.search(r"member-0 .* UTC .* 0 .* welcome", shown)
    assert re.search(r"member-1 .* UTC .* revoked", shown)
    refused = ttca("hub", "invite", "nobody", home).sentence
    assert "with a quota to invite, got 'nobody'" in refused
    assert "their own in [pool.quotas]" in refused


def test_a_members_file_is_written_once(home: Path, ttca: Terminal, tmp_path: Path) -> None:
    """hub member-file writes a file that can be read, prints it where none is named, and overwrites nothing."""
    enrolled(home)
    url = ("--url", "http://127.0.0.1:8080")
    printed = ttca("hub", "member-file", "member-0", home, *url)
    path = tmp_path / "member-0.toml"
    said = ttca("hub", "member-file", "member-0", home, *url, "--out", path, "--json").json
    assert said == {"member": "member-0", "file": str(path), "text": path.read_text()}
    assert printed.out == path.read_text()
    assert read_contribution(path).platform == read_action(home).platform
    assert "which exists" in ttca("hub", "member-file", "member-0", home, *url, "--out", path).sentence
    assert "Expected https" in ttca("hub", "member-file", "member-0", home, "--url", "http://example.org").sentence


# -- bad input: exit 1, one sentence, no query, the ledger intact -----------------------------------------------


def edit(path: Path, old: str, new: str) -> None:
    """Replace what must be there in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def wrong_shape(home: Path) -> None:
    """Make one image larger than the platform takes."""
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(home / "people" / "images" / "000007.png")


def no_image(home: Path) -> None:
    """Make one image a text file."""
    (home / "people" / "images" / "000007.png").write_text("hello")


def unknown_class(home: Path) -> None:
    """Name a class that the platform does not have."""
    edit(home / "people" / "people.csv", "000001.png,bars", "000001.png,dots")


def no_verification(home: Path) -> None:
    """Give verification people the role of pool people."""
    edit(home / "people" / "people.csv", ",verification", ",pool")


def toml(old: str, new: str) -> Any:
    """Return a change of the action file."""
    return lambda home: edit(home / "action.toml", old, new)


BAD_INPUT = {
    "wrong-shaped image": (wrong_shape, "000007.png"),
    "damaged image": (no_image, "000007.png"),
    "missing image": (lambda home: (home / "people" / "images" / "000007.png").unlink(), "000007.png"),
    "unknown class": (unknown_class, "'dots'"),
    "no verification people": (no_verification, "role verification"),
    "quota 0": (toml("quota = 500", "quota = 0"), "at least one member with a quota, got none"),
    "a member's quota below 0": (
        toml("quota = 500", "quota = 500\n[pool.quotas]\nmember-1 = -1"),
        "Expected quotas of 0 or more in [pool.quotas], got -1",
    ),
    "a stranger's quota": (toml("quota = 500", "quota = 500\n[pool.quotas]\nnobody = 9"), "nobody"),
    "cap below the cost": (toml("quota = 500", "quota = 500\ncap = 50"), "cap"),
    "quotas below the cost": (toml("quota = 500", "quota = 20"), "205"),
    "too few classes": (toml(', "checks"]', "]"), "classes"),
    "too many classes": (toml('"checks"]', '"checks", "dots"]'), "classes"),
    "another model": (toml('"tiny"', '"huge"'), "huge"),
    "unknown key": (toml("epochs", "epoch"), "Did you mean 'epochs'"),
    "unknown architecture": (toml("perceptron", "perceptrn"), "perceptrn"),
    "unknown timm model": (toml("perceptron", "timm/resnet_of_mine"), "resnet_of_mine"),
    "a timm model for other sizes": (toml("perceptron", "timm/vit_tiny_patch16_224"), "8×8 pixels"),
    "a model of nobody's": (toml("perceptron", "nobody.here:model"), "nobody.here"),
    "quotas below the first verification people": (toml("quota = 500", "quota = 60"), "301 queries"),
    "a key that is not there": (toml("[platform]", '[platform]\nkey_variable = "TTCA_KEY_OF_NOBODY"'), "TTCA_KEY_OF"),
    "goal no rate": (toml("[action]", "[action]\ngoal = 1.5"), "goal"),
    "no people": (toml('"people"', '"nowhere"'), "nowhere"),
    "no TOML": (toml("[action]", "[action"), "action.toml"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_sentence_and_no_query(home: Path, ttca: Terminal, served: Served, case: str) -> None:
    """Whatever is wrong with an action's files ends in status 1, a sentence, no query and a whole ledger."""
    spoil, expected = BAD_INPUT[case]
    spoil(home)
    before = served.rows
    done = ttca("run", home, "--json")
    assert expected in done.sentence
    # A dry run promises nothing that the run refuses.
    dry = ttca("run", home, "--dry-run", "--json")
    assert dry.code == 1
    assert done.json["error"].startswith(dry.json["error"])
    assert served.rows == before
    if (home / "ledger.sqlite").exists():
        assert paid(home) == 0


def goal(folder: Path) -> None:
    """Set another goal after the certificate."""
    edit(folder / "action.toml", "[action]\n", "[action]\ngoal = 'improvement'\n")


def family(folder: Path) -> None:
    """Add an ε after the certificate."""
    edit(folder / "action.toml", "[6, 12]", "[6, 12, 20]")


def fewer_people(folder: Path) -> None:
    """Take a verification person out of the table who was not forgotten."""
    table = folder / "people" / "people.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if "verification-sub-011" not in line))


def certificate_edited(folder: Path) -> None:
    """Edit the certificate."""
    edit(folder / "certificate.json", '"persons": 80', '"persons": 81')


def members_file_edited(folder: Path) -> None:
    """Change the members' file."""
    path = folder / "perturbations.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def sitting_lost(folder: Path) -> None:
    """Lose the record of what verification people were used for, and the certificate."""
    for name in ("verification.json", "certificate.json", "certificate.json.sig"):
        (folder / name).unlink()


def key_lost(folder: Path) -> None:
    """Lose the collective's key."""
    (folder / "collective.key").unlink()


AFTERWARDS: list[Callable[[Path], None]] = [
    goal, family, fewer_people, certificate_edited, members_file_edited, sitting_lost, key_lost,
]  # fmt: skip


@pytest.mark.parametrize("spoil", AFTERWARDS, ids=lambda spoil: spoil.__name__)
def test_a_dry_run_of_a_finished_action_refuses_what_the_run_refuses(
    finished: Path, ttca: Terminal, served: Served, spoil: Callable[[Path], None]
) -> None:
    """Whatever was changed since: the dry run and the run end with the same sentence, and neither asks anything."""
    spoil(finished)
    before = served.rows
    dry, run = ttca("run", finished, "--dry-run", "--json"), ttca("run", finished, "--yes", "--json")
    assert dry.code == run.code == 1, (dry.err, run.err)
    assert run.json["error"].startswith(dry.json["error"])
    assert served.rows == before


@pytest.mark.parametrize("command", PAYING, ids=" ".join)
def test_a_platform_that_is_down_is_one_sentence(home: Path, ttca: Terminal, command: tuple[str, ...]) -> None:
    """With nobody at the platform's address, every command that needs it says so."""
    (home / "action.toml").write_text(worlds.action_file("http://127.0.0.1:1"))
    assert "Check url, and that the platform is up" in ttca(*command, home).sentence


def test_a_platform_that_goes_down_leaves_the_ledger_whole(home: Path, ttca: Terminal) -> None:
    """An action stopped by its platform's end keeps every answer and goes on when the platform is back."""
    with background_server(worlds.Recorder().inner) as url:
        (home / "action.toml").write_text(worlds.action_file(url))
        ttca("pool", "run", home)
        port = int(url.rpartition(":")[2])
    assert "Check url" in ttca("verify", home).sentence
    assert paid(home) == 205
    with background_server(worlds.Recorder().inner, port=port):
        assert ttca("distil", home, "--json").code == 0
    assert paid(home) == 205


class Chameleon(worlds.Recorder):
    """Says in its metadata that it knows three classes, and answers about four."""

    def attempt(self, *arguments: Any, **options: Any) -> Any:
        """Answer with one class too many."""
        said = super().attempt(*arguments, **options)
        wider = np.concatenate([said.scores * 0.5, np.full((len(said), 1), 0.5, np.float32)], axis=1)
        return type(said)(said.status, said.labels, wider, said.resolution)


def test_answers_about_other_classes_stop_early(home: Path, ttca: Terminal) -> None:
    """A platform whose answers have a class too many costs three single images, and then stops."""
    platform = Chameleon()
    with background_server(platform) as url:
        (home / "action.toml").write_text(worlds.action_file(url))
        assert "(1, 3), got FP32 of shape (1, 4)" in ttca("run", home).sentence
    assert paid(home) == platform.queries == len(platform.seen) == 3


def test_a_damaged_ledger_is_one_sentence(home: Path, ttca: Terminal, served: Served) -> None:
    """A ledger that is no ledger stops every command, and is left as it is."""
    before = served.rows
    (home / "ledger.sqlite").write_bytes(b"not a database" * 100)
    for words in (("run", home), ("pool", "status", home)):
        assert "ledger.sqlite" in ttca(*words).sentence
    assert (home / "ledger.sqlite").read_bytes() == b"not a database" * 100
    assert served.rows == before


def test_status_before_the_first_query_says_how_to_begin(home: Path, ttca: Terminal) -> None:
    """Without a ledger, pool status says that nothing was asked yet, and makes none."""
    assert "nothing has been asked yet" in ttca("pool", "status", home).sentence
    assert not (home / "ledger.sqlite").exists()


@pytest.mark.parametrize("command", [*PAYING, ("pool", "status")], ids=" ".join)
def test_a_missing_action_file_says_how_to_write_one(tmp_path: Path, ttca: Terminal, command: tuple[str, ...]) -> None:
    """Every command on a folder without an action names the command that writes one."""
    assert "ttca init" in ttca(*command, tmp_path).sentence
    assert "ttca init" in ttca(*command, tmp_path / "nowhere" / "action.toml").sentence


# -- init, usage and the rest -----------------------------------------------------------------------------------


def test_init_writes_once_and_never_over_a_file(tmp_path: Path, ttca: Terminal) -> None:
    """init makes the folder and the file, says so on standard error, and refuses to replace either."""
    path = tmp_path / "new" / "action.toml"
    done = ttca("init", path)
    assert (done.code, done.out) == (0, "")
    assert str(path) in done.err
    assert done.err.rstrip().endswith(f"--dry-run, and for one answer: ttca ask {path} IMAGE")
    assert "written permission" in (path.parent / "letter-authorization.txt").read_text()
    first = path.read_bytes()
    assert "which exists" in ttca("init", path).sentence
    assert "which exists" in ttca("init", path.parent).sentence
    assert path.read_bytes() == first
    assert ttca("init", tmp_path / "other.toml", "--json").json == {"file": str(tmp_path / "other.toml")}
    # A name that is no file's is that of a folder, there or not.
    inside = tmp_path / "town action" / "action.toml"
    assert ttca("init", inside.parent, "--json").json == {"file": str(inside)}


def test_init_where_nothing_can_be_written_is_a_sentence(tmp_path: Path, ttca: Terminal) -> None:
    """A folder that cannot be made is refused with a sentence."""
    (tmp_path / "file").write_text("")
    assert "Choose another place" in ttca("init", tmp_path / "file" / "action.toml").sentence


def test_the_version_is_printed_alone(ttca: Terminal) -> None:
    """--version prints the version and nothing else."""
    assert ttca("--version") == Done(0, f"{__version__}\n", "")


def test_a_program_of_its_own_ends_with_the_same_statuses(tmp_path: Path) -> None:
    """As a real program, ttca ends with 0, 1 and 2, and shows no traceback."""
    for words, code, out, err in (
        (["--version"], 0, f"{__version__}\n", ""),
        (["run", str(tmp_path)], 1, "", "ttca: Expected an action file"),
        (["run"], 2, "", "Missing argument"),
    ):
        done = subprocess.run([sys.executable, "-m", "ttca", *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (code, out)
        assert err in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("fly",),
        ("run",),
        ("run", "a", "b"),
        ("run", "a", "--jsn"),
        ("apply",),
        ("inspect", "a", "b"),
        ("submit", "a", "b"),
        ("apply", "a", "b", "--class", "c", "--out", "d.png", "--epsilon", "many"),
        ("pool", "fly"),
        ("demo", "--seed", "-1"),
        ("serve", "model.onnx", "--classes", "a,b", "--size", "8", "--port", "70000"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(ttca: Terminal, words: tuple[str, ...]) -> None:
    """A command line that cannot be understood ends with status 2, on standard error alone."""
    done = ttca(*words)
    assert (done.code, done.out) == (2, "")
    assert "Usage" in done.err


def test_pool_alone_shows_its_commands(ttca: Terminal) -> None:
    """`ttca pool` without a command says which there are."""
    done = ttca("pool")
    assert done.code == 0
    assert "status" in done.out
    assert "run" in done.out


def commands() -> dict[tuple[str, ...], Any]:
    """Return every command and group by its words."""
    found: dict[tuple[str, ...], Any] = {}

    def walk(words: tuple[str, ...], command: Any) -> None:
        found[words] = command
        for name, inner in getattr(command, "commands", {}).items():
            walk((*words, name), inner)

    walk((), typer.main.get_command(app))
    return found


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words) or "ttca")
def test_every_command_explains_itself(ttca: Terminal, words: tuple[str, ...]) -> None:
    """--help shows every word of the source's help texts, names in brackets such as [platform] too, and cuts none."""
    done = ttca(*words, "--help")
    assert done.code == 0
    assert "Usage" in done.out
    shown = "".join(done.out.split())
    command = commands()[words]
    for text in (command.help, *(parameter.help for parameter in command.params)):
        assert "".join((text or "").split()) in shown
    assert "..." not in done.out.partition("Commands:")[2]
    for parameter in command.params:
        assert parameter.help, parameter.name


def test_help_names_tables_in_brackets(ttca: Terminal) -> None:
    """The names of tables in help are no markup."""
    assert "as for protocol in [platform]." in " ".join(ttca("serve", "--help").out.split())
    assert "per_day in [contribute]" in " ".join(ttca("contribute", "--help").out.split())


def test_all_missing_extras_are_named_at_once(tmp_path: Path, ttca: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch, fastapi and scikit-learn the demo names its three extras; an action names what its file wants."""
    for package in ("torch", "fastapi", "sklearn", "psycopg"):
        monkeypatch.setitem(sys.modules, package, None)
    assert "pip install 'ttca[learn,serve,data]'" in ttca("demo", "--folder", tmp_path / "demo").sentence
    assert not (tmp_path / "demo").exists()
    text = worlds.action_file("http://127.0.0.1:1", pool='ledger = "postgresql://host/name"\n')
    (tmp_path / "action.toml").write_text(text)
    assert "pip install 'ttca[learn,postgres]'" in ttca("verify", tmp_path).sentence
    assert "pip install 'ttca[postgres]'" in ttca("pool", "run", tmp_path).sentence


def test_the_row_is_told_in_words(finished: Path, ttca: Terminal) -> None:
    """The table of a row has the report's words and units, and no key of the result file."""
    told = ttca("run", finished).out
    for word in ("Subgroup with δ (S)", "Abuse rate", "The controls", " %", "Certified"):
        assert word in told
    assert not [key for key in Row.keys() if "_" in key and key in told]  # noqa: SIM118 - no dict


def test_no_part_of_the_command_line_shows_locals() -> None:
    """Every typer app is told not to show locals in tracebacks, and to take help for what it is."""
    apps = [app, *(group.typer_instance for group in app.registered_groups)]
    assert len(apps) == 5
    for one in apps:
        assert one is not None
        assert one.pretty_exceptions_show_locals is False
        assert one.rich_markup_mode is None


def test_serving_what_is_no_model_is_a_sentence(tmp_path: Path, ttca: Terminal) -> None:
    """A missing or damaged ONNX file is refused with a sentence."""
    path = tmp_path / "model.onnx"
    words = ("serve", path, "--classes", "a,b", "--size", "8")
    assert "model.onnx" in ttca(*words).sentence
    path.write_bytes(b"not a model")
    assert "model.onnx" in ttca(*words).sentence


def test_serving_wants_a_name_for_each_output(tmp_path: Path, ttca: Terminal) -> None:
    """Too few or too many class names are refused with the number of outputs before a server starts."""
    path = tmp_path / "model.onnx"
    onnx.save(bright_or_dark(), path)
    for names, count in (("dark,bright,grey", 3), ('dark,"bright, very"', None)):
        said = ttca("serve", path, "--classes", names, "--size", "4", "--protocol", "none").sentence
        assert (f"each of the model's 2 outputs, got {count} names" in said) is (count is not None)


@pytest.mark.e2e
@pytest.mark.parametrize("protocol", ["kserve-v2", "torchserve"])
def test_a_served_model_says_how_to_ask_it(tmp_path: Path, protocol: str) -> None:
    """What ttca serve --json prints is the [platform] table with which the model is asked, in any protocol."""
    file = tmp_path / "model.onnx"
    onnx.save(bright_or_dark(), file)
    command = [sys.executable, "-m", "ttca", "serve", str(file), "--classes", "dark, bright", "--size", "4"]
    command += ["--protocol", protocol, "--port", "0", "--top-k", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            told = json.loads(server.stdout.readline())
            table = PlatformSection(**{**told, "classes": tuple(told["classes"])})
            with table.open() as platform:
                white = np.full((1, 4, 4, 3), 255, np.uint8)
                answers = platform.attempt(white, Credential("ada"), request_id="r")
        finally:
            server.terminate()
    assert told["protocol"] == protocol
    assert answers.labels.tolist() == [1]
    assert np.isnan(answers.scores[0, 0])
    assert answers.scores[0, 1] > 0.5


def bright_or_dark() -> onnx.ModelProto:
    """Return a model whose second logit is the image's mean level less a half."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
    ]
    values = {"weights": np.array([[0, 1]] * 3, np.float32), "bias": np.array([0, -1.5], np.float32)}
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_collectives_reports_become_conflicts(tmp_path: Path, ttca: Terminal) -> None:
    """`ttca aggregate` writes one file for each collective, and says which; a damaged report is a sentence."""
    domain = Domain((2, 2), 2)
    records = np.full((4, 2), 5, np.int64)
    strategies = {n: FeatureLabelPlanting(Signal(domain, (0,), (1,)), y) for n, y in (("north", 0), ("south", 1))}
    for name, strategy in strategies.items():
        save_report(tmp_path / f"{name}.json", Report.of(name, strategy, records))
    files = [str(tmp_path / f"{name}.json") for name in ("north", "south")]
    ask = ("aggregate", *files, "--population", "1000", "--folder", str(tmp_path / "out"))
    done = ttca(*ask, "--json")
    assert done.code == 0, done.err
    assert done.json["acting"] == 80
    assert sorted(done.json["files"]) == ["north", "south"]
    assert read_conflict(Path(done.json["files"]["north"]), strategies["north"], "north").term.any()
    (tmp_path / "south.json").write_text("{}")
    done = ttca(*ask)
    assert done.code == 1
    assert "Expected" in done.err


def test_weights_are_listed_and_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ttca: Terminal) -> None:
    """A pickle becomes a file of the folder, and the list says where it is from and which proxies it fits."""
    import torch

    from tests.published import network, onnx_file

    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("TTCA_WEIGHTS", str(folder))
    torch.save(network("perceptron", 4).state_dict(), tmp_path / "theirs.pth")
    about = ("--architecture", "perceptron", "--license", "MIT", "--source", "somebody [1]")
    done = ttca("weights", "convert", tmp_path / "theirs.pth", folder / "theirs.safetensors", *about, "--json")
    assert (done.code, done.json["backbone"]["architecture"]) == (0, "perceptron")
    onnx_file(folder / "brings.onnx")
    done = ttca("weights", "list", "--json")
    assert [(b["name"], b["source"], b["license"], b["fits"]) for b in done.json["weights"]] == [
        ("brings", "brings.onnx", "unknown", "any: it brings its network"),
        ("theirs", "somebody [1]", "MIT", "perceptron"),
    ]
    assert "somebody" in ttca("weights", "list").out
    again = ttca("weights", "convert", tmp_path / "theirs.pth", folder / "theirs.safetensors")
    assert again.code == 1
    assert "Expected a new file .safetensors" in again.err
    (folder / "broken.onnx").write_bytes(b"?")
    assert "Expected a network as ONNX" in ttca("weights", "list").err
