"""Tests of what commands ask before what cannot be undone, how they wait, and how they fail: for people and as JSON."""

from __future__ import annotations

import io
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests import worlds
from tests.test_cli import Served, Terminal, commands, home, paid, people, served, ttca
from ttca.advice import Rates, after_failure, chance, persons_needed
from ttca.certificates import Certificate, Certifying, Examined, certify
from ttca.cli import main
from ttca.commands.beforehand import confirm, counted_people, patiently
from ttca.commands.shared import opened
from ttca.errors import QuotaError, RateError, TTCAError, UnconfirmedError
from ttca.streams import COME_BACK

__all__ = ["home", "people", "served", "ttca"]

KEEPING = "controls = false\ngoal = 'improvement'\n"


# -- what cannot be undone --------------------------------------------------------------------------------------


def test_verification_people_are_not_read_unasked_and_nothing_before_is_lost(
    home: Path, ttca: Terminal, served: Served
) -> None:
    """Without a terminal and --yes, run, verify and report ask the pool, learn, and stop; with it they are asked once.

    Then people are kept for rechecks, which ask a terminal or --yes too, and cost what they say.
    """
    text = worlds.action_file(served.url, action=KEEPING).replace("recheck_people = 0", "recheck_people = 10")
    (home / "action.toml").write_text(text)
    for command in ("run", "verify"):
        done = ttca(command, home, "--json")
        assert done.code == 1
        assert done.json["kind"] == "UnconfirmedError"
        assert "Expected --yes, or a terminal" in done.json["error"]
        assert "80 persons" in done.json["error"]
        assert paid(home) == 205
        assert not (home / "verification.json").exists()
        assert (home / "perturbations" / "epsilon-006.safetensors").is_file()
    dry = ttca("run", home, "--dry-run", "--json").json
    assert dry["steps"]["recheck"]["queries"] == 60
    certificate = Certificate.from_dict(ttca("run", home, "--yes", "--json").json)
    assert certificate.epsilon is not None
    before = paid(home)
    # Whoever agreed once is not asked again.
    assert ttca("run", home).code == 0
    assert ttca("recheck", home, "--people", 4, "--dry-run", "--json").json["queries"] == 8
    assert "Expected --yes" in ttca("recheck", home, "--people", 4).sentence
    assert paid(home) == before
    found = ttca("recheck", home, "--people", 4, "--yes", "--json").json
    assert (found["asked"], found["changed"], found["expiry"]) == (8, 0, None)
    assert paid(home) == before + 8
    assert ttca("recheck", home, "--every", 1, "--yes", "--json").json["asked"] == 0
    for words in (["--yes"], ["--dry-run"]):
        assert "Nobody is asked now: the last look is younger than --every 1 (days)." in (
            ttca("recheck", home, "--every", 1, *words).out
        )
    assert "Nothing speaks against the certificate." in ttca("recheck", home, "--dry-run").out
    assert "Expected every as days above 0" in ttca("recheck", home, "--every=-1", "--dry-run").sentence
    assert paid(home) == before + 8


@pytest.mark.parametrize("said", ["y\n", "YES\n", "n\n", "\n", ""])
def test_a_terminal_is_asked_and_a_yes_alone_goes_on(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Nothing but y or yes is a yes, and the question stands there first."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stdin", Screen(said))
    monkeypatch.setattr(sys, "stderr", screen)
    if "y" in said.casefold():
        confirm("They are read.", "Nothing was.", yes=False)
    else:
        with pytest.raises(UnconfirmedError, match=r"Not gone on\. Nothing was\."):
            confirm("They are read.", "Nothing was.", yes=False)
    assert "They are read." in screen.getvalue()
    confirm("They are read.", "Nothing was.", yes=True)


# -- waiting ----------------------------------------------------------------------------------------------------


def late(seconds: float | None) -> TTCAError:
    """Return an error after which to come back."""
    error = RateError("Expected room, got none.", wait_s=seconds or 0.0)
    error.come_back_s = seconds
    return error


