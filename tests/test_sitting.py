"""Tests of the sitting: whoever is forgotten leaves an empty seat, and the certificate follows from the rest."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import worlds
from tests.worlds import Recorder, open_action
from ttca.certificates import Certificate
from ttca.errors import ActionError, LedgerError
from ttca.panel import draw_panel
from ttca.people import Roster
from ttca.pooling.ledger import Ledger

#: Two of the subgroup and one of the reference; eve brought their pictures, and nothing else.
EVES = ("verification-sub-003", "verification-sub-071", "verification-ref-005")


def with_eve() -> Roster:
    """Return the tiny world's people, some of whose verification people are eve's."""
    roster = worlds.roster()
    people = roster.verification
    members = np.where(np.isin(people.persons, EVES), "eve", people.members)
    return replace(roster, verification=replace(people, members=members.astype(np.str_)))


def without(roster: Roster, *persons: str) -> Roster:
    """Return a roster whose table lost the rows of these verification people."""
    people = roster.verification
    return replace(roster, verification=people[~np.isin(people.persons, persons)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished action, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    with open_action(folder, Recorder(), roster=with_eve()) as action:
        action.verify()
        action.measure()
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished action."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def forget(folder: Path, member: str = "eve") -> None:
    """Forget a member, as the command does."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.forget(member)


