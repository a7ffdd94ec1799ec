"""Tests of the action file: what is written is what is used, and every mistake is a sentence before any query."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from PIL import Image

from tests import worlds
from tests.examples import examples
from ttca.config import (
    ActionFile,
    HubSection,
    PeopleSection,
    PlatformSection,
    PoolSection,
    read_action,
    read_contribution,
    read_platform,
)
from ttca.data.folder import write_people
from ttca.errors import ActionError, ConfigError, DataError, TTCAError
from ttca.people import People
from ttca.platforms.server import background_server
from ttca.pooling.leases import CheckPlan
from ttca.recipes import RECIPE_KEYS
from ttca.settings import Settings
from ttca.templates import CONTRIBUTION_TABLES, TABLES, action_template, contribution_template, keys_of

PLAIN = worlds.action_file("http://127.0.0.1:1")


def read(folder: Path, text: str) -> ActionFile:
    """Write an action file and read it."""
    (folder / "action.toml").write_text(text, encoding="utf-8")
    return read_action(folder)


def uncommented() -> str:
    """Return the template with its optional keys switched on."""
    return re.sub(r"(?m)^# (?=\w+ +=|\[)", "", action_template("action.toml"))


def test_names_are_read_in_one_spelling(tmp_path: Path) -> None:
    """Composed or decomposed, with spaces or not: the quotas' and classes' names are those of the people's table."""
    text = worlds.action_file("http://127.0.0.1:1", classes=["Zoe\u0308 ", "dog"], pool='[pool.quotas]\n"ada " = 7\n')
    found = read(tmp_path, text)
    assert found.platform.classes == ("Zo\u00eb", "dog")
    assert found.pool.quotas == {"ada": 7}
    people = People.build(np.zeros((2, 2, 2, 3), np.uint8), [0, 1], members=["ada", "ada\u00a0"])
    assert [(m.name, m.quota) for m in found.members(people)] == [("ada", 7)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pool": '[pool.quotas]\nada = 7\n"ada " = 8\n'}, r"\[pool.quotas\], got 'ada' twice"),
        ({"pool": "[pool.quotas]\nada = -1\n"}, r"quotas of 0 or more in \[pool.quotas\], got -1 for 'ada'"),
        ({"pool": '[pool.quotas]\n"Zo\u00eb" = 7\n"Zoe\u0308" = 7\n'}, r"\[pool.quotas\]"),
        ({"classes": ["cat", "cat "]}, "every class once"),
    ],
)
def test_two_keys_of_one_name_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Which of two quotas holds nobody can know."""
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, worlds.action_file("http://127.0.0.1:1", **changes))


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Some editors put one in front of everything they save."""
    assert read(tmp_path, "\ufeff" + PLAIN).platform.model == "tiny"
    (tmp_path / "mine.toml").write_text("\ufeff" + contribution_template("mine.toml"), encoding="utf-8")
    assert read_contribution(tmp_path / "mine.toml").contribute.size == 16


def test_the_template_is_read_as_it_is_written(tmp_path: Path) -> None:
    """What ttca init writes is a valid action file whose values are the defaults of a small action."""
    found = read(tmp_path, action_template("action.toml"))
    assert found.settings == Settings(name="my-action", subgroup="whom it is for", recipe="auto")
    assert found.pool == PoolSection()
    assert found.platform.classes == ("first", "second")
    assert found.platform.is_loopback
    assert found.folder == tmp_path


@pytest.mark.parametrize(
    "others",
    [
        ("within", "key_names", "sign"),
        ("accuracy_ratio", "key_names", "token_from"),
        ("accuracy_ratio", "sign", "token_from"),
    ],
)
def test_every_key_of_the_template_is_accepted(tmp_path: Path, others: tuple[str, ...]) -> None:
    """Every key that the template shows, the commented ones included, is one that ttca reads; of what excludes each
    other (two goals, three ways of a key), one."""
    text = "\n".join(line for line in uncommented().splitlines() if not line.startswith(others))
    tables = tomllib.loads(text)
    assert {"authorized_by", "key_variable"} <= tables["platform"].keys()
    assert {"cap", "quotas"} <= tables["pool"].keys()
    found = read(tmp_path, text)
    sections = {
        "action": found.settings, "platform": found.platform, "people": found.people, "pool": found.pool,
        "hub": found.hub,
    }  # fmt: skip
    assert tables.keys() == sections.keys()
    for name, table in tables.items():
        for key, value in table.items():
            said = getattr(sections[name], key)
            # Looked for beside the file.
            value = str(tmp_path / value) if key == "ca" else value
            # All that stands there is set by hand.
            value = sorted(RECIPE_KEYS) if key == "pinned" else value
            assert (list(said) if isinstance(said, tuple) else said) == value


