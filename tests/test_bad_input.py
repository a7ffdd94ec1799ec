"""Tests of tables that mean something else than an action needs: each ends in a sentence or in a flagged result."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_audit_command import Served, home, people, served, ttca
from tests.test_cli import Terminal
from ttca.advice import too_few
from ttca.answers import Status
from ttca.audit import Heard, audited
from ttca.certificates import Certifying, Examined
from ttca.config import read_action
from ttca.roles import ROLES_FILE

__all__ = ["home", "people", "served", "ttca"]

Rows = list[dict[str, str]]
SHIFTED = {"stripes": "bars", "bars": "checks", "checks": "stripes"}


def few(each: int) -> Callable[[Rows], Rows]:
    """Return what leaves so many rows of each group and class."""

    def left(rows: Rows) -> Rows:
        kinds = dict.fromkeys((row["group"], row["class"]) for row in rows)
        return [row for kind in kinds for row in [r for r in rows if (r["group"], r["class"]) == kind][:each]]

    return left


ROLES = ("pool", "selection", "verification")
#: What is done to a table of 180 people in each group; what a dry run then says, and what an audit does.
WORLDS: dict[str, tuple[Callable[[Rows], Rows], str, str]] = {
    "one group only": (
        lambda rows: [row for row in rows if row["group"] == "subgroup"],
        "Expected reference people among the verification people, got none.",
        "Only one group got answers, so there is nothing to compare it with.",
    ),
    "two of each group in each role": (
        lambda rows: [{**row, "role": ROLES[i % 3]} for i, row in enumerate(few(2)(rows))],
        "So few verification people cannot reach the goal, parity,",
        "A group of fewer than 3 people is compared with nobody",
    ),
    "nine in each group": (
        few(3),
        "For the certificate: 3 persons of the subgroup and 4 of the reference, one image of each.",
        "no gap, however large, would have been seen with 80 % probability. Ask more people, or let more take part.",
    ),
    "people who are there twice": (
        lambda rows: [*rows, *rows[:2]],
        "Line 363: Expected every file once, got 'images/000001.png' on line 3 already. Remove one line.",
        "got 2 problems in",
    ),
    "a class that is NaN": (
        lambda rows: [{**rows[0], "class": "nan"}, *rows[1:]],
        "Line 2: Expected the class to be one of 'stripes', 'bars', 'checks', got 'nan'. Use one of these.",
        "got 1 problem in",
    ),
    "a class that the action file lacks": (
        lambda rows: [{**row, "class": "spots"} if row["class"] == "bars" else row for row in rows],
        "got 'spots'. Use one of these. Or add it to classes. The same holds for: Line ",
        "problems in",
    ),
    "no class": (
        lambda rows: [{**rows[0], "class": ""}, *rows[1:]],
        "Line 2: Expected a printable value in the column 'class', got ''.",
        "got 1 problem in",
    ),
    "persons in two groups": (
        lambda rows: [{**row, "person": f"p{i % 300}"} for i, row in enumerate(rows)],
        # One image of each person counts.
        "persons of the subgroup and 58 of the reference, one image of each, of 143 that they brought",
        "of the subgroup and 20 of the reference, people in the pool alone",
    ),
    "all labels wrong": (
        lambda rows: [{**row, "class": SHIFTED[row["class"]]} for row in rows],
        # Nobody can know it before the first answers.
        "queries at most",
        "Expected answers that fit members' own true classes, got 3 of 20 right",
    ),
}
REFUSED = ("people who are there twice", "a class that is NaN", "a class that the action file lacks", "no class")


def write(table: Path, changed: Callable[[Rows], Rows]) -> None:
    """Write a table as it is after a change."""
    with table.open(newline="") as file:
        rows = changed(list(csv.DictReader(file)))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("name", WORLDS)
def test_what_an_action_cannot_use_is_a_sentence_or_a_flag(
    name: str, home: Path, ttca: Terminal, served: Served
) -> None:
    """A dry run and an audit say what is wrong with the table, or beside the result what it is not worth; what is
    refused costs no query."""
    changed, planned, audited = WORLDS[name]
    write(home / "people" / "people.csv", changed)
    before = served.platform.queries
    for words, said in ((("run", home, "--dry-run"), planned), (("audit", home, "--people", 20, "--yes"), audited)):
        done = ttca(*words)
        assert done.code in (0, 1)
        assert "Traceback" not in done.err
        assert said in " ".join(f"{done.out} {done.err}".split()), (words[0], done.out[-900:], done.err[-900:])
    asked = served.platform.queries - before
    assert asked == 0 if name in REFUSED else 0 < asked <= 40


@pytest.mark.parametrize(
    ("persons", "goal", "enough"),
    [(3, "parity", False), (4, "parity", True), (4, "improvement", False), (5, "improvement", True), (28, 0.9, False),
     (29, 0.9, True), (59, 0.95, True), (58, 0.95, False)],
)  # fmt: skip
def test_too_few_to_certify_are_told_before_anybody_is_asked(persons: int, goal: Any, enough: bool) -> None:
    """By the certificate's own rule: where the best answers would not pass, that is said, as the page has it."""
    said = too_few(Certifying(goal=goal), Examined("disjoint", persons, persons, 2 * persons))
    assert (said is None) == enough


def test_a_group_of_one_is_not_told_by_its_lead() -> None:
    """Nothing is said of a group of fewer than three people, neither its rate nor how far it is behind."""
    right = np.array([False, True, True])
    status = np.full(3, int(Status.ANSWERED), np.int8)
    persons, said = np.array(["a", "b", "c"]), np.where(right, 0, 1)
    heard = Heard(np.zeros(3, np.int64), said, status, persons, np.array([True, False, False]), {})
    found = audited(heard, "disjoint", ("k", "l"))
    assert found.comparison is None
    assert found.to_dict()["comparison"] is None
    assert "points" not in json.dumps(found.to_dict())


def test_nobody_verifies_who_has_answered_for_the_pool(home: Path, ttca: Terminal, served: Served) -> None:
    """A table that makes somebody verify who was asked for the pool is refused, and costs no query."""
    assert ttca("pool", "run", home).code == 0
    before, table = served.platform.queries, home / "people" / "people.csv"
    with read_action(home).open() as action:
        found = action.roster.roles()
        asked = action.asked_people()
    role = {person: name for name, people in found.items() for person in people.persons.tolist()}
    role[str(asked.persons[asked.subgroup][0])] = "verification"
    write(table, lambda rows: [{**row, "role": role[row.get("person") or row["member"]]} for row in rows])
    for words in (("run", home, "--dry-run"), ("run", home, "--yes")):
        done = ttca(*words)
        assert done.code == 1
        assert "Expected everybody in the role that they have had since the first query" in " ".join(done.err.split())
    # Nor where the file of the roles is gone.
    (home / ROLES_FILE).unlink()
    done = ttca("run", home, "--dry-run")
    assert "Expected verification people whom nobody has asked, got " in " ".join(done.err.split())
    assert served.platform.queries == before
