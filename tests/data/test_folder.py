"""People from a user's files: read exactly, or refused with every problem named at once."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.examples import examples
from ttca.data.folder import PeopleTable, has_classes, list_files, load_images, load_people, write_people
from ttca.errors import DataError
from ttca.images import Images
from ttca.names import canonical, twins
from ttca.people import People

_SHAPE = (4, 5, 3)
_CLASSES = ("cat", "dog")


def _pixels(seed: int) -> Images:
    return np.random.default_rng(seed).integers(0, 256, _SHAPE, dtype=np.uint8)


def _save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(seed)).save(path)
    return path


def _table(folder: Path, text: str) -> Path:
    table = folder / "people.csv"
    table.write_bytes(text.encode())
    return table


def _load(source: Path) -> PeopleTable:
    return load_people(source, image_shape=_SHAPE, classes=_CLASSES)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with three images, a.png to c.png."""
    for seed, name in enumerate("abc"):
        _save(tmp_path / f"{name}.png", seed)
    return tmp_path


def test_reads_a_table_with_every_column(home: Path) -> None:
    """Each column of the table arrives in its place, in the table's order; blank lines do not count."""
    table = _table(
        home,
        "\ufefffile,class,member,person,group,role\r\n"
        'b.png,dog,"Ana, Lúcia",p1,reference,verification\r\n\r\n'
        "./a.png,cat,Bo,p2,subgroup,pool\r\n",
    )
    for source in (table, home):
        got = _load(source)
        np.testing.assert_array_equal(got.people.images, [_pixels(1), _pixels(0)])
        assert got.people.classes.tolist() == [1, 0]
        assert got.people.members.tolist() == ["Ana, Lúcia", "Bo"]
        assert got.people.persons.tolist() == ["p1", "p2"]
        assert got.people.subgroup.tolist() == [False, True]
        assert got.roles is not None
        assert got.roles.tolist() == ["verification", "pool"]
        assert len(got) == 2


def test_optional_columns_have_defaults(home: Path) -> None:
    """Without the optional columns the member is the person, everybody is subgroup and nobody has a role."""
    got = _load(_table(home, "member,file,class\nBo,a.png,cat\n"))
    assert got.people.persons.tolist() == ["Bo"]
    assert got.people.subgroup.tolist() == [True]
    assert got.roles is None


def test_reads_folders_by_class_and_member(tmp_path: Path) -> None:
    """Folders <class>/<member>/ are read in the order of their paths; hidden files are the desktop's."""
    _save(tmp_path / "dog/Bo/1.png", 1)
    _save(tmp_path / "cat/Ana/2.png", 2)
    _save(tmp_path / "cat/Ana/1.BMP", 3)
    (tmp_path / "cat/.DS_Store").write_bytes(b"x")
    got = _load(tmp_path)
    assert got.people.members.tolist() == ["Ana", "Ana", "Bo"]
    assert got.people.persons.tolist() == ["Ana", "Ana", "Bo"]
    assert got.people.classes.tolist() == [0, 0, 1]
    assert got.people.subgroup.all()
    assert got.roles is None
    np.testing.assert_array_equal(got.people.images, [_pixels(3), _pixels(2), _pixels(1)])


def test_reads_folders_by_group(tmp_path: Path) -> None:
    """Folders <group>/<class>/<member>/ give the group too."""
    _save(tmp_path / "subgroup/dog/Bo/1.png", 1)
    _save(tmp_path / "reference/cat/Ana/1.png", 2)
    got = _load(tmp_path)
    assert got.people.subgroup.tolist() == [False, True]
    assert got.people.classes.tolist() == [0, 1]


def test_two_spellings_of_one_name_are_one(home: Path) -> None:
    """Composed or decomposed, with spaces around it or not, a name is one member, one person, one class, one role."""
    table = _table(
        home,
        "file,class,member,person,group,role,shareable\n"
        "a.png,caf\u00e9,Zo\u00eb,p 1,subgroup,pool,yes\n"
        "b.png, cafe\u0301,Zoe\u0308 ,p 1\u00a0, subgroup,pool , yes\n"
        "c.png,dog,Bo\t,p 2,reference,selection,no\n",
    )
    got = load_people(table, image_shape=_SHAPE, classes=["cafe\u0301 ", "dog"])
    assert got.people.members.tolist() == ["Zo\u00eb", "Zo\u00eb", "Bo"]
    assert got.people.persons.tolist() == ["p 1", "p 1", "p 2"]
    assert got.people.classes.tolist() == [0, 0, 1]
    assert got.people.subgroup.tolist() == [True, True, False]
    assert got.roles is not None
    assert got.roles.tolist() == ["pool", "pool", "selection"]
    with pytest.raises(DataError, match="names of the classes, each once"):
        load_people(table, image_shape=_SHAPE, classes=["cafe\u0301", "caf\u00e9"])


