"""Tests that what is worked out from kept rows is what people's answers would have said."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import norm, ttest_1samp

from benchmarks._kept_rows import (
    _arcs,
    change_span,
    closed_span,
    discordant,
    lead_span,
    over_seeds,
    paired,
    people,
    queries,
    rate_span,
    shortened,
    verified_by,
)
from benchmarks._listing import RESULTS
from tests.examples import examples
from ttca.certificates import clopper_pearson_interval
from ttca.errors import DataError
from ttca.intervals import Span, difference_interval, gap_closed_interval
from ttca.statistics.comparisons import mcnemar_exact

COUNTS = st.integers(0, 400)


def row(before: int, after: int, size: int, reference: int, size_2: int, **more: Any) -> dict[str, Any]:
    """Return what a row of protocol 1 keeps of so many right answers."""
    low, high = clopper_pearson_interval(after, size)
    rates = {"subgroup_before": before / size, "subgroup_after": after / size, "reference_before": reference / size_2}
    gap = rates["reference_before"] - rates["subgroup_before"]
    closed = (rates["subgroup_after"] - rates["subgroup_before"]) / gap if gap else None
    bounds = {"subgroup_after_lower": low, "subgroup_after_upper": high}
    # The reference's people are known by more than one rate.
    return rates | bounds | {"reference_after": 1 / size_2, "gap_closed": closed, "zero_query_control": 0.5} | more


@given(COUNTS, COUNTS, st.integers(0, 400))
def test_discordant_people_are_recovered(b: int, c: int, alike: int) -> None:
    """The counts behind an exact p come back exactly, alone but where p is 1, when nothing is known but lead and p."""
    first = np.repeat([True, False, True], [b, c, alike])
    second = np.repeat([False, True, True], [b, c, alike])
    p = mcnemar_exact(first, second) if len(first) else 1.0
    found = discordant(p, b - c, len(first))
    assert (b, c) in found
    assert len(found) == 1 or abs(b - c) <= 1
    if len(found) > 1:
        assert p == pytest.approx(1)
        assert found == tuple(sorted(found))


@given(COUNTS, st.integers(2, 30))
def test_a_p_of_other_people_has_no_counts(c: int, lead: int) -> None:
    """A p that no counts give is not read as some: nothing fits."""
    p = mcnemar_exact(np.repeat([True, False], [c + lead, c]), np.repeat([False, True], [c + lead, c]))
    assume(p < 0.99)
    assert discordant(p * 1.0001, lead, 2 * c + lead) == ()


@given(st.integers(1, 3000), st.data())
def test_the_number_of_people_comes_back(size: int, data: st.DataObject) -> None:
    """S and its exact bounds belong to one number of people."""
    assert people(row(0, data.draw(st.integers(0, size)), size, 1, 1)) == size


def test_rounded_bounds_are_refused() -> None:
    """Bounds that no number of people has are an error that says what they must be."""
    kept = row(3, 8, 10, 9, 10)
    with pytest.raises(DataError, match="do not round them"):
        people(kept | {"subgroup_after_lower": 0.44})
    with pytest.raises(DataError, match="Pass it"):
        paired(kept)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("transfer-*.json")), ids=lambda p: p.stem)
def test_every_kept_row_has_its_counts(path: Path) -> None:
    """Of all rows of the grids people are known, and discordant people too, unless p is 1: then the widest is taken."""
    for line in lines(json.loads(path.read_text(encoding="utf-8"))):
        test = paired(line["row"], line["zero_query_mcnemar_p"])
        assert test.people in (298, 301, 338, 2499, 2500)
        assert test.possible
        assert (len(test.possible) == 1) == (test.p < 0.9999)
        lead = line["row"]["subgroup_after"] - line["row"]["zero_query_control"]
        span = test.span
        assert span is not None
        assert span.low < lead < span.high


def lines(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of a grid."""
    for cell in record["cells"]:
        yield from cell["rows"]


def test_several_counts_give_the_widest_interval() -> None:
    """Where p is 1 the interval is that of as many discordant people as S and the control allow."""
    test = paired(row(70, 90, 100, 95, 100, zero_query_control=0.9), 1.0)
    assert test.possible[0] == (0, 0)
    assert test.possible[-1] == (10, 10)
    assert test.told == "1 (not recoverable)"
    answers = np.repeat([1, 0, 1], [10, 10, 80]), np.repeat([0, 1, 1], [10, 10, 80])
    assert test.span == difference_interval(*answers, paired=True)
    kept = row(70, 90, 100, 95, 100, zero_query_control=0.8, paired_p=0.002, paired_b=10, paired_c=0)
    assert paired(kept).told == "0.002 (10/0)"


@examples(40)
@given(st.integers(2, 60), st.floats(-3, 3), st.floats(-3, 3), st.data())
def test_the_widest_pairing_is_among_the_arcs(size: int, weight: float, other: float, data: st.DataObject) -> None:
    """No way for three answers of each person to go together lets a weighted sum vary more, by linear programming."""
    right = [data.draw(st.integers(0, size)) for _ in range(3)]
    weights = np.array([1.0, weight, other])
    cells = np.array(list(np.ndindex(2, 2, 2)), float)
    squares = (cells @ weights) ** 2
    totals = np.vstack([np.ones(8), cells.T])
    best = linprog(-squares, A_eq=totals, b_eq=[size, *right], bounds=(0, None))
    found = max(float(((np.stack(table).T @ weights) ** 2).sum()) for table in _arcs(size, right))
    # Whole persons may fall short of the program's halves by one person.
    assert found >= float(squares @ best.x) - float(squares.max())
    assert all([int(part.sum()) for part in table] == right for table in _arcs(size, right))


