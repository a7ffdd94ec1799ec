"""The paper's claims, each with the rule that decides it, the number, and the result file it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["CHANCE", "MOSTLY", "Verdict", "verdicts"]

#: Half of the gap is "mostly"; a control is beaten where its exact McNemar test is below chance in every seed.
MOSTLY, CHANCE = 0.5, 0.05
#: A platform is larger than a proxy from this ratio of their weights on.
_LARGER = 4.0

#: What names a group of cells that differ in their seed.
_CELL = ("regime", "answers", "queries")

Word = Literal["reproduced", "partly", "not", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """One claim on one track or platform: what was claimed, how it came out, and where the number stands."""

    claim: str
    where: str
    word: Word
    number: str
    file: str


def verdicts(results: Path) -> Iterator[Verdict]:
    """Yield every claim with its verdict; what has no result file is *not measured*.

    Parameters
    ----------
    results : Path
        The folder of result files.
    """
    for track, name in (
        ("cifar10-resnet56", "CIFAR-10"),
        ("cifar100-resnet32", "CIFAR-100"),
        ("fairface-agegender", "FairFace"),
        ("fairface-trained", "FairFace, one race kept rare"),
    ):
        yield _gap(results, track, f"the gap mostly closes on {name}")
    yield _larger(results)
    for key, claim, better in (
        ("worst_group", "worst-group accuracy improves", "higher"),
        ("equal_opportunity_gap", "the equal-opportunity gap shrinks", "lower"),
        ("demographic_parity_ratio", "disparate impact shrinks (demographic-parity ratio rises)", "higher"),
    ):
        for track in ("cifar10-resnet56", "cifar100-resnet32", "fairface-agegender", "fairface-trained"):
            yield _fairer(results, track, key, claim, better)
    for track in ("cifar10-resnet56", "digits"):
        yield _cheaper(results, track)


def largest(record: Mapping[str, Any], people: str = "final") -> dict[str, Any] | None:
    """Return the summary of a track's largest budget and ε on these people.

    None where they were not measured, or no action of that budget was possible.
    """
    budget = max((cell["queries"] for cell in record["cells"]), default=0)
    found = [part for part in record["summary"] if part["people"] == people and part["queries"] == budget]
    return max(found, key=lambda part: int(part["epsilon"]), default=None)


def _read(results: Path, name: str) -> dict[str, Any] | None:
    path = results / f"{name}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _lines(record: Mapping[str, Any], part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows behind a summary, each with its paired test."""
    return [
        line
        for cell in record["cells"]
        for line in cell["rows"]
        if all(cell[k] == part[k] for k in _CELL)
        and line["people"] == part["people"]
        and line["row"]["epsilon"] == part["epsilon"]
    ]


def _tried(record: Mapping[str, Any], part: Mapping[str, Any]) -> int:
    """Return how many seeds were tried; one whose action stopped itself is one of them."""
    return sum(all(cell[k] == part[k] for k in _CELL) for cell in record["cells"])


def _beaten(lines: Sequence[Mapping[str, Any]]) -> int:
    """Return in how many seeds S is above the zero-query control beyond chance."""
    return sum(
        line["zero_query_mcnemar_p"] < CHANCE and line["row"]["subgroup_after"] > line["row"]["zero_query_control"]
        for line in lines
    )


def _part(results: Path, track: str, claim: str) -> tuple[str, dict[str, Any], dict[str, Any]] | Verdict:
    """Return file, record and the summary that decides; without one, the verdict that says why there is none."""
    file = f"transfer-quick-{track}"
    record = _read(results, file)
    if record is None or "final" not in record["people"]:
        return Verdict(claim, track, "not measured", "–", f"{file}.json")
    part = largest(record)
    if part is None:
        return Verdict(claim, track, "not", "no action was possible", f"{file}.json")
    return f"{file}.json", record, part


def _gap(results: Path, track: str, claim: str) -> Verdict:
    found = _part(results, track, claim)
    if isinstance(found, Verdict):
        return found
    file, record, part = found
    lines, tried = _lines(record, part), _tried(record, part)
    closed = [line["row"]["gap_closed"] or 0.0 for line in lines]
    beaten = _beaten(lines)
    word: Word = "not"
    if len(closed) == tried and min(closed) >= MOSTLY:
        word = "reproduced" if beaten == tried else "partly"
    elif sum(closed) / tried >= MOSTLY:
        word = "partly"
    number = (
        f"gap closed {sum(closed) / len(closed):.3f} (ε = {part['epsilon']}, Q = {part['queries']}); the zero-query "
        f"control alone {_zero_closed(part):.3f}, beaten beyond chance in {beaten} of {tried} seeds "
        f"({_smaller(record, part)})"
    )
    return Verdict(claim, track, word, number, file)


