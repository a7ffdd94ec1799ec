"""Tests of roles that are kept: from the first query on, whoever joins or leaves moves nobody else."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests import worlds
from tests.examples import examples
from tests.test_audit_command import Served, home, people, served, ttca
from tests.test_bad_input import Rows, write
from tests.test_cli import Terminal
from ttca.config import read_action
from ttca.errors import ActionError
from ttca.people import People, draw_roles
from ttca.roles import ROLES_FILE, GivenRoles

__all__ = ["home", "people", "served", "ttca"]


def roles_of(home: Path) -> dict[str, str]:
    """Return everybody's role, as an action reads it."""
    with read_action(home).open() as action:
        found = action.roster.roles().items()
        return {person: role for role, people in found for person in people.persons.tolist()}


def rows_of(table: Path, kept: Any) -> None:
    """Leave only those rows of a table for whose number ``kept`` is true."""

    def left(rows: Rows) -> Rows:
        return [row for i, row in enumerate(rows) if kept(i)]

    write(table, left)


@examples(60)
@given(st.integers(0, 2**32), st.sets(st.integers(0, 59), max_size=40), st.integers(0, 40))
def test_who_joins_or_leaves_moves_nobody(seed: int, gone: set[int], before: int) -> None:
    """Whatever part of the people was there first, and whoever left: those who stay keep the role that they had."""
    everybody = worlds.crowd("x", 30, 30, seed=1)
    there = np.arange(60) >= before
    first = draw_roles(everybody[there], seed=seed)
    kept = GivenRoles("salt", {}, {}, {}).with_people(everybody[there], first, {})
    now = np.array([i not in gone for i in range(60)], np.bool_)
    if not now.any():
        return
    roles = draw_roles(everybody[now], seed=seed + 1, given=kept.of(everybody[now]))
    had = dict(zip(everybody[there].persons.tolist(), first.tolist(), strict=True))
    has = dict(zip(everybody[now].persons.tolist(), roles.tolist(), strict=True))
    assert all(has[person] == role for person, role in had.items() if person in has)
    assert set(has.values()) <= {"pool", "selection", "verification"}


def test_whoever_shares_an_image_shares_the_role() -> None:
    """A newcomer with the very picture of somebody who has a role gets that role."""
    one = worlds.crowd("x", 12, 12, seed=1)
    twin = People.build(one.images[:1], one.classes[:1], persons=["twin"], subgroup=one.subgroup[:1])
    for role in ("pool", "selection", "verification"):
        given_ = np.array([role, *draw_roles(one, seed=0).tolist()[1:], ""])
        assert draw_roles(People.concatenate([one, twin]), seed=0, given=given_)[-1] == role


def test_newcomers_who_come_one_by_one_have_the_shares_of_the_roles() -> None:
    """Each is drawn anew, so that a third of them verify, within what chance allows."""
    everybody = worlds.crowd("x", 200, 100, seed=1)
    roles = draw_roles(everybody[:60], seed=0)
    for n in range(61, 301):
        roles = draw_roles(everybody[:n], seed=0, given=np.append(roles, ""))
    # 80 of 240 are expected; 50 and 110 are more than 4 standard deviations away.
    assert 50 < (roles[60:] == "verification").sum() < 110
    assert 15 < (roles[60:] == "selection").sum() < 55


def test_an_action_goes_on_when_somebody_leaves_after_the_pool_was_asked(
    home: Path, ttca: Terminal, served: Served
) -> None:
    """Verified are people whom nobody has asked before, and what was paid for the others is not paid again."""
    assert ttca("pool", "run", home).code == 0
    before, paid = roles_of(home), served.platform.queries
    table = home / "people" / "people.csv"
    rows_of(table, lambda i: i % 7)
    after = roles_of(home)
    assert len(after) < len(before)
    assert all(before[person] == role for person, role in after.items())
    assert ttca("pool", "run", home).code == 0
    assert served.platform.queries == paid
    asked = set(served.platform.seen)
    with read_action(home).open() as action:
        roster = action.roster
    assert asked
    seen = {image for images in served.platform.seen.values() for image in images}
    assert not seen & {image.tobytes() for image in roster.verification.images}
    done = ttca("run", home, "--dry-run")
    assert done.code == 0, done.err