@examples(25)
@given(st.integers(20, 80), st.data())
def test_the_gap_closed_of_any_pairing_is_inside(size: int, data: st.DataObject) -> None:
    """However answers go together, their interval lies within the one from counts alone, if there is one."""
    reference = data.draw(st.integers(size // 2 + 8, size))
    before = data.draw(st.integers(1, size // 4))
    after = data.draw(st.integers(before, size))
    kept = row(before, after, size, reference, size)
    assume(math.lcm(*(kept_size(kept, key) for key in ("reference_before", "reference_after"))) == size)
    span = closed_span(kept)
    order = np.random.default_rng(data.draw(st.integers(0, 999)))
    shuffled = [order.permutation(size) < k for k in (before, after, reference)]
    true = gap_closed_interval(*shuffled, same=True)
    if span is not None:
        assert true is not None
        # MOVER's limits are not quite a variance's.
        slack = 0.05 * (span.high - span.low)
        assert span.low - slack <= true.low
        assert true.high <= span.high + slack


def kept_size(kept: dict[str, Any], key: str) -> int:
    """Return the denominator of a rate."""
    from fractions import Fraction

    return Fraction(kept[key]).limit_denominator(1000).denominator


def test_no_gap_no_gap_closed() -> None:
    """Where the gap may be chance in some pairing, nothing is said of the gap closed."""
    assert closed_span(row(80, 95, 100, 82, 100)) is None
    assert closed_span(row(40, 95, 100, 90, 100) | {"gap_closed": None}) is None


def test_changes_of_fairness_are_bounded_or_left_out() -> None:
    """The worst group's change is from counts, the others' only from intervals, ends as far apart as can be."""
    kept = row(245, 327, 338, 1697, 2162)
    span = change_span(kept, "worst_group")
    assert span is not None
    # The reference is then the worst group: its lead is what was gained at most.
    assert 0.009 < span.low < 0.011
    assert span.low == lead_span(kept).low
    assert change_span(kept, "equal_opportunity_gap") is None
    ends = {"equal_opportunity_gap_before": [0.2, 0.3], "equal_opportunity_gap_after": [0.0, 0.1]}
    new = change_span(kept | {"intervals": ends}, "equal_opportunity_gap")
    assert new is not None
    assert (new.low, new.high) == pytest.approx((-0.3, -0.1))
    assert change_span(kept | {"intervals": {}}, "worst_group") is None
    assert closed_span(kept | {"intervals": {"gap_closed": [2.5, None]}}) == Span(2.5, math.inf, 0.95)
    assert lead_span(kept | {"intervals": {"gap_before": [0.01, 0.1]}}) == Span(0.01, 0.1, 0.95)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.3), st.floats(0.01, 0.3)), min_size=1, max_size=6))
def test_an_interval_over_persons_and_seeds_is_at_least_each(parts: list[tuple[float, float, float]]) -> None:
    """It is never narrower than the seeds' own on average, nor than Student's over seeds, and always has a width."""
    values = [value for value, _, _ in parts]
    span = over_seeds(values, [Span(value - down, value + up, 0.95) for value, down, up in parts])
    assert span is not None
    mean = statistics.fmean(values)
    down = statistics.fmean(value for _, value, _ in parts)
    assert span.low <= mean - down + 1e-9
    assert span.high >= mean + statistics.fmean(value for _, _, value in parts) - 1e-9
    if len({round(value, 6) for value in values}) > 1:
        student = ttest_1samp(values, 0).confidence_interval(0.95)
        assert span.low <= student.low + 1e-9
        assert span.high >= student.high - 1e-9
        half = mean - student.low
        assert mean - span.low == pytest.approx(math.hypot(down, half))
    assert over_seeds([*values, 0.5], [Span(0, 1, 0.95)] * len(values) + [None]) is None
    assert over_seeds([], []) is None


def test_seeds_do_not_divide_the_persons() -> None:
    """Three seeds alike on the same people say no more about people than one, and a rate of 1 has its exact limit."""
    kept = row(50, 100, 100, 90, 100)
    span = rate_span(kept, "subgroup_after")
    assert span == over_seeds([1.0] * 3, [span] * 3, least=0, most=1)
    assert (span.low, span.high) == pytest.approx(clopper_pearson_interval(100, 100))


def test_an_interval_over_persons_and_seeds_keeps_its_word() -> None:
    """Of 400 actions with other people and seeds each time, it holds the true rate in at least 95 of 100."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        # A person's own luck is the same for all seeds; each seed's skill differs by chance.
        luck, skill = rng.normal(0, 1, 150), rng.normal(1, 0.15, 3)
        right = [int((luck + rng.normal(0, 0.5, 150) < each).sum()) for each in skill]
        spans = [rate_span(row(0, k, 150, 1, 1), "subgroup_after") for k in right]
        span = over_seeds([k / 150 for k in right], spans, least=0, most=1)
        # Normal sums: luck, chance in an answer, and skill.
        assert span is not None
        held += span.low <= norm.cdf(1 / math.sqrt(1 + 0.5**2 + 0.15**2)) <= span.high
    assert held >= 380


def test_rows_of_both_protocols_are_read() -> None:
    """What protocol 1 called the audit is the baseline, its people stand in the certificate, and it was shortened."""
    assert queries({"queries_audit": 7}, "baseline") == queries({"queries_baseline": 7}, "baseline") == 7
    assert queries({"audit": 7, "pool": 3}, "baseline") == 7
    with pytest.raises(KeyError):
        queries({"queries_audit": 7}, "verification")
    assert verified_by({"row": {}, "certificate": {"before": {"m": 9}}}) == 9
    assert verified_by({"row": {"persons_verification": 8}, "certificate": {}}) == 8
    assert shortened({})
    assert not shortened({"shortened": False})
