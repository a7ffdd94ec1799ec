"""Tests of bundles: they check out by themselves, whatever was forgotten, and no byte, number or name slips through."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import worlds
from tests.test_sitting import EVES, forget, with_eve, without
from tests.worlds import Recorder, open_action
from ttca.errors import ActionError
from ttca.evidence.bundle import write_evidence
from ttca.evidence.check import Refused, check, zip_bytes
from ttca.evidence.check import main as check_main
from ttca.expiry import Expiry, expire
from ttca.forgetting import bundles_in
from ttca.heads import HEADS_FILE, read_heads
from ttca.people import Roster
from ttca.perturbations import PerturbationSet
from ttca.pooling.consent import agree, words
from ttca.signing import KEY_FILE, CollectiveKey
from ttca.verifying import MEMBERS_FILE

URL = "http://127.0.0.1:1"
SUBGROUP = "people with a bad camera"


def bundle(folder: Path, out: Path, roster: Roster | None = None, **changes: Any) -> Path:
    """Write the bundle of the tiny world's action in a folder."""
    given = {
        "roster": with_eve() if roster is None else roster,
        "settings": worlds.settings(subgroup=SUBGROUP, **changes),
    }
    with open_action(folder, Recorder(), **given) as action:
        return write_evidence(action, out, url=URL).path


