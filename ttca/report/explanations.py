"""What every key of the honest row means, in words a newcomer understands, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ttca.report import formatting
from ttca.report.formatting import Number
from ttca.row import Row

__all__ = ["Entry", "Group", "explained"]

Write = Callable[..., Number]


@dataclass(frozen=True)
class Entry:
    """One key: its name in plain words, its meaning, and its value as written."""

    key: str
    name: str
    meaning: str
    value: Number


@dataclass(frozen=True)
class Group:
    """Keys that are read together."""

    title: str
    note: str
    entries: tuple[Entry, ...]


def _seconds(value: float) -> Number:
    return formatting.fixed(value, 1, "s")


def _megabytes(value: float) -> Number:
    return formatting.fixed(value, 0, "MB")


def _ratio(value: float) -> Number:
    return formatting.fixed(value, 3)


_PLAIN, _COUNT, _SHARE, _POINTS = formatting.plain, formatting.count, formatting.percent, formatting.points

_GROUPS: tuple[tuple[str, str, tuple[tuple[str, Write, str, str], ...]], ...] = (
    (
        "What was run",
        "",
        (
            ("track", _PLAIN, "Action", "The name under which this action or benchmark runs."),
            (
                "regime",
                _PLAIN,
                "Regime",
                "own: everything was learned from the members' own inputs. public: public labelled data helped too.",
            ),
            (
                "answers",
                _PLAIN,
                "Kind of answers",
                "What the platform said: all scores, rounded scores, only the top few, or a label alone.",
            ),
            ("queries", _COUNT, "Inputs pooled", "Inputs sent to the platform from which the proxy learned."),
            (
                "epsilon",
                _PLAIN,
                "ε",
                "The budget: how far δ may move any colour value of any pixel, in levels of the 255 there are.",
            ),
            ("seed", _PLAIN, "Seed", "The number from which all randomness of this run was drawn."),
            (
                "composition",
                _PLAIN,
                "Whose inputs were pooled",
                "By whom: subgroup members, volunteers of the reference group, and altered copies of inputs.",
            ),
        ),
    ),
    (
        "What was paid",
        "In queries that members were charged for.",
        (
            ("queries_pool", _COUNT, "Queries to learn", "Paid so that the proxy could learn."),
            (
                "queries_audit",
                _COUNT,
                "Queries for the gap",
                "Paid for answers to unchanged inputs: how large is the gap?",
            ),
            (
                "queries_verification",
                _COUNT,
                "Queries to verify",
                "Paid for the certificate's tests on the real platform.",
            ),
            (
                "coverage",
                _SHARE,
                "Coverage",
                "Of all queries of this measurement, the share that brought an answer. Failures on the way are left "
                "out of the shares here; a refusal is an answer, and a wrong one.",
            ),
        ),
    ),
    (
        "The gap",
        "Unchanged inputs.",
        (
            ("reference_before", _SHARE, "Reference, before", "The reference group's share of right answers."),
            ("subgroup_before", _SHARE, "Subgroup, before", "The subgroup's share of right answers."),
            ("gap_before", _POINTS, "Gap, before", "The first minus the second."),
        ),
    ),
    (
        "The result",
        "Each member of the subgroup applies the δ of their true class.",
        (
            ("subgroup_after", _SHARE, "Subgroup, with δ (S)", "The subgroup's share of right answers."),
            (
                "subgroup_after_lower",
                _SHARE,
                "S, lower end",
                "Of the two-sided 95 % Clopper–Pearson interval, not corrected for the choice of ε.",
            ),
            ("subgroup_after_upper", _SHARE, "S, upper end", "Of the same interval."),
            (
                "gap_closed",
                _SHARE,
                "Gap closed",
                "How much of the gap is gone: all of it at 100 %, more than all of it above. "
                "Not defined where no gap was shown: where the interval of the gap holds 0.",
            ),
        ),
    ),
    (
        "The certificate",
        "On verification people alone.",
        (
            (
                "parity_certified",
                _PLAIN,
                "Parity certified",
                "Whether S was shown to be no worse than the reference. Also no where parity was not the goal.",
            ),
            (
                "certificate_lower",
                _SHARE,
                "Certified bound",
                "S is at least this much: a one-sided lower bound, corrected for the choice of ε.",
            ),
            (
                "certificate_power",
                _SHARE,
                "Power",
                "The smallest true S that so many verification people would very probably have certified (the "
                "probability stands with the certificate). Not defined where even a perfect S could not have been.",
            ),
        ),
    ),
    (
        "The controls",
        "Same people, same ε. S means little without them.",
        (
            (
                "abuse_rate",
                _SHARE,
                "Abuse rate",
                "The δ of one wrong class, drawn for each person: how often does the platform then say that wrong "
                "class? High means that δ also works for a lie.",
            ),
            ("noise_control", _SHARE, "Random noise", "S with random noise of full strength in place of δ."),
            (
                "proxy_class_control",
                _SHARE,
                "Class picked by the proxy",
                "S when nobody knows the truth and the proxy picks whose δ is applied.",
            ),
            (
                "class_agnostic_control",
                _SHARE,
                "One δ for all classes",
                "S with a single δ that cannot tell the platform which class to say.",
            ),
            (
                "zero_query_control",
                _SHARE,
                "Zero queries",
                "S with δ learned from a proxy that never asked the platform. What S has beyond it is what the "
                "queries bought.",
            ),
            (
                "jpeg75_control",
                _SHARE,
                "After JPEG 75",
                "S when the perturbed image is compressed as JPEG of quality 75 on its way.",
            ),
            (
                "resize_control",
                _SHARE,
                "After a resize",
                "S when the perturbed image is shrunk to half its size and enlarged again on its way.",
            ),
            (
                "reference_after",
                _SHARE,
                "Reference, with δ",
                "The reference group's share of right answers when they apply δ, which was not made for them.",
            ),
        ),
    ),
    (
        "The proxy",
        "How often proxy and platform name the same class for unchanged inputs of the people measured.",
        (
            ("fidelity_subgroup", _SHARE, "Fidelity, subgroup", "On the subgroup's inputs."),
            ("fidelity_reference", _SHARE, "Fidelity, reference", "On the reference group's inputs."),
        ),
    ),
    (
        "Fairness between the groups",
        "After means: the subgroup applies δ, the reference does not. Class by class against the rest; the worst "
        "class counts.",
        (
            ("worst_group_before", _SHARE, "Worst group, before", "Accuracy of the group that is served worst."),
            ("worst_group_after", _SHARE, "Worst group, after", "The same, after."),
            (
                "equal_opportunity_gap_before",
                _POINTS,
                "Equal-opportunity gap, before",
                "Of the people whose class it is, how many more are recognised in one group than in the other. "
                "Zero is fair.",
            ),
            ("equal_opportunity_gap_after", _POINTS, "Equal-opportunity gap, after", "The same, after."),
            (
                "demographic_parity_ratio_before",
                _ratio,
                "Demographic-parity ratio, before",
                "How often a class is said in the group where it is said less, over how often in the other. "
                "One is even.",
            ),
            ("demographic_parity_ratio_after", _ratio, "Demographic-parity ratio, after", "The same, after."),
        ),
    ),
    (
        "What it took here",
        "Time and memory of the machine this ran on; they will differ elsewhere.",
        (
            ("seconds_distil", _seconds, "Time to train the proxy", "Distillation from the answers."),
            ("seconds_learn", _seconds, "Time to learn δ", "For every ε of the family together."),
            (
                "seconds",
                _seconds,
                "Time to measure",
                "Of the step that wrote this row; steps done before cost it nothing.",
            ),
            ("peak_rss_mb", _megabytes, "Peak memory", "The most memory the process held."),
        ),
    ),
)


def explained(row: Row) -> tuple[Group, ...]:
    """Return every key of the row with its meaning and value, in groups; a key nobody explained is not left out."""
    groups = [
        Group(
            title,
            note,
            tuple(Entry(key, name, meaning, write(getattr(row, key))) for key, write, name, meaning in entries),
        )
        for title, note, entries in _GROUPS
    ]
    known = {entry.key for group in groups for entry in group.entries}
    rest = [key for key in Row.keys() if key not in known]  # noqa: SIM118 - no dict
    if rest:
        entries = tuple(Entry(key, key, "", formatting.plain(getattr(row, key))) for key in rest)
        groups.append(Group("Further keys", "", entries))
    return tuple(groups)
