"""`python -m benchmarks NAME [options] [--json] [--keep]`: run a benchmark and print its result; keep it where asked.

- `--keep` writes the result into benchmarks/results/. A run with other arguments than the file that is there goes into
  the folder `aside`: a smaller run must not take the place of one that documents quote.
- `--replace` keeps the result and takes that place all the same. `grid` keeps every cell in a file of its own, as soon
  as it is finished.
- `--json` prints the whole record as one JSON object.
- `NAME --help` says what else a benchmark can be asked.

`python -m benchmarks documents` writes tables and figures into the documents, from result files; it measures nothing.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks._circumstances import circumstances
from benchmarks._listing import RESULTS, listing, names
from ttca.errors import TTCAError
from ttca.proxies.runtime import wait_asleep
from ttca.streams import run_program
from ttca.terminal import Terminal

HOME = Path(__file__).resolve().parent
ERR = Terminal(stderr=True)
#: Variables that name folders.
_FOLDERS = ("TTCA_DATA", "TTCA_WEIGHTS", "TTCA_CACHE", "HOME")
#: Runs with other arguments than the result file that documents read.
ASIDE = "aside"
#: What the runner itself is asked, and no benchmark sees.
KEEP, REPLACE = "--keep", "--replace"


def usage() -> str:
    """Return what the runner can be asked, and every benchmark with a sentence and its duration on two cores."""
    return (
        f"{__doc__}\n"
        "The benchmarks, with the time that they took on two cores. A slice is what `quick` runs, from an empty\n"
        "cache; the run behind a result file may have found actions there that earlier runs had kept.\n\n"
        f"{listing()}\n"
    )


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


def without_places(arguments: Sequence[str]) -> list[str]:
    """Return arguments as anybody can give them: folders that variables name by the variable, no path of this machine.

    Parameters
    ----------
    arguments : sequence of str
    """
    folders = {name: str(Path(os.environ[name]).absolute()) for name in _FOLDERS if os.environ.get(name)}
    found = list(arguments)
    # The longest first: one folder may lie in another.
    for name, folder in sorted(folders.items(), key=lambda pair: -len(pair[1])):
        found = [re.sub(rf"(?<![^=,'\"(]){re.escape(folder)}(?=/|$|['\",)])", f"${name}", each) for each in found]
    return found


def main(argv: Sequence[str], results: Path = RESULTS) -> int:
    """Do what the command line asks; return the exit status.

    Parameters
    ----------
    argv : sequence of str
        A benchmark and its arguments, ``documents`` and its, or ``--help``.
    results : Path
        The folder where a result is kept if ``--keep`` or ``--replace`` is among the arguments.
    """
    name, *arguments = argv or ("",)
    if name in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0
    if name != "documents" and name not in names():
        sys.stderr.write(usage())
        said = f"got {name}" if name else "got none"
        ERR.print(f"Expected one of the benchmarks above or documents, {said}.", highlight=False)
        return 2
    try:
        if name == "documents":
            importlib.import_module("benchmarks._documents").main(arguments)
        else:
            _run(name, arguments, results)
    except TTCAError as error:
        ERR.print(f"{name}: {error}", highlight=False)
        return 1
    return 0


def _run(name: str, arguments: Sequence[str], results: Path) -> None:
    """Run a benchmark, print its result, and keep it where that was asked for."""
    wait_asleep()
    # Arrow's own allocator keeps the encoded photographs of a whole data set; the system's gives them back.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    replaces, keeps = REPLACE in arguments, KEEP in arguments or REPLACE in arguments
    arguments = [argument for argument in arguments if argument not in (KEEP, REPLACE)]
    began = time.perf_counter()
    module = importlib.import_module(f"benchmarks.{name}")
    # One of many long cells keeps each as soon as it is there.
    own = getattr(module, "CELLS", None)
    kept = {} if own is None else {"folder": results / own, "keeps": keeps, "replaces": replaces}
    if not {"-h", "--help"}.isdisjoint(arguments):
        sys.stdout.write(f"The runner's, for every benchmark: {KEEP}, {REPLACE} (python -m benchmarks --help).\n\n")
    result = module.main(arguments, **kept)
    seconds = time.perf_counter() - began
    arguments = without_places(arguments)
    record = {"benchmark": name, "arguments": arguments, **circumstances(HOME), "run_seconds": seconds, **result}
    # A benchmark of many cells names the file of this one.
    file = record.pop("file", name)
    if own is not None:
        ERR.print(f"{'Kept' if keeps else 'Not kept (--keep does it)'}: cells in {results / own}", highlight=False)
    elif keeps:
        path = place(results, file, arguments, replaces=replaces)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        ERR.print(f"Kept in {path}", highlight=False)
        if path.parent.name == ASIDE:
            ERR.print(
                "The result file that the documents use was made with other arguments. Use --replace to overwrite it.",
                highlight=False,
            )
    else:
        ERR.print(f"Printed and not kept: {KEEP} writes it into {results}.", highlight=False)
    if "--json" in arguments:
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        Terminal().print_json(json.dumps(result))


if __name__ == "__main__":
    run_program("benchmarks", lambda: main(sys.argv[1:]))
