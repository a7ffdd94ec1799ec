"""Does the action close the gap? The honest row of one track, one budget and one ε, over seeds, on dev-test people."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._peers import cache
from benchmarks._tracks import ANSWERS, TRACKS, Regime, Track
from proxies.runtime import give_back_memory
from ttca.action import WARM_START, CollectiveAction
from ttca.certificates import Certificate
from ttca.errors import ConfigError
from ttca.measurement import Measurement
from ttca.platforms.local import LocalPlatform
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, QueryPool
from ttca.progress import Reporter
from ttca.row import Row
from ttca.settings import Settings

__all__ = ["main", "plain", "run_cell", "settings_of"]

#: One request holds what a platform in this process computes fastest.
_BATCH = 256


def main(argv: list[str]) -> dict[str, Any]:
    """Run one cell of the grid for several seeds and summarise every number of the row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks effect", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), required=True)
    parser.add_argument("--queries", type=int, required=True, help="images sent for the pool")
    parser.add_argument("--epsilon", type=int, nargs="+", required=True, help="levels of 255; several make a family")
    parser.add_argument("--answers", choices=tuple(ANSWERS), required=True)
    parser.add_argument(
        "--regime",
        choices=("own", "own-unasked", "public"),
        default="public",
        help="own: members who are asked; own-unasked: all pool people, with their true classes; public: public data",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--final", action="store_true", help="measure on final people (for docs/RESULTS.md only)")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings other than the track's")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    track = TRACKS[options.track]
    if options.answers not in track.answers:
        raise ConfigError(f"Expected answers among {', '.join(track.answers)} of {track.name}, got {options.answers}.")
    if options.regime not in track.settings:
        raise ConfigError(
            f"Expected a regime among {', '.join(track.settings)} for {track.name}, got {options.regime}: its public "
            "data are its other pool people."
        )
    chosen = {**track.settings[options.regime], **_changed(options.set)}
    rows, certificates, paired, alone = [], [], [], []
    with track.open_platform(options.answers) as platform:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            settings = settings_of(track, chosen, epsilons=options.epsilon, seed=seed)
            row, certificate, measurement, equalised = run_cell(
                track, platform, settings, queries=options.queries, regime=options.regime, final=options.final
            )
            rows.append(row.to_dict())
            certificates.append(certificate.to_dict())
            paired.append(measurement.paired_p("subgroup_after", "zero_query"))
            alone.append(equalised)
    levels = "-".join(str(e) for e in options.epsilon)
    return {
        "file": f"effect-{track.name}-{options.regime}-{options.answers}-q{options.queries}-e{levels}"
        + ("-final" if options.final else ""),
        "track": track.name,
        "regime": options.regime,
        "people": "final" if options.final else "dev-test",
        "settings": plain(chosen),
        "rows": rows,
        **summary(rows),
        "zero_query_mcnemar_p": paired,
        "equalised_without_delta": alone,
        "certificates": certificates,
    }


def run_cell(
    track: Track,
    platform: LocalPlatform,
    settings: Settings,
    *,
    queries: int,
    regime: Regime,
    final: bool = False,
    proxies: Path | None = None,
) -> tuple[Row, Certificate, Measurement, float | None]:
    """Run the whole action of one cell and one seed in a fresh folder.

    Where the action equalises cameras, the last value is the share of subgroup test people whom that alone helps to
    the right answer, without δ; else None.

    A proxy that learned from public data alone is kept between runs, in the folder ``proxies`` (default: in the cache):
    it asked nothing, and the grid shares it, over platforms too.
    """
    # On Linux each seed states its own peak of memory; elsewhere it states the largest so far.
    give_back_memory()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    cell = track.people(queries, regime, settings.seed, final)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "action"
        folder.mkdir()
        members = [Member(f"member-{i}", 10**6) for i in range(4)]
        reporter = Reporter(Console(stderr=True))
        with (
            CollectiveAction(
                folder, platform=platform, members=members, roster=cell.roster, settings=settings,
                public=cell.public, views=cell.views, concurrency=_BATCH, batch=_BATCH, reporter=reporter,
            ) as action,
            Ledger(Path(name) / "evaluation.sqlite") as ledger,
        ):  # fmt: skip
            kept = None
            if cell.public is not None and action.public is not None:
                kept = (
                    proxies or cache() / "public-proxies"
                ) / f"{action.learner.warm_start_inputs(action.public)}.safetensors"
                if kept.is_file():
                    shutil.copyfile(kept, folder / WARM_START)
            certificate = action.verify()
            evaluator = QueryPool(
                platform, ledger, [Member("benchmark", 10**7)], concurrency=_BATCH, batch=_BATCH, reporter=reporter
            )
            row, measurement = action.measure(cell.test, pool=evaluator, track=track.name)
            alone = None
            if settings.equalise:
                people = action.equalised(cell.test[cell.test.subgroup])
                said = evaluator.ask(people.images, purpose="test", epoch="test")
                alone = float((said.labels == people.classes).mean())
        if kept is not None and not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(f".{os.getpid()}.partial")
            shutil.copyfile(folder / WARM_START, partial)
            partial.replace(kept)
    return row, certificate, measurement, alone


def settings_of(track: Track, chosen: Mapping[str, Any], *, epsilons: Sequence[int], seed: int) -> Settings:
    """Return the settings of one action on a track; its controls are measured on test people, not paid by members."""
    return Settings(
        name=track.name,
        subgroup="the subgroup of the track",
        epsilons=tuple(epsilons),
        seed=seed,
        controls=False,
        **chosen,
    )


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and spread over seeds of every number that all rows have."""
    numbers = [k for k, v in rows[0].items() if isinstance(v, float) and all(r[k] is not None for r in rows)]
    return {
        "mean": {k: statistics.fmean(r[k] for r in rows) for k in numbers},
        "standard_deviation": {k: statistics.stdev(r[k] for r in rows) for k in numbers} if len(rows) > 1 else {},
        "parity_certified": sum(bool(r["parity_certified"]) for r in rows),
    }


def _changed(pairs: Sequence[str]) -> dict[str, Any]:
    """Return settings written NAME=VALUE, VALUE as Python writes it or a bare word."""
    import ast

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in Settings.__dataclass_fields__:
            raise ConfigError(f"Expected a setting as NAME=VALUE, got {pair!r}.")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found
