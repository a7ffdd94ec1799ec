"""The demo: an under-served subgroup on a real HTTP platform, from the first query to the honest row."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ttca.action import CollectiveAction
from ttca.certificates import Certificate
from ttca.config import ActionFile, read_action
from ttca.data.cameras import bad_camera
from ttca.data.digits import load_digits_images
from ttca.data.folder import write_people
from ttca.errors import ActionError, MissingExtraError, PlatformError
from ttca.images import Images
from ttca.measurement import Measurement
from ttca.people import People, Roster
from ttca.platforms.local import LocalPlatform
from ttca.platforms.server import serve
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, QueryPool
from ttca.progress import Reporter, silent
from ttca.report import write_report
from ttca.row import Row

__all__ = ["CAMERA", "DigitsWorld", "digits_platform", "digits_world", "run_demo", "running_platform"]

SIZE = 16
#: What the bad camera does: defocus of 2 px, contrast down to 35 % behind a light veil, sensor noise of 6 levels.
CAMERA: dict[str, float] = {"blur": 2.0, "contrast": 0.35, "veil": 60.0, "noise": 6.0}
#: So few of the platform's training images came through such a camera: that is why it serves them badly.
SHARE_IN_TRAINING = 0.03
MEMBERS, QUOTA = 20, 120
EPSILONS = (4, 8, 12, 16)
DIGITS = tuple("0123456789")
STORY = (
    "The platform reads handwritten digits (scikit-learn's, 16×16 pixels). Members of the subgroup photograph theirs "
    "with a bad camera: out of focus (Gaussian blur of 2 pixels), contrast cut to 35 % behind a light veil, sensor "
    "noise of 6 levels. The platform saw few such pictures in training. Everybody else's pictures are sharp."
)


@dataclass(frozen=True)
class DigitsWorld:
    """scikit-learn's 1,797 digits in thirds: who trained the platform, the collective, and the test people."""

    training_images: Images
    training_classes: NDArray[np.int64]
    roster: Roster
    test: People


def digits_world(seed: int) -> DigitsWorld:
    """Return the demo's people; every image stands for one person, and the camera decides the group."""
    sharp, classes = load_digits_images(SIZE)
    blurred = bad_camera(sharp, seed=seed, **CAMERA)
    thirds = np.array_split(np.random.default_rng(seed).permutation(len(classes)), 3)
    training, collective, test = thirds
    few = round(SHARE_IN_TRAINING * len(training))
    images = np.concatenate([blurred[training[:few]], sharp[training[few:]]])

    def people(rows: NDArray[np.intp], groups: str) -> People:
        """Return the rows as the subgroup, and as the reference too where ``groups`` is "both"."""
        persons = np.array([f"person-{i:04d}" for i in rows])
        members = np.array([f"member-{i % MEMBERS + 1:02d}" for i in range(len(rows))])
        subgroup = People.build(blurred[rows], classes[rows], persons=persons, members=members, subgroup=True)
        if groups == "subgroup":
            return subgroup
        # The same people with a good camera: what the platform would say if the camera were all that differs.
        reference = People.build(sharp[rows], classes[rows], persons=persons, members=members, subgroup=False)
        return People.concatenate([subgroup, reference])

    half = len(collective) // 2
    fifth = (len(collective) - half) // 5
    verification, selection, pool = np.split(collective, [half, half + fifth])
    roster = Roster(
        pool=people(pool, "subgroup"), selection=people(selection, "both"), verification=people(verification, "both")
    )
    return DigitsWorld(images, classes[training], roster, people(test, "both"))


