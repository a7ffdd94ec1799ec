"""The tables in the documents, written from the result files: ``python -m benchmarks._tables``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._claims import largest, verdicts
from benchmarks._document import filled

__all__ = ["DOCUMENTS", "ceiling_table", "effect_table", "matrix_table", "rewritten"]

_ROOT = Path(__file__).resolve().parents[1]
_RESULTS = _ROOT / "benchmarks" / "results"
_HEAD = (
    "| track, people | answers, regime | Q | ε quoted | reference / subgroup before | subgroup with δ | gap closed "
    "| zero-query control | p, each seed | parity certified | abuse | noise | class-agnostic | JPEG 75 | file |"
)


_CEILING = "| track, people | regime | ε | subgroup with δ | gap closed | seeds | file |"
_MATRIX = (
    "| proxy | platform | platform / proxy, weights | fidelity subgroup / reference | reference / subgroup before "
    "| subgroup with δ | gap closed | zero-query control | p | file |"
)


def effect_table(results: Path = _RESULTS) -> str:
    """Return one line per result file of the effect benchmark, as Markdown; mean ± standard deviation over seeds."""
    return _table(_HEAD, [_line(name, found) for name, found in _found(results, "effect-*.json")])


def ceiling_table(results: Path = _RESULTS) -> str:
    """Return one line per ε of every result file of the ceiling benchmark, as Markdown; means over seeds."""
    lines = []
    for name, found in _found(results, "ceiling-*.json"):
        for epsilon in sorted({row["epsilon"] for row in found["rows"]}):
            mean = found["mean"][f"epsilon-{epsilon}"]
            seeds = sum(row["epsilon"] == epsilon for row in found["rows"])
            cells = (f"{found['track']}, {found['people']}", found["regime"], epsilon, f"{mean['subgroup_after']:.3f}",
                     f"{mean['gap_closed']:.3f}", seeds, f"`{name}`")  # fmt: skip
            lines.append(_joined(cells))
    return _table(_CEILING, lines)


def matrix_table(results: Path = _RESULTS) -> str:
    """Return one line per pair of proxy and platform of the architecture matrix, as Markdown."""
    lines = []
    for name, found in _found(results, "matrix*.json"):
        for cell in found["cells"]:
            if "failed" in cell:
                size = f"{cell['platform_over_proxy']:.1f}"
                lines.append(_joined((cell["proxy"], cell["platform"], size, cell["failed"], *["–"] * 5, f"`{name}`")))
                continue
            row = cell["row"]
            cells = (
                cell["proxy"], cell["platform"], f"{cell['platform_over_proxy']:.1f}",
                f"{row['fidelity_subgroup']:.3f} / {row['fidelity_reference']:.3f}",
                f"{row['reference_before']:.3f} / {row['subgroup_before']:.3f}", f"{row['subgroup_after']:.3f}",
                "–" if row["gap_closed"] is None else f"{row['gap_closed']:.3f}", f"{row['zero_query_control']:.3f}",
                f"{cell['zero_query_mcnemar_p']:.2g}", f"`{name}`",
            )  # fmt: skip
            lines.append(_joined(cells))
    return _table(_MATRIX, lines)


def results_table(results: Path = _RESULTS) -> str:
    """Return the README's table: every track at its largest budget and ε, on final people, beside the controls."""
    lines = []
    for name, found in _found(results, "transfer-quick-*.json"):
        part = largest(found)
        if part is None:
            continue
        lines.append(
            _joined(
                (
                    found["track"],
                    f"{part['queries']}, {part['epsilon']}",
                    _pair(part["mean"], "reference_before"),
                    _pair(part["mean"], "subgroup_before"),
                    f"**{_spread(part, 'subgroup_after')}**",
                    _spread(part, "zero_query_control"),
                    _chances(part),
                    *(_pair(part["mean"], key) for key in _CONTROLS),
                    f"`{name}`",
                )
            )
        )
    return _table(_SHORT, lines)


