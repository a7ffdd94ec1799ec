"""The honest row: the one list of keys that the demo, the benchmarks and the result files share."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ttca.frames import frame

__all__ = ["Row"]

#: What no row needs to have.
_OFTEN_EMPTY = ("overruled", "extra", "backbones", "recipe", "serves")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One action's result with all its controls; accuracies are shares of people, 0..1.

    ``subgroup_after`` is S, the accuracy of the subgroup when each person applies the δ of their *true* class;
    its bounds are two-sided 95 % (Clopper–Pearson). ``certificate_lower`` is one-sided, from verification people
    only, and not defined at an ε that their tests did not reach. ``certificate_power`` is the smallest true S that so
    many verification people would have certified with probability 0.8, None where even a perfect S could not have
    been. ``certified`` says whether the goal was shown at this ε, ``parity_certified`` the same where parity was
    the goal, None elsewhere. ``persons_verification`` of the subgroup verify; ``persons_asked`` of them were asked at
    this ε before the verdict was sure. ``queries_controls`` is what the row's controls cost members beside the
    certificate. ``gap_closed`` is not defined where no gap was shown: where the gap's own two-sided 95 % interval holds
    0. The controls are S under other δ (same ε): random noise, the class picked by the proxy, one δ for all
    classes, and a proxy that asked nothing; S after
    JPEG 75 and after a resize; and the reference group with δ. ``abuse_rate``: δ_c on people whose class is not
    c makes the platform say c. The equal-opportunity gap and the demographic-parity ratio are those of the worst
    class, each class against the rest. ``seconds`` run from opening the action to the row, in the process that
    finished it; ``seconds_distil`` and ``seconds_learn`` are those of the process that did the step.
    S and the zero-query control are compared on the same people by the exact two-sided McNemar test: ``paired_p``, with
    ``paired_b`` people right only with δ and ``paired_c`` only with the control, which was trained for
    ``zero_query_epochs``. ``threads`` is how many the proxy learned with, None where an earlier version did not write
    it down; with another number the last digits may differ, unless the settings fix it. ``shortened``: the control was
    given one training length alone, or a benchmark cut training short.
    ``intervals`` says by key where each rate, gap and fairness metric lies with 95 % confidence, as two ends, counted
    over persons (:mod:`ttca.intervals`): 0 to x says "at most" of a gap of fairness, and x to 1 "at least" of a ratio.
    None where nothing bounds it or no gap was shown; rows kept before there were intervals have none.
    ``overruled`` says in what way answers did not fit members' own true classes, where somebody went on anyway;
    empty and left out where nobody had to.
    ``backbones`` are the published weights that the proxy began with: name, architecture, source, license, SHA-256. One
    with ``labeled`` did not begin a proxy, but labeled public images without classes; the text says how.
    ``recipe`` is the one that won a race, or that the settings name; ``nothing`` where none was shown to beat doing
    nothing. Then S is ``subgroup_before``, nobody verified, and there are no controls. Settings made by hand have none.
    Where one recipe does not serve all classes, ``serves`` says which serves which; ``nothing`` has those left alone.
    ``extra`` holds a guest's metrics and controls by name (:class:`ttca.conditions.Measuring`).
    """

    track: str
    regime: str
    answers: str
    queries: int
    epsilon: int
    seed: int
    queries_pool: int
    queries_baseline: int
    queries_verification: int
    queries_controls: int
    coverage: float
    composition: dict[str, int]
    reference_before: float
    subgroup_before: float
    gap_before: float
    subgroup_after: float
    subgroup_after_lower: float
    subgroup_after_upper: float
    gap_closed: float
    goal: str
    stopping: str
    certified: bool
    parity_certified: bool | None
    persons_verification: int
    persons_asked: int
    certificate_lower: float
    certificate_power: float | None
    abuse_rate: float
    noise_control: float
    proxy_class_control: float
    class_agnostic_control: float
    zero_query_control: float
    jpeg75_control: float
    resize_control: float
    reference_after: float
    zero_query_epochs: int
    paired_p: float
    paired_b: int
    paired_c: int
    fidelity_subgroup: float
    fidelity_reference: float
    worst_group_before: float
    worst_group_after: float
    equal_opportunity_gap_before: float
    equal_opportunity_gap_after: float
    demographic_parity_ratio_before: float
    demographic_parity_ratio_after: float
    threads: int | None
    shortened: bool
    seconds_distil: float
    seconds_learn: float
    seconds: float
    peak_rss_mb: float
    overruled: str = ""
    intervals: dict[str, list[float] | None] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)
    backbones: list[dict[str, str]] = field(default_factory=list)
    recipe: str = ""
    serves: dict[str, list[str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; what is not defined becomes None, and what is empty at the end is left out."""
        found = asdict(self)
        extra = {name: _plain(value) for name, value in found.pop("extra").items()}
        often_empty = {"overruled": found.pop("overruled"), "extra": extra, "backbones": found.pop("backbones")}
        often_empty |= {name: found.pop(name) for name in ("recipe", "serves")}
        spans: dict[str, list[float] | None] = found.pop("intervals")
        found["intervals"] = {name: span and [_plain(end) for end in span] for name, span in spans.items()}
        plain = {name: _plain(value) for name, value in found.items()}
        return plain | {name: value for name, value in often_empty.items() if value}

    def to_frame(self) -> Any:
        """Return a pandas DataFrame of one line: every key, each interval as ``KEY_low`` and ``KEY_high``.

        ``pandas.concat`` puts several rows below each other.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        found = self.to_dict()
        spans = found.pop("intervals")
        extra = found.pop("extra", {})
        ends = {f"{k}_{end}": span[i] for k, span in spans.items() if span for i, end in enumerate(("low", "high"))}
        return frame([{**found, **extra, **ends}])

    def plot(self, axes: Any = None) -> Any:
        """Draw the row's rates beside its controls (:func:`ttca.report.plots.plot_row`) and return the axes.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        from ttca.report.plots import plot_row

        return plot_row(self, axes)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return the names of the keys that every row has, in order."""
        return tuple(f.name for f in fields(cls) if f.name not in _OFTEN_EMPTY)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