def test_the_templates_have_every_key() -> None:
    """No key that a file may have is missing from what ttca writes, and each is said in a sentence of its class."""
    contribution = re.sub(r"(?m)^# (?=\w+ +=|\[)", "", contribution_template("mine.toml"))
    for text, sections in ((uncommented(), TABLES), (contribution, CONTRIBUTION_TABLES)):
        tables = tomllib.loads(text)
        assert tables.keys() == sections.keys()
        for name, kind in sections.items():
            assert tables[name].keys() == {f.name for f in fields(kind)}, name
            assert {key.name for key in keys_of(kind)} == {f.name for f in fields(kind)}
            assert all(key.text.endswith(".") for key in keys_of(kind)), [k.name for k in keys_of(kind) if not k.text]
        assert max(map(len, text.splitlines())) <= 120


@dataclass(frozen=True, kw_only=True)
class _Later(PoolSection):
    """A section with a key that its docstring does not know yet.

    Parameters
    ----------
    quota : int
        Queries. More of it is for the reference.
    """

    newcomer: Literal["one", "two"] | float | None = None


def test_a_key_without_a_description_is_not_lost() -> None:
    """A field that a class got and did not describe is a key all the same, last and without a word."""
    first, *_, last = keys_of(_Later)
    assert (first.name, first.first, first.kind, first.default) == ("quota", "Queries", "whole number", 100)
    assert (last.name, last.text, last.kind, last.needed) == ("newcomer", "", '"one" or "two" or number', False)


def test_keys_behind_a_mark_show_their_default() -> None:
    """A key that the template shows as optional stands there with its default, unless it has none."""
    tables = tomllib.loads(uncommented())
    defaults = {
        "action": Settings(),
        "people": PeopleSection(source="people.csv"),
        "pool": PoolSection(),
        "hub": HubSection(),
    }
    for name, default in defaults.items():
        for key, value in tables[name].items():
            # A new action races; one of an earlier version, whose file says nothing, goes on without.
            shown = {("action", "name"), ("action", "subgroup"), ("action", "recipe")}
            if (name, key) in shown or getattr(default, key) is None:
                continue
            said = getattr(default, key)
            assert value == (list(said) if isinstance(said, tuple) else said), key


def test_what_stands_in_a_file_is_set_by_hand(tmp_path: Path) -> None:
    """With recipes that race, a key of learning that somebody wrote holds for all of them, even with its default."""
    url = "http://127.0.0.1:1"
    by_hand = read(tmp_path, worlds.action_file(url, action='recipe = "auto"\nflip = false\n')).settings.set_by_hand
    assert {"flip", "epochs"} <= by_hand
    assert "warp" not in by_hand
    assert read(tmp_path, worlds.action_file(url, action="flip = false\n")).settings.pinned == ()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ('recipe = "best"', "recipe as"),
        ('recipe = "small-picture"', r"recipe as .*, got 'small-picture'\. Did you mean 'small-pictures'\?"),
        ("race_share = 1.0", "race_share as a share"),
        ("race_share = 0.3\ncombine = false", r"no mistake in [\s\S]*race_share only where[\s\S]*combine only where"),
        ('recipe = "small-pictures"\nleft_out = ["mixed"]', "left_out only where recipes race.* Take it out, or write"),
        ("most_minutes = 0", "most_minutes as a whole number"),
        ('pinned = ["alpha"]', "pinned to name settings of learning"),
        ("kappa = -1.0", "kappa as a number"),
    ],
)
def test_a_race_that_makes_no_sense_is_refused(key: str, said: str, tmp_path: Path) -> None:
    """A mistake in what decides a race is a sentence, before anything is asked."""
    with pytest.raises(ConfigError, match=f"Expected {said}"):
        read(tmp_path, worlds.action_file("http://127.0.0.1:1", action=f"{key}\n"))