def rows_table(results: Path = _RESULTS) -> str:
    """Return every budget and ε of every track's quick grid, on final people; mean ± standard deviation."""
    lines = []
    for name, found in _found(results, "transfer-quick-*.json"):
        for part in sorted(found["summary"], key=lambda p: (p["queries"], p["epsilon"])):
            if part["people"] != "final":
                continue
            mean = part["mean"]
            lines.append(
                _joined(
                    (
                        f"{found['track']}, {part['regime']}, {part['answers']}",
                        part["queries"],
                        part["epsilon"],
                        part["seeds"],
                        f"{mean['reference_before']:.3f} / {mean['subgroup_before']:.3f}",
                        _spread(part, "subgroup_after"),
                        _spread(part, "gap_closed"),
                        _spread(part, "zero_query_control"),
                        _chances(part),
                        f"{part['parity_certified']} of {part['seeds']}",
                        *(_pair(mean, key) for key in (*_CONTROLS, "jpeg75_control", "resize_control")),
                        f"{mean['reference_after']:.3f}",
                        f"{mean['coverage']:.3f}",
                        f"`{name}`",
                    )
                )
            )
        for cell in found["cells"]:
            if "failed" in cell:
                what = f"{cell['regime']}, {cell['answers']}, Q = {cell['queries']}, seed {cell['seed']}"
                lines.append(
                    _joined((f"{found['track']}: no action ({what}): {cell['failed']}", *["–"] * 17, f"`{name}`"))
                )
    return _table(_LONG, lines)


def repeated_table(results: Path = _RESULTS) -> str:
    """Return which cells were run twice, and what differed."""
    lines = [
        _joined((found["track"], found["repeated"]["cells"], ", ".join(found["repeated"]["differing"]) or "nothing",
                 f"`{name}`"))
        for name, found in _found(results, "transfer-quick-*.json")
        if found["repeated"] is not None
    ]  # fmt: skip
    return _table("| track | cells run twice | what differed, clocks and memory apart | file |", lines)


def claims_table(results: Path = _RESULTS) -> str:
    """Return the paper's claims with their verdicts."""
    lines = [_joined((v.claim, v.where, f"*{v.word}*", v.number, f"`{v.file}`")) for v in verdicts(results)]
    return _table("| claim | where | verdict | number | file |", lines)


def demo_table(results: Path = _RESULTS) -> str:
    """Return the README's table of the demo."""
    found = json.loads((results / "demo.json").read_text(encoding="utf-8"))
    rows = found["rows"]
    lines = [_joined((what, _spread(found, key))) for key, what in _DEMO.items()]
    lines.append(_joined(("ε that was quoted, each seed, levels of 255", ", ".join(str(r["epsilon"]) for r in rows))))
    lines.append(
        _joined(("parity certified, by verification people alone", f"{found['parity_certified']} of {len(rows)}"))
    )
    for key, what in (("pool", "the pool"), ("audit", "the audit"), ("verification", "verification")):
        paid = sorted({row[f"queries_{key}"] for row in rows})
        lines.append(_joined((f"queries for {what}", " or ".join(map(str, paid)))))
    head = f"| accuracy on {found['subgroup_test_people']} test people per group, {len(rows)} seeds | |"
    return _table(head, lines)


def bounds_table(results: Path = _RESULTS) -> str:
    """Return how often simulated certificates claimed, and claimed falsely, by each way of testing a family of ε."""
    found = json.loads((results / "bounds.json").read_text(encoding="utf-8"))
    lines = []
    for key, what in _WAYS.items():
        every, worst = found[key]["all"], found[key]["least_favourable"]
        shares = (f"{part['false_goal_rate']:.3f}" for part in (every, worst))
        counts = (every["actions"], every["claims"], every["false_parity"], every["s_bound_failures"])
        lines.append(_joined((what, *counts, *shares, "`bounds.json`")))
    return _table(
        "| way | simulated actions | parity claimed | falsely | bound on S broken | success rate claimed falsely, all "
        "| least favourable | file |",
        lines,
    )


