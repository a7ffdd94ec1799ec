"""What platforms may do, what they can tell from queries and averages, and that the page says what was measured."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import shapiro
from sklearn.metrics import roc_auc_score

from benchmarks import defences
from benchmarks._cells import CellKey
from benchmarks._defended import (
    DEFENCES,
    Abstaining,
    ResizeAndPad,
    asked,
    defended,
    fewer_levels,
    retrained_reader,
    through_cameras,
    train_reader,
)
from benchmarks._detectors import Prada, Stateful, area_under_curve, encode, expose, residuals
from benchmarks._document import filled
from benchmarks._documents import data_files
from benchmarks._pages import defences as page
from tests import worlds
from tests.examples import examples
from ttca.demo.world import DigitsWorld, digits_world
from ttca.errors import ActionError, ConfigError, WorthlessProxyError
from ttca.images import Images
from ttca.people import People
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.local import LocalPlatform

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "defences.md"
_IMAGES = arrays(np.uint8, (3, 8, 8, 3))


def _pictures(n: int, seed: int = 0, size: int = 16) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def _bright(images: Images) -> np.ndarray[Any, np.dtype[np.float64]]:
    share = images.mean((1, 2, 3)) / 255
    return np.stack([1 - share, share], axis=1)


def _platform() -> LocalPlatform:
    return LocalPlatform(_bright, classes=("dark", "bright"), image_shape=(16, 16, 3), max_batch=4)


# -- what happens to images -------------------------------------------------------------------------------------------


@given(images=_IMAGES, bits=st.integers(1, 8))
def test_fewer_levels_are_few_near_and_final(images: Images, bits: int) -> None:
    """No more than 2**bits levels, none further than half a step away, black and white kept; twice is once."""
    seen = fewer_levels(images, bits=bits)
    assert seen.dtype == np.uint8
    assert len(np.unique(seen)) <= 2**bits
    assert np.abs(seen.astype(int) - images).max() <= 255 / (2**bits - 1) / 2 + 0.5
    np.testing.assert_array_equal(fewer_levels(seen, bits=bits), seen)
    ends = np.array([0, 255], np.uint8)
    np.testing.assert_array_equal(fewer_levels(ends, bits=bits), ends)


@examples(20)
@given(images=_IMAGES, seed=st.integers(0, 2**32 - 1))
def test_resize_and_pad_depends_on_seed_image_and_history_alone(images: Images, seed: int) -> None:
    """The same history gives the same pictures, in whatever batches they come; levels stay among the image's own."""
    together, apart = ResizeAndPad(seed), ResizeAndPad(seed)
    seen = together(images)
    assert (seen.dtype, seen.shape) == (images.dtype, images.shape)
    np.testing.assert_array_equal(seen, np.concatenate([apart(images[i : i + 1]) for i in range(len(images))]))
    assert seen.min() >= images.min()
    assert seen.max() <= images.max()


def test_resize_and_pad_draws_anew_each_time() -> None:
    """One picture asked often is not always moved alike, nor by another seed: an average needs many queries."""
    one = _pictures(1)
    change = ResizeAndPad(0)
    assert len({change(one).tobytes() for _ in range(12)}) > 6
    assert not np.array_equal(ResizeAndPad(1)(one), ResizeAndPad(2)(one))


@pytest.mark.parametrize("name", [name for name, defence in DEFENCES.items() if defence.change])
def test_every_change_keeps_shape_and_dtype(name: str) -> None:
    """A defence of inputs takes what the platform takes and gives the same to the model."""
    change = DEFENCES[name].change
    assert change is not None
    images = _pictures(5)
    kept = images.copy()
    seen = change(3)(images)
    assert (seen.dtype, seen.shape) == (images.dtype, images.shape)
    np.testing.assert_array_equal(images, kept)


# -- platforms ----------------------------------------------------------------------------------------------------


