"""Drafting: the action file that somebody starts from, filled in with what lies in its folder, and a sample table."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.copying import shell_word
from ttca.data.folder import TABLE, outline, prepared_as
from ttca.data.photographs import PHOTOGRAPHS
from ttca.data.tables import COLUMNS, Problems, read_sheet
from ttca.errors import ActionError, DataError, TTCAError
from ttca.images import Images
from ttca.people import Roster, draw_roles
from ttca.preparation import Preparation

__all__ = ["LETTER", "SAMPLE", "Draft", "draft"]

#: The letter that asks the platform's owner for authorization, beside the action file.
LETTER = "letter-authorization.txt"

#: The table that shows every column, under the name ``people-sample.csv``.
SAMPLE = "\n".join(
    [
        ",".join(COLUMNS),
        'photos/ada-1.jpg,first,ada,ada,subgroup,pool,no,"310,120,400,400"',
        "photos/ada-2.jpg,first,ada,ada,subgroup,pool,no,",
        "photos/ben-1.jpg,second,ben,ben,reference,verification,yes,",
        "",
    ]
)


@dataclass(frozen=True)
class Draft:
    """What `ttca init` writes, and what it says.

    Parameters
    ----------
    file : Path
        The action file.
    text : str
    sample : Path or None
        Where the sample table goes; None where there is one, or people already.
    letter : Path or None
        Where the letter goes that asks for authorization; None where there is one.
    advice : tuple of str
        Sentences: which people were found, which size is proposed and why, what comes next.
    """

    file: Path
    text: str
    sample: Path | None
    letter: Path | None
    advice: tuple[str, ...]


def draft(file: Path, text: str) -> Draft:
    """Return an action file for a place, filled in with what is known there.

    Parameters
    ----------
    file : Path
        The file to be written.
    text : str
        The action file as it would be without what is known: TOML, with a ``[people]`` and perhaps the platform's
        ``image_shape``.
    """
    home = file.parent
    source = _people(home)
    advice = []
    if source is not None:
        text = re.sub(r'(?m)^source = "people\.csv"', lambda _: f"source = {_quoted(source)}", text)
        advice.append(f"The people are those of {home / source}.")
    way, why = _preparation(home, source, text)
    if way is not None:
        text = re.sub(r"(?m)^# preparation = \{.*?\}(?=  |$)", lambda _: f"preparation = {way}", text)
    advice.append(why)
    photographs = None if source is not None else _photographs(home)
    if photographs is not None and photographs != home:
        # Where ttca prepare is told to put them.
        text = re.sub(r'(?m)^source = "people\.csv"', 'source = "people"', text)
    count = _counted(home / source if source is not None else photographs, text)
    if count is not None:
        text = re.sub(r"(?m)^quota = 100\b( ?)", lambda _: f"quota = {count.quota} ", text)
        advice.append(count.told)
    if photographs is not None:
        size = "SIZE" if way is None else "x".join(map(str, way.image_shape[:2]))
        command = f"ttca prepare {shell_word(photographs)} {shell_word(home / 'people')} --size {size}"
        advice.append(
            f"There are photographs in {photographs}. Make them fit first, and write the line that it prints into "
            f"[people]: {command}"
        )
    sample = home / "people-sample.csv"
    letter = home / LETTER
    return Draft(
        file,
        text,
        None if source is not None or sample.exists() else sample,
        None if letter.exists() else letter,
        tuple(advice),
    )


@dataclass(frozen=True)
class _Count:
    """How many images of how many members there are, and what an action with them costs at most."""

    images: int
    members: int
    queries: int

    @property
    def quota(self) -> int:
        """What each member has to pay at most, in whole tens."""
        return 10 * -(-self.queries // (10 * self.members))

    @property
    def told(self) -> str:
        return (
            f"quota = {self.quota}, since an action with these {self.images:,} images costs at most "
            f"{self.queries:,} queries, which {self.members:,} member{'s' * (self.members > 1)} can pay so. Other "
            "settings cost other numbers: ttca run --dry-run says which quota would do."
        )


def _counted(place: Path | None, text: str) -> _Count | None:
    """Return what lies in a table or a folder; None where that cannot be read, or is too little for an action."""
    if place is None:
        return None
    # Nobody has said yet whether each image shows another person: what costs more counts.
    found = [_costs(place, text, one_person_per_image=each) for each in (False, True)]
    return max((count for count in found if count is not None), key=lambda count: count.queries, default=None)


def _costs(place: Path, text: str, *, one_person_per_image: bool) -> _Count | None:
    from ttca.action import CollectiveAction
    from ttca.config import settings_of
    from ttca.platforms.local import LocalPlatform
    from ttca.pooling.pool import Member

    try:
        table, classes = outline(place, one_person_per_image=one_person_per_image)
        people, members = table.people, np.unique(table.people.members).tolist()
        written = tomllib.loads(text)
        settings, shares = settings_of(written["action"]), written["people"]
        share = {name: shares[name] for name in ("verification", "selection")}
        roles = draw_roles(people, seed=settings.seed, given=table.roles, **share)
        if people.subgroup.all():
            # Nobody to be compared with yet.
            settings = replace(settings, goal="improvement")
        pool, selection, verification = (people[roles == role] for role in ("pool", "selection", "verification"))
        with (
            tempfile.TemporaryDirectory() as folder,
            CollectiveAction(
                folder,
                platform=LocalPlatform(_nothing, classes=classes, image_shape=(2, 2, 3)),
                members=[Member(name, 1) for name in members],
                roster=Roster(pool=pool, selection=selection, verification=verification),
                settings=settings,
            ) as action,
        ):
            return _Count(len(people), len(members), sum(cost.queries for cost in action.plan().values()))
    except TTCAError:
        return None


def _nothing(images: Images) -> NDArray[np.floating]:
    """Refuse to be asked: only costs are counted."""
    raise ActionError(f"Expected nobody to be asked while costs are counted, got {len(images)} images.")


def _quoted(text: str) -> str:
    """Return a TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _people(home: Path) -> str | None:
    """Return the source of people that lies in a folder: a table by its usual name, a folder, or the only table."""
    if (home / TABLE).is_file():
        return TABLE
    if (home / "people").is_dir():
        return "people"
    tables = [path.name for path in sorted(home.glob("*.csv")) if path.name != "people-sample.csv" and _is_table(path)]
    return tables[0] if len(tables) == 1 else None


