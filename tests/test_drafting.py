"""What `ttca init` writes: an action file that reads, filled in with what lies in the folder, and a sample table."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttca.action import CollectiveAction
from ttca.config import read_action
from ttca.data.folder import outline
from ttca.data.preparing import prepare_photographs
from ttca.data.tables import COLUMNS, Problems, read_sheet
from ttca.drafting import LETTER, SAMPLE, Draft, draft
from ttca.letters import AUTHORIZATION
from ttca.platforms.base import PlatformInfo
from ttca.platforms.local import LocalPlatform
from ttca.pooling.pool import Member
from ttca.preparation import Preparation, parse_box
from ttca.templates import action_template


def drafted_in(place: Path, *, shape: str = "") -> Draft:
    """Return what init would write; ``shape`` stands in the platform's options."""
    file = place / "action.toml" if place.is_dir() else place
    text = action_template(file)
    return draft(file, text.replace("[people]\n", f"[platform.options]\n{shape}\n\n[people]\n") if shape else text)


def photograph(path: Path) -> None:
    """Write a small photograph."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)


def test_a_new_file_is_the_template_and_a_sample_comes_with_it(tmp_path: Path) -> None:
    """Where nothing is known nothing is filled in, and the reason is said."""
    drafted = drafted_in(tmp_path / "new" / "action.toml")
    assert drafted.text == action_template(tmp_path / "new" / "action.toml")
    assert drafted.sample == tmp_path / "new" / "people-sample.csv"
    assert "No size is proposed" in drafted.advice[0]


def test_the_template_says_that_lengths_need_a_1(tmp_path: Path) -> None:
    """Whoever changes control_lengths reads beside it what it must hold."""
    lines = action_template(tmp_path).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("# control_lengths"))
    assert "1 among them" in " ".join(lines[at - 2 : at + 1])


def test_a_letter_that_asks_for_authorization_comes_with_it_once(tmp_path: Path) -> None:
    """It lies beside the action file, and one that somebody filled in stays as it is."""
    assert drafted_in(tmp_path / "new" / "action.toml").letter == tmp_path / "new" / LETTER
    (tmp_path / LETTER).write_text("filled in")
    assert drafted_in(tmp_path).letter is None
    assert "authorized_by" in AUTHORIZATION
    assert "[DATE]" in AUTHORIZATION


def test_the_sample_shows_every_column_with_values_that_are_read(tmp_path: Path) -> None:
    """Each column of the documents is in it, each word is one that the column may hold."""
    (tmp_path / "people.csv").write_text(SAMPLE)
    problems = Problems()
    sheet = read_sheet(tmp_path / "people.csv", ("file",), tuple(COLUMNS), problems)
    problems.raise_if_any(tmp_path)
    assert sheet.header == tuple(COLUMNS)
    for _, cells in sheet.rows:
        assert all(cells[name] in column.values for name, column in COLUMNS.items() if column.values)
        assert not cells["box"] or parse_box(cells["box"])
    classes = tomllib.loads(action_template(""))["platform"]["classes"]
    assert {cells["class"] for _, cells in sheet.rows} == set(classes)


@pytest.mark.parametrize(
    ("there", "source"),
    [("people.csv", "people.csv"), ("people/cat/Ana/1.jpg", "people"), ('my "people".csv', 'my "people".csv')],
)
def test_a_folder_with_people_is_taken_as_it_is(tmp_path: Path, there: str, source: str) -> None:
    """The file names what lies there, needs no sample, and is read back."""
    path = tmp_path / there
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("File;Class;Member\n") if path.suffix == ".csv" else photograph(path)
    drafted = drafted_in(tmp_path)
    assert (drafted.file, drafted.sample) == (tmp_path / "action.toml", None)
    drafted.file.write_text(drafted.text, encoding="utf-8")
    assert read_action(tmp_path).people.source == source
    assert f"The people are those of {tmp_path / source}." in drafted.advice


def test_photographs_are_found_and_the_command_is_printed_as_it_is_typed(tmp_path: Path) -> None:
    """A folder of photographs gets the command that prepares it, quoted where a path has blanks."""
    photograph(tmp_path / "my photos" / "cat" / "Ana" / "1.JPG")
    assert (
        drafted_in(tmp_path, shape="image_shape = [64, 48, 3]")
        .advice[-1]
        .endswith(f"ttca prepare '{tmp_path}/my photos' {tmp_path}/people --size 64x48")
    )
    assert drafted_in(tmp_path).advice[-1].endswith("--size SIZE")


def test_a_size_is_proposed_where_it_is_known_and_the_reason_is_said(tmp_path: Path) -> None:
    """The platform's table, and before it what ttca prepare wrote down, name the preparation."""
    drafted = drafted_in(tmp_path, shape="image_shape = [64, 48, 3]")
    assert tomllib.loads(drafted.text)["people"]["preparation"] == Preparation(size=(64, 48)).to_dict()
    assert "64×48 pixels (height×width), is the image_shape of the platform's table" in drafted.advice[0]
    photograph(tmp_path / "album" / "cat" / "Ana" / "1.jpg")
    way = Preparation(size=8, fit="pad")
    prepare_photographs(tmp_path / "album", tmp_path / "people", way)
    drafted = drafted_in(tmp_path, shape="image_shape = [64, 48, 3]")
    drafted.file.write_text(drafted.text, encoding="utf-8")
    assert read_action(tmp_path).people.prepared == way
    assert "by which ttca prepare made the pictures" in drafted.advice[1]


@pytest.mark.parametrize("groups", [("subgroup", "reference"), ("subgroup",)])
def test_the_quota_is_one_with_which_the_action_can_be_paid(tmp_path: Path, groups: tuple[str, ...]) -> None:
    """Init counts what lies there, and with its quota the whole action can be paid; with ten less it cannot."""
    for group in groups:
        for n in range(120):
            photograph(tmp_path / "people" / group / ("cat", "dog")[n % 2] / f"{group}-{n % 10}" / f"{n}.png")
    drafted = drafted_in(tmp_path)
    quota = tomllib.loads(drafted.text)["pool"]["quota"]
    goal = "parity" if len(groups) == 2 else "improvement"
    text = drafted.text.replace('classes = ["first", "second"]', 'classes = ["cat", "dog"]').replace(
        'goal = "parity"', f'goal = "{goal}"'
    )
    drafted.file.write_text(text, encoding="utf-8")
    known = read_action(tmp_path)
    # What init cannot know, it assumes to be dear: each image may show another person.
    table, _ = outline(tmp_path / "people", one_person_per_image=True)
    info = PlatformInfo(name="x", classes=("cat", "dog"), image_shape=(2, 2, 3))
    roster = known._roster(table.people, known._roles(table, known.given_roles(), info))
    needed = []
    for enough in (quota, quota - 10):
        with CollectiveAction(
            tmp_path / f"action-{enough}",
            platform=LocalPlatform(lambda x: x.mean((1, 2)), classes=("cat", "dog"), image_shape=(2, 2, 3)),
            members=[Member(name, enough) for name in np.unique(table.people.members).tolist()],
            roster=roster,
            settings=known.settings,
        ) as action:
            plan = action.plan()
            needed.append((sum(cost.queries for cost in plan.values()), min(cost.affordable for cost in plan.values())))
    assert needed[0][0] <= needed[0][1]
    assert needed[1][0] > needed[1][1]
    assert f"quota = {quota}, since an action with these {120 * len(groups)} images" in " ".join(drafted.advice)
