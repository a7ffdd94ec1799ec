"""The paper's claims, each with the rule that decides it, the number, why, and the result file it comes from."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks._credit import CHANCE
from benchmarks._document import results as found_files
from benchmarks._document import within
from benchmarks._grid import TRACKS_OF_GRID, planned
from benchmarks._kept_rows import Paired, change_span, closed_span, over_seeds, paired, shortened
from benchmarks._tracks import TRACKS
from ttca.intervals import Span

__all__ = ["MOSTLY", "SEEDS", "Quoted", "Verdict", "quoted", "tested", "verdicts"]

#: Half of the gap is "mostly".
MOSTLY = 0.5
#: Nothing is reproduced with fewer.
SEEDS = 3
#: A platform is larger than a proxy from this ratio of their weights on.
_LARGER = 4.0
#: The settings that say how long a proxy trains, the control's too.
_LENGTHS = ("public_epochs", "epochs", "steps")
#: The fairness metrics: a row's key, the claim, and which way is better.
_METRICS = (
    ("worst_group", "worst-group accuracy improves", "higher"),
    ("equal_opportunity_gap", "the equal-opportunity gap shrinks", "lower"),
    ("demographic_parity_ratio", "disparate impact shrinks (demographic-parity ratio rises)", "higher"),
)
#: Where kept rows cannot say how far chance over people reaches.
_NO_INTERVAL = "no interval over people in the kept rows"

#: How a claim calls what a track shows.
_NAMES = {
    "cifar10-resnet56": "CIFAR-10",
    "cifar100-resnet32": "CIFAR-100",
    "fairface-agegender": "FairFace",
    "fairface-trained": "FairFace, one race kept rare",
}

Word = Literal["reproduced", "partly", "not", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """One claim on one track or platform: how it came out, and in short sentences why.

    Parameters
    ----------
    claim, where : str
    word : {"reproduced", "partly", "not", "not measured"}
    number : str
        With its interval.
    lead : str
        S less the one control of these rows, with its interval.
    why : str
        What keeps it from being reproduced; empty where nothing does.
    shortened : str
        "yes" where settings were shortened.
    file : str
    """

    claim: str
    where: str
    word: Word
    number: str
    lead: str
    why: str
    shortened: str
    file: str


def verdicts(results: Path) -> Iterator[Verdict]:
    """Yield every claim with its verdict; what has no result file is *not measured*.

    Parameters
    ----------
    results : Path
        The folder of result files.
    """
    chosen = [(track, _part(results, track)) for track in _NAMES]
    by_itself = list(_by_itself(results))
    for track, part in (*chosen, *by_itself):
        yield _gap(results, track, part)
    yield _larger(results)
    for metric in _METRICS:
        for track, part in (*chosen, *by_itself):
            yield _fairer(results, track, part, metric)
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
    """

    budget: int
    lines: tuple[Mapping[str, Any], ...]
    tried: int

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The honest rows."""
        return [line["row"] for line in self.lines]

    @property
    def control(self) -> tuple[Paired, ...]:
        """S against the zero-query control, by seed."""
        return tuple(map(tested, self.lines))

    @property
    def lead(self) -> Span | None:
        """Where S less that control lies, over persons and seeds."""
        return over_seeds(self.differences, [each.span for each in self.control], least=-1, most=1)

    @property
    def differences(self) -> list[float]:
        """S less that of the zero-query control, by seed."""
        return [row["subgroup_after"] - row["zero_query_control"] for row in self.rows]

    @property
    def beaten(self) -> int:
        """In how many seeds S is above the zero-query control beyond chance."""
        tests = zip(self.control, self.differences, strict=True)
        return sum(test.p < CHANCE and difference > 0 for test, difference in tests)

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
    found = []
    for cell in cells:
        lines = [line for line in cell["rows"] if line["people"] == people]
        if lines:
            epsilon = lines[0]["certificate"]["epsilon"] or max(line["row"]["epsilon"] for line in lines)
            found += [line for line in lines if line["row"]["epsilon"] == epsilon]
    return Quoted(budget, tuple(found), len(cells)) if found else None


def tested(line: Mapping[str, Any]) -> Paired:
    """Return S against the zero-query control of one line: a row and, of protocol 1, the p beside it."""
    return paired(line["row"], line.get("zero_query_mcnemar_p"))


def _read(results: Path, name: str) -> dict[str, Any] | None:
    path = results / f"{name}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class _Part:
    """What a track's claims are judged by.

    Parameters
    ----------
    file : str
        Where it stands, without ``.json``.
    how : str
        What is told of it beside track, budget and ε.
    record : dict, optional
        The run, with settings that may have been shortened. None where the action chose by itself: then its control
        had every length that it is given, and no shorter one.
    quoted : Quoted, optional
        None where no seed acted, or nothing was measured.
    tried : int
        Seeds.
    """

    file: str
    how: str = ""
    record: Mapping[str, Any] | None = None
    quoted: Quoted | None = None
    tried: int = 0


def _part(results: Path, track: str) -> _Part:
    """Return the quick grid's final people: settings that were made for the track by hand."""
    file = f"transfer-quick-{track}"
    record = _read(results, file)
    if record is None or "final" not in record["people"]:
        return _Part(file)
    return _Part(file, record=record, quoted=quoted(record), tried=len(record["cells"]))


