"""The tables of the documents that show several benchmarks, and of those that no other page shows."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._claims import quoted, tested, verdicts
from benchmarks._document import commands, table, told, within
from benchmarks._document import results as found
from benchmarks._kept_rows import closed_span, over_seeds, paired, queries, rate_span, shortened
from benchmarks._listing import RESULTS
from ttca.race_record import NOTHING

__all__ = [
    "ablations_table",
    "bounds_table",
    "ceiling_table",
    "claims_table",
    "controls_table",
    "costs_table",
    "demo_table",
    "effect_table",
    "left_out_table",
    "matrix_table",
    "others_table",
    "race_table",
    "repeated_table",
    "results_table",
    "rows_table",
    "served_table",
    "slices_table",
    "transfer_commands",
]

_EFFECT = (
    "file", "track, people", "answers, regime", "Q", "ε quoted", "reference / subgroup before", "subgroup with δ",
    "gap closed", "zero-query control", "p (b/c), each seed", "parity certified", "abuse", "noise", "class-agnostic",
    "JPEG 75",
)  # fmt: skip
_ABLATIONS = ("idea", "against", "subgroup with δ, each seed", "mean gain", "won/lost", "p", "file")
_CEILING = ("track, people", "regime", "ε", "subgroup with δ", "gap closed", "seeds", "file")
_RACE = (
    "track, seed", "ε", "reference / subgroup before", "the best recipe", "its worth", "the median recipe's",
    "what asked nothing", "went on", "its worth, refined by nothing", "regret", "queries", "file",
)  # fmt: skip
_MATRIX = (
    "proxy", "platform", "platform / proxy, weights", "fidelity subgroup / reference", "reference / subgroup before",
    "subgroup with δ", "gap closed", "zero-query control", "p (b/c)", "file",
)  # fmt: skip


def effect_table(results: Path = RESULTS) -> str:
    """Return one line per result file of the effect benchmark, as Markdown; mean ± standard deviation over seeds."""
    return table(_EFFECT, [_line(name, record) for name, record in found("effect-*.json", results)])


def ablations_table(results: Path = RESULTS) -> str:
    """Return one line per idea of every result file of the ablations that compares it with another, as Markdown."""
    lines = []
    for name, record in found("ablations-*.json", results):
        for idea, said in record["ideas"].items():
            if "against" in said:
                pairs = zip(said["won"], said["lost"], strict=True)
                lines.append(
                    (idea, said["against"], ", ".join(f"{s:.3f}" for s in said["subgroup_after"]),
                     f"{said['mean_gain']:+.3f}", ", ".join(f"{won}/{lost}" for won, lost in pairs),
                     ", ".join(f"{p:.2g}" for p in said["mcnemar_p"]), f"`{name}`")
                )  # fmt: skip
    return table(_ABLATIONS, lines)


def ceiling_table(results: Path = RESULTS) -> str:
    """Return one line per ε of every result file of the ceiling benchmark, as Markdown; means over seeds."""
    lines = []
    for name, record in found("ceiling-*.json", results):
        for epsilon in sorted({row["epsilon"] for row in record["rows"]}):
            mean = record["mean"][f"epsilon-{epsilon}"]
            seeds = sum(row["epsilon"] == epsilon for row in record["rows"])
            lines.append(
                (f"{record['track']}, {record['people']}", record["regime"], epsilon, f"{mean['subgroup_after']:.3f}",
                 f"{mean['gap_closed']:.3f}" if "gap_closed" in mean else "–", seeds, f"`{name}`")
            )  # fmt: skip
    return table(_CEILING, lines)


def race_table(results: Path = RESULTS) -> str:
    """Return one line per world of every result file of the race benchmark, as Markdown."""
    lines = []
    for name, record in found("race*.json", results):
        for cell in record["cells"]:
            worth = cell["candidates"]
            free = [share for recipe, share in worth.items() if recipe.startswith("zero-query")]
            lines.append(
                (f"{cell['track']}, {cell['seed']}", cell["epsilon"],
                 f"{cell['reference']:.3f} / {cell['nothing']:.3f}", cell["best"],
                 f"{cell['best_of_portfolio']:.3f}", f"{cell['median_of_portfolio']:.3f}",
                 f"{max(free):.3f}" if free else "–", cell["recipe"], f"{cell['combined']:.3f}",
                 f"{cell['regret']:.3f}", cell["race"]["queries"], f"`{name}`")
            )  # fmt: skip
    return table(_RACE, lines)


def matrix_table(results: Path = RESULTS) -> str:
    """Return one line per pair of proxy and platform of the architecture matrix, as Markdown."""
    lines: list[Sequence[object]] = []
    for name, record in found("matrix*.json", results):
        for cell in record["cells"]:
            if "failed" in cell:
                size = f"{cell['platform_over_proxy']:.1f}"
                lines.append((cell["proxy"], cell["platform"], size, cell["failed"], *["–"] * 5, f"`{name}`"))
                continue
            row = cell["row"]
            lines.append(
                (
                    cell["proxy"], cell["platform"], f"{cell['platform_over_proxy']:.1f}",
                    f"{row['fidelity_subgroup']:.3f} / {row['fidelity_reference']:.3f}",
                    f"{row['reference_before']:.3f} / {row['subgroup_before']:.3f}", f"{row['subgroup_after']:.3f}",
                    "–" if row["gap_closed"] is None else f"{row['gap_closed']:.3f}",
                    f"{row['zero_query_control']:.3f}", tested(cell).told, f"`{name}`",
                )
            )  # fmt: skip
    return table(_MATRIX, lines)


def served_table(results: Path = RESULTS) -> str:
    """Return how often platforms that others made are right about pool people of each group, as Markdown."""
    lines: list[Sequence[object]] = []
    for name, record in found("tracks.json", results):
        groups = [("fairface-faceapi", record["fairface-faceapi"]["by_race"]),
                  ("digits-thirdparty", record["digits-thirdparty"])]  # fmt: skip
        for track, served in groups:
            for group, one in sorted(served.items(), key=lambda item: float(item[1]["accuracy"])):
                low, high = one["bounds"]
                rate = f"{one['accuracy']:.3f} ({low:.3f} to {high:.3f})"
                same = f"{one['commonest_answer']:.3f}"
                lines.append((track, group, one["right"], one["people"], rate, same, f"`{name}`"))
    return table(("track", "group", "right", "pool people", "accuracy", "commonest answer", "file"), lines)


def left_out_table(results: Path = RESULTS) -> str:
    """Return how many people of each role are left out because an earlier role has their photograph, as Markdown."""
    lines = [
        (data, who, count, f"`{name}`")
        for name, record in found("tracks.json", results)
        for data, roles in record["left_out"].items()
        for who, count in roles.items()
    ]
    return table(("data set", "role", "people left out", "file"), lines)


def results_table(results: Path = RESULTS) -> str:
    """Return the README's table: every track's largest budget at the ε that certificates quote, on final people."""
    lines = []
    for name, record in found("transfer-quick-*.json", results):
        part = quoted(record)
        if part is None:
            continue
        rows = part.rows
        lines.append(
            (
                record["track"],
                _mean(rows, "reference_before"),
                _mean(rows, "subgroup_before"),
                f"**{_rate(rows, 'subgroup_after').replace(' to ', '–')}**",
                _rate(rows, "zero_query_control").replace(" to ", "–"),
                _mean(rows, "abuse_rate"),
                f"`{name}`",
            )
        )
    return table(_SHORT, lines)


def rows_table(results: Path = RESULTS) -> str:
    """Return the effect at every budget and ε of every track's quick grid, on final people, with intervals."""
    lines: list[Sequence[object]] = []
    for name, who, group in _groups(results):
        rows = [line["row"] for line in group]
        closed = [row["gap_closed"] for row in rows if row["gap_closed"] is not None]
        # Where a seed's gap may be none there is no gap closed.
        span = over_seeds(closed, [closed_span(row) for row in rows]) if len(closed) == len(rows) else None
        lines.append(
            (
                *who,
                f"{_mean(rows, 'reference_before')} / {_mean(rows, 'subgroup_before')}",
                _rate(rows, "subgroup_after"),
                "–" if span is None else within(statistics.fmean(closed), span),
                f"{sum(bool(row['parity_certified']) for row in rows)} of {len(rows)}",
                _either(rows),
                f"`{name}`",
            )
        )
    for name, record in found("transfer-quick-*.json", results):
        for cell in record["cells"]:
            if "failed" in cell:
                what = f"{cell['regime']}, {cell['answers']}, Q = {cell['queries']}, seed {cell['seed']}"
                blank = ["–"] * (len(_ROWS) - 2)
                lines.append((f"{record['track']}: no action ({what}): {cell['failed']}", *blank, f"`{name}`"))
    return table(_ROWS, lines)