def test_before_the_first_query_every_table_is_drawn_anew(home: Path, ttca: Terminal) -> None:
    """A dry run fixes nothing: another seed draws other roles, as long as nobody was asked."""
    assert ttca("run", home, "--dry-run").code == 0
    before = roles_of(home)
    file = home / "action.toml"
    other = file.read_text().replace("[action]\n", "[action]\nseed = 7\n")
    assert other != file.read_text()
    file.write_text(other)
    assert roles_of(home) != before


def test_another_seed_after_the_first_query_is_told_and_moves_nobody(home: Path, ttca: Terminal) -> None:
    """What no longer counts is said, once somebody was asked."""
    assert ttca("pool", "run", home).code == 0
    before, file = roles_of(home), home / "action.toml"
    file.write_text(file.read_text().replace("verification = 0.4", "verification = 0.2"))
    done = ttca("run", home, "--dry-run")
    assert "Everybody keeps the role of the first query" in " ".join(f"{done.out} {done.err}".split())
    assert roles_of(home) == before


def test_whoever_is_asked_first_belongs_to_the_pool(home: Path, ttca: Terminal, served: Served) -> None:
    """`ttca ask` about somebody who would have verified puts them into the pool; afterwards it refuses who verifies."""
    before = roles_of(home)
    person = next(name for name, role in before.items() if role == "verification")
    assert ttca("ask", home, picture(home, person)).code == 0
    after = roles_of(home)
    assert after[person] == "pool"
    paid = served.platform.queries
    other = next(name for name, role in after.items() if role == "verification")
    refused = ttca("ask", home, picture(home, other))
    assert refused.code == 1
    assert "of somebody who verifies. Choose another picture. No query was spent." in refused.sentence
    assert served.platform.queries == paid
    # Nor does a copy of their picture, under another name.
    copy = home.parent / "copy.png"
    copy.write_bytes(picture(home, other).read_bytes())
    assert "of somebody who verifies" in ttca("ask", home, copy).sentence
    assert served.platform.queries == paid
    assert ttca("run", home, "--dry-run").code == 0


def test_an_action_that_is_moved_keeps_its_people(home: Path, ttca: Terminal, served: Served) -> None:
    """Where each image is a person, their names do not depend on where the folder is."""
    file, table = home / "action.toml", home / "people" / "people.csv"
    file.write_text(file.read_text().replace("[people]\n", "[people]\none_person_per_image = true\n"))
    write(table, lambda rows: [{k: v for k, v in row.items() if k != "person"} for row in rows])
    assert ttca("pool", "run", home).code == 0
    before, paid = roles_of(home), served.platform.queries
    elsewhere = home.rename(home.parent / "elsewhere")
    assert roles_of(elsewhere) == before
    assert ttca("pool", "run", elsewhere).code == 0
    assert served.platform.queries == paid


def test_nobody_joins_once_people_verify(home: Path, ttca: Terminal) -> None:
    """A newcomer is named and what to do is said; without the newcomer the action goes on."""
    assert ttca("pool", "run", home).code == 0
    table = home / "people" / "people.csv"
    whole = table.read_text()
    (home / "verification.json").write_text("{}")
    write(table, lambda rows: [*rows, {**rows[0], "person": "new", "file": other_picture(home)}])
    assert (
        "got others: new. They are new, or were forgotten since. Take them out again"
        in ttca("pool", "run", home).sentence
    )
    table.write_text(whole)
    assert ttca("pool", "run", home).code == 0


def other_picture(home: Path) -> str:
    """Write a picture that nobody has, and return its path from the table."""
    picture = np.random.default_rng(3).integers(0, 256, worlds.SHAPE, dtype=np.uint8)
    Image.fromarray(picture).save(home / "people" / "images" / "new.png")
    return "images/new.png"


def test_another_pool_is_refused_before_anything_is_learned_anew(home: Path, ttca: Terminal) -> None:
    """Once people have begun to verify, a pool without one of its members teaches nothing: no file changes."""
    assert ttca("distil", home).code == 0
    with read_action(home).open() as action:
        gone, digest = str(action.roster.pool.persons[0]), action.pool().digest
    then = {"epochs": 99, "epsilons": [6, 12], "every_image": None, "pinned": ["epochs"]}
    opened = {"pool": digest, "settings": then}
    (home / "verification.json").write_text(json.dumps(opened))
    proxy = (home / "proxy.safetensors").read_bytes()
    assert ttca("distil", home).code == 0
    write(home / "people" / "people.csv", lambda rows: [row for row in rows if row["person"] != gone])
    said = ttca("distil", home)
    assert said.code == 1
    assert "Expected the pool as it was when people began to verify" in said.sentence
    assert (
        "Settings that differ: epochs = 12 (then 99), every_image = false (then unset), keys of learning set by hand: "
        "none (then epochs). They would" in said.sentence
    )
    assert (home / "proxy.safetensors").read_bytes() == proxy