def test_cross_checks_are_read_under_their_old_names(tmp_path: Path) -> None:
    """An earlier version's file says leases, their size and a share of audits; both spellings are refused."""
    old = read(tmp_path, PLAIN + "[hub]\nfirst_leases = 10\naudit_share = 0.1\n").hub
    assert (old.judged_answers, old.cross_check_share) == (20, 0.1)
    assert old.plan() == CheckPlan(judged=20, share=0.1)
    with pytest.raises(ConfigError, match="under their new names alone, got audit_share, judged_answers"):
        read(tmp_path, PLAIN + "[hub]\njudged_answers = 10\naudit_share = 0.1\n")
    with pytest.raises(ConfigError, match="whole numbers for first_leases and first_size"):
        read(tmp_path, PLAIN + "[hub]\nfirst_leases = 1.5\n")


def test_a_filled_in_template_opens_an_action(tmp_path: Path) -> None:
    """The template with its blanks filled in opens an action with all its people, at no query's cost."""
    log = tmp_path / "log"
    roster = worlds.roster()
    write_people(tmp_path / "mine", People.concatenate(list(roster.roles().values())), worlds.CLASSES)
    with background_server(worlds.Recorder().inner, access_log=log) as url:
        blanks = {
            "http://127.0.0.1:8000": url,
            "my-model": "tiny",
            '["first", "second"]': json.dumps(worlds.CLASSES),
            "people.csv": "mine/people.csv",
        }
        text = action_template("action.toml")
        for blank, filled in blanks.items():
            assert text.count(blank) == 1
            text = text.replace(blank, filled)
        with read(tmp_path, text).open() as action:
            assert sum(map(len, action.roster.roles().values())) == 365
            assert {m.quota for m in action.queries.members.values()} == {100}
            plan = action.plan()
    assert plan["pool"].queries == plan["pool"].images > 0
    assert not log.exists()


@pytest.mark.parametrize("place", ["folder", "file"])
def test_an_action_is_named_by_its_file_or_its_folder(tmp_path: Path, place: str) -> None:
    """The folder of an action file stands for the file."""
    (tmp_path / "action.toml").write_text(PLAIN)
    found = read_action(tmp_path if place == "folder" else tmp_path / "action.toml")
    assert found.path == tmp_path / "action.toml"


def test_the_folder_one_stands_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An action's folder has its own name in sentences, also where the file was named from within it."""
    (tmp_path / "action.toml").write_text(PLAIN)
    monkeypatch.chdir(tmp_path)
    for place in (".", "action.toml"):
        assert read_action(place).folder == tmp_path