def ran(folder: Path, **changes: Any) -> Path:
    """Run the tiny world's action to its end, with consents on record."""
    settings = worlds.settings(subgroup=SUBGROUP, **changes)
    with open_action(folder, Recorder(), roster=with_eve(), settings=settings) as action:
        for name in (*worlds.MEMBERS[:2], "eve"):
            text = words(action=action.settings.name, subgroup=SUBGROUP, url=URL)
            agree(action.ledger, name, action=action.settings.name, text=text)
        action.verify()
        action.measure()
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished action with its bundle, to be copied."""
    folder = ran(tmp_path_factory.mktemp("finished"))
    bundle(folder, folder / "evidence.zip")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished action."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def files_of(path: Path) -> dict[str, bytes]:
    """Return the files of a bundle."""
    with zipfile.ZipFile(path) as found:
        return {name: found.read(name) for name in found.namelist()}


def test_a_bundle_checks_out_and_says_what_it_holds(finished: Path) -> None:
    """Every number is recomputed but those that can only be stated, and both heads are named."""
    said = "\n".join(check(finished / "evidence.zip", CollectiveKey.open_or_make(finished).public))
    assert "parity certified at ε = 12" in said
    assert "That is the key you gave" in said
    heads = {head.moment: head for head in read_heads(finished)}
    for moment in ("before verification", "after verification", "export"):
        assert heads[moment].head in said
    assert "3 have a consent on record" in said
    assert "0 were forgotten" in said
    row = json.loads(files_of(finished / "evidence.zip")["row.json"])
    assert f"for the subgroup {100 * row['subgroup_before']:.1f} % without the change" in said


def test_a_bundle_that_its_own_check_would_refuse_is_not_written(folder: Path, tmp_path: Path) -> None:
    """Under another name, or with another key than signed the heads, nothing is written, and why is said."""
    with pytest.raises(ActionError, match="heads were signed, 'action', got 'another'"):
        bundle(folder, tmp_path / "evidence.zip", name="another")
    # As it is advised where the key is lost.
    (folder / KEY_FILE).unlink()
    for name in ("certificate.json.sig", "perturbations.safetensors.sig"):
        (folder / name).unlink(missing_ok=True)
    ran(folder)
    with pytest.raises(ActionError, match="key that signed the action's heads"):
        bundle(folder, tmp_path / "evidence.zip")
    assert not (tmp_path / "evidence.zip").exists()


def test_an_edited_head_is_found_by_who_writes_the_bundle(folder: Path, tmp_path: Path) -> None:
    """What check.py would refuse is refused before it is written: the organizer hears it, not the journalist."""
    heads = folder / HEADS_FILE
    content = json.loads(heads.read_text())
    content["heads"][0]["rows"] += 1
    heads.write_text(json.dumps(content))
    with pytest.raises(ActionError, match=r"its own check\.py takes.*heads\.json: .*Nothing was written"):
        bundle(folder, tmp_path / "evidence.zip")
    assert not (tmp_path / "evidence.zip").exists()


def test_what_no_longer_holds_is_said_where_it_was_proved(folder: Path, tmp_path: Path) -> None:
    """After a recheck has declared the set expired, letter and report say so beside what was proved."""
    chosen = PerturbationSet.load(folder / MEMBERS_FILE)
    expire(
        folder, Expiry.of(chosen, since="2026-01-02T00:00:00+00:00", why="the platform no longer answers as it did.")
    )
    found = files_of(bundle(folder, tmp_path / "evidence.zip"))
    said = "This no longer holds. Expired since 2026-01-02: the platform no longer answers as it did."
    assert all(said in found[name].decode() for name in ("letter.md", "report.html"))
    assert check(tmp_path / "evidence.zip")


def test_a_bundle_that_another_program_packed_is_told_so(finished: Path, tmp_path: Path) -> None:
    """The same files in another ZIP are not called forged; unpacked, and opened on a Mac, they check out."""
    with zipfile.ZipFile(finished / "evidence.zip") as found:
        found.extractall(tmp_path / "unpacked")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / f"{method}.zip", "w", method) as packed:
            for path in sorted((tmp_path / "unpacked").iterdir()):
                packed.write(path, path.name)
        with pytest.raises(Refused, match="Unpack it, and check the folder"):
            check(tmp_path / f"{method}.zip")
    (tmp_path / "unpacked" / ".DS_Store").write_bytes(b"left by a file manager")
    assert check(tmp_path / "unpacked")


@pytest.mark.parametrize("recipe", ["auto", pytest.param("small-pictures", marks=pytest.mark.full)])
def test_a_bundle_of_a_race_or_of_a_named_recipe_checks_out(recipe: str, tmp_path: Path) -> None:
    """What the race paid is of the pool's queries, and the recipe's name is among what the row can only state."""
    races = {"race_share": 0.2} if recipe == "auto" else {}
    changes: dict[str, Any] = {"recipe": recipe, "epochs": 6, "public_epochs": 6, **races}
    folder = ran(tmp_path / "action", **changes)
    said = "\n".join(check(bundle(folder, tmp_path / "evidence.zip", **changes)))
    row = json.loads(files_of(tmp_path / "evidence.zip")["row.json"])
    assert row["recipe"] not in ("", "auto", "nothing")
    assert re.search(r"\brecipe\b", said)
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
        paid = dict(ledger.execute("SELECT purpose, SUM(paid) FROM requests GROUP BY purpose"))
    assert ("pool-race" in paid) == (recipe == "auto")
    assert row["queries_pool"] == paid["pool"] + paid.get("pool-race", 0)


def test_check_py_runs_alone(finished: Path, tmp_path: Path) -> None:
    """In an empty environment, without ttca or anything else installed, in the folder and on the ZIP."""
    out = tmp_path / "bundle"
    files = files_of(finished / "evidence.zip")
    out.mkdir()
    for name, content in files.items():
        (out / name).write_bytes(content)
    for arguments in ([], [str(finished / "evidence.zip")]):
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(out / "check.py"), *arguments],
            env={}, cwd="/", capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert "The certificate follows from its answers" in done.stdout
    (out / "row.json").write_bytes(files["row.json"].replace(b"0.", b"1.", 1))
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(out / "check.py")],
        env={},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("REFUSED. row.json: was changed")


def test_a_bundle_says_what_to_do_with_what_a_reader_would_do_first(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ZIP beside its own files, a letter that was filled in, and words that name no bundle each get a sentence."""
    out = tmp_path / "bundle"
    out.mkdir()
    (tmp_path / "empty").mkdir()
    # An action's own folder is no bundle, whatever it holds.
    home = Path(shutil.copytree(finished, tmp_path / "home"))
    (home / "action.toml").touch()
    (tmp_path / "notes.txt").write_text("Ada Lovelace")
    for name, content in files_of(finished / "evidence.zip").items():
        (out / name).write_bytes(content)
    shutil.copy(finished / "evidence.zip", out)
    cases: list[tuple[list[str], int, str]] = [
        ([str(out)], 1, "evidence.zip: is not listed in manifest.json. Move away what you put beside"),
        (["--help"], 0, "python check.py --key KEY"),
        ([str(tmp_path / "none.zip")], 2, "none.zip, which is not there. Nothing was checked."),
        (["--kye", "x"], 2, "got --kye."),
        (["--key"], 2, "got --key without a key."),
        ([str(tmp_path / "empty")], 2, "which is none. Nothing was checked."),
        ([str(tmp_path / "notes.txt")], 2, "which is none. Nothing was checked."),
        ([str(home)], 2, "which is none. Nothing was checked."),
        (["--key", "ttca-ed25519:abc"], 2, "which is no key: a letter may be missing or wrong. Nothing was checked."),
        (["--key", "x" * 43], 2, "which is no key: a letter may be missing or wrong. Nothing was checked."),
    ]
    for arguments, status, sentence in cases:
        assert check_main(arguments) == status, arguments
        assert sentence in capsys.readouterr().out
    (out / "evidence.zip").unlink()
    # What a Mac leaves behind.
    (out / "__MACOSX").mkdir()
    (out / "._check.py").touch()
    assert check_main([str(out)]) == 0
    with (out / "letter.md").open("a") as letter:
        letter.write("Ada Lovelace")
    assert check_main([str(out)]) == 1
    assert "Fill in a copy of the letter, outside the bundle." in capsys.readouterr().out


