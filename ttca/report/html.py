"""Writing the report: it checks that all parts are of one run, and sets them into one HTML file that needs no other."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

import ttca.report.formatting as formatting
from ttca.certificates import Certificate
from ttca.conditions import CONTROLS, HONEST_ROW, ROW_KEYS, SECTIONS, Control, Measuring, metric_keys
from ttca.errors import ActionError, MissingExtraError
from ttca.fairness import OneVsRestReport
from ttca.gap import WHOSE
from ttca.measurement import Measurement
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.pooling.ledger import Balance
from ttca.private import private
from ttca.report.explanations import explained
from ttca.report.pictures import LAYOUTS, THEMES, Share, ShareGroup, draw_shares, enlarged, magnified
from ttca.report.plain import PlainWords, Provenance
from ttca.row import Row
from ttca.values import Value

if TYPE_CHECKING:
    from ttca.distilling import Fidelity
    from ttca.race_record import Raced

__all__ = ["Contents", "write_nothing", "write_report"]

MOST_PEOPLE_SHOWN = 10
# A report is mailed and opened on phones: a thousand large δ would make it too heavy for both.
MOST_DELTAS_SHOWN = 100
MOST_DELTA_PIXELS = 2_000_000

#: Where a metric is looked at, and what the report calls it there.
#: So many classes are listed by how often they are named to either group.
_CLASSES_SHOWN = 5
_BY_GROUP = {name: control.label for control in CONTROLS if (name := control.name) in metric_keys("")}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Contents(Value):
    """Everything a report is made from, of one run.

    Parameters
    ----------
    row : Row
        The honest row.
    measurement : Measurement
        The answers behind the row.
    certificate : Certificate
    perturbations : PerturbationSet
        The set that was measured.
    people : People
        Whom the measurement was made on, both groups, in its order.
    fidelity : Fidelity
        Of the proxy, on selection people.
    balances : sequence of Balance
        Who paid.
    measured_on : {"test people", "verification people"}
        The role of ``people``.
    story : str
        Who is under-served by what, in a few plain sentences; may be empty.
    measuring : Measuring
        The guest's metrics and controls that were measured.
    around : Provenance, optional
        Who asked which service, when, and who allowed it; by default only what the set says.
    signed_by : str, optional
        The public key that signed the file of the set; None where no file is signed.
    rechecked : str, optional
        What rechecks have said since, for people; None where nobody is kept for them.
    raced : Raced, optional
        The record of the race between recipes, where there was one.
    """

    row: Row
    measurement: Measurement
    certificate: Certificate
    perturbations: PerturbationSet
    people: People
    fidelity: Fidelity
    balances: Sequence[Balance]
    measured_on: Literal["test people", "verification people"]
    story: str
    measuring: Measuring = HONEST_ROW
    signed_by: str | None = None
    rechecked: str | None = None
    around: Provenance | None = None
    raced: Raced | None = None


def write_report(
    path: Path | str, contents: Contents, *, pictures_of: Collection[str] = (), names: bool = True
) -> Path:
    """Write one HTML file that holds everything: no other file, no network, no script.

    Parameters
    ----------
    path : Path or str
        Where to write; a half-written file is never seen under the name.
    contents : Contents
    pictures_of : collection of str
        Persons who agreed that their pictures are shown; nobody else's are.
    names : bool
        Whether members are named. Leave them out of a report that is published.

    Returns
    -------
    Path
        The file written. The same arguments give the same bytes.

    Raises
    ------
    ActionError
        If the parts are not of one run, or the file cannot be written.
    MissingExtraError
        If matplotlib, Jinja2 or scipy is not installed.
    """
    _check_one_run(contents)
    row, measurement, perturbations = contents.row, contents.measurement, contents.perturbations
    people, balances = contents.people, contents.balances
    groups = _shares(measurement, contents.measuring.all_controls())
    selection = _selection(measurement, perturbations.classes)
    around = contents.around or Provenance(subgroup=perturbations.subgroup, service=perturbations.service)
    context: dict[str, Any] = {
        **vars(contents),
        "totals": {
            column: sum(getattr(b, column) for b in balances)
            for column in ("quota", "charged", "answered", "unusable", "unknown", "refunded")
        },
        "seed": row.seed,
        "with_names": names,
        "no_gap": math.isnan(row.gap_closed),
        "gap_interval": measurement.gap_interval(),
        "crowd": _crowd(people),
        "chart": _chart(groups, measurement.rate("reference_before")),
        "groups": groups,
        "counted": {name: _counted(measurement, name) for name in measurement.outcomes},
        "metrics": _metrics(row, contents.measuring),
        "selection": selection[:_CLASSES_SHOWN],
        "more_classes": max(0, len(selection) - _CLASSES_SHOWN),
        "by_group": tuple(_BY_GROUP.values()),
        "moved": _Moved.count(measurement),
        "shown": _shown(measurement, perturbations, people, row.seed, frozenset(pictures_of)),
        "magnification": 127.5 / perturbations.epsilon,
        "deltas": _deltas(perturbations),
        "explained": explained(row, contents.measuring.controls),
        "comparisons": _comparisons(measurement),
        "backbones": row.backbones,
        "around": around,
        "whose": WHOSE[contents.measured_on],
        "words": PlainWords.of(row, contents.certificate, around),
        "f": formatting,
    }
    return _write(Path(path), _rendered("report.html.j2", context))


def write_nothing(
    path: Path | str, row: Row, raced: Raced, story: str, measured_on: Literal["test people", "selection people"]
) -> Path:
    """Write the report of an action that proposes nothing: why, what each recipe got, and how people are served.

    Parameters
    ----------
    path : Path or str
    row : Row
    raced : Raced
        The record of the race, in which no recipe was shown to beat doing nothing.
    story : str
        Who is under-served by what, in a few plain sentences.
    measured_on : {"test people", "selection people"}
        Whose rates the row holds.

    Returns
    -------
    Path
        The file written: one HTML file, without pictures and members' names.

    Raises
    ------
    ActionError
        If the file cannot be written.
    MissingExtraError
        If Jinja2 is not installed.
    """
    context = {"row": row, "raced": raced, "story": story, "whose": WHOSE[measured_on], "f": formatting}
    return _write(Path(path), _rendered("nothing.html.j2", context))


def _rendered(name: str, context: dict[str, Any]) -> str:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("The report", "learn") from error

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ttca", "report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name).render(context)


def _check_one_run(contents: Contents) -> None:
    """Refuse parts of different runs: side by side they would make a report that is wrong and looks right."""
    row, measurement, people = contents.row, contents.measurement, contents.people
    counts = (int(people.subgroup.sum()), int((~people.subgroup).sum()))
    measured = tuple(len(measurement.correct[name]) for name in ("subgroup_before", "reference_before"))
    if counts != measured:
        raise ActionError(
            f"Expected the people who were measured, {measured[0]} of the subgroup and {measured[1]} of the reference, "
            f"got {counts[0]} and {counts[1]}. Pass the people that the measurement was made on."
        )
    budgets = {"row": row.epsilon, "certificate": contents.certificate.quoted_epsilon}
    budgets["perturbations"] = contents.perturbations.epsilon
    if len(set(budgets.values())) != 1:
        raise ActionError(
            f"Expected row, certificate and perturbations of one ε, got {budgets}. Pass the parts of one run."
        )
    measuring = contents.measuring
    expected = [control.name for control in measuring.all_controls()]
    wanted = {*measuring.metrics, *(control.name for control in measuring.controls)}
    if not measurement.outcomes.keys() >= set(expected) or not row.extra.keys() >= wanted:
        raise ActionError(
            f"Expected a row and a measurement with {', '.join(sorted({*expected, *wanted}))}, got others. Pass the "
            "metrics and controls that were measured."
        )
    rates = {key: (getattr(row, key), condition) for key, condition in ROW_KEYS.items()}
    rates |= {control.name: (row.extra[control.name], control.name) for control in measuring.controls}
    for key, (written, condition) in rates.items():
        found = measurement.rate(condition)
        if not math.isclose(written, found, abs_tol=1e-9) and not (math.isnan(written) and math.isnan(found)):
            raise ActionError(
                f"Expected {key} of the row to be {found}, as measured, got {written}. Pass the row and the "
                "measurement of one run."
            )


# --- shares -------------------------------------------------------------------------------------------------


def _shares(measurement: Measurement, controls: Sequence[Control]) -> tuple[ShareGroup, ...]:
    """Return the controls' shares by section: the result first, the abuse rate and a guest's own last."""
    sections: dict[str, list[Share]] = {section: [] for section in SECTIONS}
    for control in controls:
        rate, (low, high) = measurement.rate(control.name), measurement.interval(control.name)
        share = Share(control.name, control.label, control.mark, rate, low, high, formatting.percent(rate).text)
        sections.setdefault(control.section, []).append(share)
    return tuple(ShareGroup(title, tuple(shares)) for title, shares in sections.items() if shares)


def _counted(measurement: Measurement, name: str) -> dict[str, int]:
    resolved = measurement.resolved[name]
    return {
        "asked": len(resolved),
        "resolved": int(resolved.sum()),
        "right": int(measurement.correct[name][resolved].sum()),
    }


def _selection(measurement: Measurement, classes: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return by class how often it is named to the subgroup, by how often to the reference, before and after.

    Lowest before first.
    """

    def ratio(report: OneVsRestReport, number: int) -> float:
        found = report.by_class[number].directional_disparate_impact
        return math.nan if found is None else found

    before, after = measurement.fairness_before, measurement.fairness_after
    order = sorted(range(len(classes)), key=lambda i: (math.isnan(ratio(before, i)), ratio(before, i)))
    return [(classes[i], *(formatting.fixed(ratio(r, i), 2) for r in (before, after))) for i in order]


