"""`python -m benchmarks NAME [options] [--json]`: run one benchmark, print its result, keep it as a file."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from rich.console import Console

from benchmarks._circumstances import circumstances
from proxies.runtime import wait_asleep
from ttca.errors import TTCAError

HOME = Path(__file__).resolve().parent
NAMES = tuple(sorted(p.stem for p in HOME.glob("*.py") if not p.stem.startswith("_")))
ERR = Console(stderr=True)


def main(argv: list[str]) -> int:
    """Run a benchmark; return the exit status."""
    if not argv or argv[0] not in NAMES:
        ERR.print(f"Expected a benchmark among {', '.join(NAMES)}, got {argv[:1]}.", highlight=False)
        return 2
    wait_asleep()
    # Arrow's own allocator keeps the encoded photographs of a whole data set; the system's gives them back.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    name = argv[0]
    module = importlib.import_module(f"benchmarks.{name}")
    try:
        result = module.main(argv[1:])
    except TTCAError as error:
        ERR.print(f"{name}: {error}", highlight=False)
        return 1
    record = {"benchmark": name, "arguments": argv[1:], **circumstances(HOME), **result}
    # A benchmark of many cells names the file of this one.
    path = HOME / "results" / f"{record.pop('file', name)}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    ERR.print(f"Kept in {path.relative_to(HOME.parent)}", highlight=False)
    if "--json" in argv:
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        Console().print_json(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
