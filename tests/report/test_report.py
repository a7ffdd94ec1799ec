"""Tests that the report says what was measured, all of it and no more, in one file that needs nothing else."""

from __future__ import annotations

import base64
import io
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ttca.answers import Answers
from ttca.certificates import Certificate, Certifying, Condition, Examined, certify, outcomes
from ttca.conditions import Opponents
from ttca.distilling import Fidelity
from ttca.errors import ActionError, MissingExtraError
from ttca.images import Images
from ttca.measurement import Measurement, measure
from ttca.panel import draw_panel
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.pooling.ledger import Balance
from ttca.report import Contents, write_report
from ttca.report.explanations import explained
from ttca.report.formatting import NOT_DEFINED, fixed, p_value, percent, plain, points
from ttca.report.html import _shown, _uri
from ttca.report.pictures import LAYOUTS, THEMES, Share, ShareGroup, draw_shares, enlarged, magnified
from ttca.row import Row

HOSTILE = "<script>alert(1)</script>"
CLASSES = ("dark", HOSTILE, 'bright" onerror="alert(1)')
EPSILON = 8
LEVELS = np.array([60, 120, 180])


def _platform(images: Images) -> Answers:
    """Tell three grey levels apart; noise of a bad camera crosses its borders."""
    return Answers.from_labels(np.digitize(images.mean(axis=(1, 2, 3)), [90, 150]).astype(np.int64), len(CLASSES))


def _silent(images: Images) -> Answers:
    return Answers.failed(len(images), len(CLASSES))


def _people(n: int = 60) -> People:
    classes = np.arange(2 * n) % len(CLASSES)
    subgroup = np.arange(2 * n) < n
    rng = np.random.default_rng(0)
    levels = LEVELS[classes] + np.where(subgroup, rng.integers(-34, 35, 2 * n), 0)
    images = np.broadcast_to(levels[:, None, None, None], (2 * n, 6, 5, 3)).astype(np.uint8)
    return People.build(images, classes, subgroup=subgroup)


def _set(levels: tuple[int, int, int]) -> PerturbationSet:
    delta = np.broadcast_to(np.array(levels, np.int8)[:, None, None, None], (3, 6, 5, 3)).copy()
    return PerturbationSet(
        delta, EPSILON, CLASSES, f"people of {HOSTILE}", "f" * 64, created="2026-01-02T03:04:05+00:00"
    )


@dataclass(frozen=True)
class Run:
    """Everything a report is made from."""

    row: Row
    measurement: Measurement
    certificate: Certificate
    perturbations: PerturbationSet
    people: People
    fidelity: Fidelity
    balances: tuple[Balance, ...]

    def write(self, path: Path, **changes: Any) -> str:
        given: dict[str, Any] = {
            **vars(self),
            "measured_on": "test people",
            "story": f"A story of {HOSTILE} & others.",
            "pictures_of": self.people.persons.tolist(),
            **changes,
        }
        shown = {name: given.pop(name) for name in ("pictures_of", "names") if name in given}
        return write_report(path, Contents(**given), **shown).read_text(encoding="utf-8")