def digits_platform(world: DigitsWorld, *, seed: int) -> LocalPlatform:
    """Train the platform: a scikit-learn perceptron on grey 8×8 digits, nothing like the members' proxy.

    Its version is a digest of its weights, so that answers of one model are never taken for another's.
    """
    try:
        from sklearn.neural_network import MLPClassifier
    except ImportError:
        raise MissingExtraError("The demo's platform", "data") from None

    def features(images: Images) -> NDArray[np.float64]:
        grey = images[..., 0].reshape(len(images), SIZE // 2, 2, SIZE // 2, 2).mean((2, 4))
        flat: NDArray[np.float64] = grey.reshape(len(images), -1) / 255
        return flat

    # Every training image in nine positions, as any maker of a digit reader would do.
    moves = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    images = np.concatenate([np.roll(world.training_images, move, (1, 2)) for move in moves])
    model = MLPClassifier(
        (32,), max_iter=12, batch_size=64, learning_rate_init=3e-3, alpha=0.3, random_state=seed, tol=0.0
    )
    with warnings.catch_warnings():
        # Stopping after a fixed number of epochs is what we want, and scikit-learn warns of it.
        warnings.simplefilter("ignore")
        model.fit(features(images), np.tile(world.training_classes, len(moves)))
    weights = hashlib.sha256(b"".join(w.tobytes() for w in [*model.coefs_, *model.intercepts_])).hexdigest()

    return LocalPlatform(
        lambda batch: model.predict_proba(features(batch)),
        classes=DIGITS,
        image_shape=(SIZE, SIZE, 3),
        name="digits",
        version=weights[:16],
    )


@contextmanager
def running_platform(*, seed: int, port: int = 0, access_log: Path | None = None) -> Iterator[str]:
    """Run the platform as a server process of its own and yield its URL.

    The process ends when its standard input closes, so that no server outlives a killed demo.
    """
    command = [sys.executable, "-m", "ttca.demo", str(seed), str(port)]
    if access_log is not None:
        command.append(str(access_log))
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if server.stdin is None or server.stdout is None:  # pragma: no cover - asked for above
        raise PlatformError("Expected pipes to the platform's process, got none.", platform="digits")
    try:
        url = server.stdout.readline().strip()
        if not url:
            raise PlatformError(
                f"Expected the demo's platform to start, got a process that ended with status {server.wait()}. "
                "Its message stands above. If its port is taken by another program, start afresh with --fresh.",
                platform="digits",
            )
        yield url
    finally:
        server.stdin.close()
        server.stdout.close()
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def run_demo(
    folder: Path | str = "runs/demo", *, seed: int = 0, fresh: bool = False, reporter: Reporter = silent
) -> tuple[Row, Certificate, Measurement]:
    """Run the whole action against the demo's own platform; killed at any moment, it goes on where it was.

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
    world = digits_world(seed)
    known = read_action(folder) if (folder / "action.toml").is_file() else None
    port = 0 if known is None else urlsplit(known.platform.url).port or 0
    reporter.say(STORY)
    with running_platform(seed=seed, port=port, access_log=folder / "platform.log.jsonl") as url:
        reporter.say(f"The platform answers at {url} (KServe V2). From here on, we only ask it questions.")
        if known is None:
            known = _write_action(folder, url, seed, world)
        with known.open(reporter=reporter) as action, Ledger(folder / "evaluation.sqlite") as ledger:
            return _act(action, ledger, world.test, reporter)


def _act(
    action: CollectiveAction, ledger: Ledger, test: People, reporter: Reporter
) -> tuple[Row, Certificate, Measurement]:
    """Do what any collective does; only the last measurement needs people whom no collective has."""
    action.pool()
    _, fidelity = action.distil()
    sets = action.learn()
    certificate = action.verify()
    reporter.say(certificate.summary())
    # Eleven conditions per test person at most; a benchmark pays, not the members.
    evaluator = QueryPool(action.platform, ledger, [Member("benchmark", 11 * len(test))], reporter=reporter)
    row, measurement = action.measure(test, pool=evaluator, track="digits")
    write_report(
        action.folder / "report.html",
        row=row,
        measurement=measurement,
        certificate=certificate,
        perturbations=sets[row.epsilon],
        people=test,
        fidelity=fidelity,
        balances=action.queries.status(),
        measured_on="test people",
        story=STORY,
        seed=row.seed,
    )
    return row, certificate, measurement


def _prepare(folder: Path, seed: int, fresh: bool) -> None:
    """Make the folder ready: empty, or with a demo of this seed to resume."""
    marker = folder / "demo-seed"
    if folder.exists() and any(folder.iterdir()):
        if not marker.is_file():
            raise ActionError(
                f"Expected an empty folder or a demo in {folder}, got other files. Choose another folder."
            )
        if fresh:
            shutil.rmtree(folder)
        elif marker.read_text() != str(seed):
            raise ActionError(
                f"Expected a demo of seed {seed} in {folder}, got one of seed {marker.read_text()}. "
                "Choose another folder, or start afresh with --fresh."
            )
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(str(seed))


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
    partial.write_text(text, encoding="utf-8")
    partial.rename(folder / "action.toml")
    return read_action(folder)


def _serve_until_orphaned(seed: int, port: int, access_log: Path | None) -> None:
    """Serve the platform until standard input closes (the demo ended, or was killed)."""

    def watch() -> None:
        sys.stdin.read()
        # The main thread sits in the server's loop; nothing needs saving.
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    platform = digits_platform(digits_world(seed), seed=seed)
    serve(platform, port=port, access_log=access_log, on_start=_announce)


def _announce(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve_until_orphaned(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
