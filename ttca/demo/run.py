"""The demo's run: everything a collective does, from the first query to the report, and a row on test people."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

from ttca.action import CollectiveAction
from ttca.certificates import Certificate
from ttca.conditions import CONTROLS
from ttca.config import ActionFile, read_action
from ttca.data.folder import write_people
from ttca.demo.platform import running_platform
from ttca.demo.world import DIGITS, MEMBERS, STORY, THREADS, DigitsWorld, digits_world
from ttca.errors import ActionError
from ttca.folder_lock import hold
from ttca.gap import served_sentence
from ttca.measurement import Measurement
from ttca.people import People
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, QueryPool
from ttca.private import private
from ttca.progress import Reporter, silent
from ttca.row import Row

__all__ = ["doubt", "run_demo"]

#: Of each of the twenty: enough for some interruptions too, whose answers are paid and did not arrive.
QUOTA = 150
EPSILONS = (8, 12, 16)


def run_demo(
    folder: Path | str = "runs/demo", *, seed: int = 0, fresh: bool = False, reporter: Reporter = silent
) -> tuple[Row, Certificate, Measurement]:
    """Run the whole action against the demo's own platform; safe to interrupt: run it again to resume.

    Parameters
    ----------
    folder : path
        Where the action lives. One that holds a demo of the same seed is resumed.
    seed : int
    fresh : bool
        Delete a demo that lies in the folder and start again.
    reporter : Reporter

    Returns
    -------
    Row, Certificate, Measurement
        Measured on test people, who are in no other role and whose queries no member pays.

    Raises
    ------
    ActionError
        If the folder holds something else, or a demo of another seed.
    """
    folder = Path(folder)
    _prepare(folder, seed, fresh)
    # Until the action holds the folder itself: a second demo would write its own platform's address into the file.
    lock = hold(folder, say=reporter.say)
    try:
        world = digits_world(seed)
        known = read_action(folder) if (folder / "action.toml").is_file() else None
        port = 0 if known is None else urlsplit(known.platform.url).port or 0
        reporter.say(STORY if known is None else f"Resuming the demo in {folder}.")
        reporter.say("Training the platform and starting it as a web service. This takes a few seconds.")
        with running_platform(seed=seed, port=port, access_log=folder / "platform.log.jsonl") as url:
            reporter.say(
                f"The platform is running at {url} (KServe V2). From here on, {MEMBERS} members send it pictures and "
                "see only its answers."
            )
            if known is None:
                known = _write_action(folder, url, seed, world)
            lock.release()
            with known.open(reporter=reporter) as action, Ledger(folder / "evaluation.sqlite") as ledger:
                return _act(action, ledger, world.test, reporter)
    finally:
        lock.release()


def doubt(row: Row) -> str:
    """Return what a skeptic sees in the demo's pictures, and which number of the row answers it."""
    return (
        f"Look at the pictures as a skeptic would. Behind the veil little of a digit is left, and {row.epsilon} levels "
        "are enough for δ to paint one. That is why the abuse rate stands in the row: with the δ of a wrong class, "
        f"{100 * row.abuse_rate:.0f} % of these people's pictures are read as that wrong class. The result holds for "
        "members who know their true class and say it honestly; it does not show that the platform reads better."
    )


def _act(
    action: CollectiveAction, ledger: Ledger, test: People, reporter: Reporter
) -> tuple[Row, Certificate, Measurement]:
    """Do what any collective does; only the last measurement needs people whom no collective has."""
    reporter.say(served_sentence(action.pool().served()))
    reporter.say(
        "From these answers, the members train a small copy of the platform and learn one faint change per class, δ."
    )
    action.learn()
    reporter.say("Now δ is tested on the platform itself, with other people's pictures.")
    certificate = action.verify()
    reporter.say(certificate.summary())
    if certificate.epsilon is not None:
        # The members' file says what JPEG leaves, and how often a wrong class succeeds, as members measured it.
        action.measure()
    reporter.say("Last, the result and its controls are measured on people who had no part in the action.")
    # Every control asks about a test person once at most; a benchmark pays, not the members.
    quota = len(CONTROLS) * len(test)
    evaluator = QueryPool(action.platform, ledger, [Member("benchmark", quota)], reporter=reporter)
    row, measurement = action.measure(test, pool=evaluator, track="digits")
    action.report(
        (row, measurement),
        people=test,
        story=f"{STORY} {doubt(row)}",
        # scikit-learn's digits, which their writers gave to everybody.
        pictures_of=test.persons.tolist(),
    )
    return row, certificate, measurement


def _prepare(folder: Path, seed: int, fresh: bool) -> None:
    """Make the folder ready: empty, or with a demo of this seed to resume."""
    marker = folder / "demo-seed"
    if folder.exists() and not folder.is_dir():
        raise ActionError(f"Expected a folder for the demo at {folder}, got a file. Choose another name.")
    if folder.exists() and any(folder.iterdir()):
        if not marker.is_file():
            raise ActionError(
                f"Expected an empty folder or a demo in {folder}, got other files. Choose another folder."
            )
        if fresh:
            hold(folder).release()  # Nobody's files are deleted while they work with them.
            shutil.rmtree(folder)
        elif marker.read_text() != str(seed):
            raise ActionError(
                f"Expected a demo of seed {seed} in {folder}, got one of seed {marker.read_text()}. Choose another "
                "folder, or start over with --fresh."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(str(seed))
    except OSError as error:
        raise ActionError(f"Expected to create the folder {folder}, got: {error}. Choose another folder.") from None


def _write_action(folder: Path, url: str, seed: int, world: DigitsWorld) -> ActionFile:
    """Write people and action file as a collective would keep them; the file comes last, so that a kill is seen."""
    for name in ("people", "people.partial"):
        shutil.rmtree(folder / name, ignore_errors=True)
    roles = world.roster.roles()
    write_people(
        folder / "people.partial",
        People.concatenate(list(roles.values())),
        DIGITS,
        [role for role, people in roles.items() for _ in range(len(people))],
    )
    (folder / "people.partial").rename(folder / "people")
    text = f"""\
# Written by `ttca demo`; `ttca run` understands it while the demo's platform is running.
[action]
name = "digits"
subgroup = "people with a bad camera"
epsilons = {list(EPSILONS)}
seed = {seed}
goal = "parity"
threads = {THREADS}
control_lengths = [1.0]

[platform]
url = "{url}"
protocol = "kserve-v2"
model = "digits"
classes = {list(DIGITS)}

[people]
source = "people"

[pool]
quota = {QUOTA}
"""
    partial = folder / "action.partial"
    with open(partial, "w", encoding="utf-8", opener=private) as file:
        file.write(text)
    partial.rename(folder / "action.toml")
    return read_action(folder)