def _metrics(row: Row, measuring: Measuring) -> list[tuple[str, list[formatting.Number]]]:
    """Return a guest's metrics by name, each under the conditions of :data:`_BY_GROUP`."""
    return [
        (name, [formatting.fixed(row.extra[keys[condition]], 3) for condition in _BY_GROUP])
        for name, keys in ((name, metric_keys(name)) for name in measuring.metrics)
    ]


def _chart(groups: Sequence[ShareGroup], reference: float) -> dict[str, dict[str, str]]:
    """Return the chart as data URIs, by theme and layout: a picture cannot follow the reader's screen by itself."""
    return {
        theme: {
            layout: _uri(draw_shares(groups, reference=reference, theme=THEMES[theme], layout=LAYOUTS[layout]))
            for layout in LAYOUTS
        }
        for theme in THEMES
    }


def _comparisons(measurement: Measurement) -> list[tuple[str, float, float]]:
    """Return what S is compared with on the same people, by how much it is better, and the paired p-value."""
    found = []
    for label, other in (
        ("the zero-query control", "zero_query"),
        ("the subgroup without δ", "subgroup_before"),
    ):
        both = measurement.resolved["subgroup_after"] & measurement.resolved[other]
        if both.any():
            more = measurement.correct["subgroup_after"][both].mean() - measurement.correct[other][both].mean()
            found.append((label, float(more), measurement.paired_p(other, "subgroup_after")))
        else:
            found.append((label, math.nan, math.nan))
    return found


