"""Where in a stranger's JSON something lies: JMESPath expressions, checked at the door, and looked up safely.

Source: https://jmespath.org, a published query language for JSON.
"""

from __future__ import annotations

from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.visitor import TreeInterpreter

from ttca.errors import ConfigError
from ttca.platforms.protocols.reading import UnreadableError, excerpt

__all__ = ["check_place", "lies_at"]


def check_place(name: str, expression: object) -> None:
    """Raise a ConfigError where an option is no JMESPath expression; None is no place at all."""
    if expression is None:
        return
    try:
        if not isinstance(expression, str):
            raise ValueError("No text.")
        jmespath.compile(expression)
    except (JMESPathError, ValueError) as error:
        raise ConfigError(
            f"Expected {name} as a JMESPath expression, got {excerpt(expression)!r}: {excerpt(error)} "
            "Write it like result.items[0].name."
        ) from None


def lies_at(name: str, expression: str | None, said: object, *, keep_nulls: bool = False) -> Any:
    """Return what lies where an expression says; None where nothing does.

    Parameters
    ----------
    name : str
        The option, for the sentence.
    expression : str or None
    said : JSON value
    keep_nulls : bool
        Whether a list of places has a null where one of them holds nothing, instead of being shorter.

    Raises
    ------
    UnreadableError
        If the expression does not apply to what was said.
    """
    if expression is None:
        return None
    try:
        parsed = jmespath.compile(expression)
        return _KeepingNulls().visit(parsed.parsed, said) if keep_nulls else parsed.search(said)
    # A function of the language applied to what it was not made for, in a stranger's JSON.
    except (JMESPathError, TypeError, ValueError, AttributeError, RecursionError, ArithmeticError) as error:
        raise UnreadableError(
            f"Expected {name} at {expression!r}, got an answer to which that does not apply: {excerpt(error)}"
        ) from None


class _KeepingNulls(TreeInterpreter):
    """JMESPath whose projections keep a null where a value is not there.

    The language leaves it out: ``items[*].score`` of three items, one without a score, would be two scores.
    """

    def visit_projection(self, node: Any, value: Any) -> Any:
        """Return the right side of every element of a list, ``[*]`` or ``[]``."""
        base = self.visit(node["children"][0], value)
        return [self.visit(node["children"][1], one) for one in base] if isinstance(base, list) else None

    def visit_value_projection(self, node: Any, value: Any) -> Any:
        """Return the right side of every value of an object, ``.*``."""
        base = self.visit(node["children"][0], value)
        return [self.visit(node["children"][1], one) for one in base.values()] if isinstance(base, dict) else None

    def visit_filter_projection(self, node: Any, value: Any) -> Any:
        """Return the right side of every element that a filter lets through, ``[?…]``."""
        base, right, condition = node["children"]
        whole: Any = {**node, "children": [base, {"type": "identity", "children": []}, condition]}
        let_through = super().visit_filter_projection(whole, value)
        return None if let_through is None else [self.visit(right, one) for one in let_through]
