"""A tiny world in which a whole action takes a second: three patterns on 8×8 images, and a group with faint ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.action import CollectiveAction
from ttca.answers import Answers
from ttca.certificates import Certificate, Certifying, Examined, certify
from ttca.images import Images
from ttca.people import People, Roster
from ttca.platforms.base import Credential
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.local import LocalPlatform
from ttca.pooling.pool import Member, Pace
from ttca.settings import Settings

CLASSES = ("stripes", "bars", "checks")
SHAPE = (8, 8, 3)
MEMBERS = tuple(f"member-{i}" for i in range(5))

_SIGNS = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
#: One ±1 pattern per class, float64 (3, 8, 8, 3), orthogonal to one another and to plain grey.
PATTERNS = np.repeat(np.stack([np.kron(np.outer(s, s), np.ones((2, 2))) for s in _SIGNS[1:]])[..., None], 3, axis=-1)


def model(images: Images) -> NDArray[np.float64]:
    """Return the probabilities of the three patterns: a platform that is right where they are strong enough."""
    logits = 0.5 * ((images.astype(np.float64) - 128)[:, None] * PATTERNS).mean(axis=(2, 3, 4))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    total: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return total


def draw(n: int, *, strength: float, seed: int) -> tuple[Images, NDArray[np.int64]]:
    """Return n images, no two alike, with a pattern of so many levels, and their classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n, dtype=np.int64) % len(CLASSES)
    coarse = np.kron(rng.normal(0, 12, (n, 4, 4, 1)), np.ones((1, 2, 2, 3)))
    images = 128 + strength * PATTERNS[classes] + coarse + rng.normal(0, 3, (n, *SHAPE))
    return np.clip(np.rint(images), 0, 255).astype(np.uint8), classes


def crowd(role: str, subgroup: int, reference: int, *, seed: int) -> People:
    """Return people of both groups, named by role and group; the subgroup's patterns are faint."""
    parts = []
    for group, n, strength in (("sub", subgroup, 2.0), ("ref", reference, 4.0)):
        if n:
            images, classes = draw(n, strength=strength, seed=seed + (group == "ref"))
            persons = [f"{role}-{group}-{i:03d}" for i in range(n)]
            payers = [MEMBERS[i % len(MEMBERS)] for i in range(n)]
            parts.append(People.build(images, classes, persons=persons, members=payers, subgroup=group == "sub"))
    return People.concatenate(parts)


def roster(*, verification: int = 80, reference: bool = True, seed: int = 10) -> Roster:
    """Return pool, selection and verification people; without ``reference``, of the subgroup alone."""
    return Roster(
        pool=crowd("pool", 100, 25 * reference, seed=seed),
        selection=crowd("selection", 40, 40 * reference, seed=seed + 10),
        verification=crowd("verification", verification, verification * reference, seed=seed + 20),
    )


def strangers(n: int = 80, *, seed: int = 100) -> People:
    """Return people of both groups who are in no role."""
    return crowd("test", n, n, seed=seed)


def members(quota: int = 500) -> list[Member]:
    """Return five members with the same quota."""
    return [Member(name, quota) for name in MEMBERS]


def settings(**changes: Any) -> Settings:
    """Return settings under which a step takes a fraction of a second."""
    quick: dict[str, Any] = {
        "epsilons": (6, 12),
        "architectures": ("perceptron",),
        "epochs": 12,
        "steps": 10,
        "shift": 0,
        "control_lengths": (1.0,),
        "recheck_people": 0,
    }
    return Settings(**{**quick, **changes})


class Recorder:
    """A platform that remembers which images each request brought."""

    def __init__(self, *, version: str = "1", **habits: Any) -> None:
        self.model = LocalPlatform(model, classes=CLASSES, image_shape=SHAPE, name="tiny", version=version)
        self.inner = WithHabits(self.model, Habits(**habits))
        self.info = self.inner.info
        self.seen: dict[str, list[bytes]] = {}

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Write down the images, then answer."""
        self.seen.setdefault(request_id, []).extend(image.tobytes() for image in images)
        return self.inner.attempt(images, credential, request_id=request_id)

    @property
    def queries(self) -> int:
        """Images that came in, in whatever request."""
        return sum(map(len, self.seen.values()))

    def by_purpose(self, ledger: Path) -> dict[str, set[bytes]]:
        """Return the images that came in by what the ledger says they were asked for."""
        found: dict[str, set[bytes]] = {}
        connection = sqlite3.connect(ledger)
        try:
            for request, purpose in connection.execute("SELECT request_id, purpose FROM requests"):
                found.setdefault(purpose, set()).update(self.seen[request])
        finally:
            connection.close()
        return found


def open_action(folder: Path, platform: Any, **changes: Any) -> CollectiveAction:
    """Return the tiny world's action in a folder; ``changes`` replace its people, members, settings or pool options."""
    given: dict[str, Any] = {
        "members": members(),
        "roster": roster(),
        "settings": settings(),
        "pace": Pace(concurrency=32),
    } | changes
    return CollectiveAction(folder, platform=platform, **given)


def action_file(url: str, *, classes: Sequence[str] = CLASSES, **changes: str) -> str:
    """Return an action file for the tiny world behind HTTP; ``changes`` add lines to a table by its name."""
    listed = ", ".join(f'"{c}"' for c in classes)
    tables = {
        "action": 'epsilons = [6, 12]\narchitectures = ["perceptron"]\nepochs = 12\nsteps = 10\nshift = 0\n'
        "control_lengths = [1.0]\nrecheck_people = 0\n",
        "platform": f'url = "{url}"\nmodel = "tiny"\nclasses = [{listed}]\n',
        "people": 'source = "people"\n',
        "pool": "quota = 500\n",
    }
    return "\n".join(f"[{name}]\n{lines}{changes.get(name, '')}\n" for name, lines in tables.items())


def certified(right: int, *, epsilon: int, persons: int = 100, reference: int = 90) -> Certificate:
    """Return the certificate of an ε: so many persons right with δ, so many of the reference as they are."""
    held = {epsilon: "1" * right + "0" * (persons - right), "reference": "1" * reference + "0" * (persons - reference)}
    who = Examined("disjoint", persons, persons, 2 * persons)
    return certify(lambda condition, i, j: held[condition][i:j], Certifying(), epsilons=(epsilon,), examined=who)