def test_another_pool_is_refused_before_it_is_paid_for(home: Path, served: Served, ttca: Terminal) -> None:
    """Once people have begun to verify, settings that would ask others are refused, and no query is spent."""
    text = (home / "action.toml").read_text()
    (home / "action.toml").write_text(text.replace("[action]", "[action]\nrefine = 0.5", 1))
    assert ttca("pool", "run", home).code == 0
    with read_action(home).open() as action:
        digest = action.pool().digest
    (home / "verification.json").write_text(json.dumps({"pool": digest, "settings": {"refine": 0.5}}))
    paid = served.platform.queries
    assert ttca("pool", "run", home).code == 0
    (home / "action.toml").write_text(text)
    said = ttca("pool", "run", home)
    assert said.code == 1
    assert "Settings that differ: refine = 0.0 (then 0.5). They would" in said.sentence
    tried = ttca("run", home, "--dry-run")
    assert tried.code == 1
    assert "Expected the pool as it was when people began to verify" in tried.err
    assert served.platform.queries == paid > 0


def picture(home: Path, person: str) -> Path:
    """Return a person's photograph."""
    known = read_action(home)
    return next(one.path for one in known.list_files(known.people.source) if one.person == person)


def test_the_file_names_nobody_and_forgets(home: Path, ttca: Terminal) -> None:
    """No name of a person or a member stands in it, and a member who is forgotten leaves it."""
    assert ttca("pool", "run", home).code == 0
    held = (home / ROLES_FILE).read_text()
    with read_action(home).open() as action:
        whole = action.roster
        names = {name for people in whole.roles().values() for name in [*people.persons, *people.members]}
        member = str(whole.pool.members[0])
    assert not [name for name in names if name in held]
    before = GivenRoles.read(home).roles
    assert ttca("pool", "forget", member, home, "--yes").code == 0
    after = GivenRoles.read(home)
    assert 0 < len(after.roles) < len(before)
    assert not any(after.role_of(image) for image in whole.pool[whole.pool.members == member].images)
    mine = {p for people in whole.roles().values() for p in people.persons[people.members == member].tolist()}
    assert not any(after.role(person) for person in mine)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"salt": "a", "drawn": {}, "given": {"x": {}}}',
    '{"salt": "a", "drawn": {}, "given": {"x": {"role": "king", "members": []}}}'])  # fmt: skip
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, text: str) -> None:
    """A damaged file is never taken for one without roles."""
    (tmp_path / ROLES_FILE).write_text(text)
    with pytest.raises(ActionError, match=r"Expected .*roles\.json"):
        GivenRoles.read(tmp_path)


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    """Roles, marks and how they were drawn survive the file; who has several members is forgotten with the last."""
    two = worlds.crowd("x", 2, 0, seed=1)
    people = People.build(
        two.images[[0, 0, 1]], two.classes[[0, 0, 1]], persons=["p", "p", "q"], members=["m", "n", "n"]
    )
    given_ = GivenRoles.read(tmp_path).with_people(people, np.array(["pool", "pool", "selection"]), {"s": 1})
    given_.save(tmp_path)
    assert GivenRoles.read(tmp_path) == given_
    assert json.loads((tmp_path / ROLES_FILE).read_text())["drawn"] == {"s": 1}
    left = given_.without("n")
    assert (left.role("p"), left.role_of(people.images[0])) == ("pool", "pool")
    assert (left.role("q"), left.role_of(people.images[2])) == ("", "")