def _is_table(path: Path) -> bool:
    needed = [name for name, column in COLUMNS.items() if column.default is None]
    try:
        read_sheet(path, needed, tuple(COLUMNS), Problems())
    except DataError:
        return False
    return True


def _preparation(home: Path, source: str | None, text: str) -> tuple[Preparation | None, str]:
    """Return the preparation that is proposed, if the size is known, and why."""
    place = home if source is None else home / source
    with contextlib.suppress(DataError):
        made = prepared_as(place)
        if made is not None:
            return made, f"The preparation is the one by which ttca prepare made the pictures of {place}."
    shape = _image_shape(text)
    if shape is not None:
        size = shape[:2]
        return Preparation(size=(size[0], size[1])), (
            f"The preparation's size, {size[0]}×{size[1]} pixels (height×width), is the image_shape of the platform's "
            "table, so that ttca sends what the model takes. Whether the platform still crops, its documents say."
        )
    return None, (
        "No size is proposed, since nothing here says what the platform takes. Look for its input size (ttca run "
        "--dry-run asks its metadata; 224 is frequent) and write it into preparation under [people]. Sent at that "
        "size, pictures are not resized once more behind δ."
    )


def _image_shape(text: str) -> tuple[int, int, int] | None:
    try:
        found: Any = tomllib.loads(text).get("platform", {}).get("options", {}).get("image_shape")
    except (tomllib.TOMLDecodeError, AttributeError):
        return None
    whole = isinstance(found, list) and len(found) == 3 and all(isinstance(n, int) and n > 0 for n in found)
    return (found[0], found[1], found[2]) if whole else None


def _photographs(home: Path) -> Path | None:
    """Return the first folder in a folder, or the folder itself, in which photographs lie."""
    if not home.is_dir():
        return None
    folders = [path for path in sorted(home.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    for folder in (*folders, home):
        deep = folder.rglob("*") if folder != home else folder.glob("*")
        if any(path.suffix.lower() in PHOTOGRAPHS for path in deep):
            return folder
    return None
