"""Tests of `ttca audit` and `ttca plan` against a served classifier: what is asked, paid, printed and kept."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests import worlds
from tests.test_cli import Terminal
from ttca.commands.shared import OUT
from ttca.config import read_action
from ttca.data.folder import load_people, write_people
from ttca.errors import ConfigError, DataError
from ttca.platforms.server import background_app, create_app


@dataclass(frozen=True)
class Served:
    """A platform behind HTTP, and the images that came in."""

    url: str
    platform: worlds.Recorder


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Serve the tiny world's platform."""
    platform = worlds.Recorder()
    with background_app(create_app(platform)) as url:
        yield Served(url, platform)


@pytest.fixture
def ttca(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Return the command line of this process."""
    return Terminal(monkeypatch, capsys)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of people whose table says more of them: one skin is the subgroup's alone."""
    home = tmp_path_factory.mktemp("people") / "people"
    write_people(home, worlds.crowd("x", 180, 180, seed=3), worlds.CLASSES)
    with_columns(home / "people.csv")
    return home


def with_columns(table: Path, *, seed: int = 0) -> None:
    """Write two columns more into a table: a skin that follows the group, and an age that follows nothing."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(seed)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "Skin", "age"])
        writer.writeheader()
        for row in rows:
            skin = "dark" if row["group"] == "subgroup" else "light"
            writer.writerow({**row, "Skin": skin, "age": rng.choice(["old", "young", "nan", ""])})


@pytest.fixture
def home(tmp_path: Path, people: Path, served: Served) -> Path:
    """Return the folder of an action that has not begun, and that names the columns."""
    shutil.copytree(people, tmp_path / "mine" / "people")
    (tmp_path / "mine" / "action.toml").write_text(
        worlds.action_file(
            served.url,
            people='columns = ["Skin", "age"]\nverification = 0.4\n',
            platform='price_per_1000 = 1.5\ncurrency = "EUR"\n',
        )
    )
    return tmp_path / "mine"


def test_a_plan_of_an_action_whose_recipes_race_asks_nothing(home: Path, ttca: Terminal, served: Served) -> None:
    """A plan tells the race's own estimate, and neither sends a query nor learns a candidate."""
    file = home / "action.toml"
    file.write_text(file.read_text().replace("[action]\n", '[action]\nrecipe = "auto"\n', 1))
    before = served.platform.queries
    done = ttca("plan", home, "--assume-subgroup", 0.6, "--assume-reference", 0.9)
    assert done.code == 0, done.err
    assert "Learning takes about" in done.out
    assert served.platform.queries == before
    assert not (home / "race.json").exists()
    assert not (home / "candidates").exists()


def test_an_audit_of_too_few_says_what_a_run_counts(home: Path, ttca: Terminal) -> None:
    """Where people are kept for a race, the audit's dry run says so, and its pool is the run's pool."""
    file = home / "action.toml"
    file.write_text(file.read_text().replace("[action]\n", '[action]\nrecipe = "auto"\n', 1))
    counted = ttca("run", home, "--dry-run", "--json").json["people"]
    pool = {
        group: sum(one["persons"] for one in counted if (one["role"], one["group"]) == ("pool", group))
        for group in ("subgroup", "reference")
    }
    said = ttca("audit", home, "--people", 500, "--dry-run", "--json").json
    told = ttca("audit", home, "--people", 500, "--dry-run").out
    for group, persons in pool.items():
        kept = persons - said["asks"][group]
        assert kept > 0
        why = f"but {kept} of them are kept for what a run asks later (the race)."
        assert f"The pool has {persons} people of the {group}, {why}" in told
    # A small pool has a way on.
    assert "ttca pool run asks selection people too, and says again whether there is a gap." in told
    file.write_text(file.read_text().replace('recipe = "auto"\n', "", 1))
    assert f"The pool has {pool['subgroup']} people of the subgroup, and no more." in (
        ttca("audit", home, "--people", 500, "--dry-run").out
    )


def test_an_audit_from_price_to_plan(home: Path, ttca: Terminal, served: Served) -> None:
    """Priced, refused without a yes, asked, kept, paid once, looked into and planned by: as docs/audit.md says."""
    before = served.platform.queries
    priced = ttca("audit", home, "--people", 40, "--dry-run", "--json").json
    assert (priced["queries"], priced["asks"]) == (80, {"subgroup": 40, "reference": 40})
    assert priced["cost"] == {"sum": pytest.approx(0.12), "currency": "EUR"}
    assert "got neither. 80 queries are to be paid. No query was spent." in ttca("audit", home, "--people", 40).sentence
    assert served.platform.queries == before
    done = ttca("audit", home, "--people", 40, "--yes")
    assert done.code == 0, done.err
    assert served.platform.queries == before + 80
    assert "How each group is served" in done.out
    assert "skin: dark" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines() if line[:1] in "┃│┏┡├└")
    kept = json.loads((home / "audit.json").read_text())
    # Whose rates these are stands beside them, in words and in JSON.
    assert "These rates are of 40 of the subgroup and 40 of the reference, people in the pool alone." in done.out
    assert kept["whose"] in done.out
    assert [grouping["by"] for grouping in kept["groupings"]] == [["group"], ["skin"], ["age"], ["skin", "age"]]
    groups = {group["name"]: group for group in kept["groupings"][0]["groups"]}
    assert {name: group["persons"] for name, group in groups.items()} == {"subgroup": 40, "reference": 40}
    assert (home / "audit.json").stat().st_mode & 0o077 == 0
    # Nothing is paid twice, and the pool pays only for whoever was not asked.
    assert ttca("audit", home, "--people", 40, "--json").json["groupings"] == kept["groupings"]
    found = ttca("audit", home, "--discover", "--json").json
    assert (found["persons"], served.platform.queries) == (80, before + 80)
    assert "skin = dark" in {
        " & ".join(f"{c} = {v}" for c, v in zip(o["by"], o["values"], strict=True)) for o in found["candidates"]
    }
    assert "Groups, those served worst first" in ttca("audit", home, "--discover").out
    steps = ttca("run", home, "--dry-run", "--json").json["steps"]
    assert steps["pool"]["answered"] == 80
    # Members' names and columns are in no ledger, and nobody but pool people was asked.
    assert b"dark" not in (home / "ledger.sqlite").read_bytes()
    with read_action(home).open() as action:
        verification = {image.tobytes() for image in action.roster.verification.images}
    assert not verification & {image for images in served.platform.seen.values() for image in images}