def test_a_table_that_is_sorted_otherwise_is_the_same_action(home: Path, ttca: Terminal, served: Served) -> None:
    """After sorting, other file names and other names of persons, the roster is the same to its last byte, nobody is
    asked again, and once people verify the pool still counts as the one of then."""
    assert ttca("pool", "run", home).code == 0
    with read_action(home).open() as action:
        before, digest = action.roster, action.pool().digest
    paid = served.platform.queries
    (home / "verification.json").write_text(json.dumps({"pool": digest}))
    write(home / "people" / "people.csv", lambda rows: [{**r, "person": f"new-{r['person']}"} for r in rows[::-1]])
    assert ttca("pool", "run", home).code == 0
    assert served.platform.queries == paid
    with read_action(home).open() as action:
        for role, people in action.roster.roles().items():
            assert people.digest() == before.roles()[role].digest()


def test_a_column_role_moves_nobody_who_has_a_role(home: Path, ttca: Terminal, served: Served) -> None:
    """A column role that comes after the first query is refused where it says otherwise; without a word, or with the
    roles that people have, it changes nothing; and before the first query it decides for those whom it names."""
    table = home / "people" / "people.csv"
    write(table, lambda rows: [{**row, "role": "verification" if i < 9 else ""} for i, row in enumerate(rows)])
    with table.open(newline="") as file:
        named = [row["person"] for row in csv.DictReader(file)][:9]
    assert all(roles_of(home)[name] == "verification" for name in named)
    assert ttca("pool", "run", home).code == 0
    before, paid = roles_of(home), served.platform.queries
    assert set(before.values()) == {"pool", "selection", "verification"}

    def said(roles: dict[str, str]) -> None:
        write(table, lambda rows: [{**row, "role": roles.get(row["person"], "")} for row in rows])

    for roles in ({}, before):
        said(roles)
        assert ttca("pool", "run", home).code == 0
        assert roles_of(home) == before
    moved = next(name for name, role in before.items() if role == "verification")
    said({moved: "pool"})
    for words in (("pool", "run", home), ("run", home, "--dry-run")):
        done = ttca(*words)
        assert done.code == 1
        assert f"for 1 person. The first is {moved}: verification, and now pool." in " ".join(done.err.split())
    assert served.platform.queries == paid


def test_a_member_in_another_spelling_has_no_second_quota(home: Path, ttca: Terminal, served: Served) -> None:
    """A member who is written with a capital from now on is asked about, before anything is sent."""
    assert ttca("pool", "run", home).code == 0
    paid, table = served.platform.queries, home / "people" / "people.csv"
    with table.open(newline="") as file:
        member = next(csv.DictReader(file))["member"]
    write(table, lambda rows: [{**r, "member": r["member"].replace(member, member.title())} for r in rows])
    done = ttca("pool", "run", home)
    assert done.code == 1
    assert f"got {member.title()!r} in people and {member!r} before: the same person?" in done.sentence
    assert served.platform.queries == paid


def test_whoever_comes_back_is_known_and_does_not_verify(home: Path, ttca: Terminal) -> None:
    """Somebody who was forgotten is refused in any spelling; once they agree again, none of theirs verifies."""
    assert ttca("pool", "run", home).code == 0
    table = home / "people" / "people.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    member = rows[0]["member"]
    mine = {row["person"] for row in rows if row["member"] == member}
    assert "verification" in {roles_of(home)[name] for name in mine}
    assert ttca("pool", "forget", member, home, "--yes").code == 0
    write(table, lambda rows: [{**r, "member": r["member"].replace(member, member.title())} for r in rows])
    assert "Expected nobody who was forgotten" in ttca("pool", "run", home).sentence
    write(table, lambda rows: [{**r, "member": r["member"].replace(member.title(), member)} for r in rows])
    assert ttca("pool", "consent", member, home).code == 0
    assert {roles_of(home)[name] for name in mine} == {"pool"}


def test_whoever_cannot_pay_takes_part(home: Path, ttca: Terminal) -> None:
    """With a quota of 0 a member pays nothing, before the first query and after it, and others ask about theirs."""
    file = home / "action.toml"
    text = file.read_text()
    file.write_text(f"{text}\n[pool.quotas]\nmember-1 = 0\n")
    assert ttca("pool", "run", home).code == 0
    told = {one["member"]: one for one in ttca("pool", "status", home, "--json").json["members"]}
    assert "member-1" not in told or told["member-1"]["charged"] == 0
    with read_action(home).open() as action:
        pool = action.roster.pool
        assert action.pool().complete
        assert (pool.members == "member-1").any()
