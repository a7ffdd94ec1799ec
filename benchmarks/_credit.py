"""What an action's queries are credited with: what it adds to the best that the same people could have without one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._claims import CHANCE
from ttca.measurement import Measurement

__all__ = ["SAID", "alternatives", "best_names", "credited", "hardest", "told_apart", "verdict"]

#: A verdict in the words of the documents.
SAID = {"won": "won", "lost": "**lost**", "nothing": "bought nothing that shows"}
#: What costs no query, by the measurement's conditions, and in the words of the documents.
_WORDS = {"zero_query": "control", "own_zero_query": "own", "subgroup_before": "nothing"}


def alternatives(own: bool) -> list[str]:
    """Return what an action is compared with: its control, nothing, and the control of the regime own beside it."""
    return [name for name in _WORDS if own or name != "own_zero_query"]


def credited(measurement: Measurement, free: Sequence[str]) -> dict[str, Any]:
    """Return what the queries bought beyond the best of what costs none.

    Parameters
    ----------
    measurement : Measurement
    free : sequence of str
        Its conditions that cost no query; nothing at all is ``subgroup_before``.

    Returns
    -------
    dict
        ``alternatives``: share of right answers of each; ``best``: which is the best; ``bought``: S less that;
        ``best_mcnemar_p``: exact, two-sided, of S and the best on the same people.

    Notes
    -----
    *Ours*. The best is chosen on the very people on whom S is measured, so that chance counts against the collective.
    """
    rates = {name: measurement.rate(name) for name in free}
    p_values = {name: measurement.paired_p("subgroup_after", name) for name in free}
    # Of equals, the one from which S is told least.
    best = max(free, key=lambda name: (rates[name], p_values[name]))
    bought = measurement.rate("subgroup_after") - rates[best]
    return {"alternatives": rates, "best": best, "bought": bought, "best_mcnemar_p": p_values[best]}


def verdict(bought: Sequence[float], p_values: Sequence[float], seeds: int) -> str:
    """Return in one word what the queries did: ``won``, ``lost`` or ``nothing``.

    Parameters
    ----------
    bought : sequence of float
        S less the best that costs no query, by seed.
    p_values : sequence of float
        Of the exact paired McNemar test, by seed.
    seeds : int
        All that were tried: one whose action stopped itself has won nothing.

    Notes
    -----
    *Ours*: seeds share their test people, so that their tests are not pooled; more than half must each be below .05 and
    of the mean's sign.
    """
    mean = statistics.fmean(bought)
    clear = [b for b, p in zip(bought, p_values, strict=True) if p < CHANCE and b * mean > 0]
    if 2 * len(clear) <= seeds:
        return "nothing"
    return "won" if mean > 0 else "lost"


def best_names(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return which alternative was the best in each cell, in the words of the documents."""
    return ", ".join(_WORDS[c["best"]] for c in cells)


def told_apart(interval: Sequence[float | None], said: str, otherwise: str) -> str:
    """Return what a difference's interval says: ``said`` with more or fewer, where 0 is not in it."""
    low, high = interval
    if low is not None and low > 0:
        return said.format("more")
    return said.format("fewer") if high is not None and high < 0 else otherwise


def hardest(comparisons: Sequence[dict[str, Any]], how: str) -> dict[str, Any]:
    """Return the break-even against the attack that pooling finds hardest to beat on price, given up in this way."""

    def size(line: Mapping[str, Any]) -> float:
        return math.inf if line.get("images") is None else float(line["images"])

    lines = [c for c in comparisons if c["way"] == "pooled" and c["budget_is"] == how]
    # Who never gains as much stands behind everybody who does.
    return max(lines, key=lambda line: (line["budget"] is not None, size(line)))