def _changed(finished: Path, tmp_path: Path, times: int) -> None:
    content = (finished / "evidence.zip").read_bytes()
    rng = np.random.default_rng(0)
    names = {*files_of(finished / "evidence.zip"), "evidence.zip"}
    path = tmp_path / "evidence.zip"
    for place in rng.choice(len(content), size=times, replace=False).tolist():
        wrong = bytearray(content)
        wrong[place] ^= int(rng.integers(1, 256))
        path.write_bytes(wrong)
        with pytest.raises(Refused) as caught:
            check(path)
        assert str(caught.value).partition(":")[0] in names, (place, str(caught.value))


def test_a_changed_byte_is_refused_and_its_file_named(finished: Path, tmp_path: Path) -> None:
    """Anywhere in the bundle: in a file, a signature, or the ZIP around them."""
    _changed(finished, tmp_path, 60)


@pytest.mark.full
def test_each_of_a_thousand_changed_bytes_is_refused(finished: Path, tmp_path: Path) -> None:
    """As above, a thousand times."""
    _changed(finished, tmp_path, 1000)


@pytest.mark.full
def test_a_changed_byte_of_every_file_of_a_folder_is_refused(finished: Path, tmp_path: Path) -> None:
    """The bundle's own check.py finds it, too, also where it is itself the changed file."""
    files = files_of(finished / "evidence.zip")
    rng = np.random.default_rng(1)
    for name in [*files] * 3:
        out = tmp_path / "bundle"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        for other, content in files.items():
            (out / other).write_bytes(content)
        wrong = bytearray(files[name])
        wrong[int(rng.integers(len(wrong)))] ^= int(rng.integers(1, 256))
        (out / name).write_bytes(wrong)
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(out / "check.py")], capture_output=True, timeout=120, check=False
        )
        assert done.returncode != 0
        assert name.encode() in done.stdout + done.stderr


