"""Does the action close the gap? The result row of one track, one budget and one ε, over seeds, on dev-test people."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._cells import CellKey, Ran, acting, kept_cell, kept_path, plain, racing, settings_of, summary
from benchmarks._engines import Order, add_engine, engine_of, fetched
from benchmarks._tracks import ANSWERS, TRACKS, Regime, Track
from ttca.errors import ConfigError, NothingHelpsError
from ttca.platforms.base import Platform
from ttca.settings import Settings

__all__ = ["QUICK", "add_settings", "cell_of", "changed", "main", "run_cell"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = (
    "--track",
    "digits",
    "--queries",
    "420",
    "--epsilon",
    "8",
    "16",
    "--answers",
    "label",
    "--regime",
    "own",
    "--seeds",
    "1",
)


def main(argv: list[str]) -> dict[str, Any]:
    """Run one cell of the grid for several seeds and summarise every number of the row.

    Each finished seed is a small file in the cache, and a later run goes on from them.
    """
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
    add_settings(parser)
    add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    track, engine = TRACKS[options.track], engine_of(options)
    changes, seeds = changed(options.set), range(options.first_seed, options.first_seed + options.seeds)
    people, auto = "final" if options.final else "dev-test", changes.get("recipe") == "auto"
    epsilons, keys = tuple(options.epsilon), list[CellKey]()
    with track.open_platform(options.answers) as platform:
        changes = racing(track, platform, **changes) if auto else changes
        keys = [
            CellKey(track.name, options.regime, options.answers, options.queries, epsilons, seed, changes)
            for seed in seeds
        ]
        # A platform that is trained here may be another on another machine.
        fingerprint = platform.info.fingerprint
        facts = [{**key.facts(), "people": people, "platform": fingerprint} for key in keys]
        if not engine.in_turn:
            away = [n for n, known in enumerate(facts) if not kept_path("effect", known).is_file()]
            orders = [
                Order(
                    benchmark="effect",
                    facts={"key": keys[n].order(), "final": options.final, "platform": fingerprint},
                )
                for n in away
            ]
            fetched(orders, engine, lambda n, cell: _keep(facts[away[n]], cell))
        cells = [
            kept_cell("effect", known, partial(_cell, key, platform, final=options.final))
            for key, known in zip(keys, facts, strict=True)
        ]
    rows = [cell["row"] for cell in cells]
    levels, what = "-".join(str(e) for e in options.epsilon), "effect-auto" if auto else "effect"
    return {
        "file": f"{what}-{track.name}-{options.regime}-{options.answers}-q{options.queries}-e{levels}"
        + ("-final" if options.final else ""),
        "track": track.name,
        "regime": options.regime,
        "people": people,
        "settings": plain(keys[0].chosen),
        "rows": rows,
        **summary(rows),
        **{name: [cell[name] for cell in cells] for name in ("zero_query_mcnemar_p", "equalised_without_delta")},
        "certificates": [cell["certificate"] for cell in cells],
        # Cells of earlier code kept none.
        "races": [cell.get("race") for cell in cells],
    }


def cell_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return one cell that another process ordered: ``key``, ``final``, and the ``platform`` that it means.

    Raises
    ------
    ConfigError
        If the track's platform is another here.
    """
    key = CellKey.received(facts["key"])
    with key.of.open_platform(key.answers) as platform:
        if platform.info.fingerprint != facts["platform"]:
            raise ConfigError(
                f"Expected the platform {facts['platform']} of {key.track}, got {platform.info.fingerprint}. One that "
                "is trained on each machine may differ: copy the folder platforms of TTCA_CACHE to the workers."
            )
        return _cell(key, platform, final=facts["final"])


def _keep(facts: Mapping[str, Any], cell: dict[str, Any]) -> None:
    kept_cell("effect", facts, lambda: cell)


def _cell(key: CellKey, platform: Platform, *, final: bool) -> dict[str, Any]:
    """Return what is kept of one cell: its row, the paired test against the control, and the certificate."""
    settings = settings_of(key.of, key.chosen, epsilons=key.epsilons, seed=key.seed)
    ran = run_cell(key.of, platform, settings, queries=key.queries, regime=key.regime, final=final)
    return {**ran.kept("final" if final else "dev-test"), "equalised_without_delta": ran.equalised_alone}


def run_cell(
    track: Track,
    platform: Platform,
    settings: Settings,
    *,
    queries: int,
    regime: Regime,
    final: bool = False,
    proxies: Path | None = None,
) -> Ran:
    """Run the whole action of one cell and one seed in a fresh folder.

    A proxy that learned from public data alone is kept between runs, in the folder ``proxies`` (default: in the cache):
    it asked nothing, and the grid shares it, over platforms too.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        acting(
            track, platform, settings, queries=queries, regime=regime, home=Path(name), final=final, proxies=proxies
        ) as found,
    ):
        try:
            certificate = found.action.verify()
            found.learn_controls([certificate.quoted_epsilon])
        except NothingHelpsError:
            # The row says so: nobody verified.
            certificate = None
        test = found.cell.test
        row, measurement = found.measure(track.name, test)
        return Ran(row, certificate, measurement, found.raced, found.equalised_alone(test))


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark's command line change settings of its track; :func:`changed` reads them."""
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="settings that differ from the track's, as NAME=VALUE",
    )


def changed(pairs: Sequence[str]) -> dict[str, Any]:
    """Return settings written NAME=VALUE, VALUE as Python writes it or a bare word.

    Raises
    ------
    ConfigError
        If one is not written so, or there is no such setting.
    """
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