#: The ways a family of ε may be tested, as the benchmark of the bounds names them.
_WAYS = {
    "largest_first": "largest ε first, one exact test of both groups (ours)",
    "two_bounds": "largest ε first, two bounds that must not overlap",
    "smallest_first": "smallest ε first, on until one passes",
}
#: The README's lines about the demo, by the key of the row.
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
_SHORT = (
    "| track | Q, ε | reference | subgroup | with δ | zero-query δ | p, each seed | noise | one δ for all "
    "| proxy's class | abuse | file |"
)
_LONG = (
    "| track, regime, answers | Q | ε | seeds | reference / subgroup before | subgroup with δ | gap closed "
    "| zero-query control | p, each seed | parity certified | noise | class-agnostic | proxy's class | abuse | JPEG 75 "
    "| resize | reference with δ | coverage | file |"
)
#: Every document, and what stands between the marks of each name in it.
DOCUMENTS: dict[str, dict[str, Callable[[Path], str]]] = {
    "docs/effect.md": {"effect": effect_table, "ceiling": ceiling_table, "matrix": matrix_table},
    "docs/RESULTS.md": {"claims": claims_table, "rows": rows_table, "repeated": repeated_table, "bounds": bounds_table},
    "README.md": {"results": results_table, "demo": demo_table},
}


def rewritten(name: str, document: str, results: Path = _RESULTS) -> str:
    """Return the document of this name with the tables between their marks written anew.

    Raises
    ------
    ConfigError
        If a mark is missing.
    """
    return filled(document, {mark: table(results) for mark, table in DOCUMENTS[name].items()})


def _spread(part: Mapping[str, Any], key: str) -> str:
    mean, spread = part["mean"], part["standard_deviation"]
    return f"{mean[key]:.3f} ± {spread[key]:.3f}" if key in spread else _pair(mean, key)


def _pair(mean: Mapping[str, float], key: str) -> str:
    return f"{mean[key]:.3f}" if key in mean else "–"


def _chances(part: Mapping[str, Any]) -> str:
    return ", ".join(f"{p:.2g}" for p in part["zero_query_mcnemar_p"])


def _found(results: Path, pattern: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(results.glob(pattern)):
        yield path.name, json.loads(path.read_text(encoding="utf-8"))


def _older_test(found: dict[str, Any]) -> bool:
    """Whether certificates are of the format whose parity took two bounds that must not overlap."""
    return any(certificate["format"] == 1 for certificate in found.get("certificates", ()))


def _table(head: str, lines: Sequence[str]) -> str:
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *lines]) + "\n"


def _joined(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _line(name: str, found: dict[str, Any]) -> str:
    rows, mean, spread = found["rows"], found["mean"], found["standard_deviation"]

    def shown(key: str) -> str:
        return f"{mean[key]:.3f} ± {spread[key]:.3f}" if key in spread else f"{mean[key]:.3f}"

    cells = [
        f"{found['track']}, {found['people']}",
        f"{rows[0]['answers']}, {found.get('regime', rows[0]['regime'])}",
        str(rows[0]["queries"]),
        ", ".join(str(row["epsilon"]) for row in rows),
        f"{mean['reference_before']:.3f} / {mean['subgroup_before']:.3f}",
        shown("subgroup_after"),
        shown("gap_closed"),
        shown("zero_query_control"),
        ", ".join(f"{p:.2g}" for p in found["zero_query_mcnemar_p"]),
        f"{found['parity_certified']} of {len(rows)}" + (" (two bounds)" if _older_test(found) else ""),
        *(shown(key) for key in ("abuse_rate", "noise_control", "class_agnostic_control", "jpeg75_control")),
        f"`{name}`",
    ]
    return _joined(cells)


if __name__ == "__main__":
    for name in DOCUMENTS:
        path = _ROOT / name
        path.write_text(rewritten(name, path.read_text(encoding="utf-8")), encoding="utf-8")
        sys.stderr.write(f"Written: {path}\n")