def _by_itself(results: Path) -> Iterator[tuple[str, _Part]]:
    """Yield each track of which the grid measured final people: nothing was set by hand.

    The main cells count; where a track has none of them, those of the first other budget that was run.
    """
    seeds: dict[str, list[Mapping[str, Any]]] = {}
    budget: dict[str, int] = {}
    for cell in planned(tuple(dict.fromkeys((*TRACKS_OF_GRID, *TRACKS))), final=True):
        record = _read(results, f"grid/{cell.name}")
        if record is None or (cell.regime, cell.answers) != ("own", "richest"):
            continue
        if budget.setdefault(cell.track, cell.queries) == cell.queries:
            # A row of a seed where nothing won is no action's.
            rows = [line for line in record["cell"]["rows"] if line["row"]["recipe"] != "nothing"]
            about = {"regime": cell.regime, "answers": record["cell"]["answers"]}
            seeds.setdefault(cell.track, []).append({"queries": cell.queries, "rows": rows, **about})
    for track, cells in seeds.items():
        file = f"grid/{track}-own-richest-q{cells[0]['queries']}-s*-final"
        yield track, _Part(file, ", nothing set by hand", quoted=quoted({"cells": cells}), tried=len(cells))


def _undecided(claim: str, track: str, part: _Part) -> Verdict:
    """Return the verdict where no seed acted."""
    word: Word = "not" if part.tried else "not measured"
    why = ("nothing was proposed" if part.how else "no action was possible") if part.tried else "–"
    return Verdict(claim, f"{track}{part.how}", word, "–", "–", why, "–", f"{part.file}.json")


# --- what the queries are credited with ----------------------------------------------------------------------


def _uncredited(results: Path, record: Mapping[str, Any] | None, part: Quoted) -> str:
    """Return why the queries are not credited with what was gained; empty where they are."""
    acted, lead = len(part.lines), part.lead
    if acted < part.tried:
        return f"{part.tried - acted} of {part.tried} seeds stopped themselves"
    if (apart := _apart(lead)) is not None:
        return apart
    if part.tried < SEEDS:
        return f"fewer than {SEEDS} seeds"
    if record is not None and (longer := _outrun(results, record, part)) is not None:
        return longer
    if part.beaten < part.tried:
        return f"the control is beaten beyond chance in {part.beaten} of {part.tried} seeds"
    return ""


def _apart(lead: Span | None) -> str | None:
    """Return in words that S does not stand above its control; None where it does."""
    if lead is None:
        return f"not compared with the control: {_NO_INTERVAL}"
    if lead.high <= 0:
        return "below the control"
    if lead.low <= 0:
        return f"not distinguishable from the control: up to {lead.high:+.3f} possible"
    return None


