"""`python -m benchmarks NAME [options] [--json] [--replace]`: run a benchmark, print its result, keep it as a file."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks._circumstances import circumstances
from ttca.errors import TTCAError
from ttca.proxies.runtime import wait_asleep
from ttca.streams import run_program

HOME = Path(__file__).resolve().parent
NAMES = tuple(sorted(p.stem for p in HOME.glob("*.py") if not p.stem.startswith("_")))
ERR = Console(stderr=True)
#: Runs with other arguments than the result file that documents read.
ASIDE = "aside"


def place(results: Path, name: str, arguments: Sequence[str], *, replaces: bool) -> Path:
    """Return where a result is kept: a smaller run must not take the place of one that documents quote.

    Parameters
    ----------
    results : Path
        The folder of result files.
    name : str
        The file's, without its ending.
    arguments : sequence of str
        Of this run. Where the file is there, made with others, this run is kept in the folder ``aside``.
    replaces : bool
        Write there all the same.
    """
    path = results / f"{name}.json"
    if replaces or not path.is_file():
        return path
    before = json.loads(path.read_text(encoding="utf-8")).get("arguments", [])
    same = sorted(set(before) - {"--json"}) == sorted(set(arguments) - {"--json"})
    return path if same else results / ASIDE / path.name


def main(argv: list[str]) -> int:
    """Run a benchmark; return the exit status."""
    if argv[:1] == ["documents"]:
        importlib.import_module("benchmarks._documents").main(argv[1:])
        return 0
    if not argv or argv[0] not in NAMES:
        ERR.print(f"Expected one of the benchmarks {', '.join(NAMES)}, got {argv[:1]}.", highlight=False)
        return 2
    wait_asleep()
    # Arrow's own allocator keeps the encoded photographs of a whole data set; the system's gives them back.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    name = argv[0]
    replaces = "--replace" in argv
    argv = [argument for argument in argv if argument != "--replace"]
    module = importlib.import_module(f"benchmarks.{name}")
    try:
        result = module.main(argv[1:])
    except TTCAError as error:
        ERR.print(f"{name}: {error}", highlight=False)
        return 1
    record = {"benchmark": name, "arguments": argv[1:], **circumstances(HOME), **result}
    # A benchmark of many cells names the file of this one.
    path = place(HOME / "results", record.pop("file", name), argv[1:], replaces=replaces)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    ERR.print(f"Kept in {path.relative_to(HOME.parent)}", highlight=False)
    if path.parent.name == ASIDE:
        ERR.print(
            "The result file that the documents use was made with other arguments. Use --replace to overwrite it.",
            highlight=False,
        )
    if "--json" in argv:
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        Console().print_json(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_program("benchmarks", lambda: main(sys.argv[1:]))