def _forged(finished: Path, edit: Callable[[dict[str, bytes]], None]) -> Path:
    """Return a bundle that whoever has the key changed and signed again."""
    files = files_of(finished / "evidence.zip")
    edit(files)
    key = CollectiveKey.open_or_make(finished)
    files["certificate.json.sig"] = key.signature_content(files["certificate.json"], "certificate")
    manifest = json.loads(files["manifest.json"])
    listed = {n: hashlib.sha256(c).hexdigest() for n, c in sorted(files.items()) if not n.startswith("manifest")}
    files["manifest.json"] = (json.dumps({**manifest, "files": listed}, indent=1) + "\n").encode()
    files["manifest.json.sig"] = key.signature_content(files["manifest.json"], "evidence")
    path = finished / "forged.zip"
    path.write_bytes(zip_bytes(files))
    return path


def _in_json(name: str, change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def edit(files: dict[str, bytes]) -> None:
        content = json.loads(files[name])
        change(content)
        files[name] = json.dumps(content).encode()

    return edit


def _row(key: str, value: Any) -> Callable[[dict[str, bytes]], None]:
    return _in_json("row.json", lambda row: row.update({key: value}))


def _instead(name: str, old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def edit(files: dict[str, bytes]) -> None:
        files[name] = files[name].replace(old.encode(), new.encode(), 1)

    return edit


def _line(change: Callable[[dict[str, Any]], None], kind: str) -> Callable[[dict[str, bytes]], None]:
    """Change the first row of a kind in the ledger, whose salt everybody knows."""

    def edit(files: dict[str, bytes]) -> None:
        lines = files["ledger.jsonl"].decode().splitlines()
        place = next(i for i, line in enumerate(lines) if f'"{kind}' in json.loads(line)["content"])
        line = json.loads(lines[place])
        row = json.loads(line["content"])
        change(row)
        lines[place] = json.dumps({**line, "content": json.dumps(row, sort_keys=True, separators=(",", ":"))})
        files["ledger.jsonl"] = ("\n".join(lines) + "\n").encode()

    return edit


def _cut(files: dict[str, bytes]) -> None:
    files["ledger.jsonl"] = files["ledger.jsonl"].rsplit(b"\n", 2)[0] + b"\n"


def _paid_less(content: Any) -> None:
    member = next(iter(content["members"].values()))
    member["charged"] -= 1


def _another_text(content: Any) -> None:
    digest = next(iter(content["texts"]))
    content["texts"][digest] += " And to anything else."


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (_row("subgroup_after", 0.999), "row.json: says subgroup_after"),
        (_row("gap_closed", 1.0), "row.json: says gap_closed"),
        (_row("paired_p", 0.01), "row.json: says paired_p"),
        (_row("abuse_rate", 0.1), "row.json: says abuse_rate"),
        (_row("queries_pool", 1), "row.json: says queries_pool"),
        (_row("fidelity_subgroup", 1.0), "row.json: says fidelity_subgroup"),
        (_row("equal_opportunity_gap_after", 0.0), "row.json: says equal_opportunity_gap_after"),
        (_row("demographic_parity_ratio_before", 1.0), "row.json: says demographic_parity_ratio_before"),
        (_row("proof", "of everything"), "row.json: holds proof"),
        (_in_json("row.json", lambda row: row["intervals"].update(gap_before=[0.2, 0.3])), "row.json: says gap_before"),
        (_in_json("row.json", lambda row: row["intervals"].pop("gap_before")), "row.json: has intervals"),
        (_line(lambda row: row.update({"class": (row["class"] + 1) % 3}), "seat"), "ledger.jsonl: does not give"),
        (_line(lambda row: row.update(answer=[0, 1]), "verification"), "ledger.jsonl: does not give the head"),
        (_cut, "ledger.jsonl: has rows that no head|heads.json|ledger.jsonl: does not give"),
        (_in_json("heads.json", lambda content: content["heads"].pop()), "ledger.jsonl: has rows that no head covers"),
        (_in_json("heads.json", lambda content: content["heads"][0].update(at="2020-01-01T00:00:00+00:00")),
         "heads.json: the head before verification was changed"),
        (_in_json("members.json", _paid_less), "members.json: says another number"),
        (_in_json("members.json", _another_text), "members.json: holds words of consent that were changed"),
        (_in_json("measurement.json", lambda said: said["picks"]["subgroup"].reverse()), "row.json: says fidelity"),
        (_row("queries", 1), "row.json: says queries is 1, its composition gives"),
        (_row("seconds", math.nan), "row.json: cannot be read"),
        (_in_json("manifest.json", lambda said: said.update(made="2020-01-01T00:00:00+00:00")),
         "manifest.json: says another day than the head at export"),
        (_in_json("certificate.json", lambda said: said.update(verified="2020-01-01T00:00:00+00:00")),
         "certificate.json: says that it was verified on a day outside"),
        (_in_json("certificate.json", lambda said: said.update(verified="2099-01-01T00:00:00+00:00")),
         "certificate.json: says that it was verified on a day outside"),
        (_instead("consent.txt", "eve", "Eve and all the others"), "consent.txt: says something else than members"),
        (_instead("ledger.jsonl", '"salt": "', '"salt": "!'), "ledger.jsonl: line 1 cannot be read as a row"),
        (_in_json("measurement.json", lambda said: said["groups"]["subgroup"]["truth"].reverse()),
         "measurement.json: has another class"),
    ],
)  # fmt: skip
def test_a_forgery_that_is_signed_again_is_refused(
    edit: Callable[[dict[str, bytes]], None], sentence: str, folder: Path
) -> None:
    """Whoever has the key can sign what they like; what does not follow from the rows is refused all the same."""
    with pytest.raises(Refused, match=sentence):
        check(_forged(folder, edit))