def test_a_ticked_box_is_yes(home: Path) -> None:
    """TRUE and FALSE, as spreadsheets of any language write them, say yes and no; another word is refused."""
    head = "file,class,member,shareable\n"
    table = _table(home, f"{head}a.png,cat,ada,TRUE\nb.png,dog,bo,Falsch\nc.png,dog,cy,wahr\n")
    got = load_people(table, image_shape=_SHAPE, classes=["cat", "dog"])
    assert got.shareable is not None
    assert got.shareable.tolist() == [True, False, True]
    with pytest.raises(DataError, match="the shareable"):
        load_people(_table(home, f"{head}a.png,cat,ada,x\n"), image_shape=_SHAPE, classes=["cat", "dog"])


def test_folders_of_one_name_in_two_spellings_are_one_member(tmp_path: Path) -> None:
    """Some file systems decompose names: class, group and member are found all the same."""
    _save(tmp_path / "subgroup/cafe\u0301/Zoe\u0308/1.png", 1)
    _save(tmp_path / "subgroup /caf\u00e9/Zo\u00eb/1.png", 2)
    got = load_people(tmp_path, image_shape=_SHAPE, classes=["caf\u00e9"])
    assert got.people.members.tolist() == ["Zo\u00eb", "Zo\u00eb"]
    assert len(set(got.people.persons.tolist())) == 1


def test_pictures_from_a_phone_are_read(tmp_path: Path) -> None:
    """A JPEG with a preview behind it and an opaque PNG with an alpha channel are people like others."""
    home = tmp_path / "cat/Bo"
    home.mkdir(parents=True)
    picture = Image.fromarray(_pixels(0))
    picture.save(home / "1.jpg", "MPO", save_all=True, append_images=[picture.resize((2, 2))])
    picture.convert("RGBA").save(home / "2.png")
    with Image.open(home / "1.jpg") as photograph:
        assert photograph.format == "MPO"
        seen = np.asarray(photograph)
    np.testing.assert_array_equal(_load(tmp_path).people.images, [seen, _pixels(0)])


def test_a_class_may_be_called_like_a_group(tmp_path: Path) -> None:
    """Where 'reference' is a class it is read as one."""
    _save(tmp_path / "reference/Ana/1.png", 2)
    got = load_people(tmp_path, image_shape=_SHAPE, classes=["reference"])
    assert got.people.members.tolist() == ["Ana"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("cot/Ana/1.png", "Did you mean 'cat'? Expected the class to be one of 'cat', 'dog', got 'cot'."),
        ("cat/1.png", "'cat/1.png': Expected only <class>/<member>/<image>"),
        ("cat/Ana/more/1.png", "Expected only <class>/<member>/<image>"),
        ("cat/A\nna/1.png", r"Expected a printable name of a member, got 'A\nna'"),
    ],
)
def test_folders_out_of_place_are_named(tmp_path: Path, path: str, said: str) -> None:
    """A file that is not where a member's image belongs is named, never left out."""
    _save(tmp_path / "cat/Bo/1.png")
    _save(tmp_path / path)
    with pytest.raises(DataError, match=re.escape(said)):
        _load(tmp_path)


