"""The figure of a plan: how surely each goal is certified, by the number of people who verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ttca.errors import ConfigError, MissingExtraError
from ttca.planning import WANTED, ActionPlan

__all__ = ["save_figure"]


def save_figure(
    path: Path, plan: ActionPlan, curves: Mapping[str, Mapping[int, Sequence[float]]], successes: Sequence[float]
) -> None:
    """Draw the power of every goal, a panel for each S.

    Parameters
    ----------
    path : Path
        Its ending says the format; an earlier file is overwritten.
    plan : ActionPlan
    curves : dict of str to dict of int to sequence of float
        By goal and number of persons, the power at each S (:func:`ttca.planning.power_curves`).
    successes : sequence of float

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    ConfigError
        If the file cannot be written, or its ending is no format.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("Drawing a plan", "learn") from error
    width = len(successes)
    figure = Figure(figsize=(3 * width + 1, 3.6), layout="constrained")
    panels = figure.subplots(1, width, sharey=True, squeeze=False)[0]
    for i, (panel, success) in enumerate(zip(panels, successes, strict=True)):
        for goal, by_persons in curves.items():
            panel.plot(list(by_persons), [power[i] for power in by_persons.values()], marker="o", ms=3, label=goal)
        panel.axhline(WANTED, color="0.6", lw=0.8, ls="--")
        panel.axvline(plan.verification, color="0.6", lw=0.8, ls=":")
        panel.set(title=f"S = {success:.3f}", xlabel="people who verify", ylim=(0, 1.02))
    panels[0].set_ylabel("probability of a certificate")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle(
        f"Subgroup {plan.assumed.subgroup:.3f}, reference {plan.assumed.reference:.3f}; dotted: who verifies now"
    )
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Expected to write a figure to {path}, got: {error}. Name a file such as plan.png."
        ) from None
