"""How long is an organizer's evening, from 300 photographs to a certificate, and what ends it where there is no gap?

Run as ``python -m benchmarks evening --json``. It types the commands of docs/evening.md, each as a program, against
the served reader of ``ttca demo photographs``, once per seed, and once per seed where everybody has the same camera.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks._circumstances import commit
from benchmarks._listing import RESULTS
from ttca.errors import ActionError
from ttca.kept import load_json
from ttca.templates import toml

__all__ = ["QUICK", "filled_in", "main", "steps"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = (
    "--seeds", "1", "--photographs", "120", "--longest", "300", "--size", "32", "--set", "recipe='plain'", "steps=10",
    "epochs=10",
)  # fmt: skip
PAGE = Path(__file__).resolve().parents[1] / "docs" / "evening.md"
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What the page says of its world, for other worlds to say something else.
_FOLDER, _URL, _SIZE = "evening", "http://127.0.0.1:8124", "224"


def main(argv: list[str]) -> dict[str, Any]:
    """Run the page once per seed and world; print nothing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks evening", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--photographs", type=int, default=300)
    parser.add_argument("--longest", type=int, default=4000, help="pixels of the longest side")
    parser.add_argument("--size", type=int, default=224, help="pixels that the reader takes")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="keys of [action], as TOML")
    parser.add_argument("--known", action="store_true", help="take what was kept of the same world; run the rest alone")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    known = _known(parser, options, RESULTS / "evening.json") if options.known else {}
    evenings = [
        known.get((seed, gap)) or _evening(seed, gap, options) for gap in (True, False) for seed in range(options.seeds)
    ]
    with_gap = [one for one in evenings if one["gap"]]
    return {
        "photographs": options.photographs,
        "size": options.size,
        "evenings": evenings,
        "certified": sum(one["certified"] for one in with_gap),
        "seeds": options.seeds,
        "longest_minutes": max(one["seconds"] for one in evenings) / 60,
        # Where there is no gap: nobody who verifies was asked.
        "stopped_before_verification": sum(not one["verified"] for one in evenings if not one["gap"]),
    }


def _known(
    parser: argparse.ArgumentParser, options: argparse.Namespace, file: Path
) -> dict[tuple[int, bool], dict[str, Any]]:
    """Return the evenings of a kept result, by seed and world; none where that was made of another world."""
    record = load_json(file) if file.is_file() else {"arguments": []}
    before = parser.parse_args(record["arguments"])
    if any(getattr(before, name) != getattr(options, name) for name in ("photographs", "longest", "size", "set")):
        return {}
    # Each says at which commit it was measured.
    return {(one["seed"], one["gap"]): {"commit": record["commit"], **one} for one in record.get("evenings", ())}


def steps() -> Iterator[tuple[str, str, str]]:
    """Yield language, remark and text of every block of the page."""
    for found in _BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        yield found[1], found[2].strip(), found[3]


def filled_in(text: str, keys: str) -> str:
    """Return an action file in which keys are set as somebody sets them in an editor.

    Parameters
    ----------
    text : str
        As ``ttca init`` writes it: every key stands there, perhaps behind a mark.
    keys : str
        TOML: tables with keys and values.

    Raises
    ------
    ActionError
        If a key does not stand in its table.
    """
    for table, values in tomllib.loads(keys).items():
        before, head, rest = text.partition(f"[{table}]\n")
        part, mark, after = rest.partition("\n[")
        for key, value in values.items():
            there = re.search(rf"(?m)^(# )?{key} = .*$", part)
            if there is None:
                raise ActionError(f"Expected the key {key} in [{table}], got none. Correct the page.")
            part = f"{part[: there.start()]}{key} = {toml(value)}{part[there.end() :]}"
        text = before + head + part + mark + after
    return text


def _evening(seed: int, gap: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Return what one evening took and how it ended."""
    changes = {_SIZE: str(options.size)}
    took: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        said: dict[str, str] = {}
        for language, remark, text in steps():
            if remark == "background":
                more = ["--seed", seed, "--photographs", options.photographs, "--longest", options.longest]
                more += ["--size", options.size, "--port", 0, *([] if gap else ["--no-gap"])]
                changes[_URL] = stack.enter_context(_served([*_words(text), *map(str, more)], home))
            elif language == "toml":
                file = home / remark.removeprefix("into=")
                keys = _changed(text, changes) + "\n"
                own = "\n".join(["[action]", f"seed = {seed}", *options.set]) + "\n"
                file.write_text(filled_in(filled_in(file.read_text(encoding="utf-8"), keys), own), encoding="utf-8")
            elif language == "sh":
                for command in text.splitlines():
                    words = [_picture(home, word) for word in _words(_changed(command, changes))]
                    began = time.perf_counter()
                    said[words[1]] = _typed(words, home)
                    took[words[1]] = took.get(words[1], 0.0) + time.perf_counter() - began
        action = home / _FOLDER
        certificate = load_json(action / "certificate.json") if (action / "certificate.json").is_file() else None
        audit = load_json(action / "audit.json")
        return {
            "seed": seed,
            "gap": gap,
            "commit": commit(PAGE.parents[1]),
            "seconds": sum(took.values()),
            "steps": took,
            "audit": audit["conclusion"],
            "verified": certificate is not None,
            "certified": (action / "perturbations.safetensors").is_file(),
            "race": load_json(action / "race.json").get("result") if (action / "race.json").is_file() else None,
            "end": said["run"].strip().splitlines()[-12:],
        }


def _changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        text = re.sub(rf"(?<![\w.]){re.escape(old)}(?![\w.])", new, text)
    return text


def _words(command: str) -> list[str]:
    return shlex.split(command)


def _picture(home: Path, word: str) -> str:
    """Return the path of the page's photograph, which another seed has in another class's folder."""
    path = home / word
    if "photos/" not in word or path.exists():
        return word
    return str(next(iter(sorted((home / _FOLDER / "photos").rglob(path.name)))).relative_to(home))


def _environment() -> dict[str, str]:
    """Return an environment in which `ttca` and `python` are those of this interpreter, with weights of nobody's."""
    root = str(Path(__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def _program(words: Sequence[str]) -> list[str]:
    """Return what runs a command: `ttca` as a module, so that it is this repository's."""
    return [sys.executable, "-m", "ttca", *words[1:]] if words[0] == "ttca" else [sys.executable, *words[1:]]


def _typed(words: Sequence[str], home: Path) -> str:
    done = subprocess.run(
        _program(words), cwd=home, env=_environment(), capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise ActionError(f"Expected `{shlex.join(words)}` to end well, got {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout + done.stderr


@contextlib.contextmanager
def _served(words: Sequence[str], home: Path) -> Iterator[str]:
    """Run the page's server and yield its address."""
    server = subprocess.Popen(
        _program(words), cwd=home, env=_environment(), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        if server.stdout is None:  # pragma: no cover - asked for above
            raise ActionError("Expected the server's output, got none.")
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.communicate(timeout=30)
