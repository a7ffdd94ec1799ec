"""How far could any proxy go? δ learned on the platform itself, white box, for the same people at the same ε."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmarks._cells import plain, settings_of
from benchmarks._tracks import TRACKS, Regime, Track, onnx_file
from ttca.certificates import clopper_pearson_interval
from ttca.errors import ConfigError
from ttca.gap import gap_interval
from ttca.learning import Learner
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Platform
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.progress import Reporter
from ttca.proxies.runtime import best_device
from ttca.settings import Settings
from ttca.terminal import Terminal

__all__ = ["OPEN_BOX", "QUICK", "main", "white_box"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--track", "cifar10-resnet20", "--queries", "500", "--epsilon", "8", "--seeds", "1")

#: The tracks whose platform is a file that can be opened.
OPEN_BOX = ("cifar10-resnet20", "cifar10-resnet56", "cifar100-resnet32")

_BATCH = 256


def main(argv: list[str]) -> dict[str, Any]:
    """Learn δ on the converted platform for every ε and seed, and measure S on the platform as it is asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ceiling", description=__doc__)
    parser.add_argument("--track", choices=OPEN_BOX, required=True)
    parser.add_argument(
        "--queries", type=int, default=1000, help="images that the action would send; δ is learned on them"
    )
    parser.add_argument("--epsilon", type=int, nargs="+", required=True, help="levels of 255")
    parser.add_argument("--regime", choices=("own", "own-unasked", "public"), default="public")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--final", action="store_true", help="measure on final people (for docs/RESULTS.md only)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    track = TRACKS[options.track]
    model = white_box(onnx_file(track.name))
    rows = []
    with track.open_platform("scores") as platform:
        for seed in range(options.seeds):
            settings = settings_of(track, track.settings[options.regime], epsilons=options.epsilon, seed=seed)
            rows += _rows(track, platform, model, settings, options.queries, options.regime, final=options.final)
    levels = sorted(set(options.epsilon))
    return {
        "file": f"ceiling-{track.name}-{options.regime}-q{options.queries}-e{'-'.join(map(str, levels))}"
        + ("-final" if options.final else ""),
        "track": track.name,
        "regime": options.regime,
        "people": "final" if options.final else "dev-test",
        "settings": plain(track.settings[options.regime]),
        "rows": rows,
        "mean": {
            f"epsilon-{e}": {
                key: statistics.fmean(known)
                for key in ("subgroup_after", "gap_closed")
                if (known := [row[key] for row in rows if row["epsilon"] == e and row[key] is not None])
            }
            for e in levels
        },
    }


def white_box(path: Path) -> nn.Module:
    """Return an ONNX classifier as a module: float32 (N, 3, H, W) in [0, 1] → logits (N, C).

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    import onnx2torch

    try:
        return cast(nn.Module, onnx2torch.convert(str(path)).eval().to(best_device()))
    except Exception as error:  # onnx and onnx2torch raise what they like.
        raise ConfigError(f"Expected an ONNX classifier at {path} that onnx2torch converts, got: {error}") from None


def _rows(
    track: Track,
    platform: Platform,
    model: nn.Module,
    settings: Settings,
    queries: int,
    regime: Regime,
    *,
    final: bool,
) -> list[dict[str, Any]]:
    reporter = Reporter(Terminal(stderr=True))
    cell = track.people(queries, regime, settings.seed, final)
    learner = Learner(
        settings, classes=len(platform.info.classes), image_shape=platform.info.image_shape, reporter=reporter
    )
    roster = cell.roster
    more = [p for p in (cell.views, roster.unasked) if p is not None]
    helped = People.concatenate([p[p.subgroup] for p in (roster.pool, *more)])
    selection = roster.selection[roster.selection.subgroup]
    test = cell.test[cell.test.subgroup]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name) / "evaluation.sqlite") as ledger:
        pool = QueryPool(
            platform,
            ledger,
            [Member("benchmark", 10**7)],
            pace=Pace(concurrency=_BATCH, batch=_BATCH),
            reporter=reporter,
        )

        def right(images: NDArray[np.uint8], people: People) -> int:
            said = pool.ask(images, purpose="test", epoch="test")
            return int(np.count_nonzero(said.labels == people.classes))

        reference = cell.test[~cell.test.subgroup]
        counts = [(right(group.images, group), len(group)) for group in (reference, test)]
        above, before = (k / m for k, m in counts)
        shown = gap_interval(*counts)[0] > 0
        delta: NDArray[np.int8] | None = None
        for epsilon in sorted(settings.epsilons):
            delta = learner.universal(
                model, helped, selection, epsilon, what=f"learning δ on the platform, ε = {epsilon}", initial=delta
            )
            found = PerturbationSet(delta, epsilon, platform.info.classes, "subgroup", platform.info.fingerprint)
            k = right(found.apply(test.images, test.classes), test)
            low, high = clopper_pearson_interval(k, len(test))
            rows.append(
                {
                    "track": track.name,
                    "regime": regime,
                    "epsilon": epsilon,
                    "seed": settings.seed,
                    "reference_before": above,
                    "subgroup_before": before,
                    "subgroup_after": k / len(test),
                    "subgroup_after_lower": low,
                    "subgroup_after_upper": high,
                    "gap_closed": (k / len(test) - before) / (above - before) if shown else None,
                }
            )
    return rows