# -- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("[pool]", "[pol]", "'pool'"),
        ("epochs =", "epoch =", "'epochs'"),
        ("epsilons =", "epsilon =", "'epsilons'"),
        ("url =", "ulr =", "'url'"),
        ("source =", "sources =", "'source'"),
        ("quota =", "qouta =", "'quota'"),
    ],
)
def test_a_misspelt_name_gets_the_nearest_one(tmp_path: Path, old: str, new: str, hint: str) -> None:
    """A key or table that is not known is refused with the name that was probably meant."""
    with pytest.raises(ConfigError, match=f"Did you mean {hint}"):
        read(tmp_path, PLAIN.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs =", "epoch =", "Did you mean 'epochs'? Expected each key of [action] to be one of"),
        ("epochs =", "zzz =", "Expected each key of [action] to be one of"),
        ("[pool]", "[zzz]", "to be one of 'action', 'platform', 'people', 'pool', 'hub', got 'zzz'."),
    ],
)
def test_what_may_be_meant_comes_before_a_list_that_is_never_long(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    """A name that is not known is refused with the likeliest one first, a short list or a few, and where all stand."""
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, PLAIN.replace(old, new))
    sentence = str(refused.value)
    assert said in sentence
    assert sentence.count("'") <= 2 * 11
    assert said.endswith("'zzz'.") or sentence.endswith("ttca init writes a file that explains all of them.")


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("action", "seed = 1.5"),
        ("action", "seed = true"),
        ("action", 'seed = "1"'),
        ("action", "seed = -1"),
        ("action", "seed = 99999999999999"),
        ("action", f"seed = 1{'0' * 500}"),
        ("action", f"seed = 0x{'f' * 6000}"),
        ("action", f"alpha = 1{'0' * 500}"),
        ("action", "alpha = 0"),
        ("action", "alpha = nan"),
        ("action", "mixup = inf"),
        ("action", "mixup = nan"),
        ("action", "flip = 1"),
        ("action", 'goal = "peace"'),
        ("action", "goal = 2"),
        ("action", "goal = true"),
        ("action", "goal = []"),
        ("action", "name = 5"),
        ("action", "name = 2026-01-01"),
        ("pool", "cap = 1.5"),
        ("pool", "quotas = 5"),
        ("pool", 'quotas = {ada = "many"}'),
        ("pool", "quotas = {ada = true}"),
        ("pool", "batch = [1]"),
        ("people", "verification = true"),
        ("people", "selection = [0.2]"),
        ("platform", "version = 1"),
        ("platform", "max_batch = 2.5"),
    ],
)
def test_a_value_of_the_wrong_kind_is_a_sentence(tmp_path: Path, table: str, line: str) -> None:
    """A value that its key cannot have is refused with a sentence that names the key."""
    key = line.split(" ")[0]
    with pytest.raises(ConfigError, match=rf"Expected .*\b{key}\b"):
        read(tmp_path, worlds.action_file("http://127.0.0.1:1", **{table: line + "\n"}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epsilons = [6, 12]", "epsilons = []"),
        ("epsilons = [6, 12]", "epsilons = [6, 6]"),
        ("epsilons = [6, 12]", "epsilons = [0]"),
        ("epsilons = [6, 12]", "epsilons = [128]"),
        ("epsilons = [6, 12]", "epsilons = [6.0]"),
        ("epsilons = [6, 12]", "epsilons = [true]"),
        ("epsilons = [6, 12]", "epsilons = 6"),
        ("epsilons = [6, 12]", f"epsilons = [0x{'f' * 6000}]"),
        ('["perceptron"]', "[]"),
        ('["perceptron"]', '"perceptron"'),
        ('["perceptron"]', '["perceptrn"]'),
        ("epochs = 12", "epochs = 0"),
        ("steps = 10", "steps = 0"),
        ("shift = 0", "shift = -1"),
        ("quota = 500", "quota = 2.5"),
        ('model = "tiny"\n', ""),
        ('source = "people"\n', ""),
    ],
)
def test_a_value_out_of_range_or_missing_is_a_sentence(tmp_path: Path, old: str, new: str) -> None:
    """A family of ε, an architecture or a count that no step could use is refused when the file is read."""
    assert old in PLAIN
    with pytest.raises(ConfigError, match=r"Expected .*\bgot\b"):
        read(tmp_path, PLAIN.replace(old, new))


@pytest.mark.parametrize("table", ["platform", "people"])
def test_a_table_that_is_needed_is_missed(tmp_path: Path, table: str) -> None:
    """Without its platform or its people an action file is refused."""
    text = re.sub(rf"\[{table}\][^\[]*(\[[^\]]*\]\n[^\[]*)?(?=\[|$)", "", PLAIN, count=1)
    assert f"[{table}]" not in text
    with pytest.raises(ConfigError, match=rf"Expected the table \[{table}\]"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "content",
    [
        b"[action",
        b"\xff\xfe",
        b"a = " + b"[" * 5000,
        b"a = 1" + b"0" * 5000,
        b"[action]\n[action]\n",
        b"a = 2026-13-01",
    ],
    ids=["broken", "no UTF-8", "too deep", "too long", "twice", "no date"],
)
def test_a_file_that_is_no_toml_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    """Whatever is in the file, reading it ends in a ConfigError that names it."""
    (tmp_path / "action.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"action\.toml"):
        read_action(tmp_path)


@pytest.mark.parametrize("name", ["missing.toml", "missing/action.toml", "x" * 5000])
def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path, name: str) -> None:
    """A missing file, in whatever way, is a ConfigError."""
    with pytest.raises(ConfigError, match="Expected"):
        read_action(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expected the table [contribute] in FILE, got none. COMMAND writes a full example."),
        ("", "Expected the table [platform] in FILE, got none. COMMAND writes a full example."),
        (
            '[contribute]\nhub = "https://a.example"\nzzz = 1\n',
            "Expected the table [platform] in FILE, got none. COMMAND",
        ),
        ('[platform]\nurl = "https://a.example"\nzzz = 1\n', "COMMAND writes a file that explains all of them."),
    ],
)
def test_a_members_own_file_is_explained_by_its_own_command(tmp_path: Path, text: str, said: str) -> None:
    """What is missing or not known in a file that is no action's names the command that writes such a file."""
    (tmp_path / "mine.toml").write_text(text)
    said = said.replace("FILE", str(tmp_path / "mine.toml")).replace("COMMAND", "ttca contribute FILE --init")
    for read in (read_contribution, read_platform):
        with pytest.raises(ConfigError) as refused:
            read(tmp_path / "mine.toml")
        assert "ttca init" not in str(refused.value)
        assert "ttca ask" not in str(refused.value)
        assert said in str(refused.value) or read is read_platform