def _outrun(results: Path, record: Mapping[str, Any], part: Quoted) -> str | None:
    """Return in words that a control with more training reached as much as S, on dev-test people; None if none did.

    Notes
    -----
    *Ours*. The control of shortened settings may be weak because it trained little. Whatever another kept file of the
    same track, regime and ε gave to a control that trained longer counts, for it asked nothing either.
    """
    row = part.rows[0]
    ours = [r["subgroup_after"] for r in _on_dev_test(results, record, part.budget, row["epsilon"])]
    used = record["settings"].get(row["regime"], record["settings"])
    theirs = [
        statistics.fmean(r["zero_query_control"] for r in same)
        for _, other in found_files(f"effect-{record['track']}-{row['regime']}-*.json", results)
        if other["people"] == "dev-test" and _longer(other["settings"], used)
        if (same := [r for r in other["rows"] if (r["regime"], r["epsilon"]) == (row["regime"], row["epsilon"])])
    ]
    if not ours or not theirs or max(theirs) < statistics.fmean(ours):
        return None
    return (
        f"a control that trained longer reached {max(theirs):.3f} where the action had {statistics.fmean(ours):.3f} "
        "(dev-test)"
    )


def _on_dev_test(results: Path, record: Mapping[str, Any], budget: int, epsilon: int) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of dev-test people of the same cells, or those of the quick run of the same settings."""
    quick = _read(results, f"quick-{record['track']}")
    cells = [line for cell in record["cells"] if cell["queries"] == budget for line in cell["rows"]]
    lines = [line for line in cells if line["people"] == "dev-test"]
    for line in lines or (quick["cells"] if quick is not None else ()):
        if (line["row"]["queries"], line["row"]["epsilon"]) == (budget, epsilon):
            yield line["row"]


def _longer(settings: Mapping[str, Any], than: Mapping[str, Any]) -> bool:
    known = [(settings[key], than[key]) for key in _LENGTHS if key in settings and key in than]
    return any(a > b for a, b in known) and all(a >= b for a, b in known)


# --- the claims ----------------------------------------------------------------------------------------------


def _beside(part: Quoted) -> tuple[str, str]:
    """Return S less the control with its interval, and whether settings were shortened."""
    return within(statistics.fmean(part.differences), part.lead, "+"), "yes" if any(map(shortened, part.rows)) else "no"


def _at(track: str, part: Quoted) -> str:
    return f"{track}, Q = {part.budget}, ε = {part.epsilons}"


def _gap(results: Path, track: str, found: _Part) -> Verdict:
    claim, part, file = f"the gap mostly closes on {_NAMES.get(track, track)}", found.quoted, f"{found.file}.json"
    if part is None:
        return _undecided(claim, track, found)
    where = _at(track, part) + found.how
    lead, short = _beside(part)
    closed = [float(row["gap_closed"]) for row in part.rows if row["gap_closed"] is not None]
    span = over_seeds(closed, [closed_span(row) for row in part.rows]) if len(closed) == len(part.rows) else None
    if span is None:
        return Verdict(claim, where, "not", "–", lead, "no gap was shown", short, file)
    why = _uncredited(results, found.record, part)
    word: Word = "partly"
    # A seed that stopped itself has closed nothing.
    if sum(closed) / part.tried < MOSTLY:
        word, why = "not", _also("less than half of the gap", why)
    elif span.low < MOSTLY:
        why = _also("less than half of the gap is possible", why)
    elif not why:
        word = "reproduced"
    number = f"gap closed {within(statistics.fmean(closed), span)}"
    return Verdict(claim, where, word, number, lead, why, short, file)


def _also(first: str, more: str) -> str:
    return f"{first}; {more}" if more else first


def _larger(results: Path) -> Verdict:
    claim, file = "small proxies move larger platforms", "matrix-q1000-e8"
    record = _read(results, file)
    if record is None:
        return _undecided(claim, "CIFAR-10", _Part(file))
    cells = [c for c in record["cells"] if c["platform_over_proxy"] >= _LARGER]
    spans = [(c, closed_span(c["row"])) for c in cells if "row" in c]
    moved = [c for c, span in spans if span is not None and span.low >= MOSTLY]
    leads = [tested(c).span for c in moved]
    beyond = sum(lead is not None and lead.low > 0 for lead in leads)
    number = f"{len(moved)} of {len(cells)} pairs close half of the gap or more, each with its whole interval"
    lead = f"above 0 in {beyond} of these"
    short = "yes" if any(shortened(c["row"]) for c in cells if "row" in c) else "no"
    # One seed reproduces nothing.
    word: Word = "partly" if moved else "not"
    why = "one seed, over people alone; dev-test people"
    where = f"CIFAR-10, platform ≥ {_LARGER:.0f} × proxy, Q = {record.get('queries', '–')}"
    return Verdict(claim, where, word, number, lead, why, short, f"{file}.json")


def _fairer(results: Path, track: str, found: _Part, metric: tuple[str, str, str]) -> Verdict:
    key, claim, better = metric
    part, file = found.quoted, f"{found.file}.json"
    if part is None:
        return _undecided(claim, track, found)
    lead, short = _beside(part)
    pairs = [(row[f"{key}_before"], row[f"{key}_after"]) for row in part.rows]
    changes = [after - before for before, after in pairs]
    span = over_seeds(changes, [change_span(row, key) for row in part.rows])
    improved = sum((change > 0) == (better == "higher") and change != 0 for change in changes)
    before, after = (statistics.fmean(pair[k] for pair in pairs) for k in (0, 1))
    number = f"{before:.3f} → {after:.3f}: {within(statistics.fmean(changes), span, '+')}"
    why = _uncredited(results, found.record, part)
    word: Word = "partly"
    if improved < part.tried:
        word, why = "not", _also(f"better in {improved} of {part.tried} seeds", why)
    elif span is None:
        why = _also(_NO_INTERVAL, why)
    elif span.low <= 0 <= span.high:
        word, why = "not", _also("no change is possible", why)
    elif not why:
        word = "reproduced"
    return Verdict(claim, _at(track, part) + found.how, word, number, lead, why, short, file)


def _cheaper(results: Path, track: str) -> Verdict:
    claim = "pooling is cheaper than each member attacking alone"
    file = f"query_budget-{track}-final"
    record = _read(results, file)
    if record is None:
        return _undecided(claim, track, _Part(file))
    ends: Sequence[tuple[str, Mapping[str, Any]]] = sorted(record["break_even"].items(), key=lambda item: int(item[0]))
    # The cells are those of the quick grid, whose file says how long they trained.
    grid = _read(results, f"transfer-quick-{track}")
    numbers, leads, whys, found, short = [], [], ["break-evens' intervals leave seeds out"], False, False
    for epsilon, end in ends:
        result = record["epsilons"][epsilon]
        part = Quoted(record["queries"], tuple(result["cells"]), len(record["seeds"]))
        found = found or _bounded(end)
        short = short or any(map(shortened, part.rows))
        numbers.append(f"ε = {epsilon}: {_from(end)}")
        leads.append(f"ε = {epsilon}: {_beside(part)[0]}")
        whys.append(f"ε = {epsilon}: {_uncredited(results, grid, part) or _credited_from(result)}")
    # Of no break-even is it known what another pool would have given.
    word: Word = "partly" if found else "not"
    number, lead, why = ("; ".join(part) for part in (numbers, leads, whys))
    where = f"{track}, Q = {record['queries']}"
    return Verdict(claim, where, word, number, lead, why, "yes" if short else "no", f"{file}.json")


def _bounded(part: Mapping[str, Any]) -> bool:
    """Whether a break-even is known, and its interval ends."""
    return part["images"] is not None and part["interval"][1] is not None


def _credited_from(result: Mapping[str, Any]) -> str:
    """Return from which size on a pool pays that is credited only with what it adds to the zero-query δ."""
    lines = [c for c in result["comparisons"] if (c["way"], c["budget_is"]) == ("pooled_beyond_zero_query", "cheapest")]
    if not all(map(_bounded, lines)):
        return "never cheaper when credited only with S − control"
    return f"credited only with S − control, from {max(float(line['images']) for line in lines):,.0f} images on"


def _from(found: Mapping[str, Any]) -> str:
    if found["images"] is None:
        return f"at no size, against {found['against']}"
    low, high = ("never" if end is None else f"{end:,.0f}" for end in found["interval"])
    return f"from {found['images']:,.0f} images on ({low} to {high}, over people alone), against {found['against']}"
