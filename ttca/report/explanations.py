"""What every key of the honest row means, in words a newcomer understands, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ttca.report.formatting as formatting
from ttca.conditions import CONTROLS, ROW_KEYS, Control
from ttca.report.formatting import Number
from ttca.row import Row

__all__ = ["Entry", "Group", "explained", "row_keys"]

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

_CONTROLS = {control.name: control for control in CONTROLS}


def _of(name: str) -> tuple[str, Write, str, str]:
    """Return how a control's key is written, what it is called and what it means."""
    control = _CONTROLS[name]
    return (control.key or name, _SHARE, control.label, control.meaning)


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
                "own: everything was learned from the members' own inputs. public: public images helped too.",
            ),
            (
                "answers",
                _PLAIN,
                "Kind of answers",
                "What the platform returns: all scores, rounded scores, only the top few, or just a label.",
            ),
            ("queries", _COUNT, "Inputs pooled", "Inputs sent to the platform for the proxy to learn from."),
            (
                "epsilon",
                _PLAIN,
                "ε",
                "The most that δ may change any color value of any pixel, in levels of 255.",
            ),
            ("seed", _PLAIN, "Seed", "All random choices of this run depend on this number."),
            (
                "composition",
                _PLAIN,
                "Whose inputs were pooled",
                "How many inputs came from the subgroup and from volunteers of the reference group, and how many are "
                "altered copies.",
            ),
        ),
    ),
    (
        "What was paid",
        "Counted in queries that members were charged for.",
        (
            ("queries_pool", _COUNT, "Queries to learn", "Paid for the answers that the proxy learned from."),
            (
                "queries_baseline",
                _COUNT,
                "Queries for the baseline",
                "Paid for answers to verification people's unchanged inputs, which the goal compares S with.",
            ),
            (
                "queries_verification",
                _COUNT,
                "Queries to verify",
                "Paid for the certificate's tests on the real platform.",
            ),
            (
                "queries_controls",
                _COUNT,
                "Queries for this row",
                "Paid for the row's controls, beside what the certificate asked.",
            ),
            (
                "coverage",
                _SHARE,
                "Coverage",
                "The share of this measurement's queries that got an answer. Queries that failed are left out of all "
                "other shares here. A refusal counts as an answer, and as a wrong one.",
            ),
        ),
    ),
    (
        "The gap",
        "Unchanged inputs.",
        (
            _of("reference_before"),
            _of("subgroup_before"),
            ("gap_before", _POINTS, "Gap, before", "The reference group's share minus the subgroup's."),
        ),
    ),
    (
        "The result",
        "Each member of the subgroup applies the δ of their true class.",
        (
            _of("subgroup_after"),
            (
                "subgroup_after_lower",
                _SHARE,
                "S, lower end",
                "The lower end of the two-sided 95 % Clopper–Pearson interval. Not corrected for the choice of ε.",
            ),
            ("subgroup_after_upper", _SHARE, "S, upper end", "The upper end of the same interval."),
            (
                "gap_closed",
                _SHARE,
                "Gap closed",
                "How much of the gap is gone. 100 % means all of it; below 0 % the gap grew. Not defined if no gap "
                "was shown, that is, if the interval of the gap contains 0.",
            ),
        ),
    ),
    (
        "The certificate",
        "On verification people alone.",
        (
            ("goal", _PLAIN, "Goal", "What had to be shown. It was fixed before the first answer."),
            ("certified", _PLAIN, "Certified", "Whether it was shown at this ε."),
            (
                "parity_certified",
                _PLAIN,
                "Parity certified",
                "Whether S was shown to be no worse than the reference. Not defined if another goal was tested.",
            ),
            (
                "stopping",
                _PLAIN,
                "Stopping",
                "When a test stopped asking. curtailed: as soon as no further answer could change its verdict.",
            ),
            ("persons_verification", _COUNT, "Persons who verify", "Of the subgroup, each counted once."),
            ("persons_asked", _COUNT, "Persons asked", "So many of them were asked with δ of this ε."),
            (
                "certificate_lower",
                formatting.percent_at_least,
                "Certified bound",
                "S is at least this high. This is a one-sided lower bound, corrected for the choice of ε.",
            ),
            (
                "certificate_power",
                _SHARE,
                "Power",
                "The smallest true S that this many verification people would very probably have certified. The "
                "certificate states the probability. Not defined if even a perfect S could not have been certified.",
            ),
        ),
    ),
    (
        "The controls",
        "Same people, same ε. S means little without them.",
        (
            *(_of(name) for name in ROW_KEYS.values() if _CONTROLS[name].asked_as is None),
            (
                "zero_query_epochs",
                _COUNT,
                "Epochs of the zero-query control",
                "How long the control that asked nothing was trained. Of several lengths, the best one counts.",
            ),
            ("paired_p", _PLAIN, "S against that control, p", "On the same people, by the exact McNemar test."),
            ("paired_b", _COUNT, "Right only with δ", "So many people, compared with that control."),
            ("paired_c", _COUNT, "Right only with the control", "So many people."),
            (
                "shortened",
                _PLAIN,
                "Shortened",
                "True if the control was given one training length alone, or training was cut short.",
            ),
        ),
    ),
    (
        "The proxy",
        "How often the proxy and the platform give the same class to unchanged inputs of the people measured.",
        (
            ("fidelity_subgroup", _SHARE, "Fidelity, subgroup", "On the subgroup's inputs."),
            ("fidelity_reference", _SHARE, "Fidelity, reference", "On the reference group's inputs."),
        ),
    ),
    (
        "Fairness between the groups",
        "“After” means that the subgroup applies δ and the reference does not. Each class is compared with all "
        "others, and the worst class counts. Not defined if a group has no answer about a class: there is then no rate "
        "of it to compare.",
        (
            (
                "worst_group_before",
                _SHARE,
                "Worst group, before",
                "The share of right answers in the group that is served worst.",
            ),
            ("worst_group_after", _SHARE, "Worst group, after", "The same, after."),
            (
                "equal_opportunity_gap_before",
                _POINTS,
                "Equal-opportunity gap, before",
                "How much more often people who truly have a class are recognized in one group than in the other. "
                "Zero is fair.",
            ),
            ("equal_opportunity_gap_after", _POINTS, "Equal-opportunity gap, after", "The same, after."),
            (
                "demographic_parity_ratio_before",
                _ratio,
                "Demographic-parity ratio, before",
                "How often a class is given in the group that gets it less often, divided by how often in the other "
                "group. One is even.",
            ),
            ("demographic_parity_ratio_after", _ratio, "Demographic-parity ratio, after", "The same, after."),
        ),
    ),
    (
        "Intervals",
        "Where each share, gap and ratio lies with 95 % confidence.",
        (
            (
                "intervals",
                formatting.plain,
                "Intervals",
                "Counted over persons. From 0 means “at most”, and up to 1 means “at least”, where the groups may be "
                "alike. Not defined where so few people were asked that anything is possible, or no gap was shown.",
            ),
        ),
    ),
    (
        "What it took here",
        "Time and memory on the machine that ran this. They will differ elsewhere.",
        (
            (
                "threads",
                _PLAIN,
                "Threads",
                "The proxy was learned with so many. With another number, last digits differ, and answers may too. "
                "The setting threads fixes it.",
            ),
            ("seconds_distil", _seconds, "Time to train the proxy", "Training on the platform's answers."),
            ("seconds_learn", _seconds, "Time to learn δ", "For all values of ε together."),
            (
                "seconds",
                _seconds,
                "Time of the last run",
                "From opening the action to this row. What earlier runs did is not included.",
            ),
            ("peak_rss_mb", _megabytes, "Peak memory", "The most memory the process used."),
        ),
    ),
)