def test_a_members_own_file_is_no_actions(tmp_path: Path) -> None:
    """Who gives it to an organizer's command, such as ttca ask, hears what it is and which command takes it."""
    (tmp_path / "mine.toml").write_text(contribution_template("mine.toml"))
    with pytest.raises(ConfigError, match=r"got a member's own file for a hub\. ttca contribute takes it"):
        read_action(tmp_path / "mine.toml")


def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    """A folder without an action file names the command that writes one."""
    with pytest.raises(ConfigError, match="ttca init"):
        read_action(tmp_path)


VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**80), 2**80),
        st.floats(),
        st.text(st.characters(codec="utf-8"), max_size=8),
        st.sampled_from(["parity", "small-cnn", "http://127.0.0.1:1", "http://[", "kserve-v2", "2026-01-01"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)
KEYS = {
    "action": [*Settings.__dataclass_fields__, "other"],
    "platform": [*PlatformSection.__dataclass_fields__, "other"],
    "people": ["source", "verification", "selection", "public", "views"],
    "pool": [*PoolSection.__dataclass_fields__],
}


def toml(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # A JSON string is a TOML string, but for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + "}"
    return str(value)


@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {}, optional={t: VALUES | st.dictionaries(st.sampled_from(k), VALUES, max_size=5) for t, k in KEYS.items()}
    )
)
def test_any_toml_gives_an_action_or_a_config_error(tmp_path: Path, tables: dict[str, Any]) -> None:
    """Whatever TOML stands in the file, it is read into checked sections or refused with a ConfigError."""
    text = "\n".join(f"{name} = {toml(value)}" for name, value in tables.items())
    assert tomllib.loads(text).keys() == tables.keys(), "the test writes TOML"
    try:
        found = read(tmp_path, text)
    except ConfigError:
        return
    assert isinstance(found.settings, Settings)
    assert isinstance(found.platform.is_loopback, bool)
    assert all(type(c) is str for c in found.platform.classes)


@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(list(KEYS)), st.data())
def test_one_odd_value_gives_an_action_or_a_config_error(tmp_path: Path, table: str, data: st.DataObject) -> None:
    """One arbitrary value in an otherwise good file is either used as it is or refused with a ConfigError."""
    key = data.draw(st.sampled_from([k for k in KEYS[table] if k != "other"]))
    value = data.draw(VALUES)
    tables = tomllib.loads(PLAIN)
    tables[table][key] = value
    text = "\n".join(f"{name} = {toml(found)}" for name, found in tables.items())
    try:
        found = read(tmp_path, text)
    except ConfigError:
        return
    section = {"action": found.settings, "platform": found.platform, "people": found.people, "pool": found.pool}
    said = getattr(section[table], key)
    # Looked for beside the file.
    value = str(tmp_path / value) if key == "ca" and isinstance(value, str) else value
    # One word stands for a list of one.
    value = [value] if key == "weights" and isinstance(value, str) else value
    assert (list(said) if isinstance(said, tuple) else said) == value or (said != said and value != value)


# -- what opening makes of it -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with people of the tiny world."""
    roles = worlds.roster().roles()
    named = [role for role, people in roles.items() for _ in range(len(people))]
    write_people(tmp_path / "people", People.concatenate(list(roles.values())), worlds.CLASSES, named)
    return tmp_path