def test_a_defended_platform_answers_about_what_it_saw_and_is_another() -> None:
    """Its answers are the first platform's about the changed pictures; its fingerprint is its own."""
    first, images = _platform(), _pictures(9)
    second = defended(first, "bits3", DEFENCES["bits3"], seed=0)
    expected = asked(first, fewer_levels(images, bits=3))
    said = asked(second, images)
    np.testing.assert_allclose(said.scores, expected.scores, atol=1e-6)
    assert len({p.info.fingerprint for p in (first, second, defended(first, "bits4", DEFENCES["bits4"], seed=0))}) == 3
    assert second.processed == len(images)


def test_only_scores_can_be_defended() -> None:
    """A platform of labels alone is refused by a sentence."""
    with pytest.raises(ConfigError, match="gives scores"):
        defended(WithHabits(_platform(), Habits(label_only=True)), "blur", DEFENCES["blur"], seed=0)


def test_an_abstaining_platform_refuses_where_it_is_not_sure() -> None:
    """Labels alone, a refusal below the confidence, and an identity that names it."""
    images = np.stack([np.full((16, 16, 3), level, np.uint8) for level in (0, 100, 140, 255)])
    platform = defended(_platform(), "abstain70", DEFENCES["abstain70"], seed=0)
    said = asked(platform, images)
    np.testing.assert_array_equal(said.labels, [0, -1, -1, 1])
    assert said.resolved.all()
    assert np.isnan(said.scores).all()
    assert not platform.info.gives_scores
    other = defended(_platform(), "abstain70", replace(DEFENCES["abstain70"], abstain=0.6), seed=0)
    assert other.info.fingerprint != platform.info.fingerprint
    with pytest.raises(ConfigError, match=r"confidence in \[0, 1\]"):
        Abstaining(_bright, confidence=1.5, classes=("dark", "bright"), image_shape=(16, 16, 3))


# -- training -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> DigitsWorld:
    """Return the demo's world."""
    return digits_world(seed=0)


def test_a_fix_takes_as_many_pictures_as_it_gives(world: DigitsWorld) -> None:
    """The number of training pictures stays; the share asked for comes through the camera, each picture once."""
    for share in (0.0, 0.2, 0.5, 1.0):
        images = through_cameras(world, share)
        changed = (images != world.training_images).any(axis=(1, 2, 3))
        n = len(images)
        already = round(0.03 * n)
        assert images.shape == world.training_images.shape
        assert not changed[:already].any()
        assert changed.sum() == max(round(share * n) - already, 0)


def test_training_again_is_the_same_again(world: DigitsWorld) -> None:
    """The same seed gives the same platform, and what is added to training another one."""
    few, classes = world.training_images[:128], world.training_classes[:128]

    def said(**options: Any) -> bytes:
        model = train_reader(few, classes, epochs=2, **options)
        return b"".join(v.numpy().tobytes() for v in model.state_dict().values())

    plain = said(seed=1)
    assert plain == said(seed=1)
    assert len({plain, said(seed=2), said(seed=1, noise=16.0), said(seed=1, adversarial=8.0)}) == 4


def test_training_on_the_subgroup_helps_it(world: DigitsWorld) -> None:
    """A platform trained on the bad camera's pictures reads others of them better than the demo's recipe does."""
    seen = world.roster.verification
    own = seen[seen.subgroup]
    right = []
    for share in (0.03, 1.0):
        platform = retrained_reader(world, "test", seed=1, share=share, epochs=60)
        right.append(float((asked(platform, own.images).labels == own.classes).mean()))
    assert right[1] > right[0] + 0.03


# -- detectors ----------------------------------------------------------------------------------------------------


def _natural(n: int, rng: np.random.Generator) -> Images:
    """Return pictures whose distances to each other are close to normal: noise around random greys."""
    grey = rng.normal(128, 20, (n, 1, 1, 1))
    return np.clip(grey + rng.normal(0, 30, (n, 16, 16, 3)), 0, 255).astype(np.uint8)