def test_without_a_gap_it_says_so_and_without_columns_nothing_is_discovered(
    home: Path, ttca: Terminal, served: Served
) -> None:
    """ "No gap was shown." stands in the output; --discover without columns says what to write."""
    file = home / "action.toml"
    file.write_text(file.read_text().replace('columns = ["Skin", "age"]\n', ""))
    said = ttca("audit", home, "--people", 10, "--yes")
    assert "Those to compare people by: columns under [people]" in said.sentence
    table = home / "people" / "people.csv"
    rows = [line.rsplit(",", 2)[0] for line in table.read_text().splitlines()]
    # Groups that have nothing to do with the camera.
    table.write_text("\n".join([rows[0], *(turned(row, i) for i, row in enumerate(rows[1:]))]) + "\n")
    done = ttca("audit", home, "--people", 10, "--yes")
    assert done.code == 0, done.err
    assert "No gap was shown." in done.out.replace("\n", " ")
    assert "columns = " in ttca("audit", home, "--discover").sentence


def turned(row: str, number: int) -> str:
    """Return a row whose group is every other one's."""
    start, _, _ = row.rpartition(",")
    return f"{start},{('subgroup', 'reference')[number % 2]}"


def test_one_group_only_is_audited_though_its_goal_compares_two(home: Path, ttca: Terminal) -> None:
    """Who is compared with whom need not be known before an audit: columns are compared, and roles stay afterwards."""
    table = home / "people" / "people.csv"
    whole = table.read_text()
    table.write_text(whole.replace(",reference,", ",subgroup,"))
    assert "Expected reference people" in ttca("run", home, "--dry-run").sentence
    done = ttca("audit", home, "--people", 30, "--yes")
    assert done.code == 0, done.err
    assert "nothing to compare it with" in done.out.replace("\n", " ")
    assert "skin: dark" in done.out
    before = roles_of(home)
    table.write_text(whole)
    assert roles_of(home) == before