def test_work_that_waiting_mends_is_waited_for_only_where_that_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    """With --wait the work is done again at the hour it named, which is said; other errors end it at once."""
    ends: list[TTCAError | int] = [late(3600.0), late(0.0), 7]
    slept: list[float] = []

    def work() -> int:
        end = ends.pop(0)
        if isinstance(end, TTCAError):
            raise end
        return end

    def now() -> datetime:
        return datetime(2026, 3, 1, 22, 30, tzinfo=UTC)

    assert patiently(True, work, sleep=slept.append, now=now) == 7
    assert slept == [3600.0, 1.0]
    assert "Waiting until 23:30 UTC on 2026-03-01." in capsys.readouterr().err
    for error, wait in ((late(5.0), False), (late(None), True)):
        ends.append(error)
        with pytest.raises(RateError):
            patiently(wait, work, sleep=slept.append)
    assert len(slept) == 2


def test_a_days_quota_that_is_used_up_ends_with_status_75(home: Path, ttca: Terminal, served: Served) -> None:
    """The sentence says when to come back, in JSON the seconds too; all that the day allows was asked, and is kept."""
    (home / "action.toml").write_text(worlds.action_file(served.url, pool="per_day = 9\n"))
    done = ttca("pool", "run", home, "--json")
    assert done.code == COME_BACK == done.json["status"]
    assert "Run this again after 2" in done.json["error"]
    assert 86000 < done.json["come_back_s"] <= 86400
    # Nine of each of five members, though requests would be larger.
    assert paid(home) == 45


def test_a_quota_that_runs_out_in_verification_ends_with_status_75_and_says_what_would_do(
    home: Path, ttca: Terminal, served: Served
) -> None:
    """Nothing is lost, and no hour helps: which quota would do is said, and with it the run goes on."""
    file, text = (
        home / "action.toml",
        worlds.action_file(served.url, action=KEEPING).replace("quota = 500", "quota = 62"),
    )
    file.write_text(text)
    done = ttca("run", home, "--yes", "--json")
    assert (done.code, done.json["kind"]) == (COME_BACK, "QuotaError")
    assert (done.json["status"], done.json["come_back_s"]) == (COME_BACK, None)
    assert "Come back when more may be paid: it goes on where it stopped" in done.json["error"]
    spent = paid(home)
    assert spent > 285
    # Again, and nothing is paid meanwhile.
    assert ttca("run", home, "--yes", "--json").code == COME_BACK
    assert paid(home) == spent
    enough = re.search(r"quota = (\d+) in \[pool\] for each of the 5 members would do", done.json["error"])
    assert enough is not None
    file.write_text(text.replace("quota = 62", f"quota = {enough[1]}"))
    again = ttca("run", home, "--yes", "--json")
    assert again.code == 0, again.err


def test_an_advice_counts_what_was_paid_and_a_cap_alone_leaves_the_quotas(
    home: Path, ttca: Terminal, served: Served
) -> None:
    """Whoever has paid more than today's quota is counted with what they paid; where the cap alone is in the way, no
    quota is named; and with the cap that is named a verification goes on that has paid most already."""
    file, text = home / "action.toml", worlds.action_file(served.url, action=KEEPING)
    file.write_text(text.replace("[pool]", "[pool]\ncap = 320", 1))
    done = ttca("run", home, "--yes", "--json")
    assert done.code == COME_BACK
    spent = paid(home)
    assert 285 < spent <= 320
    left = ttca("run", home, "--dry-run", "--json").json
    assert 0 < left["steps"]["verification"]["queries"] < 160
    said = re.search(r"queries: cap = (\d+) in \[pool\] would do", left["error"])
    assert said is not None
    file.write_text(text.replace("quota = 500", "quota = 2"))
    low = ttca("run", home, "--dry-run", "--json").json["enough"]
    assert 5 * low["quota"] - spent >= low["queries"] > 5 * (low["quota"] - 1) - spent
    file.write_text(text.replace("[pool]", f"[pool]\ncap = {said[1]}", 1))
    assert ttca("run", home, "--yes", "--json").code == 0


def test_a_days_quota_that_is_used_up_in_verification_is_waited_for(home: Path, ttca: Terminal, served: Served) -> None:
    """There too it ends with 75 and the hour, and everything that the day allows was asked."""
    (home / "action.toml").write_text(worlds.action_file(served.url, action=KEEPING, pool="per_day = 60\n"))
    done = ttca("run", home, "--yes", "--json")
    assert (done.code, paid(home)) == (COME_BACK, 300)
    assert "Run this again after 2" in done.json["error"]
    assert 86000 < done.json["come_back_s"] <= 86400