def edit(folder: Path, statement: str) -> None:
    """Change the ledger behind its back."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection, connection:
        assert connection.execute(statement).rowcount


def test_a_certificate_stands_when_one_of_its_persons_is_forgotten(folder: Path, tmp_path: Path) -> None:
    """It is read, reported and recomputed without the person's rows, at no cost, and nothing of them is in the ledger.

    Before, the ledger lacked an answer, and the certificate was refused.
    """
    before = json.loads((folder / "certificate.json").read_text())
    forget(folder)
    platform = Recorder()
    with open_action(folder, platform, roster=without(with_eve(), *EVES)) as action:
        certificate = action.verify()
        row, _ = action.measure()
        assert action.report().is_file()
        assert "80 persons" in action.panel.examined().told(action.settings.certifying)
    assert certificate == certificate.recompute() == Certificate.from_dict(before["certificate"])
    assert row.persons_verification == 80
    assert platform.queries == 0
    # Where certificate.json is lost, the minutes give the same again.
    (folder / "certificate.json").unlink()
    with open_action(folder, platform, roster=without(with_eve(), *EVES)) as action:
        assert action.verify() == certificate
    assert platform.queries == 0
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
        empty = connection.execute("SELECT side, owner FROM seats WHERE face = X'' ORDER BY side").fetchall()
        assert connection.execute("SELECT count(*) FROM members WHERE name = 'eve'").fetchone() == (0,)
    assert empty == [("reference", None), ("subgroup", None), ("subgroup", None)]


def test_the_rows_of_the_forgotten_may_still_stand_in_the_table(folder: Path) -> None:
    """Until somebody takes them out, nobody is asked about them: their seats are empty."""
    forget(folder)
    platform = Recorder()
    with open_action(folder, platform, roster=with_eve()) as action:
        action.verify()
        assert not np.isin(EVES, action.panel.first(100).persons).any()
        action.measure()
    assert platform.queries == 0


def test_an_edited_seat_of_the_forgotten_is_refused(folder: Path) -> None:
    """One character of the minutes that says something else ends in a sentence, and so does a seat that is missing."""
    forget(folder)
    second = Path(shutil.copytree(folder, folder.with_name("second")))
    edit(folder, "UPDATE minutes SET said = replace(said, '1', '0') WHERE condition = 'reference'")
    edit(second, "DELETE FROM seats WHERE side = 'subgroup' AND position = 9")
    for place in (folder, second):
        with (
            open_action(place, Recorder(), roster=without(with_eve(), *EVES)) as action,
            pytest.raises(LedgerError, match=r"Expected the minutes of the verification in .* as they were written"),
        ):
            action.verify()


def test_minutes_of_another_ledger_are_refused(folder: Path) -> None:
    """Minutes that are sealed, but not what the certificate says, are refused as answers are."""
    forget(folder)
    with Ledger(folder / "ledger.sqlite") as ledger, closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
        epoch, said = connection.execute("SELECT epoch, said FROM minutes WHERE condition = 'reference'").fetchone()
        said = said.translate(str.maketrans("01", "10"))
        mark = ledger.seal("\0".join(("ttca minutes", epoch, "reference", said)).encode())
        with connection:
            connection.execute("UPDATE minutes SET said = ?, mark = ? WHERE condition = 'reference'", (said, mark))
    with (
        open_action(folder, Recorder(), roster=without(with_eve(), *EVES)) as action,
        pytest.raises(ActionError, match="Expected a certificate that follows from the answers in the ledger"),
    ):
        action.verify()


def test_a_lost_ledger_is_no_second_look(folder: Path) -> None:
    """Where ledger and key are both gone, people who verified are not asked again, and nobody pays anew."""
    for path in folder.glob("ledger.sqlite*"):
        path.unlink()
    platform = Recorder()
    for _ in range(2):
        with (
            pytest.raises(LedgerError, match="got an empty ledger although"),
            open_action(folder, platform, roster=with_eve()),
        ):
            pass
    assert platform.queries == 0


def test_who_is_missing_without_being_forgotten_is_noticed(folder: Path) -> None:
    """Rows of others that were taken out of the table with those of the forgotten end in a sentence, at no cost."""
    forget(folder)
    platform = Recorder()
    with (
        open_action(folder, platform, roster=without(with_eve(), *EVES, "verification-sub-000")) as action,
        pytest.raises(ActionError, match="all verification people but those who were forgotten, got 1 others"),
    ):
        action.verify()
    assert platform.queries == 0


def test_forgetting_is_no_second_look(folder: Path) -> None:
    """Once somebody was forgotten, other perturbations are refused as before."""
    forget(folder)
    changed = worlds.settings(epsilons=(12, 14))
    with (
        open_action(folder, Recorder(), roster=without(with_eve(), *EVES), settings=changed) as action,
        pytest.raises(ActionError, match="A second look at the same people would make the certificate worthless"),
    ):
        action.verify()


def test_who_was_forgotten_before_being_asked_is_unresolved(tmp_path: Path) -> None:
    """Between the baseline and δ somebody is forgotten: their baseline stands, and with δ they count as not right."""
    platform = Recorder()
    with open_action(tmp_path, platform, roster=with_eve()) as action:
        ask = action.queries.ask

        def leave(*args: object, **given: object) -> object:
            if given["purpose"] == "verification" and not gone:
                gone.append(action.ledger.forget("eve").alias)
                raise KeyboardInterrupt
            return ask(*args, **given)  # type: ignore[arg-type]

        gone: list[str] = []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(action.queries, "ask", leave)
            with pytest.raises(KeyboardInterrupt):
                action.verify()
    with open_action(tmp_path, platform, roster=without(with_eve(), *EVES)) as action:
        certificate = action.verify()
    assert len(certificate.baseline) == 80
    assert "?" not in certificate.baseline
    drawn = draw_panel(with_eve().verification, seed=worlds.settings().seed)
    left = np.flatnonzero(np.isin(drawn.subgroup.persons, EVES))
    unresolved = [[i for i, said in enumerate(test.answers) if said == "?"] for test in certificate.tests]
    assert unresolved == [left[left < test.asked].tolist() for test in certificate.tests]
    assert any(unresolved)


def test_what_an_earlier_version_verified_is_seated_when_it_is_read(folder: Path) -> None:
    """Seats and minutes of an action of before are written from its ledger, so that its people can be forgotten too."""
    for table in ("seats", "minutes"):
        edit(folder, f"DELETE FROM {table}")
    path = folder / "verification.json"
    path.write_text(json.dumps({"epoch": json.loads(path.read_text())["epoch"]}))
    platform = Recorder()
    with open_action(folder, platform, roster=with_eve()) as action:
        certificate = action.verify()
    forget(folder)
    with open_action(folder, platform, roster=without(with_eve(), *EVES)) as action:
        assert action.verify() == certificate
    assert platform.queries == 0
