"""The paper's claims, each with the rule that decides it, the number, and the result file it comes from."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["CHANCE", "MOSTLY", "SEEDS", "Quoted", "Verdict", "over_seeds", "quoted", "spread", "verdicts"]

#: Half of the gap is "mostly"; a control is beaten in a seed where its exact McNemar test is below chance.
MOSTLY, CHANCE = 0.5, 0.05
#: Nothing is reproduced with fewer.
SEEDS = 3
#: A platform is larger than a proxy from this ratio of their weights on.
_LARGER = 4.0

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
    metrics: tuple[tuple[str, str, Literal["higher", "lower"]], ...] = (
        ("worst_group", "worst-group accuracy improves", "higher"),
        ("equal_opportunity_gap", "the equal-opportunity gap shrinks", "lower"),
        ("demographic_parity_ratio", "disparate impact shrinks (demographic-parity ratio rises)", "higher"),
    )
    for key, claim, better in metrics:
        for track in ("cifar10-resnet56", "cifar100-resnet32", "fairface-agegender", "fairface-trained"):
            yield _fairer(results, track, key, claim, better)
    for track in ("cifar10-resnet56", "digits"):
        yield _cheaper(results, track)


@dataclass(frozen=True)
class Quoted:
    """A track's largest budget, each seed at the ε that its certificate quotes, which no test person chose.

    Parameters
    ----------
    budget : int
    lines : tuple of dict
        One per seed that acted: the row, its paired test, its certificate.
    tried : int
        Seeds that were tried; one whose action stopped itself is one of them.
    others : dict of int to tuple of dict
        By the other ε of the family, smallest first: the lines of all seeds there. They decide nothing.
    """

    budget: int
    lines: tuple[Mapping[str, Any], ...]
    tried: int
    others: Mapping[int, tuple[Mapping[str, Any], ...]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The honest rows."""
        return [line["row"] for line in self.lines]

    @property
    def differences(self) -> list[float]:
        """S less that of the zero-query control, by seed."""
        return [row["subgroup_after"] - row["zero_query_control"] for row in self.rows]

    @property
    def beaten(self) -> int:
        """In how many seeds S is above the zero-query control beyond chance."""
        return _beaten(self.lines)

    @property
    def epsilons(self) -> str:
        """The ε that were quoted: one number, or each seed's."""
        found = [row["epsilon"] for row in self.rows]
        return ", ".join(map(str, dict.fromkeys(found) if len(set(found)) == 1 else found))


def quoted(record: Mapping[str, Any], people: str = "final") -> Quoted | None:
    """Return a track's largest budget at the ε that each seed's certificate quotes; the largest where none passed.

    None where no action of that budget was possible on these people.
    """
    budget = max((cell["queries"] for cell in record["cells"]), default=0)
    cells = [cell for cell in record["cells"] if cell["queries"] == budget]
    # A full grid has several regimes and answers: the first is the platform's own.
    cells = [cell for cell in cells if all(cell[k] == cells[0][k] for k in ("regime", "answers"))]
    found, every = [], []
    for cell in cells:
        lines = [line for line in cell["rows"] if line["people"] == people]
        if lines:
            every += lines
            epsilon = lines[0]["certificate"]["epsilon"] or max(line["row"]["epsilon"] for line in lines)
            found += [line for line in lines if line["row"]["epsilon"] == epsilon]
    if not found:
        return None
    family = sorted({line["row"]["epsilon"] for line in every} - {line["row"]["epsilon"] for line in found})
    others = {e: tuple(line for line in every if line["row"]["epsilon"] == e) for e in family}
    return Quoted(budget, tuple(found), len(cells), others)


def over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its two-sided 95 % interval by Student's t over seeds; without end for a single seed.

    Notes
    -----
    *Published* (Student 1908). Seeds share platform and test people, so that it says what another pool and another
    training would give on these people, where McNemar's test says what other people would give with these δ.
    """
    from scipy.stats import t

    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def spread(values: Sequence[float]) -> str:
    """Return a difference's mean with its interval over seeds, as documents show it."""
    mean, low, high = over_seeds(values)
    return f"{mean:+.3f} (one seed)" if len(values) == 1 else f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _read(results: Path, name: str) -> dict[str, Any] | None:
    path = results / f"{name}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _beaten(lines: Sequence[Mapping[str, Any]]) -> int:
    """Return in how many seeds S is above the zero-query control beyond chance."""
    return sum(
        line["zero_query_mcnemar_p"] < CHANCE and line["row"]["subgroup_after"] > line["row"]["zero_query_control"]
        for line in lines
    )


def _part(results: Path, track: str, claim: str) -> tuple[str, Quoted] | Verdict:
    """Return the file and what decides; without that, the verdict that says why there is none."""
    file = f"transfer-quick-{track}"
    record = _read(results, file)
    if record is None or "final" not in record["people"]:
        return Verdict(claim, track, "not measured", "–", f"{file}.json")
    part = quoted(record)
    if part is None:
        return Verdict(claim, track, "not", "no action was possible", f"{file}.json")
    return f"{file}.json", part