def row_keys() -> tuple[tuple[str, str, tuple[tuple[str, str, str], ...]], ...]:
    """Return every explained key of a row in groups: a title, a note, and each key with its name and its meaning."""
    return tuple(
        (title, note, tuple((key, name, meaning) for key, _, name, meaning in entries))
        for title, note, entries in _GROUPS
    )


def _recipe(row: Row) -> Entry:
    """Return which recipe δ was learned with; where two serve together, which of them serves whom."""
    whom = "; ".join(f"{recipe} for {', '.join(classes)}" for recipe, classes in row.serves.items())
    meaning = "How δ was learned: by the recipe that won the race, or by the one that the settings name."
    return Entry("recipe", "Recipe", meaning, Number(f"{row.recipe}: {whom}" if whom else row.recipe, row.recipe))


def explained(row: Row, guests: Sequence[Control] = ()) -> tuple[Group, ...]:
    """Return every key of the row with its meaning and value, in groups; a key nobody explained is not left out.

    ``guests`` are controls whose values stand in the row's ``extra``.
    """
    groups = [
        Group(
            title,
            note,
            tuple(Entry(key, name, meaning, write(getattr(row, key))) for key, write, name, meaning in entries),
        )
        for title, note, entries in _GROUPS
    ]
    if row.recipe:
        groups[0] = replace(groups[0], entries=(*groups[0].entries, _recipe(row)))
    known = {entry.key for group in groups for entry in group.entries}
    rest = [key for key in Row.keys() if key not in known]  # noqa: SIM118 - no dict
    if rest:
        entries = tuple(Entry(key, key, "", formatting.plain(getattr(row, key))) for key in rest)
        groups.append(Group("Further keys", "", entries))
    if guests:
        entries = tuple(Entry(c.name, c.label, c.meaning, _SHARE(row.extra[c.name])) for c in guests)
        groups.append(Group("Controls of your own", "Same people, same ε.", entries))
    return tuple(groups)
