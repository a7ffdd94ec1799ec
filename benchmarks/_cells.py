"""Cells of the grid: a whole action of one track, budget and seed, run once, kept, and read by every benchmark."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks._peers import cache
from benchmarks._tracks import TRACKS, Cell, Regime, Track, check_backbones, left_out
from ttca.action import WARM_START, CollectiveAction
from ttca.certificates import Certificate
from ttca.entering import race_result
from ttca.errors import ConfigError
from ttca.measurement import Measurement
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Platform
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.progress import Reporter
from ttca.proxies.runtime import give_back_memory
from ttca.race_record import Raced
from ttca.row import Row
from ttca.settings import Settings
from ttca.terminal import Terminal

__all__ = [
    "Acting",
    "CellKey",
    "Ran",
    "acting",
    "code_digest",
    "forget_answers",
    "from_plain",
    "kept_cell",
    "kept_path",
    "kept_under",
    "opened",
    "plain",
    "racing",
    "settings_of",
    "summary",
]

#: One request holds what a platform in this process computes fastest.
_BATCH = 256
_ROOT = Path(__file__).resolve().parents[1]
#: Whose code decides a row: people, platforms, proxies, δ, how they are measured, and what is certified.
_DECIDING = (
    "proxies/*.py",
    "attacks/*.py",
    "ttca/*.py",
    "ttca/data/*.py",
    "ttca/demo/*.py",
    "ttca/statistics/*.py",
    "ttca/platforms/habits.py",
    "ttca/platforms/local.py",
    "ttca/pooling/pool.py",
    *(f"benchmarks/{name}.py" for name in ("_cells", "_peers", "_tracks", "_trained")),
)
#: What of it only talks to people, files and terminals.
_TALKING = frozenset(
    f"ttca/{name}.py"
    for name in (
        "__main__", "cli", "config", "costs", "drafting", "inviting", "masking", "members", "prices", "progress",
        "signing", "streams", "telling", "terminal",
    )
)  # fmt: skip
#: What a result file keeps of a race: who won, and by what test it was proposed or not.
_OF_A_RACE = ("winner", "runner_up", "proposed", "won", "lost", "tested", "rise", "p", "level", "queries")


@dataclass(frozen=True)
class CellKey:
    """What decides a cell's rows, besides the code.

    Parameters
    ----------
    track : str
    regime : {"own", "own-unasked", "public"}
    answers : {"scores", "rounded", "top-k", "label"}
    queries : int
        Images sent for the pool.
    epsilons : tuple of int
        The family, in levels of 255.
    seed : int
    changes : dict
        Settings other than those of the track in this regime.

    Raises
    ------
    ConfigError
        If there is no such track, or it has no such answers or regime.
    """

    track: str
    regime: Regime
    answers: str
    queries: int
    epsilons: tuple[int, ...]
    seed: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.track not in TRACKS:
            raise ConfigError(f"Expected a track of {', '.join(TRACKS)}, got {self.track}. Name one that is here.")
        if self.answers not in self.of.answers:
            raise ConfigError(
                f"Expected the answers to be one of {', '.join(self.of.answers)} for {self.track}, got {self.answers}."
            )
        if self.regime not in self.of.settings:
            raise ConfigError(
                f"Expected the regime to be one of {', '.join(self.of.settings)} for {self.track}, got {self.regime}. "
                "The protocol has no people for it on this track."
            )

    @property
    def of(self) -> Track:
        """The track."""
        return TRACKS[self.track]

    @property
    def chosen(self) -> dict[str, Any]:
        """The action's settings, as the track has them in this regime and as they are changed.

        Where recipes race, the track sets nothing.
        """
        return {**({} if self.changes.get("recipe") == "auto" else self.of.settings[self.regime]), **self.changes}

    def facts(self) -> dict[str, Any]:
        """Return the key as JSON has it, with all settings."""
        return {
            "track": self.track,
            "regime": self.regime,
            "answers": self.answers,
            "queries": self.queries,
            "epsilons": sorted(self.epsilons),
            "seed": self.seed,
            "settings": plain(self.chosen),
            "code": code_digest(),
        }

    def order(self) -> dict[str, Any]:
        """Return the key as it travels to another machine; :meth:`received` reads it there."""
        return {**vars(self), "epsilons": list(self.epsilons), "changes": plain(self.changes)}

    @classmethod
    def received(cls, order: Mapping[str, Any]) -> CellKey:
        """Return the key that another machine sent."""
        return cls(**{**order, "epsilons": tuple(order["epsilons"]), "changes": from_plain(order["changes"])})

    def home(self) -> Path:
        """Return the folder where the cell is kept, in the benchmarks' cache."""
        return _home(self.facts())