def test_an_unchanged_bundle_that_is_signed_again_is_no_forgery(folder: Path) -> None:
    """What the test above refuses, it refuses for what was changed."""
    assert check(_forged(folder, lambda files: None))


def test_another_key_is_refused(finished: Path) -> None:
    """Whoever knows the collective's key notices a bundle of somebody else."""
    with pytest.raises(Refused, match="another key than the collective's"):
        check(finished / "evidence.zip", "ttca-ed25519:" + "A" * 43)


def test_nothing_of_anybody_is_in_a_bundle(finished: Path) -> None:
    """No member's or person's name, no key, no secret, no picture and no query's key; planted ones would be found."""
    files = files_of(finished / "evidence.zip")
    content = b"\n".join(files.values()) + b"\n".join(name.encode() for name in files)
    people = [*with_eve().roles().values()]
    names = {name for role in people for each in (role.members, role.persons) for name in each.tolist()}
    pictures = [image.tobytes() for role in people for image in role.images]
    secrets = [(finished / name).read_bytes() for name in ("ledger.sqlite.key", "collective.key")]
    secrets.append(secrets[0][:32])
    with closing(sqlite3.connect(finished / "ledger.sqlite")) as connection:
        keys = [bytes(row[0]) for row in connection.execute("SELECT key FROM attempts")]
    planted = [name.encode() for name in names] + pictures + secrets + keys + [key.hex().encode() for key in keys]
    assert len(keys) > 500
    assert "eve" in names
    # A name of three letters is a part of many words.
    alone = set(re.findall(rb"[A-Za-z0-9-]+", content))
    assert not [p for p in planted if (p in alone if len(p) < 8 else p in content)]
    assert b"member-1" in (finished / "ledger.sqlite").read_bytes()


@pytest.mark.full
def test_names_in_a_bundle_are_drawn_anew(folder: Path) -> None:
    """Two bundles of one action cannot be matched by them."""
    first = json.loads(files_of(folder / "evidence.zip")["members.json"])["members"]
    second = json.loads(files_of(bundle(folder, folder / "again.zip"))["members.json"])["members"]
    assert not first.keys() & second.keys()
    assert sorted(m["charged"] for m in first.values()) == sorted(m["charged"] for m in second.values())