# --- people -------------------------------------------------------------------------------------------------


def _crowd(people: People) -> dict[str, dict[str, int]]:
    return {
        name: {"inputs": int(rows.sum()), "people": len(np.unique(people.persons[rows]))}
        for name, rows in (("subgroup", people.subgroup), ("reference", ~people.subgroup))
    }


@dataclass(frozen=True)
class _Moved:
    """What δ changed, input by input, where the platform answered both times."""

    wrong_right: int
    right_right: int
    wrong_wrong: int
    right_wrong: int
    unanswered: int

    @classmethod
    def count(cls, measurement: Measurement) -> _Moved:
        both = measurement.resolved["subgroup_before"] & measurement.resolved["subgroup_after"]
        before, after = measurement.correct["subgroup_before"], measurement.correct["subgroup_after"]

        def number(rows: NDArray[np.bool_]) -> int:
            return int((both & rows).sum())

        return cls(
            number(~before & after),
            number(before & after),
            number(~before & ~after),
            number(before & ~after),
            int((~both).sum()),
        )

    @property
    def answered(self) -> int:
        return self.wrong_right + self.right_right + self.wrong_wrong + self.right_wrong


@dataclass(frozen=True)
class _Shown:
    """One input as pictures, and how it was answered."""

    name: str
    before: str
    after: str
    difference: str
    said_before: str
    said_after: str