def _run(*, platform: Any = _platform, goal: Any = "parity", n: int = 60) -> Run:
    people = _people(n)
    perturbations, none = _set((-8, 0, 8)), _set((0, 0, 0))
    opponents = Opponents(noise=none, zero_query=_set((-2, 0, 2)), class_agnostic=none)
    measured = measure(
        lambda images, _: platform(images),
        people,
        perturbations=perturbations,
        opponents=opponents,
        proxy=lambda images: _platform(images).labels,
        seed=1,
    )
    panel = draw_panel(people, seed=0)

    def ask(condition: Condition, start: int, stop: int) -> str:
        who = (panel.reference if condition == "reference" else panel.subgroup)[start:stop]
        images = who.images if isinstance(condition, str) else perturbations.apply(who.images, who.classes)
        answers = platform(images)
        return outcomes(who.classes, answers.labels, answers.resolved)

    terms = Certifying(goal=goal)
    epsilons = (4, EPSILON) if goal == "parity" else (EPSILON,)
    who = Examined(panel.design, len(panel.subgroup), len(panel.reference), panel.images)
    certificate = certify(ask, terms, epsilons=epsilons, examined=who)
    low, high = measured.interval("subgroup_after")
    row = Row(
        track=f"track {HOSTILE}",
        regime="own",
        answers="label",
        queries=1234,
        epsilon=EPSILON,
        seed=3,
        queries_pool=1234,
        queries_baseline=len(certificate.baseline),
        queries_verification=sum(test.asked for test in certificate.tests),
        queries_controls=700,
        coverage=measured.coverage,
        composition={"subgroup": 1000, "volunteers": 234, HOSTILE: 0},
        reference_before=measured.rate("reference_before"),
        subgroup_before=measured.rate("subgroup_before"),
        gap_before=measured.rate("reference_before") - measured.rate("subgroup_before"),
        subgroup_after=measured.rate("subgroup_after"),
        subgroup_after_lower=low,
        subgroup_after_upper=high,
        gap_closed=measured.gap_closed,
        goal=str(terms.aim),
        stopping=terms.stopping,
        certified=certificate.epsilon is not None,
        parity_certified=certificate.parity_certified,
        persons_verification=who.persons,
        persons_asked=certificate.persons_asked,
        certificate_lower=certificate.lower.value,
        certificate_power=certificate.power.smallest_rate,
        abuse_rate=measured.rate("abuse"),
        noise_control=measured.rate("noise"),
        proxy_class_control=measured.rate("proxy_class"),
        class_agnostic_control=measured.rate("class_agnostic"),
        zero_query_control=measured.rate("zero_query"),
        jpeg75_control=measured.rate("jpeg75"),
        resize_control=measured.rate("resize"),
        reference_after=measured.rate("reference_after"),
        zero_query_epochs=12,
        paired_p=measured.paired_p("subgroup_after", "zero_query"),
        paired_b=measured.discordant("subgroup_after", "zero_query")[0],
        paired_c=measured.discordant("subgroup_after", "zero_query")[1],
        fidelity_subgroup=measured.fidelity_subgroup,
        fidelity_reference=measured.fidelity_reference,
        worst_group_before=measured.fairness_before.worst["worst_group_accuracy"],
        worst_group_after=measured.fairness_after.worst["worst_group_accuracy"],
        equal_opportunity_gap_before=measured.fairness_before.worst["equal_opportunity_difference"],
        equal_opportunity_gap_after=measured.fairness_after.worst["equal_opportunity_difference"],
        demographic_parity_ratio_before=measured.fairness_before.worst["demographic_parity_ratio"],
        demographic_parity_ratio_after=float("nan"),
        threads=2,
        shortened=False,
        seconds_distil=1.25,
        seconds_learn=2.5,
        seconds=3.75,
        peak_rss_mb=321.5,
    )
    return Run(
        row,
        measured,
        certificate,
        perturbations,
        people,
        Fidelity(0.9, (0.8, 0.95), 0.95, (0.9, 0.99)),
        (Balance(f"member {HOSTILE}", 2000, 1350, 1340, 7, 3, 11), Balance("second", 10, 5, 5, 0, 0, 0)),
    )


@pytest.fixture(scope="module")
def run() -> Run:
    return _run()


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return run.write(tmp_path_factory.mktemp("report") / "report.html")


