"""Do audits, discoveries, plans and rechecks keep their word? Simulated audits whose truth is known.

Run as ``python -m benchmarks audit``. Everything goes through the functions that ``ttca audit``, ``ttca plan`` and
``ttca recheck`` call. The design of the simulation is ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from benchmarks._audit_simulation import discovery_power, plan_power, two_groups
from benchmarks._recheck_simulation import recheck_part
from ttca.errors import ConfigError

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--audits", "60", "--actions", "400", "--swaps", "3", "--series", "1", "--looks", "20")
#: The planted group that the headline is about, one that is none, and the table around, of a quarter as many audits.
_SHARES, _GAPS = (0.1, 0.2, 0.3), (0.05, 0.1, 0.15)
_HEADLINE, _NOTHING = (0.2, 0.15), (0.2, 0.0)
_PARTS = ("audits", "discovery", "plans", "rechecks")


def main(argv: list[str]) -> dict[str, Any]:
    """Run the benchmark and return its JSON row; prints nothing.

    Parameters
    ----------
    argv : list of str
        ``--audits``, ``--actions``, ``--swaps``, ``--series``, ``--looks``, ``--seed``;
        ``--json`` is for the caller, who does the printing.

    Raises
    ------
    ConfigError
        If a number is below 1.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks audit", description=__doc__)
    parser.add_argument("--audits", type=int, default=2100, help="simulated audits, and those of the planted group")
    parser.add_argument("--actions", type=int, default=20_000, help="simulated actions of each plan")
    parser.add_argument("--swaps", type=int, default=1000, help="simulated platforms that change after a certificate")
    parser.add_argument("--series", type=int, default=600, help="simulated platforms that never change")
    parser.add_argument("--looks", type=int, default=1000, help="how often each of those is looked at")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation")
    parser.add_argument(
        "--parts", nargs="+", choices=_PARTS, default=list(_PARTS), help="which of them; some alone are kept apart"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    counts = (options.audits, options.actions, options.swaps, options.series, options.looks)
    if min(counts) < 1:
        raise ConfigError(f"Expected at least one of every simulation, got {min(counts)}. Ask for more.")
    began = time.perf_counter()
    # Every part returns the keys that it answers for.
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "audits": lambda: two_groups(options.audits, options.seed),
        "discovery": lambda: _discovery(options.audits, options.seed),
        "plans": lambda: plan_power(options.actions, options.seed),
        "rechecks": lambda: recheck_part(
            swaps=options.swaps, series=options.series, looks=options.looks, seed=options.seed
        ),
    }
    found: dict[str, Any] = {}
    for name in options.parts:
        found |= parts[name]()
    return {
        "benchmark": "audit",
        "file": "audit" if set(options.parts) == set(_PARTS) else f"audit-{'-'.join(sorted(options.parts))}",
        "audits": options.audits,
        "actions": options.actions,
        "seed": options.seed,
        **found,
        "seconds": time.perf_counter() - began,
    }


def _discovery(audits: int, seed: int) -> dict[str, Any]:
    whole = (_HEADLINE, _NOTHING)
    rows = [
        discovery_power(audits if case in whole else -(-audits // 4), seed, share=case[0], gap=case[1])
        for case in (_NOTHING, *((share, gap) for share in _SHARES for gap in _GAPS))
    ]
    best = next(row for row in rows if (row["share"], row["gap"]) == _HEADLINE)
    return {
        "discovered": best["discovered"],
        "false_discovery": max(row["false_discovery"] for row in rows),
        "power_of_a_split": best["split_discovered"],
        "planted": rows,
    }