def _shown(
    measurement: Measurement, perturbations: PerturbationSet, people: People, seed: int, agreed: frozenset[str]
) -> tuple[_Shown, ...]:
    members = people[people.subgroup]
    # Only those who said yes; a person with several pictures agreed to all of them or to none.
    may = np.flatnonzero(np.isin(members.persons, sorted(agreed)))
    if not len(may):
        return ()
    helped = ~measurement.correct["subgroup_before"] & measurement.correct["subgroup_after"]
    rows = may[_chosen(members.classes[may], helped[may], seed)]
    after = perturbations.apply(members.images[rows], members.classes[rows])

    def said(condition: str, position: int) -> str:
        if not measurement.resolved[condition][position]:
            return "unanswered"
        return "right" if measurement.correct[condition][position] else "wrong"

    return tuple(
        _Shown(
            name=perturbations.classes[int(members.classes[position])],
            before=_uri(enlarged(members.images[position])),
            after=_uri(enlarged(changed)),
            difference=_uri(
                enlarged(
                    magnified(
                        changed.astype(np.int16) - members.images[position].astype(np.int16), perturbations.epsilon
                    )
                )
            ),
            said_before=said("subgroup_before", int(position)),
            said_after=said("subgroup_after", int(position)),
        )
        for position, changed in zip(rows, after, strict=True)
    )


def _chosen(classes: NDArray[np.int64], helped: NDArray[np.bool_], seed: int) -> NDArray[np.intp]:
    """Return the rows shown: one per class, then a second, and so on; helped people first, else drawn at random."""
    drawn = np.random.default_rng(seed).permutation(len(classes))
    drawn = drawn[np.argsort(~helped[drawn], kind="stable")]
    turn = np.zeros(len(drawn), np.int64)
    for c in np.unique(classes):
        mine = classes[drawn] == c
        turn[mine] = np.arange(mine.sum())
    chosen = drawn[np.argsort(turn, kind="stable")][:MOST_PEOPLE_SHOWN]
    return chosen[np.argsort(classes[chosen], kind="stable")]


# --- δ and files --------------------------------------------------------------------------------------------


def _deltas(perturbations: PerturbationSet) -> list[tuple[str, str]]:
    height, width, _ = perturbations.image_shape
    most = min(MOST_DELTAS_SHOWN, max(1, MOST_DELTA_PIXELS // (height * width)))
    return [
        (name, _uri(enlarged(magnified(delta, perturbations.epsilon))))
        for name, delta in zip(perturbations.classes[:most], perturbations.delta[:most], strict=True)
    ]


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _write(path: Path, text: str) -> Path:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8", newline="\n", opener=private) as file:
            file.write(text)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ActionError(f"Expected to write the report to {path}, got: {error}. Choose another place.") from None
    return path