def test_other_files_links_and_groups_are_named(tmp_path: Path) -> None:
    """A text among the images, a link to a folder and a misspelt group are all in one error."""
    _save(tmp_path / "subgroup/cat/Bo/1.png")
    _save(tmp_path / "refrence/cat/Bo/1.png")
    (tmp_path / "subgroup/cat/Bo/notes.txt").write_text("x")
    (tmp_path / "subgroup/dog").symlink_to(tmp_path / "subgroup/cat", target_is_directory=True)
    with pytest.raises(DataError, match="got 3 problems") as error:
        _load(tmp_path)
    assert "Did you mean 'reference'? Expected the group" in str(error.value)
    assert "'subgroup/cat/Bo/notes.txt'" in str(error.value)
    assert "'subgroup/dog'" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "got an empty file"),
        ("\n\n", "got an empty file"),
        ("file,class,member\n", "Expected at least one image of a person, got none"),
        ("file;class\na.png;cat\n", "got ['file', 'class']: member missing"),
        ("file,class\na.png,cat\n", "got ['file', 'class']: member missing"),
        ("file,class,member,rol\na.png,cat,Bo,pool\n", "Did you mean 'role'?"),
        ("file,class,member,file\na.png,cat,Bo,a.png\n", "Expected every column once"),
        (
            "file,class,member\na.png,cat\n",
            "Line 2: Expected 3 values, got 2: none for member. Write a comma for an empty value too.",
        ),
        ("file,class,member\na.png,cat,Bo,x\n", "Line 2: Expected 3 values, got 4"),
        ("file,class,member\na.png,cat,\n", "Line 2: Expected a printable value in the column 'member', got ''"),
        (
            "file,class,member\na.png,Cad,Bo\n",
            "Line 2: Did you mean 'cat'? Expected the class to be one of 'cat', 'dog'",
        ),
        (
            "file,class,member,group\na.png,cat,Bo,refrence\n",
            "Line 2: Did you mean 'reference'? Expected the group to be one of",
        ),
        (
            "file,class,member,role\na.png,cat,Bo,test\n",
            "Expected the role to be one of 'pool', 'selection', 'verification', 'unasked', got 'test'",
        ),
        ("file,class,member\nd.png,cat,Bo\n", "Line 2: Expected a file, got no such file: 'd.png'"),
        ("file,class,member\n.,cat,Bo\n", "got no such file: '.'"),
        ("file,class,member\n/etc/passwd,cat,Bo\n", "Expected a path relative to the table, got '/etc/passwd'"),
        ("file,class,member\nC:\\a.png,cat,Bo\n", "Expected a path relative to the table"),
        ("file,class,member\n../a.png,cat,Bo\n", "which leads out of it"),
        ("file,class,member\n" + "x" * 5000 + ",cat,Bo\n", "Expected the path of a file, got 'xxx"),
        ("file,class,member\na.png,cat,Bo\n./a.png,dog,Bo\n", "Line 3: Expected every file once"),
        ('file,class,member\na.png,cat,"Bo\n', "Line 2: Expected values separated by commas"),
        ('file,class,member\n"a"b.png,cat,Bo\n', "Line 2: Expected values separated by commas"),
        ('"file\n', "got line 1 that is none"),
        ('file,class,member\n"a\nb.png",cat,Bo\nd.png,cat,Bo\n', "Line 4: Expected a file"),
    ],
)
def test_each_problem_of_a_table_is_a_sentence(home: Path, text: str, said: str) -> None:
    """Each thing that can be wrong with a table is said with its line, what was found and what to do."""
    table = _table(home, text)
    with pytest.raises(DataError, match=re.escape(said)) as error:
        _load(table)
    assert "people.csv" in str(error.value)


def test_a_table_that_is_not_utf8_is_a_sentence(home: Path) -> None:
    """A table in another encoding says which byte cannot be read."""
    (home / "people.csv").write_bytes("file,class,member\na.png,cat,Zoë\n".encode("latin-1"))
    with pytest.raises(DataError, match="in UTF-8, got byte 0xeb at position 30"):
        _load(home)


