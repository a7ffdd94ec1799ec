"""What the benchmarks are called, what each asks in one sentence, and how long it took: read, never imported."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "durations", "listing", "names", "sentence"]

_HOME = Path(__file__).resolve().parent
#: The result files.
RESULTS = _HOME / "results"
_CORES = 2
#: Before the runner took the time of every run, files held ``seconds``; here those of a part alone.
_PART_ALONE = frozenset({"chaos", "multiple_collectives"})


def names() -> tuple[str, ...]:
    """Return every benchmark's name, in the order of the alphabet."""
    return tuple(sorted(path.stem for path in _HOME.glob("*.py") if not path.stem.startswith("_")))


def sentence(name: str) -> str:
    """Return the first line of a benchmark's docstring: what it asks."""
    said = ast.get_docstring(ast.parse((_HOME / f"{name}.py").read_text(encoding="utf-8")))
    return (said or "").partition("\n")[0]


def durations(results: Path = RESULTS) -> dict[str, str]:
    """Return how long each benchmark took on two cores: its slice, and the newest whole run that says so.

    Parameters
    ----------
    results : Path
        The folder of result files.

    Returns
    -------
    dict of str to str
        "not measured" where no file of two cores says anything.
    """
    records = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    here = {file: record for file, record in records.items() if record["hardware"]["cores"] == _CORES}
    slices = here.get("quick.json", {}).get("slices", {})
    found = {}
    for name in names():
        said = [f"slice {_time(slices[name]['seconds'])}"] if "failed" not in slices.get(name, {"failed": None}) else []
        timed = [
            (record["date"], file, seconds)
            for file, record in here.items()
            if record["benchmark"] == name and (seconds := _seconds(record)) is not None
        ]
        if timed:
            _, file, seconds = max(timed)
            said.append(f"{_time(seconds)} for {file}")
        found[name] = ", ".join(said) or "not measured"
    return found


def listing(results: Path = RESULTS) -> str:
    """Return every benchmark with its sentence and duration, two lines each."""
    took = durations(results)
    return "\n".join(f"  {name} ({took[name]})\n      {sentence(name)}" for name in names())


def _seconds(record: Mapping[str, Any]) -> float | None:
    """Return how long a whole run took; None where its file does not say."""
    own = None if record["benchmark"] in _PART_ALONE else record.get("seconds")
    seconds: float | None = record.get("run_seconds", own)
    return seconds


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
