"""What an action found, proved and did not show, in sentences for whoever reads nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ttca.report.formatting as formatting
from ttca.certificates import Certificate
from ttca.row import Row

__all__ = ["PlainWords", "Provenance"]

_SPACE = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who asked which service, when, and who allowed it.

    Parameters
    ----------
    subgroup : str
        Who is served worse, as the action calls them.
    service : str
        The platform's name; empty where it has none.
    first, last : str, optional
        Days of the first and the last query, ``YYYY-MM-DD`` (UTC); None where nothing was paid.
    authorized_by : str, optional
        Who allowed the queries; None where nobody is named.
    expired : str, optional
        Since when what was proved no longer holds, and why, a sentence; None where nobody found that.
    """

    subgroup: str
    service: str = ""
    first: str | None = None
    last: str | None = None
    authorized_by: str | None = None
    expired: str | None = None

    @property
    def people(self) -> str:
        """The people's name where a sentence goes on."""
        return "the subgroup" if self.subgroup in ("", "subgroup") else self.subgroup

    @property
    def when(self) -> str:
        """The days of the queries, for people."""
        if self.first is None or self.last is None:
            return "not on record"
        return self.first if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def who_allowed(self) -> str:
        """Who authorized the queries, for people."""
        return self.authorized_by or "nobody is named; off the collective's own machine somebody has to be"


@dataclass(frozen=True, kw_only=True)
class PlainWords:
    """Sentences about one action; every number in them is the row's or the certificate's.

    Parameters
    ----------
    found : str
        How the groups were served, and whether a gap was shown.
    proved : str
        What the certificate claims and how often such a claim is wrong, or that nothing was proved.
    limits : tuple of str
        What none of this shows.
    gap : bool
        Whether a gap was shown.
    """

    found: str
    proved: str
    limits: tuple[str, ...]
    gap: bool

    @classmethod
    def of(cls, row: Row, certificate: Certificate, around: Provenance) -> PlainWords:
        """Return the sentences for a row and its certificate, whatever the goal and the rule that stopped it."""
        proved = f"{_claim(certificate, around)} {_asked(certificate)} {_error(certificate)}"
        return cls(
            found=_found(row, around),
            proved=f"{proved} {around.expired or ''}".strip(),
            limits=_limits(row, certificate),
            gap=_shown(row) > 0,
        )

    @property
    def limits_as_list(self) -> str:
        """The limits as a Markdown list."""
        return "\n".join(f"- {limit}" for limit in self.limits)


def _shown(row: Row) -> int:
    """Return 1 where the subgroup was shown to be served worse, −1 where better, 0 where neither was shown."""
    span = row.intervals.get("gap_before")
    if not math.isfinite(row.gap_before):
        return 0
    if span is not None:
        return 1 if span[0] > 0 else -1 if span[1] < 0 else 0
    # Rows of before there were intervals say it by the share that was closed.
    return int(math.isfinite(row.gap_closed))


def _found(row: Row, around: Provenance) -> str:
    before, reference = row.subgroup_before, row.reference_before
    if not (math.isfinite(before) and math.isfinite(reference)):
        return "The service did not answer about one of the groups, so the two could not be compared. No gap was shown."
    said = (
        f"For {around.people}, the service gave the right answer in {_percent(before)} of cases. For everybody else "
        f"who was asked about, it did in {_percent(reference)}."
    )
    span, how = row.intervals.get("gap_before"), _shown(row)
    points = formatting.points(abs(row.gap_before)).text
    if how > 0 and span is not None:
        ends = f"{formatting.fixed(100 * span[0], 1).text} and {formatting.points(span[1]).text}"
        return f"{said} That is a gap of {points}. With 95{_SPACE}% confidence it lies between {ends}."
    if how > 0:
        return f"{said} That is a gap of {points}."
    if how < 0:
        return f"{said} No gap was shown: {around.people} were served better, by {points}."
    return f"{said} No gap was shown: among so few people, a difference of {points} may be chance."


def _claim(certificate: Certificate, around: Provenance) -> str:
    goal, people = certificate.terms.aim, around.people
    value = 0.0 if goal.value is None else goal.value
    claim = {
        "parity": f"the service is right for {people} at least as often as for the others",
        "improvement": f"the service is right for {people} more often than without it",
        "rate": f"the service is right for {people} in at least {_share(value)} of all cases",
        "within": f"the service is right for {people} at most {_points(value)} less often than for the others",
        "accuracy_ratio": f"the service is right for {people} at least {_share(value)} as often as for the others",
    }[goal.kind]
    if certificate.epsilon is not None:
        return (
            f"If each person adds a small change to their own picture (no color value moves by more than "
            f"{certificate.epsilon} of 255 levels), {claim}."
        )
    why = "The test failed."
    if not certificate.power.possible:
        why = "It could not have succeeded: too few people took part in the test, or the others were always right."
    return f"Nothing was proved. It was to be shown that with a small change to each picture {claim}. {why}"


def _asked(certificate: Certificate) -> str:
    people, goal = certificate.persons_asked, certificate.terms.aim
    if certificate.examined.layout is not None:
        people = certificate.examined.persons
    others = certificate.examined.others
    if goal.compares_with == "reference" and certificate.examined.design == "disjoint":
        who = "1 person" if people == 1 else f"{people:,} people"
        return f"For this we asked about {who} of this group and {others:,} others. None of them had another part."
    each = " Each was compared with themselves." if certificate.design == "paired" else ""
    return f"For this we asked about {_count(people)} who had no other part.{each}"


def _error(certificate: Certificate) -> str:
    alpha = certificate.terms.alpha
    times = round(1 / alpha)
    often = f"1 in {times}" if math.isclose(times * alpha, 1) else f"{100 * alpha:g} in 100"
    kind = " The test is approximate." if certificate.terms.every_image else ""
    if certificate.epsilon is not None:
        return f"No more than {often} such actions would claim this wrongly.{kind}"
    return f"The test was set so that no more than {often} such actions claim wrongly. This one claims nothing.{kind}"


def _limits(row: Row, certificate: Certificate) -> tuple[str, ...]:
    said = [
        "Why the service errs, or that anybody meant it to.",
        "How people fare who are not like those who were asked about.",
        "What the service does on any other day, in another version, or at another picture size.",
    ]
    if certificate.epsilon is not None:
        said += [
            "That the service has become fair. Anyone who doesn't use the change is served as before.",
            "That the change helps everyone. It is a share: a few may be answered worse with it.",
            "That it works where the true class of a person is unknown. It was tested with true classes.",
        ]
        if math.isfinite(row.abuse_rate):
            said.append(
                "That the change cannot be misused. With the change of a wrong class, the service gave that one "
                f"in {_percent(row.abuse_rate)} of cases."
            )
    else:
        said.append("That the change does not help. It was only not shown that it does.")
    return tuple(said)


def _count(people: int) -> str:
    return "1 person" if people == 1 else f"{people:,} people"


def _percent(share: float) -> str:
    return formatting.percent(share).text


def _share(value: float) -> str:
    return f"{100 * value:g}{_SPACE}%"


def _points(value: float) -> str:
    return f"{100 * value:g} {'point' if value == 0.01 else 'points'}"