def controls_table(results: Path = RESULTS) -> str:
    """Return the zero-query control of every line of :func:`rows_table`, and S less it, tested on the same people."""
    lines: list[Sequence[object]] = []
    for name, who, group in _groups(results):
        rows, tests = [line["row"] for line in group], [tested(line) for line in group]
        differences = [row["subgroup_after"] - row["zero_query_control"] for row in rows]
        lead = over_seeds(differences, [test.span for test in tests], least=-1, most=1)
        lines.append(
            (
                *who,
                _rate(rows, "zero_query_control"),
                within(statistics.fmean(differences), lead, "+"),
                ", ".join(test.told for test in tests),
                _either(rows),
                f"`{name}`",
            )
        )
    return table(_AGAINST, lines)


def others_table(results: Path = RESULTS) -> str:
    """Return the other controls of every line of :func:`rows_table`; means over seeds."""
    lines = []
    for name, (who, budget, epsilon), group in _groups(results):
        rows = [line["row"] for line in group]
        lossy = " / ".join(_mean(rows, key) for key in ("jpeg75_control", "resize_control"))
        shown = (*(_mean(rows, key) for key in _CONTROLS), lossy, _mean(rows, "reference_after"))
        lines.append((who, f"{budget}, {epsilon}", *shown, f"`{name}`"))
    return table(_OTHERS, lines)