def test_with_wait_a_quota_is_waited_for_until_somebody_raises_it(
    home: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """The action file is read again now and then, also where it cannot be read; what is raised is paid at once."""
    file, text = home / "action.toml", worlds.action_file(served.url)
    file.write_text(text.replace("quota = 500", "quota = 30"))
    written = iter(["[pool", text.replace("quota = 500", "quota = 30"), text.replace("quota = 500", "quota = 41")])
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        file.write_text(next(written))

    with opened(home) as (_, action):
        transfer = patiently(True, action.pool, sleep=sleep)
        assert transfer.complete
        with pytest.raises(QuotaError):
            patiently(True, lambda: action.queries.ask(worlds.strangers().images), for_quotas=False, sleep=sleep)
    assert slept == [60.0] * 3
    assert paid(home) == 205
    assert "Waiting until [pool] allows more: the action file is read again every minute." in capsys.readouterr().err


# -- what a run would refuse ------------------------------------------------------------------------------------


def test_the_dry_run_counts_people_by_role_group_and_class(home: Path, ttca: Terminal) -> None:
    """Persons and images, in JSON and as a table; they add up to the roster."""
    counted = ttca("run", home, "--dry-run", "--json").json["people"]
    roster = worlds.roster()
    assert counted == counted_people(roster, worlds.CLASSES)
    assert sum(one["images"] for one in counted) == sum(map(len, roster.roles().values()))
    assert {(one["role"], one["group"]) for one in counted} == {
        (role, group) for role in ("pool", "selection", "verification") for group in ("subgroup", "reference")
    }
    assert all(one["persons"] == one["images"] > 0 for one in counted)
    shown = ttca("run", home, "--dry-run").out
    assert "Who takes part, in persons" in shown
    assert all(name in shown for name in worlds.CLASSES)


def test_a_dry_run_says_which_quota_would_do_and_it_does(home: Path, ttca: Terminal, served: Served) -> None:
    """With the quota that it names the whole action can be paid, and with one less it cannot; so with the members."""
    file = home / "action.toml"
    file.write_text(worlds.action_file(served.url).replace("quota = 500", "quota = 40"))
    refused = ttca("run", home, "--dry-run", "--json").json
    short = refused["enough"]
    assert refused["kind"] == "QuotaError"
    assert f"quota = {short['quota']} in [pool] for each of the {short['payers']} members would do" in refused["error"]
    assert short["members"] * 40 >= short["queries"] > (short["members"] - 1) * 40
    for quota in (short["quota"] - 1, short["quota"]):
        file.write_text(worlds.action_file(served.url).replace("quota = 500", f"quota = {quota}"))
        told = ttca("run", home, "--dry-run", "--json").json
        assert (told["enough"] is None) == (quota == short["quota"])
        # The table's name in brackets is no markup.
        shown = " ".join(ttca("run", home, "--dry-run").out.split())
        assert (f"quota = {short['quota']} in [pool] for each" in shown) == (quota != short["quota"])
    file.write_text(worlds.action_file(served.url, pool="cap = 150\n"))
    capped = ttca("run", home, "--dry-run", "--json").json["enough"]
    assert (capped["cap"], capped["queries"]) == (short["queries"], short["queries"])


# -- after a failure --------------------------------------------------------------------------------------------


def failed(right: int, *, reference: int = 70, persons: int = 80, goal: str = "parity") -> Certificate:
    """Return a certificate of so many right answers, which failed."""
    held = {c: "1" * n + "0" * (persons - n) for c, n in ((8, right), ("reference", reference), ("before", reference))}
    who = Examined("disjoint", persons, persons, 2 * persons)
    terms = Certifying(goal=goal)  # type: ignore[arg-type]
    made = certify(lambda condition, i, j: held[condition][i:j], terms, epsilons=(8,), examined=who)
    assert made.epsilon is None
    return made


def test_a_failed_certificate_says_how_many_people_which_goal_needs() -> None:
    """A goal within reach names persons, one out of reach says so, and another goal is named with its own."""
    said = "\n".join(after_failure(failed(74), {"subgroup": 0.7, "reference": 0.87}))
    assert "new verification people" in said
    assert "- The same goal, parity: about 4" in said
    assert "persons of the subgroup and 4" in said
    assert "Another goal, parity within 10 points: about" in said
    # Hardly anybody is needed to show an improvement from 70 to 92 %.
    assert re.search(r"Another goal, improvement: about \d\d persons", said)
    assert "out of reach" in "\n".join(after_failure(failed(40), {"subgroup": 0.4, "reference": 0.87}))
    assert after_failure(worlds.certified(99, epsilon=8), {}) == ()
    alone = after_failure(failed(50, goal="improvement"), {"subgroup": None, "reference": None})
    assert not any("parity" in sentence for sentence in alone)


@pytest.mark.parametrize(
    ("terms", "rates"),
    [
        (Certifying(), Rates(delta=0.95, before=None, reference=0.85)),
        (Certifying(goal="improvement"), Rates(delta=0.9, before=0.75, reference=None)),
    ],
    ids=lambda value: str(value.aim) if isinstance(value, Certifying) else "",
)
def test_so_many_people_certify_in_about_four_of_five_actions(terms: Certifying, rates: Rates) -> None:
    """With as many persons as advised, simulated certificates pass about as often as stated; with half of them less."""
    needed = persons_needed(terms, "disjoint", rates, others_each=1.0, start=80)
    assert needed is not None
    rng = np.random.default_rng(5)

    def share(persons: int) -> float:
        passed = 0
        for _ in range(120):
            held = {
                condition: "".join("01"[bool(x)] for x in rng.random(persons) < rate)
                for condition, rate in ((8, rates.delta), ("reference", rates.reference), ("before", rates.before))
                if rate is not None
            }
            who = Examined("disjoint", persons, persons, 2 * persons)
            made = certify(lambda c, i, j, held=held: held[c][i:j], terms, epsilons=(8,), examined=who)  # type: ignore[misc]
            passed += made.epsilon is not None
        return passed / 120

    assert 0.7 < share(needed) < 0.93
    assert share(needed // 2) < 0.7
    assert chance(terms, "disjoint", needed, needed, rates) >= 0.8


# -- errors as JSON, and streams that are not UTF-8 --------------------------------------------------------------

LEAVES = {words: command for words, command in commands().items() if not hasattr(command, "commands")}
#: What makes commands fail that would otherwise do something.
FAILING = {
    ("demo", "photographs"): ["FILE/below"],
    ("demo", "platform"): ["--port", "-1"],
    ("init",): ["FILE/below"],
    ("weights", "list"): [],
}


def failing(words: tuple[str, ...], folder: Path) -> list[str]:
    """Return a command's words with arguments that name nothing, and every required option."""
    (folder / "FILE").write_text("")
    if words in FAILING:
        return [*words, *(str(folder / word) if word.startswith("FILE") else word for word in FAILING[words])]
    given = list(words)
    for parameter in LEAVES[words].params:
        if parameter.required:
            value = "9" if parameter.name in ("population", "size") else str(folder / "ε nowhere")
            given += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
    return given


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_fails_as_one_json_object(
    words: tuple[str, ...], tmp_path: Path, ttca: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --json, whatever ends a command is one object on standard output: the sentence, its kind, the status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TTCA_WEIGHTS", str(tmp_path / "nowhere"))
    done = ttca(*failing(words, tmp_path), "--json")
    assert done.code in (1, 2), done.err
    said = done.json
    assert said.keys() == {"error", "kind", "status", "come_back_s", "queries_charged"}
    assert said["status"] == done.code
    assert said["error"]
    assert said["kind"].endswith("Error")
    assert "Traceback" not in done.err
    assert "ttca: " not in done.err


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_no_command_fails_at_letters_that_a_stream_lacks(
    words: tuple[str, ...], encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Help and an error of every command come out of streams that are not UTF-8, without a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TTCA_WEIGHTS", str(tmp_path / "nowhere-δ"))
    for line in ([*words, "--help"], failing(words, tmp_path)):
        beneaths = io.BytesIO(), io.BytesIO()
        streams = [io.TextIOWrapper(beneath, encoding=encoding, errors="strict") for beneath in beneaths]
        monkeypatch.setattr(sys, "argv", ["ttca", *line])
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = (beneath.getvalue().decode(encoding) for beneath in beneaths)
        assert "Traceback" not in out + err
        assert ended.value.code == 0 or err


def test_a_bug_and_a_result_are_one_object_each(
    ttca: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A fault of ours is an object too; a command that has said its result says no second one."""
    monkeypatch.setattr("ttca.weights.listed", lambda: 1 / 0)
    done = ttca("weights", "list", "--json")
    assert (done.code, done.json["kind"]) == (1, "ZeroDivisionError")
    assert "This is a bug in ttca" in done.json["error"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_bytes(b"no picture")
    done = ttca("prepare", tmp_path / "photos", tmp_path / "out", "--size", 8, "--json")
    assert done.code == 1
    assert done.json["refused"] == 1