def _gap(results: Path, track: str, claim: str) -> Verdict:
    found = _part(results, track, claim)
    if isinstance(found, Verdict):
        return found
    file, part = found
    closed = [_closed(row) for row in part.rows]
    word: Word = "not"
    if len(closed) == part.tried and min(closed) >= MOSTLY:
        word = "reproduced" if _credited(part) else "partly"
    elif sum(closed) / part.tried >= MOSTLY:
        word = "partly"
    alone = statistics.fmean(map(_zero_closed, part.rows))
    smaller = "; ".join(
        f"ε = {e}: gap closed {statistics.fmean(_closed(line['row']) for line in lines):.3f}, beaten in "
        f"{_beaten(lines)}"
        for e, lines in part.others.items()
    )
    number = (
        f"gap closed {statistics.fmean(closed):.3f} (Q = {part.budget}, ε quoted: {part.epsilons}); the zero-query "
        f"control alone {alone:.3f}, beaten beyond chance in {part.beaten} of {part.tried} seeds; S − control "
        f"{spread(part.differences)}" + (f" ({smaller})" if smaller else "")
    )
    if word == "partly" and not part.beaten:
        number += ". *The gap closes as well without a query*"
    return Verdict(claim, track, word, number, file)


def _closed(row: Mapping[str, Any]) -> float:
    return float(row["gap_closed"] or 0.0)


def _zero_closed(row: Mapping[str, Any]) -> float:
    return float((row["zero_query_control"] - row["subgroup_before"]) / row["gap_before"])


def _credited(part: Quoted) -> bool:
    """Whether the action added to its control: beyond chance over people in every seed, and over seeds."""
    return part.tried >= SEEDS and part.beaten == part.tried and over_seeds(part.differences)[1] > 0


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
    # One seed reproduces nothing.
    word: Word = "partly" if moved else "not"
    return Verdict(claim, "CIFAR-10", word, number, f"{file}.json")


def _fairer(results: Path, track: str, key: str, claim: str, better: Literal["higher", "lower"]) -> Verdict:
    found = _part(results, track, claim)
    if isinstance(found, Verdict):
        return found
    file, part = found
    sign = 1 if better == "higher" else -1
    pairs = [(row[f"{key}_before"], row[f"{key}_after"]) for row in part.rows]
    gains = [sign * (after - before) for before, after in pairs]
    improved = sum(gain > 0 for gain in gains)
    word: Word = "not"
    if improved == part.tried and over_seeds(gains)[1] > 0:
        word = "reproduced" if _credited(part) else "partly"
    before, after = (statistics.fmean(pair[k] for pair in pairs) for k in (0, 1))
    number = (
        f"{before:.3f} → {after:.3f} (Q = {part.budget}, ε quoted: {part.epsilons}), better in {improved} of "
        f"{part.tried} seeds, change {spread([after - before for before, after in pairs])}; the control's S was beaten "
        f"in {part.beaten}"
    )
    return Verdict(claim, track, word, number, file)


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
    seeds = len(record["seeds"])
    word: Word = "not" if not found else "reproduced" if found == bought == len(parts) and seeds >= SEEDS else "partly"
    number = "; ".join(
        f"ε = {epsilon}: {_from(part)}, {_beyond(record['epsilons'][epsilon])}" for epsilon, part in parts
    )
    number += f" ({seeds} seed{'s' if seeds != 1 else ''})"
    return Verdict(claim, track, word, number, f"{file}.json")


def _bounded(part: Mapping[str, Any]) -> bool:
    """Whether a break-even is known, and its interval ends."""
    return part["images"] is not None and part["interval"][1] is not None


def _hardest(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the largest break-even of a pool that is credited only with what it adds to the zero-query δ."""
    lines = [c for c in result["comparisons"] if (c["way"], c["budget_is"]) == ("pooled_beyond_zero_query", "cheapest")]
    never: Mapping[str, Any] | None = next((line for line in lines if not _bounded(line)), None)
    return never or max(lines, key=lambda line: float(line["images"]))


def _bought(result: Mapping[str, Any]) -> bool:
    """Whether the pool's queries bought more right answers, and pay for those against every attack."""
    return result["on_all_test_people"]["queries_bought"] == "more right answers" and _bounded(_hardest(result))


def _beyond(result: Mapping[str, Any]) -> str:
    if not _bought(result):
        return "and nothing beyond the zero-query δ"
    return f"credited only with what it adds to the zero-query δ, from {_hardest(result)['images']:,.0f} on"


def _from(found: Mapping[str, Any]) -> str:
    against = f"the attack hardest to beat is {found['against']}"
    if found["images"] is None:
        return f"at no size ({against})"
    low, high = ("never" if end is None else f"{end:,.0f}" for end in found["interval"])
    return f"from {found['images']:,.0f} images on (95 %: {low} to {high}; {against})"
