"""Tests of forgetting: what is deleted, and that every file which still holds something of a member is named."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, event

from tests import worlds
from tests.worlds import Recorder, open_action
from ttca.action import CollectiveAction
from ttca.config import read_action
from ttca.data.folder import PREPARED, write_people
from ttca.data.preparing import prepare_photographs
from ttca.errors import ActionError, QuotaError
from ttca.folder_lock import hold
from ttca.forgetting import forget_member
from ttca.kept import load_arrays
from ttca.people import People
from ttca.pooling.ledger import Ledger
from ttca.preparation import Preparation

NAME = "member-1"


def leave_deleted(connection: sqlite3.Connection, _record: object) -> None:
    """Make SQLite leave in its file what is deleted, as most of its libraries do by default."""
    connection.execute("PRAGMA secure_delete=OFF").close()


@pytest.fixture(scope="module", autouse=True)
def careless() -> Iterator[None]:
    """Run every test with such a library."""
    event.listen(Engine, "connect", leave_deleted)
    yield
    event.remove(Engine, "connect", leave_deleted)


def everybody() -> People:
    """Return the tiny world's people."""
    return People.concatenate(list(worlds.roster().roles().values()))


def action_in(folder: Path) -> CollectiveAction:
    """Return the tiny world's action with a round of altered copies, some of whose people may be pictured."""
    people = everybody()
    changed = worlds.settings(rounds=1, altered=0.5)
    return open_action(folder, Recorder(), settings=changed, may_be_shown=people.persons.tolist())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an action that was reported, with its table and a test ledger, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    people = everybody()
    roles = [role for role, group in worlds.roster().roles().items() for _ in range(len(group))]
    with beside(0o022):
        write_people(folder / "people", people, worlds.CLASSES, roles)
    quotas = f'[pool.quotas]\n"{NAME}" = 500\n'
    (folder / "action.toml").write_text(worlds.action_file("http://127.0.0.1:1", pool=quotas))
    with beside(0o022), action_in(folder) as action:
        action.report()
        action.report(for_publication=True)
    with beside(0o022), Ledger(folder / "evaluation.sqlite") as ledger:
        ledger.enrol({"benchmark": 9})
        ledger.charge("benchmark", [b"k" * 32], request_id="r", number=1, purpose="test", owners=[NAME])
    (folder / "notes.txt").write_text(f"Call {NAME} on Monday, and member-11 too.")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished action."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def relative(folder: Path, paths: Iterator[str]) -> set[str]:
    """Return full paths as they are under the folder."""
    return {Path(path).relative_to(folder.resolve()).as_posix() for path in paths}


def test_every_file_that_holds_something_is_named_and_nothing_else(folder: Path) -> None:
    """Altered copies are deleted; table, pictures, notes, report and what was learned are listed with what to do."""
    people = everybody()
    mine = {f"people/images/{i:06d}.png" for i in np.flatnonzero(people.members == NAME)}
    done = forget_member(read_action(folder), NAME)
    assert relative(folder, iter(done.deleted)) == {"rounds/altered-1.safetensors"}
    assert not (folder / "rounds" / "altered-1.safetensors").exists()
    named = {"action.toml", "people/people.csv", "notes.txt", "report.html"}
    learned = {
        "proxy.safetensors", "controls.safetensors", "zero-query-proxy.safetensors", "perturbations.safetensors",
        "perturbations/epsilon-006.safetensors", "perturbations/epsilon-012.safetensors",
        "rounds/proxy-0.safetensors",
    }  # fmt: skip
    assert relative(folder, (r.path for r in done.remains)) == mine | named | learned
    told = {Path(r.path).name: (r.holds, r.do) for r in done.remains}
    assert told["action.toml"] == ("names them", "Take the name out of [pool.quotas].")
    assert told["people.csv"] == ("names them", "Take their rows out.")
    assert told["report.html"][0] == "names them and shows pictures, perhaps theirs"
    assert "ttca report" in told["report.html"][1]
    for path in mine:
        assert (folder / path).is_file()