def _smaller(record: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """Return how often the control is beaten at the family's smaller ε, which decide nothing."""
    others = [
        p
        for p in record["summary"]
        if all(p[k] == part[k] for k in (*_CELL, "people")) and p["epsilon"] < part["epsilon"]
    ]
    said = []
    for other in sorted(others, key=lambda p: -int(p["epsilon"])):
        lines = _lines(record, other)
        closed = sum(line["row"]["gap_closed"] or 0.0 for line in lines) / len(lines)
        said.append(f"ε = {other['epsilon']}: gap closed {closed:.3f}, {_beaten(lines)} of {_tried(record, other)}")
    return "; ".join(said) or "no smaller ε"


def _zero_closed(part: Mapping[str, Any]) -> float:
    mean = part["mean"]
    return float((mean["zero_query_control"] - mean["subgroup_before"]) / mean["gap_before"])


def _larger(results: Path) -> Verdict:
    claim, file = "small proxies move larger platforms", "matrix-q1000-e8"
    record = _read(results, file)
    if record is None:
        return Verdict(claim, "CIFAR-10", "not measured", "–", f"{file}.json")
    cells = [c for c in record["cells"] if c["platform_over_proxy"] >= _LARGER]
    moved = [c for c in cells if "row" in c and (c["row"]["gap_closed"] or 0.0) >= MOSTLY]
    beaten = _beaten(moved)
    number = (
        f"{len(moved)} of {len(cells)} pairs whose platform has at least {_LARGER:.0f} times the proxy's weights close "
        f"half of the gap or more, {beaten} of them beyond the zero-query control (one seed, dev-test people)"
    )
    word: Word = "not" if not moved else "reproduced" if beaten == len(cells) else "partly"
    return Verdict(claim, "CIFAR-10", word, number, f"{file}.json")


def _fairer(results: Path, track: str, key: str, claim: str, better: str) -> Verdict:
    found = _part(results, track, claim)
    if isinstance(found, Verdict):
        return found
    file, record, part = found
    lines, tried = _lines(record, part), _tried(record, part)
    pairs = [(line["row"][f"{key}_before"], line["row"][f"{key}_after"]) for line in lines]
    improved = sum((after > before) == (better == "higher") and after != before for before, after in pairs)
    word, beaten = _all_or_some(improved, tried), _beaten(lines)
    if word == "reproduced" and beaten < tried:
        word = "partly"
    before, after = (sum(pair[k] for pair in pairs) / len(pairs) for k in (0, 1))
    if (after > before) != (better == "higher") or after == before:
        word = "not"
    number = (
        f"{before:.3f} → {after:.3f} (ε = {part['epsilon']}, Q = {part['queries']}), better in {improved} of {tried} "
        f"seeds; the control was beaten in {beaten}"
    )
    return Verdict(claim, track, word, number, file)


def _all_or_some(improved: int, of: int) -> Word:
    if improved == of:
        return "reproduced"
    return "partly" if improved else "not"


def _cheaper(results: Path, track: str) -> Verdict:
    claim = "pooling is cheaper than each member attacking alone"
    file = f"query_budget-{track}-final"
    record = _read(results, file)
    if record is None:
        return Verdict(claim, track, "not measured", "–", f"{file}.json")
    parts: Sequence[tuple[str, Mapping[str, Any]]] = sorted(record["break_even"].items(), key=lambda item: int(item[0]))
    found = sum(_bounded(part) for _, part in parts)
    # The pool is credited with what it adds to a δ that costs nothing, too.
    bought = sum(_bought(record["epsilons"][epsilon]) for epsilon, _ in parts)
    word: Word = "not" if not found else "reproduced" if found == bought == len(parts) else "partly"
    number = "; ".join(f"ε = {epsilon}: {_from(part)}" for epsilon, part in parts)
    seeds = len(record["seeds"])
    number += f"; beyond the zero-query δ at {bought} of {len(parts)} ε ({seeds} seed{'s' if seeds != 1 else ''})"
    return Verdict(claim, track, word, number, f"{file}.json")


def _bounded(part: Mapping[str, Any]) -> bool:
    """Whether a break-even is known, and its interval ends."""
    return part["images"] is not None and part["interval"][1] is not None


def _bought(result: Mapping[str, Any]) -> bool:
    """Whether the pool's queries bought more right answers, and pay for those against every attack."""
    beyond = [
        line
        for line in result["comparisons"]
        if line["way"] == "pooled_beyond_zero_query" and line["budget_is"] == "cheapest"
    ]
    return result["on_all_test_people"]["queries_bought"] == "more right answers" and all(map(_bounded, beyond))


def _from(found: Mapping[str, Any]) -> str:
    against = f"the attack hardest to beat is {found['against']}"
    if found["images"] is None:
        return f"at no size ({against})"
    low, high = ("never" if end is None else f"{end:,.0f}" for end in found["interval"])
    return f"from {found['images']:,.0f} images on (95 %: {low} to {high}; {against})"
