"""The part of the page on training time that sets three levers beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks._document import MISSING, table
from benchmarks.levers import LEVERS

__all__ = ["tables"]

_COLUMNS = {
    "error": "error",
    "worst_group_accuracy": "worst group's accuracy",
    "equal_opportunity_difference": "equal opportunity gap",
    "equalised_odds_difference_mean": "EqOd",
    "demographic_parity_ratio": "parity ratio",
    "subgroup_accuracy": "subgroup's accuracy",
    "reference_accuracy": "reference's accuracy",
    "true_positive_rate_gap": "TPR, reference less subgroup",
}
_WHOM = {
    "taking_part_accuracy": "accuracy, taking part",
    "not_taking_part_accuracy": "accuracy, not taking part",
    "reference_accuracy": "accuracy, reference",
    "abuse": "abuse",
    "abuse_by_reference": "abuse by the reference",
    "changed_records": "records changed",
    "changed_at_test": "changed later",
    "hours_moved": "hours moved, mean",
}


def _cell(row: Mapping[str, Any], key: str) -> str:
    if key not in row["mean"]:
        return "–"
    mean, spread = row["mean"][key], row["standard_deviation"][key]
    if key.startswith("changed"):
        return f"{mean:.0f}"
    if key == "hours_moved":
        return f"{mean:.1f}"
    return f"{mean:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def tables(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return what stands between the page's marks, from result files and their names; mean ± deviation over seeds."""
    records = [kept for _, kept in found]
    return {
        "levers": table(
            ("lever", "α", "take part", *_COLUMNS.values()), (line for kept in records for line in _by_alpha(kept))
        ),
        "levers-whom": table(
            ("what is done", *_WHOM.values(), "EqOd"), (line for kept in records for line in _whom(kept))
        ),
        "levers-people": "\n\n".join(map(_people, records)) or MISSING,
    }


def _by_alpha(kept: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    yield ["none", "0", "0", *(_cell(kept["base"], key) for key in _COLUMNS)]
    for lever in LEVERS:
        for alpha, entry in kept["by_alpha"].items():
            row = entry["rows"][lever]
            yield [lever, alpha, f"{entry['members']:.0f}", *(_cell(row, key) for key in _COLUMNS)]


def _whom(kept: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Yield whom each lever helps, what it costs and what it does to the wrong people, at one α."""
    keys = (*_WHOM, "equalised_odds_difference_mean")
    for name, row in kept["by_alpha"][kept["settings"]["shown_alpha"]]["rows"].items():
        yield [name, *(_cell(row, key) for key in keys)]


def _people(kept: Mapping[str, Any]) -> str:
    seeds, people = kept["seeds"], kept["people"]
    return (
        f"At α = {kept['settings']['shown_alpha']}. "
        f"Seeds {seeds[0]} to {seeds[-1]}: splits of the same {kept['rows']} people, {people['train_subgroup']} women "
        f"of {people['train']} training and {people['test_subgroup']} of {people['test']} test people. The signal is "
        f"{' or '.join(map(str, kept['signal_hours']))} hours, the perturbation's budget {kept['budget_hours']} hours "
        "and the class of worker. `benchmarks/results/levers.json` holds the rest."
    )