def test_roles_and_quotas_are_those_of_the_files(folder: Path) -> None:
    """Roles come from the table of people, quotas from the action file, one member's own first."""
    with background_server(worlds.Recorder().inner) as url:
        text = worlds.action_file(url, pool="cap = 900\n[pool.quotas]\nmember-2 = 7\n")
        with read(folder, text).open() as action:
            for role, people in worlds.roster().roles().items():
                assert sorted(getattr(action.roster, role).image_digests) == sorted(people.image_digests)
            quotas = {b.member: b.quota for b in action.queries.status()}
            assert quotas == {name: 7 if name == "member-2" else 500 for name in worlds.MEMBERS}
            assert action.plan()["pool"].affordable == 900
            assert action.platform.info.fingerprint != worlds.Recorder().info.fingerprint, "another way to it"


def test_shares_decide_the_roles_where_the_table_has_none(tmp_path: Path) -> None:
    """Without a column of roles, persons are shared out by the file's shares and seed, the same each time."""
    everybody = People.concatenate(list(worlds.roster().roles().values()))
    write_people(tmp_path / "people", everybody, worlds.CLASSES)
    with background_server(worlds.Recorder().inner) as url:
        text = worlds.action_file(url, people="verification = 0.25\nselection = 0.5\n")
        rosters = []
        for seed in (0, 0, 1):
            with read(tmp_path, text.replace("[action]\n", f"[action]\nseed = {seed}\n")).open() as action:
                rosters.append({r: set(p.persons.tolist()) for r, p in action.roster.roles().items()})
    assert rosters[0] == rosters[1] != rosters[2]
    assert len(rosters[0]["verification"]) == pytest.approx(365 / 4, abs=5)
    assert len(rosters[0]["selection"]) == pytest.approx(365 * 3 / 8, abs=5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("epsilons = 8", "to be a list of whole numbers, got 8. Write a list such as [2, 4, 8]."),
        ("epsilons = [2, 4.5]", "to be a list of whole numbers, got [2, 4.5]."),
        ('weights = ["a", 1]', 'to be a text or a list of texts, got ["a", 1]. Write a list such as ["one", "two"].'),
        ("name = 5", "to be a text, got 5. Put it in quotes."),
        ('valid_days = "9"', 'to be a whole number, got "9". Write it without quotes.'),
        ("flip = 1", "to be true or false, got 1."),
        ("loss = 3", 'to be "margin" or "cross-entropy" or "logit" or "centered-logit", got 3.'),
        ("warp = true", "to be a number, got true."),
        ("goal = parity", 'Put words in quotes, as in goal = "parity"'),
        ('goal = "most"', "as a number, without quotes: 0.9 is 90 %."),
        ("goal = 90", "Write 90 % as 0.9."),
        ('name = "C:\\people"', "Put a path with backslashes in single quotes."),
    ],
)
def test_a_wrong_value_is_told_in_words(folder: Path, line: str, said: str) -> None:
    """What a key holds is said without a word of Python's, and how to write it where that is known."""
    text = worlds.action_file("http://127.0.0.1:1").replace("[action]\n", f"[action]\n{line}\n", 1)
    key = line.partition(" ")[0]
    text = "\n".join(one for one in text.splitlines() if one == line or not one.startswith(f"{key} ="))
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    assert said in str(caught.value)
    assert "tuple" not in str(caught.value)


BAD_OPENINGS: dict[str, tuple[dict[str, str], type[TTCAError], str]] = {
    "stranger": ({"pool": "[pool.quotas]\nnobody = 5\n"}, ConfigError, r"\[pool\.quotas\].*nobody"),
    "no such people": ({"people": ""}, DataError, "no such file"),
    "protocol": ({"platform": 'protocol = "smoke"\n'}, ConfigError, "smoke"),
    "key": ({"platform": 'key_variable = "MY_SECRET"\n'}, ConfigError, "TTCA_KEY_"),
    "timeout": ({"platform": "read_timeout = 0\n"}, ConfigError, "read_timeout"),
    "batch": ({"platform": "max_batch = 0\n"}, ConfigError, "max_batch"),
    "concurrency": ({"pool": "concurrency = 0\n"}, ConfigError, "concurrency"),
}