class _Elements(HTMLParser):
    """Collects elements, attributes and text, and checks that elements are closed in their order."""

    VOID = frozenset({"meta", "img", "source", "br", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def pictures(self) -> Iterator[bytes]:
        for tag, attributes in self.tags:
            if tag in ("img", "source"):
                uri = attributes["src" if tag == "img" else "srcset"]
                assert uri.startswith("data:image/png;base64,")
                yield base64.b64decode(uri.partition(",")[2], validate=True)


# --- the file -----------------------------------------------------------------------------------------------


def test_report_needs_no_other_file(page: str) -> None:
    """Nothing in the page points outside it, nothing in it runs, and its own policy forbids both."""
    elements = _Elements(page)
    for tag, attributes in elements.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "srcset", "href", "action", "data"):
            assert attributes.get(name, "#").startswith(("data:image/png;base64,", "#"))
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"@import|url\s*\(", page)
    policies = [a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_report_leads_to_its_own_sections(page: str) -> None:
    """Every link of the contents has its target, ids are unique, and no level of heading is skipped."""
    elements = _Elements(page)
    ids = [a["id"] for _, a in elements.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for tag, a in elements.tags if tag == "a"} <= set(ids)
    assert {a["aria-labelledby"] for _, a in elements.tags if "aria-labelledby" in a} <= set(ids)
    levels = [int(tag[1]) for tag, _ in elements.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_tables_and_pictures_are_named(page: str) -> None:
    """Every table has a caption and every picture an alternative text."""
    tags = _Elements(page).tags
    assert [t for t, _ in tags].count("table") == [t for t, _ in tags].count("caption") > 5
    assert all(a["alt"] for t, a in tags if t == "img")


def test_pictures_can_be_decoded(page: str, run: Run) -> None:
    """Every picture is a whole PNG: four charts, three per person shown, one per δ; none tells who drew it."""
    pictures = list(_Elements(page).pictures())
    for png in pictures:
        with Image.open(io.BytesIO(png)) as image:
            image.load()
            assert image.format == "PNG"
            assert "Software" not in image.info
    assert len(pictures) == 4 + 3 * 10 + len(CLASSES)


def test_same_arguments_give_the_same_bytes(run: Run, page: str, tmp_path: Path) -> None:
    """Writing again, elsewhere, gives the same file."""
    assert run.write(tmp_path / "deep" / "other.html") == page


def test_nothing_half_written_stays(run: Run, tmp_path: Path) -> None:
    """A report that cannot be written is a clear error and leaves no pieces behind."""
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ActionError, match="Choose another place"):
        run.write(tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_missing_packages_are_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Jinja2 or matplotlib the error says what to install."""
    for module in ("jinja2", "matplotlib.figure"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(MissingExtraError, match=r"The report needs .*ttca\[learn\]"):
                run.write(tmp_path / "report.html")


# --- what it says -------------------------------------------------------------------------------------------


def test_every_key_of_the_row_is_there_with_its_value(page: str, run: Run) -> None:
    """Each key stands in the table, explained, beside its exact value; an undefined one is said to be so."""
    rows = dict(re.findall(r'<tr><th scope="row">[^<]*<code>(\w+)</code><p>[^<]+</p></th><td[^>]*>(.*?)</td>', page))
    assert sorted(rows) == sorted(Row.keys())
    for key, value in run.row.to_dict().items():
        cell = rows[key]
        if value is None:
            assert cell == f'<span class="undefined">{NOT_DEFINED}</span>'
        elif isinstance(value, bool):
            assert f'value="{str(value).lower()}"' in cell
        elif isinstance(value, int | float):
            assert f'value="{value!r}"' in cell
        elif isinstance(value, str) and key != "track":
            assert f">{value}<" in cell
    assert run.row.to_dict()["demographic_parity_ratio_after"] is None


def test_a_new_key_is_not_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that nobody explained yet is still shown, under its own name."""
    monkeypatch.setattr("ttca.report.explanations._GROUPS", ())
    (group,) = explained(run.row)
    assert tuple(entry.key for entry in group.entries) == Row.keys()


def test_numbers_come_from_the_measurement(page: str, run: Run) -> None:
    """The words quote the rates, the interval, the certificate's own sentence and the paired p-values."""
    text = _Elements(page).text
    m = run.measurement
    for condition in m.correct:
        assert percent(m.rate(condition)).text.replace("\xa0", " ") in text.replace("\xa0", " ")
    for other in ("zero_query", "subgroup_before"):
        assert f'value="{m.paired_p(other, "subgroup_after")!r}"' in page
    assert run.certificate.summary() in text
    fixed_by_delta = ~m.correct["subgroup_before"] & m.correct["subgroup_after"]
    assert fixed_by_delta.any()
    assert f'<td class="number"><data value="{fixed_by_delta.sum()}">' in page


def test_whose_key_signed_is_told(run: Run, page: str, tmp_path: Path) -> None:
    """The public key that signed the set stands among its facts; without one the report says so."""
    assert "no key: this set was not signed" in page
    signed = run.write(tmp_path / "signed.html", signed_by="ttca-ed25519:AAAA")
    assert "the key <code>ttca-ed25519:AAAA</code>" in signed
    assert "was not signed" not in signed


def test_what_rechecks_said_is_told(run: Run, page: str, tmp_path: Path) -> None:
    """Where people are kept, the report says what became of them, as text; where nobody is, it says nothing of it."""
    assert "Rechecked" not in page
    written = run.write(tmp_path / "rechecked.html", rechecked="Expired since 2026-01-01: δ <b>no</b> longer helps.")
    assert "<dt>Rechecked</dt><dd>Expired since 2026-01-01: δ &lt;b&gt;no&lt;/b&gt; longer helps.</dd>" in written


def test_who_paid_adds_up(page: str) -> None:
    """Each member's balance is there, and so is the sum."""
    text = _Elements(page).text
    assert "second 10 5 5 0 0 0" in text
    assert "Total 2,010 1,355 1,345 7 3 11" in text


def test_hostile_names_stay_text(page: str) -> None:
    """Markup in a class, member, subgroup, track, key or story is shown as text, and never becomes an element."""
    assert HOSTILE not in page
    text = _Elements(page).text
    for where in ("track ", "people of ", "member ", "story of "):
        assert where + HOSTILE in text


def test_a_report_for_publication_holds_no_picture_and_no_name(run: Run, page: str, tmp_path: Path) -> None:
    """With pictures and names the page warns of them; for publication nobody's are in it and the counts stay."""
    without = run.write(tmp_path / "report.html", pictures_of=(), names=False)
    assert "Before you publish this report" in page
    assert "Before you publish this report" not in without
    assert len(list(_Elements(without).pictures())) == 4 + len(CLASSES)
    assert "wrong before" in without
    assert _Elements(page).text.count("member " + HOSTILE) == 1
    assert "member " + HOSTILE not in _Elements(without).text
    assert "Total 2,010 1,355" in _Elements(without).text


@given(st.sets(st.integers(0, 59), max_size=12))
@settings(max_examples=12)
def test_nobody_is_pictured_who_did_not_agree(agreed: set[int]) -> None:
    """Of the inputs shown as pictures, each is an input of somebody who agreed, and is there unless ten are."""
    run = _run()
    sub = run.people[run.people.subgroup]
    names = [str(sub.persons[i]) for i in sorted(agreed)]
    shown = _shown(run.measurement, run.perturbations, run.people, 3, frozenset(names))
    allowed = {_uri(enlarged(sub.images[i])) for i in agreed}
    assert len(shown) == min(len(agreed), 10)
    assert {person.before for person in shown} <= allowed


def test_without_a_gap_the_report_claims_none_closed(tmp_path: Path) -> None:
    """Where the gap's interval holds 0 the page says that no gap was shown, and prints no share of it as closed."""
    run = _run(n=6)
    assert run.row.to_dict()["gap_closed"] is None
    text = _Elements(run.write(tmp_path / "report.html")).text
    assert "no gap was shown" in text
    assert "of the gap" not in text.split("The gap, before and after")[0]


def test_people_shown_are_spread_over_the_classes(page: str) -> None:
    """All classes are among the ten shown, and somebody who was helped is."""
    names = re.findall(r"<li>\s*<h3>(.*?)</h3>", page)
    assert len(names) == 10
    assert len(set(names)) == len(CLASSES)
    assert re.search(r"before<br><strong>✗ wrong</strong>.*\s*.*with δ<br><strong>✓ right</strong>", page)


def test_a_platform_that_never_answers_gives_no_numbers(tmp_path: Path) -> None:
    """Rates without answers are not defined, none is made up for the words or the chart, and the reason is told."""
    text = _Elements(_run(platform=_silent).write(tmp_path / "report.html")).text
    assert f"Without δ, the platform answered {NOT_DEFINED} of the subgroup's inputs correctly" in text
    assert "nan" not in text.lower().split()
    assert "Not certified" in text
    assert "Not defined if a group has no answer about a class" in text


@pytest.mark.parametrize("goal", ["parity", *(pytest.param(g, marks=pytest.mark.full) for g in ("improvement", 0.5))])
def test_the_certificate_is_told_whole(goal: Any, tmp_path: Path) -> None:
    """Whatever the goal, each test done and each left out is listed, and every bound says which side it has."""
    run = _run(goal=goal)
    text = _Elements(run.write(tmp_path / "report.html", measured_on="verification people")).text.replace("\xa0", " ")
    assert ("✓ " if run.certificate.epsilon is not None else "✗ ") + run.certificate.summary() in text
    for test in run.certificate.tests:
        assert f"{test.epsilon} {test.right} of {test.asked} {test.figures}" in text
    assert run.certificate.how in text
    untested = len(run.certificate.family) - len(run.certificate.tests)
    assert text.count("not tested: a larger ε had failed") == untested
    assert "one-sided lower bound" in text
    assert "two-sided interval" in text
    assert "The certificate is based on the same people" in text


def test_too_few_people_to_certify_is_said(tmp_path: Path) -> None:
    """Where no result could have been certified, the page says so instead of blaming δ."""
    run = _run(n=6)
    assert not run.certificate.power.possible
    assert "too few people verified it" in _Elements(run.write(tmp_path / "report.html")).text


def test_parts_of_different_runs_are_refused(run: Run, tmp_path: Path) -> None:
    """A row, people or perturbations of another run do not make a report that looks right."""
    path = tmp_path / "report.html"
    with pytest.raises(ActionError, match="subgroup_after"):
        run.write(path, row=replace(run.row, subgroup_after=0.123))
    with pytest.raises(ActionError, match="people who were measured"):
        run.write(path, people=run.people[:-1])
    with pytest.raises(ActionError, match="of one ε"):
        run.write(path, perturbations=replace(run.perturbations, epsilon=9))
    assert not path.exists()


def test_many_large_deltas_are_not_all_drawn(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that would be too heavy shows the first δ and says how many there are."""
    monkeypatch.setattr("ttca.report.html.MOST_DELTA_PIXELS", 2 * 6 * 5)
    assert "Only the first 2 of 3 are shown" in _Elements(run.write(tmp_path / "report.html")).text


# --- numbers and pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (percent(0.8013), "80.1 %"),
        (percent(1.0), "100.0 %"),
        (percent(0.99996), "99.996 %"),
        (percent(0.0002), "0.02 %"),
        (percent(-0.25), "−25.0 %"),
        (percent(float("nan")), NOT_DEFINED),
        (percent(None), NOT_DEFINED),
        (points(-0.142), "−14.2 points"),
        (fixed(1234.5, 1, "s"), "1,234.5 s"),
        (p_value(0.0421), "0.042"),
        (p_value(2.34e-11), "2.3 × 10⁻¹¹"),
        (p_value(0.0), "< 10⁻³⁰⁰"),
        (plain(True), "yes"),
        (plain({"subgroup": 1200, "altered": 0}), "subgroup 1,200, altered 0"),
    ],
)
def test_numbers_are_written_for_people(written: Any, expected: str) -> None:
    """Numbers are rounded without ever turning almost into all, and undefined ones are not numbers."""
    assert written.text.replace("\xa0", " ") == expected
    assert (written.machine is None) == (expected == NOT_DEFINED)


def test_differences_are_magnified_as_stated() -> None:
    """Zero is mid-grey, −ε black and +ε white."""
    assert magnified(np.array([-8, 0, 8], np.int8), 8).tolist() == [0, 128, 255]
    assert magnified(np.array([-127, 0, 127], np.int16), 127).tolist() == [0, 128, 255]


def test_pixels_are_enlarged_whole() -> None:
    """A small image is enlarged by a whole number and each pixel keeps its colour; a large one stays as it is."""
    small = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(enlarged(small, least=12))))
    assert shown.shape == (9, 15, 3)
    assert np.array_equal(shown[1::3, 1::3], small)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(enlarged(small, least=4)))), small)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("theme", THEMES)
def test_charts_leave_out_what_is_not_defined(theme: str, layout: str) -> None:
    """A share that is not defined draws no dot, and what is drawn depends on the share."""
    nan = float("nan")

    def chart(rate: float, low: float, high: float) -> bytes:
        group = ShareGroup("Group", (Share("name", "Label", "after", rate, low, high, ""),))
        return draw_shares([group], reference=nan, theme=THEMES[theme], layout=LAYOUTS[layout])

    def coloured(png: bytes) -> int:
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        colour = bytes.fromhex(THEMES[theme].roles["after"][1:])
        return int((pixels == np.frombuffer(colour, np.uint8)).all(axis=2).sum())

    assert coloured(chart(nan, 0, 1)) == 0
    assert coloured(chart(0.5, 0.5, 0.5)) > 0
    assert coloured(chart(0.5, 0.1, 0.9)) > coloured(chart(0.5, 0.4, 0.6))


def test_four_fifths_compares_how_often_a_class_is_named(run: Run, tmp_path: Path) -> None:
    """The four-fifths ratio is the share of the subgroup's answers that name a class by the reference's, as in law."""
    text = _Elements(run.write(tmp_path / "report.html")).text
    said = {name: run.measurement.outcomes[name].answers for name in ("subgroup_before", "reference_before")}
    for number, name in enumerate(CLASSES):
        ours, theirs = (float((a.labels[a.resolved] == number).mean()) for a in said.values())
        if theirs:
            assert f"{name} {ours / theirs:.2f}" in text
    assert "Four fifths" in text
