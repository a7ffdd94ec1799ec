"""Do certificates keep their word, and what do they cost? Simulated actions whose truth is known.

Run as ``python -m benchmarks bounds``. The design of the simulation is ours; truths are chosen to be hard, not
typical: they lie exactly at what is claimed. Costs are simulated at the rates that result files hold.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks._certificate_costs import costs, tracks
from benchmarks._coverage import interval_coverage
from benchmarks._false_claims import CASES, false_claims, persons_in_layouts, wrong_ways
from benchmarks._power import improvement
from ttca.errors import ConfigError

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--actions", "200", "--persons", "100")
_RESULTS = Path(__file__).resolve().parent / "results"
#: Simulated actions of a track, and worlds of a metric, where there are so many actions.
_FEWER = 2000


def main(argv: list[str], results: Path = _RESULTS) -> dict[str, Any]:
    """Run the benchmark and return its JSON row; prints nothing.

    Parameters
    ----------
    argv : list of str
        ``--actions``, ``--persons``, ``--seed``; ``--json`` is for the caller, who does the printing.
    results : Path
        The folder whose result files say at what rates costs are simulated.

    Raises
    ------
    ConfigError
        If a number is below 1, or no configuration has so few persons.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks bounds", description=__doc__)
    parser.add_argument("--actions", type=int, default=20_000, help="simulated actions of each configuration")
    parser.add_argument("--persons", type=int, default=800, help="leave out configurations with more persons")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.actions < 1:
        raise ConfigError(f"Expected at least one simulated action, got {options.actions}. Ask for more.")
    cases = [case for case in CASES if max(case.world.persons, case.others) <= options.persons]
    if not cases:
        raise ConfigError(
            f"Expected configurations with few enough persons, got none with at most {options.persons}. Allow 20; 100 "
            "is enough for every kind of test."
        )
    began = time.perf_counter()
    rows = false_claims(cases, options.actions, options.seed)
    layouts = persons_in_layouts(options.actions, options.seed)
    fewer = min(_FEWER, options.actions)
    intervals = interval_coverage(fewer, options.seed)
    power = improvement(options.actions, options.seed)
    cost = costs(tracks(results), fewer, options.seed)
    wrong = wrong_ways(options.actions, options.seed)
    fixed = [row for row in (*rows, *layouts) if row.get("stopping", "curtailed") == "curtailed" and "rate" in row]
    on_the_way = [row for row in rows if row["stopping"] != "curtailed"]
    tested = [*fixed, *on_the_way]
    # Bonferroni over all of them: a configuration within its error is then called out once in twenty runs.
    least_p = 0.05 / len(tested)
    return {
        "benchmark": "bounds",
        "actions": options.actions,
        "seed": options.seed,
        "alpha": 0.05,
        "configurations": len(tested),
        "per_action_error": max(row["rate"] for row in fixed),
        "anytime_error": max((row["rate"] for row in on_the_way), default=None),
        "within_error": all(row["p"] >= least_p for row in tested),
        "least_p": min(row["p"] for row in tested),
        "p_needed": least_p,
        "bound_error": max(row["bound_rate"] for row in rows),
        "wrong_ways_caught": all(row["caught"] for row in wrong),
        **{key: value for key, value in cost.items() if key not in ("tracks", "budgets")},
        "power": power["power"],
        "interval_coverage": intervals["smallest"],
        "seconds": time.perf_counter() - began,
        "false_claims": rows,
        "layouts": layouts,
        "wrong_ways": wrong,
        "costs": {key: cost[key] for key in ("tracks", "budgets")},
        "improvement": power,
        "intervals": intervals,
    }