def test_who_was_forgotten_is_sealed_and_counted(folder: Path) -> None:
    """Heads that were signed before still verify, the certificate stands, and what rests on them is said."""
    forget(folder)
    made = bundle(folder, folder / "after.zip", without(with_eve(), *EVES))
    said = "\n".join(check(made))
    lines = [json.loads(line) for line in files_of(made)["ledger.jsonl"].decode().splitlines()]
    sealed = sum("commitment" in line for line in lines)
    assert sealed > len(EVES)
    assert f"{sealed} of them are sealed" in said
    before = next(h for h in read_heads(folder) if h.moment == "before verification")
    assert before.head in said
    count = int(said.partition("but for ")[2].partition(" ")[0])
    assert count >= len(EVES)
    assert [path.name for path in bundles_in(folder)] == ["after.zip", "evidence.zip"]


@pytest.mark.full
def test_an_action_of_an_earlier_version_says_that_no_head_was_signed(folder: Path) -> None:
    """Its rows are chained at export alone, and that is what the check says."""
    (folder / HEADS_FILE).unlink()
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection, connection:
        connection.execute("DELETE FROM links")
    said = "\n".join(check(bundle(folder, folder / "old.zip")))
    assert "No head was signed before verification" in said


def test_a_bundle_without_its_first_head_is_told_to_who_writes_it(folder: Path, tmp_path: Path) -> None:
    """Whoever lost heads.json hears it before the journalist does; and no name of an archive becomes a folder."""
    (folder / HEADS_FILE).unlink()
    with open_action(folder, Recorder(), roster=with_eve(), settings=worlds.settings(subgroup=SUBGROUP)) as action:
        made = write_evidence(action, tmp_path / "evidence.zip", url=URL)
        assert "No head was signed before verification" in made.warnings[0]
        with pytest.raises(ActionError, match=r"ends in \.zip, or a folder's, got .*evidence\.tar\.gz"):
            write_evidence(action, tmp_path / "evidence.tar.gz", url=URL)


def test_a_bundle_asks_nothing_and_overwrites_nothing(folder: Path, tmp_path: Path) -> None:
    """Where something would have to be asked first, or a file is in the way, it is a sentence."""
    with pytest.raises(ActionError, match="which exists"):
        bundle(folder, folder / "evidence.zip")
    platform = Recorder()
    with open_action(tmp_path / "new", platform) as action, pytest.raises(ActionError, match="Evidence asks nothing"):
        write_evidence(action, tmp_path / "x.zip", url=URL)
    (folder / "controls.json").unlink()
    with pytest.raises(ActionError, match="Expected an action with nothing left to ask"):
        bundle(folder, tmp_path / "y.zip")
    assert platform.queries == 0


def test_the_letter_says_what_was_found_and_what_was_proved(finished: Path) -> None:
    """Its numbers are the row's; what only its writer knows is in brackets."""
    files = files_of(finished / "evidence.zip")
    letter, row = files["letter.md"].decode(), json.loads(files["row.json"])
    assert f"{100 * row['subgroup_before']:.1f}" in letter
    assert f"{100 * row['reference_before']:.1f}" in letter
    assert "No more than 1 in 20 such actions would claim this wrongly" in letter
    assert "[DATE]" in letter
    assert SUBGROUP in letter
    assert "{" not in letter
    assert CollectiveKey.open_or_make(finished).public in letter


@pytest.mark.full
@pytest.mark.parametrize(
    "goal", [{"goal": "improvement"}, {"goal": 0.7}, {"within": 0.05}, {"accuracy_ratio": 0.9}], ids=str
)
@pytest.mark.parametrize("stopping", ["curtailed", "anytime", "hybrid"])
def test_bundles_of_every_goal_check_out(goal: dict[str, Any], stopping: str, tmp_path: Path) -> None:
    """Whatever had to be shown and however the test stopped."""
    folder = ran(tmp_path / "action", stopping=stopping, **goal)
    assert check(bundle(folder, tmp_path / "evidence.zip", stopping=stopping, **goal))