def test_after_doing_what_is_said_no_byte_of_them_is_in_the_folder(folder: Path) -> None:
    """Name, keys, pictures and altered copies are in no file, though SQLite leaves what it deletes."""
    people = everybody()
    rows = np.flatnonzero(people.members == NAME)
    copies = load_arrays(folder / "rounds" / "altered-1.safetensors", None)
    assert copies is not None
    secrets = [NAME.encode(), *(image.tobytes() for image in people.images[rows])]
    secrets += [image.tobytes() for image in copies["images"]]
    with action_in(folder) as action:
        fingerprint = action.platform.info.fingerprint
        secrets += action.ledger.keys(people.images[rows[:20]], fingerprint=fingerprint, epoch="pool")
    for row in rows:
        picture = (folder / "people" / "images" / f"{row:06d}.png").read_bytes()
        secrets.append(picture[len(picture) // 2 :][:40])
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
        # Of every picture that was sent, in whatever form, the ledger knows whose it is.
        assert connection.execute("SELECT count(*) FROM attempts WHERE owner IS NULL").fetchone() == (0,)
    before = contents(folder)
    assert sum(any(secret in content for content in before) for secret in secrets) > len(rows)
    for left in forget_member(read_action(folder), NAME).remains:
        Path(left.path).unlink()
    assert [secret for secret in secrets for content in contents(folder) if secret in content] == []


def test_only_what_members_get_can_be_read_by_others(finished: Path) -> None:
    """In the folder of an action every file is its owner's alone, whatever the umask, but what members get."""
    rights = modes(finished)
    assert {"ledger.sqlite", "evaluation.sqlite", "action.lock", "verification.json"} <= rights.keys()
    assert {"report.html", "row.json", "certificate.json", "people/people.csv", "people/images"} <= rights.keys()
    shared = {"perturbations.safetensors", "perturbations.safetensors.sig", "certificate.json.sig"}
    # What this test wrote itself; and a closed folder closes what is in it.
    ours = {"people", "action.toml", "notes.txt"}
    seen = {name for name, mode in rights.items() if mode & 0o077 and not name.startswith("perturbations/")}
    assert seen - ours == shared
    assert {rights[name] for name in shared} == {0o644}
    assert rights["perturbations"] == 0o700


def test_the_other_files_of_a_ledger_are_as_closed_as_it_is(tmp_path: Path) -> None:
    """SQLite's write-ahead log and its index hold what the ledger holds."""
    with beside(0o022), Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.enrol({"ada": 1})
        rights = modes(tmp_path)
    assert rights == dict.fromkeys(
        ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.sqlite.key"), 0o600
    )


@contextmanager
def beside(umask: int) -> Iterator[None]:
    """Let new files be as open as this umask allows."""
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """Return the rights of everything in a folder."""
    return {p.relative_to(folder).as_posix(): stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*")}


def test_an_open_ledger_of_before_is_closed_to_strangers(tmp_path: Path) -> None:
    """An earlier version's ledger was everybody's to read; its group's rights stay, which may be given on purpose."""
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    path.chmod(0o664)
    Ledger(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def contents(folder: Path) -> list[bytes]:
    """Return the bytes of every file of a folder."""
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def test_who_only_verifies_leaves_the_copies_of_others_alone(folder: Path) -> None:
    """Altered copies and what was learned hold nothing of somebody whose pictures were never learned from."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.enrol({"eve": 5})
        ledger.charge("eve", [b"v" * 32], request_id="r", number=1, purpose="verification", owners=["eve"])
    done = forget_member(read_action(folder), "eve")
    assert (done.deleted, relative(folder, (r.path for r in done.remains))) == ((), {"report.html"})
    assert (folder / "rounds" / "altered-1.safetensors").is_file()


def test_an_audit_and_a_verification_that_has_begun_are_named(folder: Path) -> None:
    """An audit counts answers of whoever leaves; people who verify what was learned from them verify in vain."""
    (folder / "audit.json").write_text("{}")
    (folder / "certificate.json").unlink()
    told = {Path(r.path): r.do for r in forget_member(read_action(folder), NAME).remains}
    assert told[(folder / "audit.json").resolve()].endswith("ttca audit.")
    assert "new verification people" in told[folder]


def test_the_photograph_behind_a_prepared_picture_is_named(folder: Path, tmp_path: Path) -> None:
    """Preparing again brings back a picture whose photograph stays, and strikes the lines of one that is gone."""
    album = Path(shutil.copytree(folder / "people", tmp_path / "album"))
    shutil.rmtree(folder / "people")
    height, width, _ = worlds.SHAPE
    way = Preparation(size=(width, height))
    prepare_photographs(album, folder / "people", way)
    mine = [f"images/{i:06d}.png" for i in np.flatnonzero(everybody().members == NAME)]
    record = folder / "people" / PREPARED
    with record.open("a") as lines:
        lines.write(json.dumps({"out": "images/gone.png", "source": f"{NAME}.jpg"}) + "\n")
        # What somebody else wrote there costs nobody their right to leave.
        lines.write(json.dumps({"out": 5, "source": []}) + "\n[]\n")
    told = {Path(r.path): r.do for r in forget_member(read_action(folder), NAME).remains}
    for picture in mine:
        assert f"photograph, {picture}: ttca prepare would bring" in told[(folder / "people" / picture).resolve()]
        (folder / "people" / picture).unlink()
        (album / picture).unlink()
    assert "run ttca prepare again" in told[record.resolve()]
    table = (album / "people.csv").read_text().splitlines()
    (album / "people.csv").write_text("\n".join(line for line in table if f",{NAME}," not in line))
    prepare_photographs(album, folder / "people", way, force=True)
    written = record.read_text() + (folder / "people" / "people.csv").read_text()
    assert [name for name in (*mine, f"{NAME}.jpg") if name in written] == []


def test_nobody_is_forgotten_while_a_program_works_in_the_folder(folder: Path) -> None:
    """It would write down again what is deleted; and an unknown name changes nothing."""
    lock = hold(folder)
    with pytest.raises(ActionError, match="to be free"):
        forget_member(read_action(folder), NAME)
    lock.release()
    with pytest.raises(QuotaError, match="Expected the name of a member"):
        forget_member(read_action(folder), "nobody")
    with Ledger(folder / "ledger.sqlite") as ledger:
        assert NAME in ledger.remaining()


def test_the_lock_names_the_command_and_no_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed after the command is in no file, a member's name for one."""
    monkeypatch.setattr("sys.argv", ["/bin/ttca", "pool", "forget", "ada", "mine"])
    lock = hold(tmp_path)
    said = (tmp_path / "action.lock").read_text()
    lock.release()
    assert said.endswith("(ttca pool forget)")


def test_a_table_that_cannot_be_read_is_said(folder: Path) -> None:
    """The member is forgotten all the same, and the table is listed to be looked at by hand."""
    table = folder / "people" / "people.csv"
    table.write_text("file,class\n")
    done = forget_member(read_action(folder), NAME)
    (left,) = (r for r in done.remains if r.holds == "could not be read")
    assert left.path == str((folder / "people").resolve())
    assert f"Look for {NAME} in it." in left.do