def costs_table(results: Path = RESULTS) -> str:
    """Return what each budget of every track's quick grid cost, and the share answered."""
    lines: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for name, (who, budget, _), group in _groups(results):
        lines.setdefault((who, budget, name), []).extend(line["row"] for line in group)
    return table(
        _COSTS,
        [
            (who, budget, *(_paid(rows, purpose) for purpose in _PURPOSES), _mean(rows, "coverage"), f"`{name}`")
            for (who, budget, name), rows in lines.items()
        ],
    )


def _groups(results: Path) -> Iterator[tuple[str, tuple[str, int, int], list[Mapping[str, Any]]]]:
    """Yield file, who with budget and ε, and the lines of all seeds, of every track's quick grid, on final people."""
    for name, record in found("transfer-quick-*.json", results):
        grouped: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for cell in record["cells"]:
            for line in cell["rows"]:
                if line["people"] == "final":
                    key = (cell["regime"], cell["answers"], cell["queries"], line["row"]["epsilon"])
                    grouped.setdefault(key, []).append(line)
        for (regime, answers, budget, epsilon), group in sorted(grouped.items(), key=lambda item: item[0]):
            yield name, (f"{record['track']}, {regime}, {answers}", budget, epsilon), group


def repeated_table(results: Path = RESULTS) -> str:
    """Return which cells were run twice, and what differed."""
    lines = [
        (record["track"], record["repeated"]["cells"], ", ".join(record["repeated"]["differing"]) or "nothing",
         f"`{name}`")
        for name, record in found("transfer-quick-*.json", results)
        if record["repeated"] is not None
    ]  # fmt: skip
    return table(("track", "cells run twice", "what differed, clocks and memory apart", "file"), lines)


def claims_table(results: Path = RESULTS) -> str:
    """Return the paper's claims with their verdicts."""
    lines = [
        (v.claim, v.where, f"*{v.word}*", v.number, v.lead, v.why or "–", v.shortened, f"`{v.file}`")
        for v in verdicts(results)
    ]
    return table(("claim", "where", "verdict", "number", "S − control", "why", "shortened", "file"), lines)


def transfer_commands(results: Path = RESULTS) -> str:
    """Return the commands that made the quick grids."""
    return commands(found("transfer-quick-*.json", results))


def demo_table(results: Path = RESULTS) -> str:
    """Return the tutorial's table of the demo."""
    record = json.loads((results / "demo.json").read_text(encoding="utf-8"))
    rows = record["rows"]
    lines = [(what, told(row[key] for row in rows)) for key, what in _DEMO.items()]
    lines.append(("ε that was quoted, each seed, levels of 255", ", ".join(str(r["epsilon"]) for r in rows)))
    lines.append(("parity certified, by verification people alone", f"{record['parity_certified']} of {len(rows)}"))
    for key, what in (("pool", "the pool"), ("baseline", "the baseline"), ("verification", "verification")):
        paid = sorted({queries(row, key) for row in rows})
        lines.append((f"queries for {what}", " or ".join(map(str, paid))))
    return table((f"accuracy on {record['subgroup_test_people']} test people per group, {len(rows)} seeds", ""), lines)


def bounds_table(results: Path = RESULTS) -> str:
    """Return how often simulated certificates claimed falsely, by how they stop, and by ways that break their word."""
    record = json.loads((results / "bounds.json").read_text(encoding="utf-8"))
    lines: list[Sequence[object]] = []
    for stopping in ("curtailed", "anytime", "hybrid"):
        rows = [row for row in record["false_claims"] if row["stopping"] == stopping]
        worst = max(rows, key=lambda row: float(row["rate"]))
        broken = f"{max(row['bound_rate'] for row in rows):.4f}"
        counts = (f"a certificate, {stopping}", len(rows), worst["actions"])
        lines.append((*counts, f"{worst['rate']:.4f}", f"{worst['p']:.2g}", broken, "`bounds.json`"))
    lines += [
        (f"*{row['way']}*", 1, row["actions"], f"{row['rate']:.4f}", f"{row['p']:.2g}", "–", "`bounds.json`")
        for row in record["wrong_ways"]
    ]
    head = ("way", "configurations", "actions in each", "claimed falsely, at most", "p of more than .05",
            "bound on S broken, at most", "file")  # fmt: skip
    return table(head, lines)


