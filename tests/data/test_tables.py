"""Tables as they come out of spreadsheets are read as they are meant, or refused with a sentence; never half."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.examples import examples
from ttca.data.folder import PeopleTable, list_files, load_people
from ttca.data.tables import COLUMNS, Problems, read_sheet
from ttca.errors import ConfigError, DataError
from ttca.names import canonical, look_alike, resolve, twins
from ttca.preparation import Preparation

_PAGE = Path(__file__).parents[2] / "docs" / "people.md"
_CLASSES = ("Male", "Female")
_PREPARATION = Preparation(size=4)


def load(source: Path, preparation: Preparation | None = None) -> PeopleTable:
    """Return the people of a source, of 4×4 pixels."""
    return load_people(source, image_shape=(4, 4, 3), classes=_CLASSES, preparation=preparation)


def photograph(path: Path, level: int = 9, height: int = 4, width: int = 4) -> Path:
    """Write a picture of one level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(path)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with the images a.png and b.png."""
    for level, name in enumerate("ab"):
        photograph(tmp_path / f"{name}.png", level)
    return tmp_path


TWO = "file,class,member\na.png,Male,Ada\nb.png,Female,Ben\n"


@pytest.mark.parametrize(
    "content",
    [
        TWO.encode(),
        TWO.replace(",", ";").encode(),
        TWO.replace(",", "\t").encode("utf-8-sig"),
        b"sep=;\r\n" + TWO.replace(",", ";").encode(),
        TWO.replace("\n", "\r\n").encode("utf-16"),
        TWO.encode("utf-8-sig").replace(b"file,class,member", b"File,Class, MEMBER "),
        TWO.replace("Male", "male").replace("Female", "FEMALE").encode(),
        b"\n,,\n" + TWO.encode() + b",,\r\n , ,\n\n",
        b"file,class,member,,\na.png,Male,Ada,,\nb.png,Female,Ben\n",
        b"file,,class,member\na.png,,Male,Ada\nb.png,,Female,Ben\n",
        b"file,class,member\na.png,Male,Ada,,\nb.png,Female,Ben,\n",
        b"file,class,member\n.\\a.png,Male,Ada\n b.png ,Female,Ben\n",
        b"member,group,class,file\nAda,Subgroup,Male,a.png\nBen,SUBGROUP,Female,b.png\n",
    ],
)
def test_what_spreadsheets_write_is_read(home: Path, content: bytes) -> None:
    """Semicolons, tabs, marks, UTF-16, blank rows and columns, any case and Windows' separators: the same people."""
    (home / "people.csv").write_bytes(content)
    got = load(home)
    assert got.people.images[:, 0, 0, 0].tolist() == [0, 1]
    assert got.people.classes.tolist() == [0, 1]
    assert got.people.members.tolist() == ["Ada", "Ben"]
    assert got.people.subgroup.all()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    assert got.notes == (
        ("people.csv is written in UTF-16 and was read as such. Other programs expect CSV UTF-8.",) * wide
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (TWO.encode("utf-16-le"), "UTF-16 without its mark"),
        (TWO.encode() + "c.png,Male,Zoë\n".encode("latin-1"), "in UTF-8, got byte 0xeb"),
        (b"file,class,member,\na.png,Male,Ada,x\n", "a name for every column with values"),
        (b"file;class;member\na.png;Male;Ada;x\n", "Put a value that contains a semicolon in double quotes"),
        (b"file,class,member,roel\na.png,Male,Ada,pool\n", "Did you mean 'role'? Expected each column of"),
        (b"file,class,member,Class\na.png,Male,Ada,Male\n", "Expected every column once"),
        (b"file,class,member\na.png,Mal,Ada\n", "Did you mean 'Male'?"),
        (b"file,class,member\na.png,Male,ada\nb.png,Male,Ada\n",
            "Line 3: 'b.png': Expected one spelling for each member, got 'ada' and 'Ada': the same person? They would"),
        ("file,class,member\na.png,Male,ada\nb.png,Male,ａｄａ\n".encode(), "the same person?"),
        (b"file,class,member\na.png,Male,Ada L\nb.png,Male,Ada  L\n", "the same person?"),
        ("file,class,member\na.png,Male,x,\nb.png,Male,Y\n".replace("x,", "Zo\u200be").replace("Y", "Zoe").encode(),
            "printable value in the column 'member'"),
        (b"file,class,member,person\na.png,Male,x,P1\nb.png,Male,x,p1\n", "They would have two roles."),
        (b'file,class,member,box\na.png,Male,x,"1,2,3"\n', "four whole numbers"),
        (b'file,class,member,box\na.png,Male,x,"0,0,2,2"\n', "Expected a preparation that cuts the box out, got none"),
    ],
)  # fmt: skip
def test_what_is_not_meant_is_a_sentence(home: Path, content: bytes, sentence: str) -> None:
    """Nothing that could be read in two ways is guessed."""
    (home / "people.csv").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(sentence)):
        load(home)


def test_a_box_is_cut_out_of_the_upright_picture(tmp_path: Path) -> None:
    """The column counts in pixels as the photograph is seen, an empty cell means all of it."""
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[2:6, 12:16] = 200
    exif = Image.Exif()
    # The camera was held upright: what is stored is turned back by a quarter.
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    rows = 'file,class,member,box\na.png,Male,x,"12,2,4,4"\nb.png,Male,y,12 2 4 4\n'
    (tmp_path / "people.csv").write_text(rows)
    assert (load(tmp_path, _PREPARATION).people.images == 200).all()
    (tmp_path / "people.csv").write_text("file,class,member,box\nb.png,Male,y,\n")
    np.testing.assert_array_equal(load(tmp_path, _PREPARATION).people.images[0], _PREPARATION.of(pixels))
    (tmp_path / "people.csv").write_text('file,class,member,box\nb.png,Male,y,"30,0,4,4"\n')
    with pytest.raises(
        DataError, match=r"Line 2: 'b\.png': Expected a box x, y, width, height inside the upright picture"
    ):
        load(tmp_path, _PREPARATION)


