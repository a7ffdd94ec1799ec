"""Results as figures of matplotlib, for notebooks: a row, a certificate, an audit, a race."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ttca.conditions import CONTROLS
from ttca.errors import MissingExtraError
from ttca.report.pictures import THEMES

if TYPE_CHECKING:
    from ttca.audit import Audit
    from ttca.certificates import Certificate
    from ttca.race_record import Raced
    from ttca.row import Row

__all__ = ["plot_audit", "plot_certificate", "plot_race", "plot_row"]


def plot_row(row: Row, axes: Any = None) -> Any:
    """Draw every rate of a row with its 95 % interval; a broken line marks the reference group's.

    Parameters
    ----------
    row : Row
    axes : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    shown = [c for c in CONTROLS if c.key is not None and math.isfinite(getattr(row, c.key))]
    axes, roles = _axes(axes, 0.6 + 0.3 * len(shown)), THEMES["light"].roles
    for place, control in enumerate(reversed(shown)):
        rate = getattr(row, str(control.key))
        low, high = row.intervals.get(str(control.key)) or (rate, rate)
        axes.plot([low, high], [place, place], color=roles[control.mark], linewidth=1.5)
        axes.plot(rate, place, "o", color=roles[control.mark])
    axes.axvline(row.reference_before, color=roles["reference"], linestyle=":", linewidth=1)
    _named(axes, [control.label for control in shown])
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"share of people, ε = {row.epsilon}")
    return axes


def plot_certificate(certificate: Certificate, axes: Any = None) -> Any:
    """Draw S at every tested ε with its lower bound, which hold together; a full dot passed.

    Parameters
    ----------
    certificate : Certificate
    axes : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    axes, roles = _axes(axes, 2.6), THEMES["light"].roles
    for test in certificate.tests:
        color = roles["after" if test.passed else "warning"]
        rate = test.right / test.asked if test.asked else math.nan
        axes.plot([test.epsilon] * 2, [certificate.lower_at(test.epsilon), rate], color=color, linewidth=1.5)
        axes.plot(test.epsilon, rate, "o", color=color, markerfacecolor=color if test.passed else "none")
    axes.set_xticks(sorted(certificate.family))
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("ε, levels of 255")
    axes.set_ylabel("right answers with δ")
    axes.set_title(f"{certificate.terms.aim}: " + ("not shown" if certificate.epsilon is None else "shown"))
    return axes


def plot_audit(audit: Audit, axes: Any = None) -> Any:
    """Draw the share of right answers of every group that was told, with its 95 % interval over persons.

    Parameters
    ----------
    audit : Audit
    axes : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    shown = [
        (g.name if by == ("group",) else f"{' and '.join(by)}: {g.name}", g.rate, g.accuracy)
        for by, groups in ((grouping.by, grouping.groups) for grouping in audit.groupings)
        for g in groups
        if g.accuracy is not None
    ]
    axes, roles = _axes(axes, 0.8 + 0.3 * len(shown)), THEMES["light"].roles
    for place, (_, rate, span) in enumerate(reversed(shown)):
        axes.plot([span.low, span.high], [place, place], color=roles["before"], linewidth=1.5)
        axes.plot(rate, place, "o", color=roles["before"])
    _named(axes, [name for name, _, _ in shown])
    axes.set_xlim(0, 1)
    axes.set_xlabel("right answers")
    return axes


def plot_race(raced: Raced, axes: Any = None) -> Any:
    """Draw how far each recipe that the platform was asked about was above doing nothing; a full dot went on.

    Parameters
    ----------
    raced : Raced
    axes : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    shown = [e for e in raced.entrants if e.difference is not None]
    axes, roles = _axes(axes, 0.8 + 0.3 * len(shown)), THEMES["light"].roles
    for place, entrant in enumerate(reversed(shown)):
        color = roles["after" if entrant.name in raced.going_on else "control"]
        axes.plot(
            entrant.difference,
            place,
            "o",
            color=color,
            markerfacecolor=color if entrant.name in raced.going_on else "none",
        )
    axes.axvline(0, color=roles["reference"], linestyle=":", linewidth=1)
    _named(axes, [f"{e.name} ({e.persons} people)" for e in shown])
    axes.set_xlabel(f"above doing nothing, ε = {raced.epsilon}")
    return axes


def _axes(axes: Any, height: float) -> Any:
    if axes is not None:
        return axes
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise MissingExtraError("A figure", "learn") from None
    return plt.subplots(figsize=(6.4, height), layout="constrained")[1]


def _named(axes: Any, names: Sequence[str]) -> None:
    """Write names beside the lines, the first one on top, with room above and below."""
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