def slices_table(results: Path = RESULTS) -> str:
    """Return what the slice of every benchmark took on one machine, from an empty cache, and which failed."""
    lines: list[Sequence[object]] = []
    for name, record in found("quick.json", results):
        lines += [
            (
                slice_,
                f"`{shlex.join(part['arguments'])}`" if part["arguments"] else "",
                part.get("failed", f"{part['seconds']:.0f}"),
                f"`{name}`",
            )
            for slice_, part in record["slices"].items()
        ]
        lines.append(("all", "", f"{record['seconds']:.0f}", f"`{name}`"))
    return table(("slice", "arguments", "seconds", "file"), lines)


#: The tutorial's lines about the demo, by the key of the row.
_DEMO = {
    "reference_before": "reference group, as it is",
    "subgroup_before": "subgroup, as it is",
    "subgroup_after": "**subgroup with δ of the true class**",
    "noise_control": "with random noise of the same ε",
    "zero_query_control": "with the δ of a proxy that asked nothing (true classes of the same people)",
    "proxy_class_control": "with the δ of the class the proxy picks, not knowing the truth",
    "class_agnostic_control": "with one δ for all classes",
    "abuse_rate": "abuse: δ of a wrong class makes the platform say that class",
    "gap_closed": "gap closed (more than 1: the subgroup ends above the reference, for it brings its true class along)",
}
_CONTROLS = ("noise_control", "class_agnostic_control", "proxy_class_control", "abuse_rate")
_SHORT = ("platform", "reference", "subgroup", "with δ", "δ that asked nothing", "abuse", "file")
_PURPOSES = ("pool", "baseline", "verification")
_WHO = ("track, regime, answers", "Q", "ε")
_ROWS = (*_WHO, "reference / subgroup before", "subgroup with δ", "gap closed", "parity certified",
         "shortened", "file")  # fmt: skip
_AGAINST = (*_WHO, "zero-query control", "S − control", "p (b/c), each seed", "shortened", "file")
_OTHERS = ("track, regime, answers", "Q, ε", "noise", "class-agnostic", "proxy's class", "abuse", "JPEG 75 / resize",
           "reference with δ", "file")  # fmt: skip
_COSTS = ("track, regime, answers", "Q", *_PURPOSES, "coverage", "file")


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    values = [row[key] for row in rows if row[key] is not None]
    return f"{statistics.fmean(values):.3f}" if values else "–"


def _rate(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """Return a rate's mean with its interval over persons and seeds."""
    values = [row[key] for row in rows]
    return within(statistics.fmean(values), over_seeds(values, [rate_span(r, key) for r in rows], least=0, most=1))


def _either(rows: Sequence[Mapping[str, Any]]) -> str:
    return "yes" if any(map(shortened, rows)) else "no"


def _paid(rows: Sequence[Mapping[str, Any]], purpose: str) -> str:
    """Return what the members paid for something; from the least to the most where seeds differ."""
    paid = [queries(row, purpose) for row in rows]
    return f"{min(paid):,}" if min(paid) == max(paid) else f"{min(paid):,}–{max(paid):,}"


def _older_test(record: Mapping[str, Any]) -> bool:
    """Whether certificates are of the format whose parity took two bounds that must not overlap."""
    return any(made["format"] == 1 for made in record.get("certificates", ()) if made is not None)


def _line(name: str, record: Mapping[str, Any]) -> Sequence[object]:
    rows = record["rows"]
    # Where doing nothing won a race, nothing is compared.
    tests = [
        "–" if row.get("recipe") == NOTHING else paired(row, p).told
        for row, p in zip(rows, record["zero_query_mcnemar_p"], strict=True)
    ]
    return (
        f"`{name}`",
        f"{record['track']}, {record['people']}",
        f"{rows[0]['answers']}, {record.get('regime', rows[0]['regime'])}",
        rows[0]["queries"],
        ", ".join(str(row["epsilon"]) for row in rows),
        f"{_mean(rows, 'reference_before')} / {_mean(rows, 'subgroup_before')}",
        *(told(row[key] for row in rows) for key in ("subgroup_after", "gap_closed", "zero_query_control")),
        ", ".join(tests),
        f"{record['parity_certified']} of {len(rows)}" + (" (two bounds)" if _older_test(record) else ""),
        *(
            told(row[key] for row in rows)
            for key in ("abuse_rate", "noise_control", "class_agnostic_control", "jpeg75_control")
        ),
    )