def _home(facts: Mapping[str, Any]) -> Path:
    return cache() / "cells" / hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def kept_under(facts: Mapping[str, Any]) -> Path:
    """Return the folder for an action that these facts decide (JSON values), made where it is not there yet."""
    home = _home(facts)
    home.mkdir(parents=True, exist_ok=True)
    (home / "key.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return home


def kept_cell(benchmark: str, facts: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a benchmark found in one cell: read from its file, or made now and kept there.

    The file is there whole or not at all, so that a run that was killed loses the cell it was at and no other.

    Parameters
    ----------
    benchmark : str
        The cells of two benchmarks lie apart.
    facts : mapping
        All that decides the cell, as JSON has it; with :func:`code_digest`, so that other code makes it anew.
    make : callable
        Returns the cell as JSON has it.
    """
    path = kept_path(benchmark, facts)
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cell"]
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    # What is read back later is what this run says, too: JSON has no tuples.
    text = json.dumps({"facts": facts, "cell": make()}, indent=1)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    made: dict[str, Any] = json.loads(text)["cell"]
    return made


def kept_path(benchmark: str, facts: Mapping[str, Any]) -> Path:
    """Return where :func:`kept_cell` keeps the cell that these facts decide."""
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    return cache() / "finished-cells" / benchmark / f"{name}.json"


def forget_answers(home: Path) -> None:
    """Throw away a kept cell's answers about test people: they take more room than all the rest of it."""
    for left in home.glob("evaluation.sqlite*"):
        left.unlink()


@lru_cache(maxsize=8)
def code_digest(*more: Path) -> str:
    """Return a digest, 16 hex digits, of the code that decides a row; comments and docstrings are no part of it.

    A cell that other code made is never taken for this one's. ``more``: files of a benchmark whose own code decides
    what its kept actions are.
    """
    digest = hashlib.sha256()
    for path in (*_deciding(), *more):
        digest.update(_meaning(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:16]


def _deciding() -> list[Path]:
    """Return the files whose code decides a row."""
    found = [path for pattern in _DECIDING for path in sorted(_ROOT.glob(pattern))]
    return [path for path in found if path.relative_to(_ROOT).as_posix() not in _TALKING]


def _meaning(source: str) -> str:
    """Return what a source file does, whatever its layout, comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


@dataclass(frozen=True)
class Acting:
    """An action at work (or read back) with its track's people, and a pool that pays for test people.

    ``action.learn()`` gives δ by ε, ``action.verify()`` the certificate, ``action.opponents(epsilon)`` the δ of the
    controls, ``action.measure(people, pool=evaluator, epsilon=…)`` an honest row.
    """

    action: CollectiveAction
    cell: Cell
    evaluator: QueryPool

    def learn_controls(self, epsilons: Sequence[int]) -> None:
        """Learn the controls of these ε. Before test people are loaded: both at once do not fit into 3 GiB."""
        for epsilon in epsilons:
            self.action.opponents(epsilon, pool=self.evaluator)
        give_back_memory()

    def measure(self, track: str, people: People, epsilon: int | None = None) -> tuple[Row, Measurement]:
        """Return the honest row on test people, at the ε that the certificate quotes or at another of the family."""
        return self.action.measure(people, pool=self.evaluator, track=track, epsilon=epsilon)

    @property
    def raced(self) -> Raced | None:
        """What came of the race; None where nothing raced."""
        return race_result(self.action.folder, self.action.settings) if self.action.settings.races else None

    def equalised_alone(self, people: People) -> float | None:
        """Return the subgroup's share of right answers when cameras are equalised and nobody applies δ; else None."""
        if self.action.settings.races or not self.action.settings.equalize:
            return None
        seen = self.action.equalized(people[people.subgroup])
        said = self.evaluator.ask(seen.images, purpose="test", epoch="test")
        return float((said.labels == seen.classes).mean())


@contextmanager
def opened(key: CellKey, platform: Platform) -> Iterator[Acting]:
    """Open the kept action of a cell, which does what it has not done yet as soon as it is asked for it.

    A killed cell goes on where it was. What it learned stays in the cache: δ, proxies, certificate.
    """
    home = kept_under(key.facts())
    settings = settings_of(key.of, key.chosen, epsilons=key.epsilons, seed=key.seed)
    with acting(key.of, platform, settings, queries=key.queries, regime=key.regime, home=home) as found:
        yield found


@contextmanager
def acting(
    track: Track,
    platform: Platform,
    settings: Settings,
    *,
    queries: int,
    regime: Regime,
    home: Path,
    final: bool = False,
    proxies: Path | None = None,
) -> Iterator[Acting]:
    """Open the action of one cell in the folder ``home``, with dev-test people (or ``final``) to measure on.

    Raises ConfigError where a kept action was made against another platform.

    A proxy that learned from public data alone is kept between runs, in the folder ``proxies`` (default: in the cache):
    it asked nothing, and the grid shares it, over platforms too.
    """
    # On Linux each cell states its own peak of memory; elsewhere it states the largest so far.
    give_back_memory()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    _check_platform(home, platform)
    cell = track.people(queries, regime, settings.seed, final)
    folder = home / "action"
    folder.mkdir(exist_ok=True)
    members = [Member(f"member-{i}", 10**6) for i in range(4)]
    reporter = Reporter(Terminal(stderr=True))
    with (
        CollectiveAction(
            folder, platform=platform, members=members, roster=cell.roster, settings=settings,
            public=cell.public, views=cell.views, pace=Pace(concurrency=_BATCH, batch=_BATCH), reporter=reporter,
        ) as action,
        Ledger(home / "evaluation.sqlite") as ledger,
    ):  # fmt: skip
        check_backbones(track, action.backbones, classes=len(platform.info.classes))
        kept = None
        primer = None if settings.races or cell.public is None else action.learner.primer(action.known.public)
        if primer is not None:
            kept = (
                proxies or cache() / "public-proxies"
            ) / f"{action.learner.warm_start_inputs(primer, action.questions.judges)}.safetensors"
            if kept.is_file() and not (folder / WARM_START).is_file():
                shutil.copyfile(kept, folder / WARM_START)
        evaluator = QueryPool(
            platform,
            ledger,
            [Member("benchmark", 10**8)],
            pace=Pace(concurrency=_BATCH, batch=_BATCH),
            reporter=reporter,
        )
        yield Acting(action, cell, evaluator)
    if kept is not None and not kept.is_file() and (folder / WARM_START).is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}.partial")
        shutil.copyfile(folder / WARM_START, partial)
        partial.replace(kept)


def _check_platform(home: Path, platform: Platform) -> None:
    """Raise where a kept action was made against another platform: to open it would be to learn it anew."""
    for path in sorted((home / "action").rglob("*.safetensors")):
        if path.parent.name != "perturbations" and path.name != "perturbations.safetensors":
            continue
        if PerturbationSet.load(path).fingerprint != platform.info.fingerprint:
            raise ConfigError(
                f"Expected the platform that the action in {home} was made for, got another. A platform that is "
                "trained here depends on the number of threads: use the same number again (OMP_NUM_THREADS)."
            )


@dataclass(frozen=True)
class Ran:
    """One cell that was run and measured; without a certificate where doing nothing won a race, which ``raced`` says.

    ``equalised_alone``: what equalized cameras alone are worth, where the action equalizes (:class:`Acting`).
    """

    row: Row
    certificate: Certificate | None
    measurement: Measurement
    raced: Raced | None
    equalised_alone: float | None = None

    def kept(self, people: str) -> dict[str, Any]:
        """Return the honest row as result files hold it."""
        raced = None if self.raced is None else self.raced.to_dict()
        shown = self.certificate is not None
        return {
            "people": people,
            "row": self.row.to_dict(),
            "zero_query_mcnemar_p": self.measurement.paired_p("subgroup_after", "zero_query") if shown else None,
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "race": None if raced is None else {name: raced[name] for name in _OF_A_RACE},
        }


def settings_of(track: Track, chosen: Mapping[str, Any], *, epsilons: Sequence[int], seed: int) -> Settings:
    """Return the settings of one action on a track; its controls are measured on test people, not paid by members."""
    # No row may depend on what else lies on a machine: weights are named, or there are none; but where recipes race,
    # those race too that a stranger would have.
    weights = {} if chosen.get("recipe") == "auto" else {"weights": "none"}
    return Settings(
        name=track.name,
        subgroup="the subgroup of the track",
        epsilons=tuple(epsilons),
        seed=seed,
        controls=False,
        **{**weights, **chosen},
    )


def racing(track: Track, platform: Platform, **changes: Any) -> dict[str, Any]:
    """Return the settings of an action whose recipes race on a track: none by hand, none that was made for it."""
    return {"recipe": "auto", "left_out": left_out(track, classes=len(platform.info.classes)), **changes}


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def from_plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as an action takes them, from what :func:`plain` made of them."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and spread over seeds of every number that all rows have."""
    numbers = [k for k, v in rows[0].items() if isinstance(v, float) and all(r[k] is not None for r in rows)]
    return {
        "mean": {k: statistics.fmean(r[k] for r in rows) for k in numbers},
        "standard_deviation": {k: statistics.stdev(r[k] for r in rows) for k in numbers} if len(rows) > 1 else {},
        "parity_certified": sum(bool(r["parity_certified"]) for r in rows),
    }
