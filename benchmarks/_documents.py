"""`python -m benchmarks documents`: write tables and figures into the documents, from result files alone.

Nothing is measured here, and no benchmark writes a document.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _tables
from benchmarks._document import WIDEST, Table, filled, results
from benchmarks._figures import FIGURES, draw, is_current
from benchmarks._listing import RESULTS
from benchmarks._pages import (
    audit,
    certificates,
    collective_size,
    defences,
    evening,
    grid,
    harm,
    levers,
    members,
    members_page,
    minority,
    multiple_collectives,
    query_budget,
    two_sets,
    vendors,
    waterbirds,
    what_queries_buy,
)
from ttca.errors import ConfigError

__all__ = ["DOCUMENTS", "SHOWN", "WIDE_TABLES", "data_files", "main", "rewritten"]

_ROOT = Path(__file__).resolve().parents[1]
#: From the folder of result files to what stands between the marks of each name.
Marks = Callable[[Path], Mapping[str, str]]


def _one_by_one(**tables: Callable[[Path], str]) -> Marks:
    return lambda folder: {mark: table(folder) for mark, table in tables.items()}


def _page(pattern: str, tables: Callable[[Sequence[tuple[str, Any]]], Mapping[str, str]]) -> Marks:
    return lambda folder: tables(results(pattern, folder))


#: Every document, and what makes its tables.
DOCUMENTS: dict[str, tuple[Marks, ...]] = {
    "README.md": (_one_by_one(results=_tables.results_table),),
    "docs/RESULTS.md": (
        _one_by_one(
            claims=_tables.claims_table,
            rows=_tables.rows_table,
            controls=_tables.controls_table,
            others=_tables.others_table,
            costs=_tables.costs_table,
            commands=_tables.transfer_commands,
            repeated=_tables.repeated_table,
            bounds=_tables.bounds_table,
            slices=_tables.slices_table,
        ),
    ),
    "docs/audit.md": (_page("audit.json", audit.tables),),
    "docs/evening.md": (_page("evening.json", evening.tables),),
    "docs/recheck.md": (_page("audit.json", audit.recheck_tables),),
    "docs/certificates.md": (_page("bounds.json", certificates.tables),),
    "docs/collective_size.md": (_page("collective_size-*.json", collective_size.tables),),
    "docs/defences.md": (_page("defences-*.json", defences.tables),),
    "docs/effect.md": (
        _one_by_one(
            effect=_tables.effect_table,
            race=_tables.race_table,
            ceiling=_tables.ceiling_table,
            matrix=_tables.matrix_table,
            ablations=_tables.ablations_table,
            served=_tables.served_table,
            **{"left-out": _tables.left_out_table},
        ),
    ),
    "docs/grid.md": (grid.marks,),
    "docs/harm.md": (_page("harm-*.json", harm.tables),),
    "docs/members.md": (_page("members.json", members.tables),),
    "docs/minority.md": (_page("minority.json", minority.tables),),
    "docs/page.md": (_page("page.json", members_page.tables),),
    "docs/query_budget.md": (_page("query_budget-*.json", query_budget.tables),),
    "docs/training_time.md": (
        _page("multiple_collectives.json", multiple_collectives.tables),
        _page("levers.json", levers.tables),
        _page("two_sets.json", two_sets.tables),
    ),
    "docs/tutorial.md": (_one_by_one(demo=_tables.demo_table),),
    "docs/vendors.md": (_page("apis.json", vendors.tables),),
    "docs/waterbirds.md": (_page("waterbirds*.json", waterbirds.tables),),
    "docs/what_queries_buy.md": (_page("what_queries_buy-*.json", what_queries_buy.tables),),
}
#: Of tables that lie in a file below docs/data: the columns that the page shows, none where it only links the file.
SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "docs/RESULTS.md": {
        "claims": ("claim", "where", "verdict", "number", "S − control", "why"),
        **dict.fromkeys(("rows", "controls", "others", "costs", "bounds", "repeated", "slices"), ()),
    },
    "docs/collective_size.md": {
        "size-grid": (
            "track, people, regime",
            "takes part",
            "queries per image",
            "members",
            "S",
            "zero-query control",
            "bought",
            "the queries",
            "S if only they apply it",
        ),
        "size-unjudged": (),
        "size-participation": (),
    },
    "docs/defences.md": {
        "defences": (
            "track, people",
            "the platform",
            "reference, no δ",
            "subgroup, no δ",
            "subgroup with δ, not known",
            "subgroup with δ, asked the defended platform",
            "abuse, not known / asked it",
            "zero-query",
        ),
        **dict.fromkeys(("refusals", "fixes", "limits", "detectors", "exposure"), ()),
    },
    "docs/effect.md": {
        "effect": (
            "file",
            "reference / subgroup before",
            "ε quoted",
            "subgroup with δ",
            "zero-query control",
            "parity certified",
            "abuse",
        ),
        "race": (
            "track, seed",
            "reference / subgroup before",
            "the best recipe",
            "its worth",
            "the median recipe's",
            "what asked nothing",
            "went on",
            "regret",
            "file",
        ),
        **dict.fromkeys(("matrix", "ablations", "served", "left-out", "ceiling"), ()),
    },
    "docs/harm.md": {
        "harm-abuse": (
            "track, people",
            "ε",
            "before",
            "S",
            "misuse: without δ",
            "misuse: zero-query",
            "misuse: δ",
            "misuse: δ, most like class",
        ),
        **dict.fromkeys(("harm-classes", "harm-choice", "harm-others", "harm-fairness"), ()),
    },
    "docs/minority.md": {f"minority-{what}": () for what in ("all", "changed", "posters", "methods")},
    "docs/query_budget.md": {
        "findings": (
            "track, people",
            "hardest to beat on price",
            "pooling cheaper from",
            "cheaper at an equal outcome from",
            "gain less Square's",
            "parity certified",
            "S − zero-query δ",
            "the queries bought",
        ),
        **dict.fromkeys(("attacks", "ways", "break_even", "days", "controls"), ()),
    },
    "docs/training_time.md": {
        "levers-whom": (
            "what is done",
            "accuracy, taking part",
            "accuracy, not taking part",
            "accuracy, reference",
            "abuse",
            "records changed",
            "EqOd",
        ),
        **dict.fromkeys(("levers", "references", "bounds", "city", "trained", "epsilon", "timing"), ()),
    },
    "docs/waterbirds.md": {f"waterbirds-{what}": () for what in ("all", "changed", "posters")},
    "docs/what_queries_buy.md": {
        "queries-curve": (
            "track, people",
            "regime",
            "Q",
            "S",
            "zero-query control",
            "own control",
            "bought",
            "p (b/c), each seed",
            "the queries",
        ),
        "queries-poor": (),
    },
}
#: Tables that are too wide for a document, which links them: what makes each from the folder of result files.
WIDE_TABLES: dict[str, Callable[[Path], str]] = {"docs/grid.csv": grid.table_file}
#: Pictures that no document shows, by the result file they are made of.
_MORE = {"minority.json": minority.figures, "multiple_collectives.json": multiple_collectives.figures}


def rewritten(name: str, document: str, folder: Path = RESULTS) -> str:
    """Return the document of this name with the tables between their marks made anew from a folder of result files.

    Raises
    ------
    ConfigError
        If a mark is missing, or a table that lies in no file is too wide.
    """
    for marks in DOCUMENTS[name]:
        document = filled(document, {mark: _shown(name, mark, part) for mark, part in marks(folder).items()})
    return document


def _shown(name: str, mark: str, part: str) -> str:
    """Return what a document shows between two marks."""
    if not isinstance(part, Table):
        return part
    if (columns := SHOWN.get(name, {}).get(mark)) is not None:
        return part.short(columns, _data_file(name, mark))
    if len(part.head) > WIDEST:
        raise ConfigError(f"Expected at most {WIDEST} columns at {mark}, got {len(part.head)}. Choose some in SHOWN.")
    return part


def data_files(name: str, folder: Path = RESULTS) -> dict[str, str]:
    """Return the CSV files that the document of this name links, by their places in the repository."""
    return {
        f"docs/{_data_file(name, mark)}": part.csv()
        for marks in DOCUMENTS[name]
        for mark, part in marks(folder).items()
        if mark in SHOWN.get(name, {}) and isinstance(part, Table) and part.lines
    }


def _data_file(name: str, mark: str) -> str:
    """Return where a table of a document lies, seen from the document: its mark says which of the page's it is."""
    page = Path(name).stem.lower()
    first, _, rest = mark.partition("-")
    what = rest if rest and first in page else mark
    return f"data/{page}.csv" if what == page else f"data/{page}-{what}.csv"