def roles_of(home: Path) -> dict[str, list[str]]:
    """Return who has which role in an action, whatever the groups."""
    known = read_action(home)
    action, columns = known.open_audit()
    with action:
        assert {len(column) for column in columns.values()} == {len(action.roster.pool)}
        return {role: sorted(people.persons.tolist()) for role, people in action.roster.roles().items()}


def test_columns_are_read_beside_people_and_never_guessed(people: Path, tmp_path: Path) -> None:
    """What a column says stands beside the people, empty for nothing; a column that is not there is a sentence."""
    options = {"image_shape": worlds.SHAPE, "classes": worlds.CLASSES}
    table = load_people(people, columns=("skin", "age"), **options)  # type: ignore[arg-type]
    assert (table.columns["skin"] == np.where(table.people.subgroup, "dark", "light")).all()
    assert set(table.columns["age"].tolist()) == {"old", "young", ""}
    with pytest.raises(DataError, match="tone missing"):
        load_people(people, columns=("tone",), **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="Those to compare people by"):
        load_people(people, **options)  # type: ignore[arg-type]
    shutil.copytree(people / "images", tmp_path / "cat" / "ada")
    with pytest.raises(DataError, match="which has none"):
        load_people(tmp_path, columns=("skin",), image_shape=worlds.SHAPE, classes=("cat",))


@pytest.mark.parametrize("columns", ['["role"]', '["Skin", "skin "]', '[""]'])
def test_columns_with_a_meaning_of_their_own_are_refused(home: Path, columns: str) -> None:
    """A column of the people's own, one named twice, or one without a name is refused when the file is read."""
    file = home / "action.toml"
    file.write_text(file.read_text().replace('["Skin", "age"]', columns))
    with pytest.raises(ConfigError, match="other columns of the table"):
        read_action(file)


def test_words_in_the_place_of_a_number_are_explained(home: Path, ttca: Terminal) -> None:
    """Of few people some metric is bounded by nothing, or is not there: a note below the table says why."""
    few, many = (ttca("audit", home, "--people", people, "--yes").out for people in (3, 60))
    assert "not bounded" in few
    for words, note in (("not bounded", "Not bounded: with so few people"), ("not defined", "Not defined: a group")):
        for told in (few, many):
            assert (words in told) == (note in told)
    assert "Not bounded" not in many


def test_members_of_a_table_with_columns_can_be_forgotten(home: Path, ttca: Terminal) -> None:
    """Other commands read a table with further columns too."""
    assert ttca("audit", home, "--people", 5, "--yes").code == 0
    done = ttca("pool", "forget", "member-0", home, "--yes", "--json")
    assert done.code == 0, done.err
    assert not any("could not be read" in remains["holds"] for remains in done.json["remains"])


@pytest.mark.full
def test_a_plan_from_the_command_line(
    home: Path, ttca: Terminal, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan by assumed rates has a table as wide as a terminal, a sentence, a figure and JSON, and sends nothing."""
    # What is piped has no edge.
    monkeypatch.setattr(OUT, "_width", 80)
    before = served.platform.queries
    assert "got neither" in ttca("plan", home).sentence
    words = ("--assume-subgroup", 0.6, "--assume-reference", 0.85, "--retrains", 20_000)
    done = ttca("plan", home, *words, "--out", tmp_path / "plan.png")
    assert done.code == 0, done.err
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert "What it takes to certify with 80 %" in done.out
    assert "S is the subgroup's share of right answers with δ." in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines() if line[:1] in "┃│┏┡├└")
    said = ttca("plan", home, *words, "--json").json
    assert said["learning"]["seconds"] > 0
    assert said["cheapest"]["queries"] > 0
    assert "Expected to write a figure" in ttca("plan", home, *words, "--out", tmp_path / "plan.nothing").sentence
    assert served.platform.queries == before
