"""Tests of the house itself: short parameter lists, short classes, simple functions, one meaning for every name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
MOST_PARAMETERS, LONGEST_CLASS, MOST_COMPLEX = 8, 400, 20
#: Of what may have more than the most.
WIDEST = 17
#: What may have more parameters, and why.
WIDE = {
    "ttca/action.py:CollectiveAction.__init__": "the front door: every part of an action, each with a default",
}
FOLDERS = ("ttca", "proxies", "attacks")
#: The commands are functions named as people type them, and call the functions of the same name.
COMMANDS = ("ttca/cli.py", "ttca/commands/")
#: What several modules may define, and why.
DOUBLED = {
    "routes": "the hook of a protocol that is served",
    "Model": "to an attack a differentiable function, to a platform of this process a callable on levels",
    "Send": "a literal of each protocol's own ways to send an image",
    "Floats": "an array of what numpy computes with, a word of every file that computes",
    "Integers": "an array of whole numbers, likewise",
    "Counts": "an array of counted people, likewise",
    "Flags": "an array of yes and no, likewise",
    "T": "a type variable",
}


@cache
def parsed(path: Path) -> ast.Module:
    """Return what stands in a file, read once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


def files() -> Iterator[tuple[str, ast.Module]]:
    """Yield every source file of the library by its path, parsed; each once, under its place in the repository."""
    for folder in FOLDERS:
        for path in sorted((HOME / folder).rglob("*.py")):
            name = path.relative_to(HOME).as_posix()
            if not name.startswith(("ttca/proxies/", "ttca/attacks/")):
                yield name, parsed(path)


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function with the names of what it stands in."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inside + node.name, node
            yield from functions(node, f"{inside}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{inside}{node.name}.")
        else:
            yield from functions(node, inside)


def test_no_function_takes_many_parameters() -> None:
    """Outside the command line no function has more than eight parameters; those listed with a reason have 17."""
    wide, widths = set(), [0]
    for name, tree in files():
        for where, function in functions(tree):
            given = function.args
            count = len([*given.posonlyargs, *given.args, *given.kwonlyargs])
            count -= bool(given.args and given.args[0].arg in ("self", "cls"))
            if count > MOST_PARAMETERS and not name.startswith(COMMANDS):
                wide.add(f"{name}:{where}")
                widths.append(count)
    assert wide == set(WIDE)
    assert len(WIDE) <= 3
    assert max(widths) <= WIDEST


def test_no_class_is_long() -> None:
    """No class has more than 400 lines."""
    long = {
        f"{name}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, tree in files()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= LONGEST_CLASS
    }
    assert long == {}


def test_no_function_is_complex() -> None:
    """No function has a cyclomatic complexity above 20, as ruff counts it."""
    words = ("check", "--isolated", "--select", "C901", "--config", f"lint.mccabe.max-complexity={MOST_COMPLEX}")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words, *FOLDERS], cwd=HOME, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def imports(tree: ast.Module) -> set[str]:
    """Return the modules that are imported while a module is loaded: not in functions, not for type checkers."""
    found: set[str] = set()
    nodes: list[ast.stmt] = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            nodes += [*node.body, *node.orelse]
        elif isinstance(node, ast.Try):
            nodes += [*node.body, *node.orelse, *node.finalbody, *(s for h in node.handlers for s in h.body)]
    return found


def test_imports_go_in_no_circle() -> None:
    """No module, once loaded, needs itself by way of others."""
    graph: dict[str, set[str]] = {}
    for name, tree in files():
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        graph[module if module.startswith("ttca") else f"ttca.{module}"] = imports(tree)
    graph = {module: {n for n in needs if n in graph and n != module} for module, needs in graph.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way[way.index(module) :], module))
        if module not in done:
            for needed in sorted(graph[module]):
                visit(needed, (*way, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield the names that a module assigns on its own level, with what they are given."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.value


def defined(tree: ast.Module) -> set[str]:
    """Return the names of the classes and functions of a module that have no underscore."""
    nodes = (n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in nodes if not node.name.startswith("_")}


def test_no_name_means_two_things() -> None:
    """No two modules define the same public class, function or alias, but for those listed with a reason."""
    where: dict[str, list[str]] = {}
    for name, tree in files():
        aliases = {a for a, _ in assigned(tree) if a[0].isupper() and not a[1:].isupper()}
        for word in defined(tree) | aliases if not name.startswith(COMMANDS) else ():
            where.setdefault(word, []).append(name)
    assert {word for word, modules in where.items() if len(modules) > 1} == set(DOUBLED)


def test_public_names_are_listed() -> None:
    """Every class and function without underscore stands in its module's ``__all__``, and nothing with one."""
    for name, tree in files():
        if name == COMMANDS[0]:
            continue
        given = dict(assigned(tree)).get("__all__")
        listed = set() if given is None else set(ast.literal_eval(given))
        assert defined(tree) <= listed, name
        assert not {word for word in listed if word.startswith("_")}, name


def test_pickles_are_opened_in_one_place() -> None:
    """Only the process that converts weights calls torch.load, of tensors alone; nothing else here reads a pickle."""
    opened = []
    for folder in (*FOLDERS, "benchmarks"):
        for path in sorted((HOME / folder).rglob("*.py")):
            if not re.search(r"pickle|dill|torch\.load|torch\.hub|joblib\.load", path.read_text(encoding="utf-8")):
                continue
            for node in ast.walk(parsed(path)):
                words = ast.unparse(node) if isinstance(node, ast.Call | ast.Import | ast.ImportFrom) else ""
                if re.match(r"torch\.load\(|torch\.hub|joblib\.load|(import|from) c?(pickle|dill)\b", words) or (
                    "allow_pickle=True" in words
                ):
                    opened.append((path.resolve().relative_to(HOME).as_posix(), words))
    assert len(set(opened)) == 1
    place, call = opened[0]
    assert place == "proxies/conversion.py"
    assert call.endswith("weights_only=True)")