def test_a_link_out_of_the_folder_is_refused(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A link inside the folder does not make a file outside readable."""
    (home / "link.png").symlink_to(_save(tmp_path_factory.mktemp("elsewhere") / "x.png"))
    with pytest.raises(DataError, match="which leads out of it"):
        _load(_table(home, "file,class,member\nlink.png,cat,Bo\n"))


def test_links_in_a_circle_are_a_sentence(home: Path) -> None:
    """A link to itself is a sentence."""
    (home / "loop.png").symlink_to(home / "loop.png")
    with pytest.raises(DataError, match="Line 2: "):
        _load(_table(home, "file,class,member\nloop.png,cat,Bo\n"))


def test_a_folder_that_may_not_be_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member's folder without read permission is an error, not a member without images."""
    _save(tmp_path / "cat/Bo/1.png")
    _save(tmp_path / "cat/Ana/1.png")
    scandir = os.scandir

    def closed(path: Any) -> Any:
        # chmod would not do: the tests may run as root, who may read everything.
        if str(path).endswith("Ana"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match="PermissionError"):
        _load(tmp_path)


def test_problems_of_lines_and_images_come_together(home: Path) -> None:
    """Bad lines and bad images are told in one error, in the order of the lines."""
    (home / "b.png").write_bytes((home / "b.png").read_bytes()[:50])
    Image.fromarray(_pixels(0)).resize((9, 9)).save(home / "c.png")
    Image.fromarray(np.dstack([_pixels(0), _pixels(0)[..., 0]])).save(home / "d.png")
    Image.fromarray(_pixels(0)[..., 0].astype(np.uint16)).save(home / "e.png")
    names = ["c.png,cat,Bo", "a.png,bird,Bo", "b.png,dog,Bo", "d.png,dog,Bo", "e.png,dog,Bo"]
    with pytest.raises(DataError) as error:
        _load(_table(home, "\n".join(["file,class,member", *names])))
    lines = str(error.value).split("\n- ")
    assert "got 5 problems" in lines[0]
    assert "nothing was sent" in lines[0]
    assert lines[1].startswith("Line 2: 'c.png': Expected an image of 4×5 pixels (height×width), got 9×9")
    assert lines[2].startswith("Line 3: Expected the class")
    assert lines[3].startswith("Line 4: 'b.png': Expected an image that can be read, got a damaged one")
    assert "transparency" in lines[4]
    assert "8 bits" in lines[5]


def test_ten_problems_are_told_and_the_rest_counted(home: Path) -> None:
    """An error shows ten problems and says how many more there are."""
    text = "file,class,member\n" + "".join(f"x{i}.png,cat,Bo\n" for i in range(25))
    with pytest.raises(DataError, match="got 25 problems") as error:
        _load(_table(home, text))
    assert len(str(error.value).split("\n- ")) == 12
    assert str(error.value).endswith("… and 15 more.")


def test_grey_files_become_rgb(tmp_path: Path) -> None:
    """A grey image is read as RGB with equal channels."""
    (tmp_path / "cat/Bo").mkdir(parents=True)
    Image.fromarray(_pixels(0)[..., 0]).save(tmp_path / "cat/Bo/1.png")
    images = _load(tmp_path).people.images
    np.testing.assert_array_equal(images[0], np.repeat(_pixels(0)[..., :1], 3, axis=-1))


def test_nothing_to_read_is_a_sentence(tmp_path: Path) -> None:
    """A missing source, an empty folder and senseless classes or sizes are sentences."""
    with pytest.raises(DataError, match="no such file"):
        _load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="at least one image"):
        _load(tmp_path)
    for classes in ([], ["a", "a"], ["a", ""]):
        with pytest.raises(DataError, match="names of the classes"):
            load_people(tmp_path, image_shape=_SHAPE, classes=classes)
    with pytest.raises(DataError, match=r"image shape \(height, width, 3\), got \(4, 5, 1\)"):
        load_people(tmp_path, image_shape=(4, 5, 1), classes=_CLASSES)