def main(argv: Sequence[str], root: Path = _ROOT) -> None:
    """Write the documents below ``root`` anew from the result files below it, and say what was written.

    Parameters
    ----------
    argv : sequence of str
        See ``--help``.
    root : Path
        Where the documents and ``benchmarks/results`` are.

    Raises
    ------
    ConfigError
        If a document lacks a mark: nothing is written where no table was.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks documents", description=__doc__)
    names = {Path(name).stem: name for name in DOCUMENTS}
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default all")
    parser.add_argument("--redraw", action="store_true", help="also draw the figures whose result files are the same")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw there the pictures that no page shows")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"Expected documents of {', '.join(names)}, got {', '.join(unknown)}.")
    folder, figures = root / "benchmarks" / "results", root / "docs" / "figures"
    for name in options.names or names:
        path = root / names[name]
        before = path.read_text(encoding="utf-8")
        after = rewritten(names[name], before, folder)
        if after != before:
            path.write_text(after, encoding="utf-8")
            _say(path)
        for place, whole in data_files(names[name], folder).items():
            _write(root / place, whole)
    for name, make in WIDE_TABLES.items():
        _write(root / name, make(folder))
    for name in FIGURES:
        if options.redraw or not is_current(name, folder, figures):
            _say(draw(name, folder, figures))
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for file, drawn in _MORE.items():
            for _, record in results(file, folder):
                for name, figure in drawn(record).items():
                    path = options.pictures / f"{name}.png"
                    # Without matplotlib's version in it, the same numbers give the same bytes.
                    figure.savefig(path, dpi=150, metadata={"Software": None})
                    _say(path)


def _write(path: Path, text: str) -> None:
    """Write a file that is another than it was, and say so."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        _say(path)


def _say(path: Path) -> None:
    sys.stderr.write(f"Written: {path}\n")
