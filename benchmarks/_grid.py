"""What the grid is: its cells in the order in which they are run, and the studies beside it, each by its command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["EPSILONS", "HOURS", "MOST_GIB", "STUDIES", "TRACKS_OF_GRID", "Planned", "planned"]

#: In this order within every part; the settings are what the product chooses by itself.
TRACKS_OF_GRID = (
    "cifar10-resnet56",
    "cifar100-resnet32",
    "fairface-agegender",
    "fairface-trained",
    "fairface-faceapi",
)
#: The family of every action.
EPSILONS = (2, 4, 8)
#: After so many hours no cell is begun, and no cell may take more memory.
HOURS, MOST_GIB = 10.0, 3.0
#: How many images a track has for the pool where they are few.
_FEW = {"digits": 420, "digits-thirdparty": 420, "waterbirds": 800}


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One cell: a whole action of one track, its recipe chosen by itself.

    Parameters
    ----------
    part : str
        Of the order.
    track : str
    regime : {"own", "public"}
    answers : {"richest", "label"}
        Richest: what the platform gives at most.
    queries : int
    seed : int
    final : bool
        Whether final people are measured, and not dev-test people.
    """

    part: str
    track: str
    regime: Literal["own", "public"]
    answers: Literal["richest", "label"]
    queries: int
    seed: int
    final: bool = False

    @property
    def name(self) -> str:
        """Of its file."""
        people = "-final" if self.final else ""
        return f"{self.track}-{self.regime}-{self.answers}-q{self.queries}-s{self.seed}{people}"


_Part = tuple[str, Literal["own", "public"], Literal["richest", "label"], tuple[int, ...], tuple[int, ...]]
#: Name, regime, answers, budgets and seeds, in order.
_PARTS: tuple[_Part, ...] = (
    ("own, richest answers", "own", "richest", (1000,), (0, 1, 2)),
    ("own, labels", "own", "label", (1000,), (0, 1, 2)),
    ("public, richest answers", "public", "richest", (1000,), (0, 1, 2)),
    ("own, other budgets", "own", "richest", (500, 2000), (0,)),
    ("own, two more seeds", "own", "richest", (1000,), (3, 4)),
)


def planned(tracks: Sequence[str] = TRACKS_OF_GRID, *, final: bool = False) -> Iterator[Planned]:
    """Yield the cells in the order in which they are run: part by part, and every track before the next seed.

    Parameters
    ----------
    tracks : sequence of str
        One with few images has its largest budget in place of a larger one.
    final : bool
    """
    seen = set()
    for part, regime, answers, budgets, seeds in _PARTS:
        for queries in budgets:
            for seed in seeds:
                for track in tracks:
                    cell = Planned(
                        part=part, track=track, regime=regime, answers=answers,
                        queries=min(queries, _FEW.get(track, queries)), seed=seed, final=final,
                    )  # fmt: skip
                    if cell.name not in seen:
                        seen.add(cell.name)
                        yield cell


_CIFAR, _FACES = TRACKS_OF_GRID[0], TRACKS_OF_GRID[2]
#: Studies beside the grid, three seeds each: the result file, and the command that makes it.
STUDIES: dict[str, str] = {
    f"{name}-{track}{ending}.json": f"python -m benchmarks {name} --track {track} --seeds 3{more} --keep"
    for name, ending, more in (
        ("what_queries_buy", "-public-poor", " --part public poor"),
        ("collective_size", "-own", ""),
        ("harm", "", ""),
        ("defences", "", ""),
        ("query_budget", "", " --from-proxy"),
    )
    for track in (_CIFAR, _FACES)
}