@pytest.mark.parametrize("case", BAD_OPENINGS)
def test_what_cannot_work_is_refused_on_opening(folder: Path, case: str) -> None:
    """A stranger's quota, missing people or an impossible option stop before a query is sent."""
    change, error, sentence = BAD_OPENINGS[case]
    platform = worlds.Recorder()
    with background_server(platform) as url:
        text = worlds.action_file(url, **change)
        if case == "no such people":
            text = text.replace('"people"', '"nowhere"')
        with pytest.raises(error, match=sentence):
            read(folder, text).open()
    assert platform.queries == 0


@pytest.mark.parametrize("line", ["verification = 1.5", "verification = -0.1", "verification = nan", "selection = 1.0"])
def test_an_impossible_share_is_refused_on_opening(tmp_path: Path, line: str) -> None:
    """A share of people outside [0, 1) is refused with a sentence."""
    write_people(tmp_path / "people", worlds.roster().verification, worlds.CLASSES)
    with background_server(worlds.Recorder().inner) as url, pytest.raises(ActionError, match=r"in \[0, 1\)"):
        read(tmp_path, worlds.action_file(url, people=line + "\n")).open()


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.8.9.1", True),
        ("http://localhost:8000/v2", True),
        ("http://[::1]:8000", True),
        ("https://example.org", False),
        ("https://localhost.example.org", False),
        ("https://10.0.0.1", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_a_url_says_whether_it_is_this_machine(url: str, loopback: bool) -> None:
    """Only loopback addresses and localhost are this machine; a URL that cannot be read is not."""
    assert PlatformSection(url=url, model="m", classes=("a", "b")).is_loopback is loopback


@pytest.mark.parametrize("how", ["folder", "table"])
def test_public_images_without_classes_are_images_alone(folder: Path, how: str) -> None:
    """A folder of pictures, or a table without the column class, is read as images; a labeler is looked for beside the
    action file, and a member among them is found for whoever forgets one."""
    known, home = worlds.crowd("public", 6, 6, seed=200), folder / "public"
    home.mkdir()
    for i, image in enumerate(known.images):
        Image.fromarray(image).save(home / f"{i:02d}.png")
    if how == "table":
        rows = (f"{i:02d}.png,{member}" for i, member in enumerate(known.members))
        (home / "people.csv").write_text("\n".join(("file,member", *rows)), encoding="utf-8")
    with background_server(worlds.Recorder().inner) as url:
        text = worlds.action_file(url, people='public = "public"\n', action='labelers = "w.onnx"\n')
        found = read(folder, text)
        assert found.settings.labelers == (str(folder / "w.onnx"),)
        assert "onnx" in found.extras
        with found.open() as action:
            assert action.known.unlabeled is not None
            assert np.array_equal(action.known.unlabeled, known.images)
            assert (action.known.public, action.known.regime, action.known.early) == (None, "public", 12)
            assert action.plan()["pool"].queries == 205
    assert {one.member for one in found.list_files("public")} == ({""} if how == "folder" else set(worlds.MEMBERS))


def test_a_platform_off_this_machine_needs_an_authority(tmp_path: Path) -> None:
    """Without a word on who allowed it, a platform elsewhere is refused before anything is sent."""
    found = read(tmp_path, worlds.action_file("https://platform.invalid"))
    with pytest.raises(ConfigError, match="authorized"):
        found.open()


def test_public_images_are_read_from_their_own_tables(folder: Path) -> None:
    """``public`` and ``views`` name tables like the people's; the action learns from them and sends none."""
    known, seen = worlds.crowd("public", 30, 30, seed=200), worlds.crowd("view", 30, 0, seed=300)
    write_people(folder / "public", known, worlds.CLASSES)
    write_people(folder / "views", seen, worlds.CLASSES)
    with background_server(worlds.Recorder().inner) as url:
        text = worlds.action_file(url, people='public = "public"\nviews = "views"\n')
        with read(folder, text).open() as action:
            assert action.known.public is not None
            assert action.known.views is not None
            assert np.array_equal(action.known.public.images, known.images)
            assert np.array_equal(action.known.views.classes, seen.classes)
            assert action.plan()["pool"].queries == 205