def _synthetic(n: int, rng: np.random.Generator) -> Images:
    """Return a stream as extraction attacks send it: a few seeds, then copies of them with ever the same steps."""
    seeds = _natural(n // 5, rng).astype(np.int16)
    copies = [seeds] + [np.clip(seeds + 20 * rng.choice([-1, 1], seeds.shape), 0, 255) for _ in range(4)]
    return np.concatenate(copies).astype(np.uint8)


def _calibrated(rng: np.random.Generator) -> tuple[Prada, np.ndarray[Any, np.dtype[np.int64]]]:
    labels = np.zeros(200, np.int64)
    lowest = [Prada.lowest(_natural(200, rng), labels) for _ in range(40)]
    return Prada.calibrated(lowest, false_positives=0.05), labels


def test_prada_flags_synthetic_streams_and_few_honest_ones() -> None:
    """It raises an alarm on every stream of copies, and on no more honest ones than a chance of one in ten allows."""
    rng = np.random.default_rng(0)
    prada, labels = _calibrated(rng)
    assert all(prada.alarms(Prada.lowest(_synthetic(200, rng), labels)) for _ in range(10))
    assert np.mean([prada.alarms(Prada.lowest(_natural(200, rng), labels)) for _ in range(40)]) <= 0.2


def test_prada_says_nothing_of_short_streams() -> None:
    """A key that sends fewer than a hundred pictures cannot be told at all, and no threshold comes of such streams."""
    labels = np.zeros(80, np.int64)
    assert Prada.lowest(_pictures(80), labels) is None
    assert not Prada(1.0).alarms(None)
    with pytest.raises(ConfigError, match="Make them longer"):
        Prada.calibrated([None, None], false_positives=0.05)


def test_prada_is_what_its_authors_describe() -> None:
    """One class, written out: distances to the growing set, outliers left out, W of what remains at every tenth."""
    images = _natural(131, np.random.default_rng(4))
    flat = images.reshape(len(images), -1).astype(float)
    grown, own, limit, found = [flat[0]], [0.0], 0.0, []
    lowest = np.inf
    for row in range(1, len(flat)):
        nearest = min(float(np.linalg.norm(flat[row] - g)) for g in grown)
        found.append(nearest)
        if nearest > limit:
            grown.append(flat[row])
            own.append(nearest)
            limit = max(limit, float(np.mean(own)) - float(np.std(own)))
        told = np.array(found)
        told = told[np.abs(told - told.mean()) < 3 * told.std()] if len(told) > 1 else told
        if row % 10 == 0 and len(told) > 100:
            lowest = min(lowest, float(shapiro(told).statistic))
    assert Prada.lowest(images, np.zeros(len(images), np.int64)) == pytest.approx(lowest, abs=1e-9)


def test_stateful_flags_near_copies_and_holds_its_rate_among_honest_pictures() -> None:
    """Small steps from one picture are flagged as soon as there are k; others are at the rate it was calibrated to."""
    rng = np.random.default_rng(0)
    detector = Stateful.calibrated(encode(_natural(1000, rng)), k=3, false_positives=0.01)
    one = _natural(1, rng).astype(np.int16)
    steps = np.clip(one + rng.integers(-8, 9, (40, 16, 16, 3)), 0, 255).astype(np.uint8)
    flags = detector.flags(encode(steps))
    # A detection empties the buffer: every fourth picture finds three.
    np.testing.assert_array_equal(np.flatnonzero(flags), np.arange(3, 40, 4))
    honest = [detector.flags(encode(_natural(500, rng))).mean() for _ in range(4)]
    assert np.mean(honest) <= 0.02
    with pytest.raises(ConfigError, match="more than k = 3"):
        Stateful.calibrated(encode(_natural(3, rng)), k=3, false_positives=0.01)


@given(images=arrays(np.uint8, (2, 16, 16, 3)))
def test_the_encoder_averages_squares(images: Images) -> None:
    """Each number is the mean of a square of a colour, in [0, 1]; what does not divide is refused."""
    codes = encode(images).reshape(2, 8, 8, 3)
    np.testing.assert_allclose(codes[1, 3, 5], images[1, 6:8, 10:12].mean((0, 1)) / 255)
    with pytest.raises(ConfigError, match="multiples of 8"):
        encode(images[:, :15])


# -- averages -----------------------------------------------------------------------------------------------------


@given(
    positive=st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    negative=st.lists(st.integers(-5, 5), min_size=1, max_size=20),
)
def test_the_area_is_the_usual_one(positive: list[int], negative: list[int]) -> None:
    """It is scikit-learn's area under the curve, ties included."""
    truth = [1] * len(positive) + [0] * len(negative)
    found = area_under_curve(np.array(positive, float), np.array(negative, float))
    assert found == pytest.approx(roc_auc_score(truth, positive + negative))


def test_more_submissions_expose_more_of_delta() -> None:
    """With everybody carrying δ an average finds it; with nobody it finds nothing; with more submissions, more."""
    rng = np.random.default_rng(0)
    delta = rng.choice([-8, 8], (16, 16, 3))
    past, held = (residuals(_natural(400, rng)) for _ in range(2))
    carried = np.clip(_natural(400, rng) + delta, 0, 255).astype(np.uint8)
    with_delta = residuals(np.clip(_natural(300, rng) + delta, 0, 255).astype(np.uint8))

    def found(n: int, carriers: int) -> tuple[float, float]:
        sent = np.concatenate([residuals(carried)[:carriers], residuals(_natural(n - carriers, rng))])
        seen = expose(sent, past, delta.reshape(-1).astype(float), (with_delta, held))
        return seen.cosine, seen.area

    few, many, nobody = found(10, 10), found(400, 400), found(400, 0)
    assert nobody[0] == pytest.approx(0, abs=0.1)
    assert few[0] < many[0]
    assert many[0] > 0.7
    assert many[1] > 0.95


# -- the benchmark ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the record of a tiny run."""
    plan = replace(defences.PLANS["digits"], epsilons=(8,), seeds=1, people=60, counts=(5,))
    key = CellKey("digits", "own", "scores", 280, (8,), 0, {"epochs": 12, "steps": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTCA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(defences, "PLANS", {"digits": plan})
        patch.setattr(defences, "quick_key", lambda track, queries, seed: replace(key, seed=seed))
        for name, small in {"_STREAMS": 2, "_CALIBRATION": 3, "_ALONE": 2, "_BUDGET": 30, "_DRAWS": 1}.items():
            patch.setattr(defences, name, small)
        return defences.main(["--defences", "bits3", "abstain50", "fix20", "--known", "bits3"])


@pytest.mark.e2e
@pytest.mark.full
def test_every_cell_carries_the_controls(record: dict[str, Any]) -> None:
    """A defence's S stands beside abuse, noise, zero-query and the rest, and beside what honest people are answered."""
    assert {(c["defence"], c["known"]) for c in record["cells"]} == {
        ("none", False), ("bits3", False), ("bits3", True), ("abstain50", False), ("retrained", False),
        ("fix20", False),
    }  # fmt: skip
    for cell in record["cells"]:
        for number in defences._NUMBERS.values():
            assert 0 <= cell[number] <= 1
        assert cell["people"] == {"reference": 60, "subgroup": 60}
    assert (record["file"], record["people"]) == ("defences-digits", "dev-test")
    refused = {c["defence"]: c["refused_subgroup"] for c in record["cells"]}
    assert refused["abstain50"] > refused["none"] == 0


@pytest.mark.e2e
@pytest.mark.full
def test_detectors_and_limits_are_measured_on_every_stream(record: dict[str, Any]) -> None:
    """Honest streams stand beside the action's, shuffled ones count as one set, and limits go by members."""
    streams = {line["stream"] for line in record["detectors"]}
    assert {"honest, reference", "honest, subgroup", "pool, each key", "one person's Square attack"} <= streams
    sets = {line["stream"]: line["sets"] for line in record["streams"]}
    assert streams == set(sets)
    assert len(sets["honest, reference"]) == len(sets["pool, all keys"]) == 1
    assert len(sets["pool, each key"]) == defences._KEYS
    short = [d for d in record["detectors"] if d["stream"] == "pool, each key" and not d["long_enough"]]
    assert {d["detector"] for d in short} == {"PRADA at 5%", "stateful, k = 50 at 0.1%"}
    assert all(d.get("pictures_flagged") is None and not d["streams_flagged"] for d in short)
    days = {(line["per_day"], line["members"]): line["days"] for line in record["limits"]}
    assert days[10, 1] > days[10, 20] > days[10, 1000] == 0


@pytest.mark.e2e
@pytest.mark.full
def test_every_share_of_delta_is_exact_and_of_the_same_classes(record: dict[str, Any]) -> None:
    """A line says no share that its submissions cannot have, and lines of one number differ in their share alone."""
    assert {(line["submissions"], line["share"]) for line in record["exposure"]} == {(5, 0.0), (5, 1.0)}
    assert all(line["with_delta"] == line["share"] * line["submissions"] for line in record["exposure"])
    assert len({(line["classes"], line["draws"]) for line in record["exposure"]}) == 1
    assert defences._whole(10) == [0.0, 0.1, 0.5, 1.0]
    assert defences._whole(40) == list(defences._SHARES)


@pytest.mark.e2e
@pytest.mark.full
def test_a_record_becomes_the_pages_tables_and_a_figure(record: dict[str, Any], tmp_path: Path) -> None:
    """Every table has lines, the record survives JSON, and the figure can be saved."""
    kept = json.loads(json.dumps(record, allow_nan=False)) | {
        "benchmark": "defences", "arguments": ["--json"], "commit": "abc", "hardware": {},
    }  # fmt: skip
    written = page.tables([("defences-digits.json", kept)])
    assert "8 levels per colour" in written["defences"]
    assert "`python -m benchmarks defences --keep`" in written["files"]
    # PRADA tells nothing of streams as short as here.
    assert {name for name, text in written.items() if not text} <= {"composition"}
    assert "*Not measured yet.*" not in written.values()
    text = filled(_DOCUMENT.read_text(encoding="utf-8"), written)
    assert text == filled(text, written)
    page.figure(kept).savefig(tmp_path / "defences.svg")
    assert (tmp_path / "defences.svg").stat().st_size > 1000


def test_a_page_without_marks_is_refused() -> None:
    """A lost mark is told: nothing is written where no table was."""
    with pytest.raises(ConfigError, match="Put them back"):
        filled("no marks", page.tables([]))


# -- what tables show -------------------------------------------------------------------------------------------------


def _cell(name: str, seed: int, before: float, **more: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(defences._NUMBERS.values(), 0.5) | {"reference_before": 0.9, "subgroup_before": before}
    named = {"track": "digits", "seed": seed, "defence": name, "known": False, "epsilon": 8}
    return {**named, **numbers, "gap_before": 0.9 - before, **more}


def _record(**more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {name: [] for name in ("cells", "detectors", "streams", "exposure", "limits")}
    said = {name: {"says": name} for name in DEFENCES}
    plans = {"digits": {"queries": 420, "epsilons": [8]}}
    return {"people": "dev-test", "plans": plans, "defences": said, **empty, **more}


def test_training_is_compared_with_the_same_training_and_input_with_the_platform_as_it_is() -> None:
    """A fix that does what training again does is no change, seed by seed, however far either is from the demo's."""
    levels = {"none": (0.5, 0.5), "jpeg75": (0.4, 0.4), "retrained": (0.6, 0.8), "fix20": (0.6, 0.8)}
    cells = [_cell(name, seed, before) for name, both in levels.items() for seed, before in enumerate(both)]
    change = {line[3]: line[7] for line in page._defence_lines(_record(cells=cells))}
    assert change == {
        "none": "–", "jpeg75": "-0.100 ± 0.000", "retrained": "+0.200 ± 0.141", "fix20": "+0.000 ± 0.000",
    }  # fmt: skip
    (again, fix) = page._fix_lines(_record(cells=cells))
    assert (again[4], fix[4], fix[5]) == ("–", "+0.000 ± 0.000", "+0.000, +0.000")
    assert fix[6] == "0.200 ± 0.141"


def test_an_impossible_action_is_told_as_such() -> None:
    """Where no seed's action was possible the table says so, and counts those that were not beside the others."""
    failed: dict[str, Any] = {"seed": 1, "failed": "Expected a proxy, got none."}
    assert page._over_seeds([failed], "subgroup_after") == "no action possible"
    assert page._over_seeds([_cell("none", 0, 0.5), failed], "subgroup_before") == "0.500 (1 of 2 impossible)"
    assert page._over_seeds([], "subgroup_after") == "–"


def _told(stream: str, detector: str, streams: int, long: float, flagged: float, **more: Any) -> dict[str, Any]:
    named = {"stream": stream, "detector": detector, "streams": streams, "pictures": 30.0}
    return {**named, "long_enough": long, "streams_flagged": flagged, **more}


def test_a_detector_is_rated_on_streams_that_it_can_tell() -> None:
    """Streams that are too short are counted and left out of the rate, and sets that seeds share count once."""
    detectors = [
        _told("pool, all keys", "PRADA", 20, 0.5, 0.25), _told("pool, all keys", "PRADA", 20, 0.0, 0.0),
        _told("pool, all keys", "stateful", 20, 1.0, 1.0, pictures_flagged=0.002),
        _told("honest, mixed as the pool", "PRADA", 20, 0.0, 0.0),
    ]  # fmt: skip
    streams = [{"stream": "pool, all keys", "sets": ["a"]}, {"stream": "pool, all keys", "sets": ["a", "b"]}]
    lines = list(page._detector_lines(_record(detectors=detectors, streams=streams)))
    assert lines[0][3:] == ("40", "2", "PRADA", "10 of 40", "50%", "–")
    assert lines[1][3:] == ("20", "2", "stateful", "20 of 20", "100%", "0.2%")
    assert lines[2][5:] == ("PRADA", "0 of 20", "–", "–")


@pytest.mark.parametrize(
    ("pool", "mixed", "meaning"),
    [(1.0, 1.0, "nothing of the action"), (1.0, 0.1, "does not explain"), (0.0, 0.0, "does not see the pool")],
)
def test_alarms_on_the_pool_are_told_beside_an_honest_mix(pool: float, mixed: float, meaning: str) -> None:
    """What PRADA's alarms mean follows from its alarms on nobody's action of the same composition."""
    detectors = [
        _told("pool, all keys", "PRADA at 5%", 20, 1.0, pool),
        _told("honest, mixed as the pool", "PRADA at 5%", 20, 1.0, mixed),
    ]
    (said,) = page._composition(_record(detectors=detectors))
    assert f"{pool:.0%}" in said
    assert meaning in said


def test_shuffled_pictures_are_one_set() -> None:
    """The order of a stream does not make another set of it, and one other picture does."""
    images = _pictures(5)
    assert defences._set_of(images) == defences._set_of(images[::-1]) != defences._set_of(images[:4])


# -- what can be asked for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "1 or more seeds"),
        (["--track", "cifar10-resnet56", "--defences", "jpeg75", "fix20"], "on cifar10-resnet56, got fix20"),
        (["--defences", "jpeg50", "--known", "bits3"], r"--known to name defenses .*\(jpeg50\), got bits3"),
        (["--known", "none"], "got none"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], message: str) -> None:
    """An argument that would change nothing is a sentence, before anything is done."""
    with pytest.raises(ConfigError, match=message):
        defences.main(arguments)


def test_a_slice_holds_what_it_is_compared_with() -> None:
    """As many seeds as asked for; with a fix the training without it, and nothing that nobody asked for."""
    plan = defences._narrowed("digits", 10, ["fix50"], None)
    assert (plan.seeds, plan.defences, plan.known) == (10, ("none", "retrained", "fix50"), ())
    assert defences._narrowed("digits", None, None, None) == defences.PLANS["digits"]


def test_only_a_worthless_proxy_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defence under which no proxy can be learned is a line of the record; any other error stops the run."""
    key = CellKey("digits", "own", "scores", 280, (8,), 0)
    seen: Any = SimpleNamespace(key=key, platform=_platform(), names={"track": "digits", "seed": 0})
    plan = replace(defences.PLANS["digits"], epsilons=(8,))
    people: Any = None

    def stopped(error: Exception) -> list[dict[str, Any]]:
        def distil() -> None:
            raise error

        found = SimpleNamespace(action=SimpleNamespace(distil=distil))
        monkeypatch.setattr(defences, "acting", lambda *_, **__: nullcontext(found))
        return list(defences._knowing(seen, plan, "bits3", people, {}))

    (line,) = stopped(WorthlessProxyError("It knows nothing."))
    assert (line["defence"], line["known"], line["failed"]) == ("bits3", True, "It knows nothing.")
    with pytest.raises(ActionError, match="a file is lost"):
        stopped(ActionError("a file is lost"))


def test_faces_that_nobody_asked_about_are_the_platforms_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of either group so many as fit, none of them somebody of the action."""
    parts = [worlds.crowd(f"part-{i}", 6, 9, seed=i) for i in range(3)]
    monkeypatch.setattr(defences, "AGE_GENDER_PEOPLE", SimpleNamespace(pool=lambda: iter(parts)))
    monkeypatch.setattr(defences, "_HISTORY", 20)
    asked = {*parts[0].persons[:4].tolist(), *parts[2].persons[-3:].tolist()}
    found = defences._unasked_faces(asked)
    everybody = People.concatenate(parts)
    left = everybody[~np.isin(everybody.persons, sorted(asked))]
    assert {name: len(images) for name, images in found.items()} == {
        "reference": min(20, int((~left.subgroup).sum())), "subgroup": min(20, int(left.subgroup.sum())),
    }  # fmt: skip
    for name, images in found.items():
        np.testing.assert_array_equal(images, left[left.subgroup == (name == "subgroup")].images[:20])


def test_the_prose_says_what_the_files_say() -> None:
    """The numbers in the sentences of the page are those of its tables."""
    text = " ".join(_DOCUMENT.read_text(encoding="utf-8").split())

    def lines(what: str) -> list[dict[str, str]]:
        return list(csv.DictReader(data_files("docs/defences.md")[f"docs/data/defences-{what}.csv"].splitlines()))

    (refused,) = (
        line
        for line in lines("refusals")
        if line["ε"] == "8" and line["the platform"].endswith("of .5") and "as it is" in line["δ was learned from"]
    )
    shares = [f"{float(refused[f'{who} refused'].split()[0]):.0%}" for who in ("reference", "subgroup", "with δ")]
    assert shares == ["2%", "82%", "40%"]
    assert "refused 2 % of the reference and 82 % of the subgroup, with δ still 40 %" in text
    gaps = {line["the platform"]: line["gap left without δ"].split()[0] for line in lines("fixes")}
    left, again = gaps["50 % from the subgroup, ten times as long"], gaps["trained again, another seed"]
    assert f"left a gap of {left[1:]}, where training again left {again[1:]}" in text
    (limit,) = (line for line in lines("limits") if line["per key and day"] == "10")
    days = limit["20 members"].split(" / ")
    assert f"20 members need {days[0]} days, {days[1]} with the certificate" in text
    flags = {(line["stream"], line["detector"]): line["flagged of these"] for line in lines("detectors")}
    assert {flags["pool, each key", detector] for _, detector in flags} <= {"–", "0%"}
    square = flags["one person's Square attack", "stateful, k = 1"].replace("%", " %")
    assert f"with k = 1 flags {square}" in text
    (area,) = (
        line["area under the curve"].split()[0]
        for line in lines("exposure")
        if (line["averages of"], line["with δ"]) == ("residuals", "1 of 10")
    )
    assert f"an area of {area[1:]}" in text