def test_folders_name_groups_and_classes_in_any_case_among_clutter(tmp_path: Path) -> None:
    """`subgroup/` and `reference/` are groups, `male` is Male, and Thumbs.db is nobody."""
    photograph(tmp_path / "Subgroup/male/Ada/1.png", 1)
    photograph(tmp_path / "REFERENCE/Female/Ben/1.TIFF", 2)
    for clutter in ("Thumbs.db", "Subgroup/male/Ada/desktop.ini", "Subgroup/.DS_Store", "__MACOSX/._x.png"):
        path = tmp_path / clutter
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    got = load(tmp_path, _PREPARATION)
    assert sorted(zip(got.people.subgroup.tolist(), got.people.classes.tolist(), strict=True)) == [
        (False, 1),
        (True, 0),
    ]
    assert {one.member for one in list_files(tmp_path, classes=_CLASSES)} == {"Ada", "Ben"}


def test_a_folder_prepared_in_another_way_is_a_sentence(home: Path) -> None:
    """What `ttca prepare` wrote down must be what the action file says, before a query is paid for."""
    (home / "people.csv").write_text(TWO)
    (home / "prepared.jsonl").write_text(json.dumps({"preparation": Preparation(size=4, fit="pad").to_dict()}) + "\n")
    with pytest.raises(ConfigError, match=re.escape('preparation = {fit = "pad", size = 4')):
        load(home)
    with pytest.raises(ConfigError, match="prepared as the action file says"):
        load(home, _PREPARATION)
    assert len(load(home, Preparation(size=4, fit="pad"))) == 2
    (home / "prepared.jsonl").write_text("{")
    with pytest.raises(DataError, match="how its pictures were prepared, got something that cannot be read"):
        load(home, _PREPARATION)


def test_a_preparation_to_another_size_than_the_platforms_is_a_sentence(home: Path) -> None:
    """Nobody learns a δ for pictures that the platform does not take."""
    (home / "people.csv").write_text(TWO)
    with pytest.raises(ConfigError, match="Expected a preparation to the 4×4 pixels"):
        load(home, Preparation(size=5))


def test_the_page_lists_every_column_as_the_code_knows_it() -> None:
    """The one table of columns and defaults is the code's."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", _PAGE.read_text(encoding="utf-8"), re.M)
    said = {name: (holds, values, default) for name, holds, values, default in rows}
    assert said == {
        name: (column.holds, ", ".join(f"`{v}`" for v in column.values) or "any", column.default or "needed")
        for name, column in COLUMNS.items()
    }


@given(st.text(), st.sampled_from([str.upper, str.lower, str.title]), st.sampled_from(["", " ", "\u3000"]))
def test_names_that_look_alike_are_found(name: str, way: object, blank: str) -> None:
    """Whatever a keyboard does to case and blanks, look_alike is the same for what Unicode folds alike."""
    other = blank + "".join(name) + blank
    assert look_alike(other) == look_alike(name)
    assert look_alike(look_alike(name)) == look_alike(name)
    assert resolve(name, [name, f"{name}x"]) == name
    spelled = way(name)  # type: ignore[operator]
    if spelled.casefold() == name.casefold() and canonical(spelled) != canonical(name):
        assert twins([canonical(name), canonical(spelled)]) == [(canonical(name), canonical(spelled))]


_CELL = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=5)


@examples(60)
@given(
    rows=st.lists(st.tuples(_CELL, _CELL), min_size=1, max_size=4),
    delimiter=st.sampled_from([",", ";", "\t"]),
    coding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    blank=st.booleans(),
)
def test_any_table_comes_back_cell_by_cell(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    delimiter: str,
    coding: str,
    blank: bool,
) -> None:
    """Whatever separates, encodes and surrounds the cells, their text arrives."""
    import csv
    import io

    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    more = ["", " "] if blank else []
    writer.writerows([["File", "MEMBER", *more], *([*row, *more] for row in rows), *([["", *more]] if blank else [])])
    table = tmp_path_factory.mktemp("sheet") / "t.csv"
    table.write_bytes(out.getvalue().encode(coding))
    sheet = read_sheet(table, ("file", "member"), None, Problems())
    assert sheet.header == ("file", "member")
    assert [(cells["file"], cells["member"]) for _, cells in sheet.rows] == rows


def test_the_page_names_the_smallest_numbers_that_can_be_certified() -> None:
    """All right answers of so many persons pass, and those of one fewer do not."""
    from ttca.statistics.binomial import clopper_pearson_lower
    from ttca.statistics.comparisons import mcnemar_p

    said = re.search(r"`goal = 0.8`, 0.9, 0.95 .*? \| (\d+), (\d+), (\d+) \|", _PAGE.read_text(encoding="utf-8"))
    assert said is not None
    for rate, number in zip((0.8, 0.9, 0.95), map(int, said.groups()), strict=True):
        assert clopper_pearson_lower(number, number, 0.05) >= rate
        assert clopper_pearson_lower(number - 1, number - 1, 0.05) < rate
    assert mcnemar_p(5, 0) <= 0.05 < mcnemar_p(4, 0)