_CELL = st.one_of(
    st.sampled_from(["a.png", "b.png", "cat", "dog", "Bo", "subgroup", "reference", "pool", "", "..", "a.png/x"]),
    st.text(max_size=6),
)
_HEADER = st.permutations(["file", "class", "member", "person", "group", "role"]).flatmap(
    lambda names: st.integers(0, 6).map(lambda n: names[:n])
)
_LINES = st.tuples(_HEADER, st.lists(st.lists(_CELL, max_size=7), max_size=5)).map(
    lambda pair: "\n".join(",".join(cells) for cells in [pair[0], *pair[1]])
)
_BYTES = st.one_of(
    _LINES.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(_CELL, max_size=2).map(
        lambda cells: "\n".join(["file,class,member", *(f"a.png,cat,{cell}" for cell in cells)]).encode(
            "utf-8", "surrogatepass"
        )
    ),
    st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=60).map(lambda tail: b"file,class,member\n" + tail),
)


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder with two images for all examples of a property."""
    home = tmp_path_factory.mktemp("people")
    _save(home / "a.png", 0)
    _save(home / "b.png", 1)
    return home


@given(content=_BYTES)
@examples(200)
def test_any_table_is_people_or_a_sentence(shared_home: Path, content: bytes) -> None:
    """Whatever stands in a table, the outcome is people of the size asked for or a DataError."""
    table = shared_home / "any.csv"
    table.write_bytes(content)
    try:
        got = _load(table)
    except DataError:
        return
    assert got.people.image_shape == _SHAPE
    assert len(got) > 0


_NAME = st.text(st.one_of(st.just(" "), st.characters(exclude_categories=("C", "Z"))), min_size=1, max_size=8).filter(
    lambda name: name.isprintable() and bool(name.strip())
)


@st.composite
def _people(draw: st.DrawFn) -> tuple[People, list[str] | None, list[str]]:
    n = draw(st.integers(1, 5))
    classes = draw(st.lists(_NAME, min_size=1, max_size=4, unique_by=canonical))

    def column(values: st.SearchStrategy[str]) -> list[str]:
        return draw(st.lists(values, min_size=n, max_size=n).filter(lambda names: not twins(names)))

    height, width = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    images = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    people = People.build(
        images,
        draw(st.lists(st.integers(0, len(classes) - 1), min_size=n, max_size=n)),
        persons=column(_NAME),
        members=column(_NAME),
        subgroup=draw(st.lists(st.booleans(), min_size=n, max_size=n)),
    )
    roles = column(st.sampled_from(["pool", "selection", "verification"]))
    return people, draw(st.sampled_from([None, roles])), classes


# -- images without classes -------------------------------------------------------------------------------------


def test_images_alone_have_no_class(home: Path) -> None:
    """A folder of images alone is read in the order of names; one with folders in it, or a table, is as it was."""
    assert not has_classes(home)
    np.testing.assert_array_equal(load_images(home, image_shape=_SHAPE), [_pixels(0), _pixels(1), _pixels(2)])
    found = list_files(home, classes=_CLASSES, bare=True)
    assert [(one.path.name, one.member) for one in found] == [("a.png", ""), ("b.png", ""), ("c.png", "")]
    (home / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"'notes.txt': Expected only images .* got this file. Move it away"):
        load_images(home, image_shape=_SHAPE)
    with pytest.raises(DataError, match=r"'a.png': Expected an image of 9×9 pixels .* for: 'b.png', 'c.png'"):
        load_images(home, image_shape=(9, 9, 3))
    (home / "notes.txt").unlink()
    _save(home / "cat/Bo/1.png")
    assert has_classes(home)
    _table(home, "file,class,member\na.png,cat,Bo\n")
    assert has_classes(home)
    assert all(has_classes(home / nothing) for nothing in ("nowhere", "cat/Bo/1.png"))


def test_a_misspelt_class_is_no_missing_one(home: Path) -> None:
    """A table whose column is called otherwise is refused, not taken for one without classes."""
    table = _table(home, "file,clas,member\na.png,cat,Bo\n")
    assert not has_classes(table)
    with pytest.raises(DataError, match="Did you mean 'class'"):
        load_images(table, image_shape=_SHAPE)


@given(
    columns=st.permutations(["file", "class", "member", "person", "group", "role", "box"]).flatmap(
        lambda names: st.integers(0, 6).map(lambda n: ["file", *(x for x in names if x != "file")][: n + 1])
    ),
    order=st.permutations(["a.png", "b.png"]),
    delimiter=st.sampled_from([",", ";", "\t"]),
    seed=st.integers(0, 99),
)
@examples(100)
def test_a_table_without_the_column_class_is_images(
    shared_home: Path, columns: list[str], order: list[str], delimiter: str, seed: int
) -> None:
    """Whatever other columns it has and wherever they stand, its images come in its order; with classes it is people
    or a sentence."""
    np.random.default_rng(seed).shuffle(columns)
    said = {"class": "cat", "member": "Bo", "person": "p", "group": "subgroup", "role": "pool", "box": ""}
    lines = [columns, *([{**said, "file": file}[name] for name in columns] for file in order)]
    table = shared_home / "bare.csv"
    table.write_text("\n".join(delimiter.join(line) for line in lines), encoding="utf-8")
    assert has_classes(table) == ("class" in columns)
    if "class" in columns:
        with contextlib.suppress(DataError):
            assert len(_load(table)) == 2
        return
    images = load_images(table, image_shape=_SHAPE)
    np.testing.assert_array_equal(images, [_pixels("ab".index(file[0])) for file in order])
    assert {one.member for one in list_files(table, classes=_CLASSES, bare=True)} == {"Bo" * ("member" in columns)}


@given(_people())
@examples(40)
def test_people_written_are_people_read(given: tuple[People, list[str] | None, list[str]]) -> None:
    """What write_people writes, load_people reads back: every pixel, name, class, group and role."""
    people, roles, classes = given
    with tempfile.TemporaryDirectory() as folder:
        table = write_people(folder, people, classes, roles)
        got = load_people(table, image_shape=people.image_shape, classes=classes)
    assert got.people.digest() == people.digest()
    assert (None if got.roles is None else got.roles.tolist()) == roles


def test_writing_refuses_what_could_not_be_read_back(tmp_path: Path) -> None:
    """Names, classes and roles that a table cannot hold are refused before anything is written."""
    people = People.build([_pixels(0)], [1])
    for bad, classes, roles, said in (
        (people[:0], _CLASSES, None, "at least one person"),
        (people, ("cat",), None, "classes from 0 to 0, got 1 to 1"),
        (people, _CLASSES, ["test"], "roles among pool, selection, verification, unasked, got"),
        (people, _CLASSES, [], "one role per image, got 0 for 1"),
        (People.build([_pixels(0)], [0], persons=["a\nb"]), _CLASSES, None, "printable names"),
        (replace(people, members=np.array(["ada "])), _CLASSES, None, "without spaces around them, got 'ada '"),
        (replace(people, members=np.array([""])), _CLASSES, None, "printable names"),
        (People.build([_pixels(0)] * 2, [0, 1], persons=["a", "A"]), _CLASSES, None, "differ by more than case"),
    ):
        with pytest.raises(DataError, match=said):
            write_people(tmp_path / "new", bad, classes, roles)
    assert not (tmp_path / "new").exists()


def test_writing_never_mixes_two_tables(tmp_path: Path) -> None:
    """A folder that holds people already, or that cannot be made, is refused."""
    people = People.build([_pixels(0)], [1])
    write_people(tmp_path, people, _CLASSES)
    with pytest.raises(DataError, match="Expected a folder without people"):
        write_people(tmp_path, people, _CLASSES)
    with pytest.raises(DataError, match="Expected to write people to"):
        write_people(tmp_path / "people.csv", people, _CLASSES)


def test_members_with_several_images_are_one_person_each_and_it_is_said(home: Path) -> None:
    """Without a column person an image is its member's, which is said; one_person_per_image says otherwise."""
    table = _table(home, "file,class,member\na.png,cat,ada\nb.png,dog,ada\nc.png,cat,bo\n")
    got = _load(table)
    assert got.people.persons.tolist() == ["ada", "ada", "bo"]
    said = got.doubt()
    assert said is not None
    assert "3 images count as 2 persons" in said
    assert "one_person_per_image = true" in said
    each = load_people(table, image_shape=_SHAPE, classes=_CLASSES, one_person_per_image=True)
    assert len(set(each.people.persons.tolist())) == 3
    assert each.doubt() is None


@pytest.mark.parametrize(
    "text",
    [
        "file,class,member\na.png,cat,ada\nb.png,dog,bo\nc.png,cat,cy\n",
        "file,class,member,person\na.png,cat,ada,p\nb.png,dog,ada,p\nc.png,cat,ada,q\n",
    ],
    ids=["one image a member", "persons named"],
)
def test_nothing_is_said_where_persons_are_known(home: Path, text: str) -> None:
    """Where a table names persons, or everybody brought one image, the setting changes nothing."""
    table = _table(home, text)
    plain = _load(table)
    assert plain.doubt() is None
    each = load_people(table, image_shape=_SHAPE, classes=_CLASSES, one_person_per_image=True)
    assert len(set(each.people.persons.tolist())) == len(set(plain.people.persons.tolist()))
