"""Tests of how answers are read: what was not understood is never a label, and what was is read whatever its form."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.examples import examples
from ttca.answers import Answers, Status
from ttca.errors import AnswerError, ChargeState, ConfigError, TransportError
from ttca.platforms.protocols import Response, Wire, create_protocol
from ttca.platforms.protocols.picking import picked
from ttca.platforms.protocols.reading import Reading, UnreadableError

CLASSES = ("cat", "dog", "owl")
SEXES = ("male", "female")
SHAPE = (40, 60, 3)
NAN = float("nan")


def agreed(protocol: str, metadata: dict[str, Any] | None = None, **options: Any) -> Wire:
    """Return a protocol's wire as agreed with a server that has this metadata, or none."""

    def fetch(path: str) -> Response:
        if path not in (metadata or {}):
            raise TransportError("none", platform="p", charge=ChargeState.REFUNDED, retryable=False, status=404)
        return Response(200, {}, json.dumps((metadata or {})[path]).encode(), "p")

    return create_protocol(protocol, **{"image_shape": SHAPE, "classes": CLASSES, **options}).describe(fetch)


def said(wire: Wire, message: Any, n: int = 1) -> Answers:
    """Return the answers in a message: JSON, or bytes as they are."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return wire.parse(Response(200, {}, body, "p", "r"), n)


def label(message: Any, **options: Any) -> int:
    """Return the one label that is read, −1 for a refusal."""
    given: dict[str, Any] = {"classes": CLASSES, **options}
    return int(Reading(**given).rows([message]).labels[0])


V1: dict[str, Any] = {"v1/models/m": {}}

#: What nobody can know the meaning of, and what the sentence must say of it.
UNREADABLE: list[tuple[Any, str]] = [
    ([{"label": "cat", "score": None}, {"label": "dog", "score": None}], "None"),
    ([{"label": "cat", "score": NAN}, {"label": "dog", "score": 0.4}], "NaN"),
    ([{"label": "cat", "confidense": 0.9}, {"label": "dog", "confidense": 0.1}], "confidense"),
    ([{"label": "cat"}, {"label": "dog"}, {"label": "owl"}], "got none for"),
    ({"label": "cat", "confidense": 0.4}, "confidense"),
    ({"label": "cat", "scoers": {"cat": 0.2, "dog": 0.8}}, "scoers"),
    ({"label": "cat", "all": [0.2, 0.7, 0.1]}, "all"),
    ({"label": "cat", "all": [{"dog": 0.7}]}, "all"),
    ({"label": "cat", "sure": "93%"}, "sure"),
    ({"label": "cat", "sure": NAN}, "sure"),
    ({"label": "cat", "score": None}, "None"),
    ({"label": "cat", "score": "high"}, "high"),
    ({"label": "cat", "score": ""}, "as a score"),
    ({"label": "cat", "score": [0.9]}, "as a score"),
    ({"label": "cat", "scores": None}, "scores"),
    ({"label": "cat", "scores": [None, 0.7, 0.3]}, "null"),
    ({"label": "cat", "scores": {"cat": 0.9, "yeti": 0.1}}, "yeti"),
    ({"label": "cat", "score": 0.9, "scores": [0.2, 0.7, 0.1]}, "among the scores"),
    ({"label": "cat", "score": 0.9, "probability": 0.2}, "several"),
    ({"label": "cat", "scores": [0.2, 0.7, 0.1]}, "highest"),
    ({"label": "cat", "scores": {"cat": 0.2, "dog": 0.7, "owl": 0.1}}, "highest"),
    ({"label": "cat", "scores": [0.0, 0.0, 0.0]}, "above 0"),
    ({"label": "cat", "score": 0.1}, "0.1 in sum"),
    ({"label": "cat", "score": 1.7}, "1.7"),
    ({"label": None, "score": 0.9}, "None"),
    ({"label": ["cat"], "score": 0.9}, "cat"),
    ({"label": True, "score": 0.9}, "True"),
    ({"label": "cat", "class": "dog"}, "several"),
    ({"cat": 0.07}, "0.07"),
    ({"cat": "7%"}, "0.07"),
    ({"cat": 0.1, "dog": 0.1}, "0.2 in sum"),
    ({"cat": None, "dog": 0.7, "owl": 0.3}, "got"),
    ({"cat": NAN, "dog": 0.7, "owl": 0.3}, "NaN"),
    ({"cat": 0.5, "dog": 0.3, "Cat": 0.2}, "twice"),
    ({"cat": 0.5, "dog": 0.3, "0": 0.2}, "twice"),
    ({"cat": 0.6, "lynx": 0.4}, "lynx"),
    ({"cat": 0.9, "time": 12.5}, "time"),
    ({"cat": 0.9, "dog": {"score": 0.1}}, "each class"),
    ({"Cat ": -0.2, "dog": 1.2}, "-0.2"),
    ([["cat", 0.5], ["dog", 0.3], ["cat", 0.2]], "twice"),
    ([["cat", None], ["dog", 0.7]], "None"),
    ([["cat", 0.9], ["lynx", 0.1]], "lynx"),
    ([["cat", 0.9], "dog"], "dog"),
    ([{"cat": 0.9}, {"dog": None}], "None"),
    ([{"cat": 0.9, "dog": 0.1}, {"owl": 0.0}], "cat"),
    (["cat", "dog", "owl"], "3 labels"),
    (["owl", "cat"], "2 labels"),
    (["cat", "cat"], "2 labels"),
    (["1", "0", "0"], "3 labels"),
    (["cat", None], "cat"),
    ([None, None, None], "null"),
    ([0.2, NAN, 0.1], "NaN"),
    ([0.2, 0.7], "got 2"),
    ([0.9], "got 1"),
    ([1.0, 1.0, 1.0], "3 in sum"),
    ([0.9, 0.8, 0.2], "confidences"),
    ([1e-9, 0.0, 0.0], "1e-09"),
    ([0.2, 0.3, 0.1], "0.6 in sum"),
    ([0.0, 0.0, 0.0], "above 0"),
    ([2.0, 7.0, 1.0], "scores_are"),
    ([20, 70, 10], "percent"),
    ([51, 179, 25], "bytes"),
    (["high", "low", "low"], "high"),
    (0.93, "0.93"),
    (3, "first_label = 1"),
    ("lynx", 'labels = { "lynx"'),
    ("It is a cat.", "It is a cat."),
    ('{"label": "cat"}', "cat"),
    ("93.1%", "93.1%"),
    (True, "True"),
    (None, "None"),
    ({"score": 0.9}, "got"),
    ({"refused": "yes"}, "got"),
    ({"error": "busy", "label": "cat", "score": 0.9}, "busy"),
    ({"detail": {"label": "cat"}}, "error"),
]


@pytest.mark.parametrize(("message", "match"), UNREADABLE)
def test_what_was_not_understood_is_never_a_label(message: Any, match: str) -> None:
    """In every format, 75 answers that can be meant in several ways, or in none, are unreadable, and it says why."""
    with pytest.raises(UnreadableError, match="Expected") as told:
        Reading(classes=CLASSES).rows([message])
    assert match in str(told.value)
    for wire in (
        agreed("torchserve", model="m"),
        agreed("bentoml"),
        agreed("template", send="json", body="{images}", results="[]"),
    ):
        with pytest.raises(AnswerError) as caught:
            said(wire, [[message]] if wire.max_batch is None else message)
        assert caught.value.charge is ChargeState.CHARGED
    beside = said(agreed("kserve-v1", V1, model="m"), {"predictions": ["owl", message]}, 2)
    assert beside.labels.tolist() == [2, -1]
    assert beside.status.tolist() == [Status.ANSWERED, Status.FAILED]


@pytest.mark.parametrize("deep", [20, 300, 900])
def test_lists_in_lists_are_unreadable(deep: int) -> None:
    """However deep an answer lies, it is found or unreadable, and nothing breaks."""
    for inner in ("0", "null", '{"label": "lynx"}', '{"cat": 0.01}'):
        body = "[" * deep + inner + "]" * deep
        with pytest.raises(AnswerError):
            said(agreed("torchserve", model="m"), body.encode())
        with pytest.raises(AnswerError):
            said(agreed("torchserve", model="m", json_in_text=True), json.dumps(body).encode())


WORD = st.sampled_from(CLASSES)
SHARES = st.lists(st.floats(1e-3, 1), min_size=3, max_size=3).map(lambda v: [x / sum(v) for x in v])


def forms(scores: list[Any], names: tuple[str, ...] = CLASSES, key: str = "score") -> list[Any]:
    """Return all forms in which scores of all classes may be written."""
    pairs = list(zip(names, scores, strict=True))
    return [
        scores,
        {"scores": scores},
        {"probabilities": dict(pairs)},
        dict(pairs),
        [list(pair) for pair in pairs],
        [{"label": name, key: score} for name, score in pairs],
        [{name: score} for name, score in pairs],
    ]


@examples(60)
@given(SHARES, st.integers(0, 2), st.data())
def test_scores_that_were_spoiled_are_never_a_label(scores: list[float], at: int, data: st.DataObject) -> None:
    """Whatever the form: one score missing, renamed, doubled or scaled, and the answer is unreadable."""
    other = data.draw(st.sampled_from([k for k in range(3) if k != at]))
    renamed = tuple("lynx" if k == at else name for k, name in enumerate(CLASSES))
    doubled = tuple(CLASSES[other] if k == at else name for k, name in enumerate(CLASSES))
    factor = data.draw(st.floats(1e-9, 0.85) | st.floats(1.2, 90))
    odd: Any = data.draw(st.sampled_from([None, NAN, float("inf"), "high", "nan", True, [], {}]))
    exact = [0.1 + 0.013 * k + score for k, score in enumerate(scores)]
    scores = [score / sum(exact) for score in exact]
    spoiled = [
        *forms([odd if k == at else score for k, score in enumerate(scores)]),
        *forms([factor * score + 1e-7 / 3 for score in scores]),
        *forms(scores, renamed)[3:],
        *(form for form in forms(scores, doubled)[4:]),
        forms(scores, key="confidense")[5],
    ]
    for form in spoiled:
        with pytest.raises(UnreadableError):
            Reading(classes=CLASSES).rows([form])
    for form in forms(scores):
        assert label(form) == int(np.argmax(scores))


@examples(60)
@given(SHARES, WORD)
def test_a_label_and_all_scores_agree_or_are_unreadable(scores: list[float], word: str) -> None:
    """A label beside complete scores comes out where it has the highest, and nothing comes out where it has not."""
    highest = scores[CLASSES.index(word)] == max(scores)
    for form in forms(scores)[:4]:
        answer = {"label": word, "scores": form.get("scores", form) if isinstance(form, dict) else form}
        if highest:
            assert label(answer) == CLASSES.index(word)
        elif "probabilities" not in answer["scores"]:
            with pytest.raises(UnreadableError, match="highest"):
                label(answer)


def brain_float(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return numbers as bfloat16 keeps them, rounded to the nearest."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


ROUNDED: dict[str, Any] = {
    "float32": lambda p: p.astype(np.float32),
    "float16": lambda p: p.astype(np.float16),
    "bfloat16": brain_float,
    "eight bits": lambda p: np.round(p * 255) / 255,
    "quantized": lambda p: np.minimum(np.round(p * 256), 255) / 256,
    "4 decimals": lambda p: np.round(p, 4),
    "2 decimals": lambda p: np.round(p, 2),
    "2 decimals in float32": lambda p: np.round(p, 2).astype(np.float32),
    "2 decimals, cut off": lambda p: np.floor(p * 100) / 100,
    "1 decimal": lambda p: np.round(p, 1),
}


@pytest.mark.parametrize("how", ROUNDED)
@examples(40)
@given(st.integers(2, 1000), st.integers(0, 2**32 - 1), st.floats(0.1, 8))
def test_rounding_explains_a_sum(how: str, classes: int, seed: int, spread: float) -> None:
    """A softmax of any classes, rounded in any usual way, is read: as a row, in a batch, and its best five alone."""
    logits = np.random.default_rng(seed).normal(0, spread, classes)
    exact = np.exp(logits - logits.max())
    kept = np.asarray(ROUNDED[how](exact / exact.sum()), np.float64)
    assume(kept.max() > 0)
    names = [f"class {i}" for i in range(classes)]
    reading = Reading(classes=names)
    assert reading.rows([kept.tolist()]).labels[0] == kept.argmax()
    assert reading.answers(np.stack([kept, kept])).labels.tolist() == [kept.argmax()] * 2
    best = np.argsort(-kept, kind="stable")[:5]
    assert reading.rows([{names[i]: float(kept[i]) for i in best}]).labels[0] == kept.argmax()


@examples(200)
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=4), st.integers(0, 4))
def test_what_is_left_over_goes_to_no_class_that_was_not_named(named: list[float], unnamed: int) -> None:
    """Scores of some classes are read where the rest fits under the lowest of them, and never where it cannot."""
    classes = [f"class {i}" for i in range(max(2, len(named) + unnamed))]
    unnamed = len(classes) - len(named)
    left = 1 - sum(named)
    slack = 0.01 + 0.11 * len(classes)
    message = {classes[i]: score for i, score in enumerate(named)}
    if left < -slack or left > unnamed * min(named) + slack:
        with pytest.raises(UnreadableError, match="in sum"):
            label(message, classes=classes)
    if 0 <= left <= unnamed * min(named):
        assert label(message, classes=classes) == int(np.argmax(named))


@pytest.mark.parametrize(
    ("message", "options", "expected", "scores"),
    [
        (0.93, {"scores_are": "probability-of-second"}, 1, [0.07, 0.93]),
        ("7%", {"scores_are": "probability-of-second"}, 0, [0.93, 0.07]),
        ([0.93], {"scores_are": "probability-of-second"}, 1, [0.07, 0.93]),
        ({"score": 0.07}, {"scores_are": "probability-of-second"}, 0, [0.93, 0.07]),
        ({"scores": [0.93]}, {"scores_are": "probability-of-second"}, 1, [0.07, 0.93]),
        ({"female": 0.93}, {"scores_are": "probability-of-second"}, 1, [0.07, 0.93]),
        ({"label": "male", "score": 0.07}, {"scores_are": "probability-of-second"}, 0, [0.93, 0.07]),
        (1, {"scores_are": "probability-of-second"}, 1, [0, 1]),
        (0, {"scores_are": "probability-of-second"}, 0, [1, 0]),
        (0.0, {"scores_are": "logit-of-second"}, 0, [0.5, 0.5]),
        (-800, {"scores_are": "logit-of-second"}, 0, [1, 0]),
        ([float(np.log(9))], {"scores_are": "logit-of-second"}, 1, [0.1, 0.9]),
        (0.6, {"scores_are": "probability-of-second", "threshold": 0.75}, 0, [2 / 3, 1 / 3]),
        (0.8, {"scores_are": "probability-of-second", "threshold": 0.75}, 1, [3 / 7, 4 / 7]),
        (0.2, {"scores_are": "probability-of-second", "threshold": 0.1}, 1, [0.4 / 1.3, 0.9 / 1.3]),
        ([51, 204], {"scores_are": "bytes"}, 1, [0.2, 0.8]),
        ([51, 205], {"scores_are": "bytes"}, 1, [0.2, 205 / 255]),
        ([0.7, 0.9], {"scores_are": "confidences"}, 1, [0.7, 0.9]),
        ({"female": 0.9}, {"scores_are": "confidences"}, 1, [NAN, 0.9]),
        ({"male": "93.1%", "female": "6.9 %"}, {}, 0, [0.931, 0.069]),
        ({"male": "93.1%", "female": "6.9"}, {"scores_are": "percent"}, 0, [0.931, 0.069]),
        (["0.2", "0.8"], {}, 1, [0.2, 0.8]),
        ({"label": "male", "score": "0.93"}, {}, 0, [0.93, NAN]),
        ([[0.2, 0.8]], {}, 1, [0.2, 0.8]),
        ([["female", 0.8]], {}, 1, [NAN, 0.8]),
        (2, {"first_label": 1}, 1, None),
        ({"2": 0.8, "1": 0.2}, {"first_label": 1}, 1, [0.2, 0.8]),
        ("  FEMALE\n", {}, 1, None),
        ({"Male": 0.8, "Female": 0.2}, {}, 0, [0.8, 0.2]),
        ({"label": "Woman", "score": 0.8}, {"labels": {"man": "male", "woman": "female"}}, 1, [NAN, 0.8]),
        (True, {"labels": {"false": "male", "true": "female"}}, 1, None),
        (7, {"labels": {"3": "male", "7": "female"}}, 1, None),
        ({"face": 0.9, "female": 0.6, "male": 0.3}, {"others": "ignore", "scores_are": "confidences"}, 1, [0.3, 0.6]),
        ([["face", 0.5], ["female", 0.3]], {"others": "ignore"}, 1, [NAN, 0.3]),
        (["face", "female"], {"others": "ignore"}, 1, None),
        ([["chair", 0.9], ["female", 0.1]], {"others": "refuse"}, -1, None),
        ("chair", {"others": "refuse"}, -1, None),
        ('{"male": 0.2, "female": 0.8}', {"json_in_text": True}, 1, [0.2, 0.8]),
        ('```json\n{"label": "Female"}\n```\n', {"json_in_text": True}, 1, None),
        ('"female"', {"json_in_text": True}, 1, None),
        ("[]", {"json_in_text": True}, -1, None),
        ("Female.", {"word_in_text": True}, 1, None),
        ("The person looks **female**, about 30 years old.", {"word_in_text": True}, 1, None),
        ("I see a woman", {"word_in_text": True, "labels": {"woman": "female", "man": "male"}}, 1, None),
        ("I cannot tell.", {"word_in_text": True, "refused_labels": ["cannot tell"]}, -1, None),
    ],
)
def test_options_say_how_an_answer_is_meant(
    message: Any, options: dict[str, Any], expected: int, scores: list[float] | None
) -> None:
    """One score, bytes, confidences, text, numbers from 1, other words and sentences are read where the table says."""
    found = Reading(classes=SEXES, **options).rows([message])
    assert found.labels.tolist() == [expected]
    np.testing.assert_allclose(found.scores[0], [NAN, NAN] if scores is None else scores, atol=1e-6)


@pytest.mark.parametrize(
    ("message", "options", "match"),
    [
        (0.93, {}, "probability-of-second"),
        ([0.93], {}, "probability-of-second"),
        ({"male": 0.07}, {}, "0.07 in sum"),
        ({"male": 0.07}, {"scores_are": "probability-of-second"}, "of 'female'"),
        ({"male": 0.07, "female": 0.93}, {"scores_are": "probability-of-second"}, "Remove scores_are"),
        ([0.07, 0.93], {"scores_are": "probability-of-second"}, "Remove scores_are"),
        ({"label": "male", "score": 0.93}, {"scores_are": "probability-of-second"}, "highest"),
        (1.2, {"scores_are": "probability-of-second"}, "1.2"),
        (None, {"scores_are": "probability-of-second"}, "None"),
        ([None], {"scores_are": "logit-of-second"}, "null"),
        ("93%", {"scores_are": "logit-of-second"}, "93%"),
        ([0.2, 0.8], {"scores_are": "bytes"}, "255"),
        ([20, 280], {"scores_are": "bytes"}, "280"),
        ([0.2, 0.8], {"scores_are": "percent"}, "100"),
        ({"male": 0.07}, {"scores_are": "confidences"}, "0.07"),
        ([0.0, 0.0], {"scores_are": "confidences"}, "above 0"),
        ({"male": 1.0}, {"scores_are": "logits"}, "softmax"),
        (0, {"first_label": 1}, "'0'"),
        (3, {"first_label": 1}, "'3'"),
        ({"man": 0.7, "male": 0.2, "female": 0.1}, {"labels": {"man": "male"}}, "twice"),
        ("Man", {"classes": ("man", "woman"), "labels": {"MAN": "woman"}}, "'Man'"),
        ("chair", {"others": "ignore"}, "alone"),
        ([["chair", 0.9]], {"others": "ignore"}, "others alone"),
        ([["chair", 0.5], [None, 0.5]], {"others": "ignore"}, "None"),
        ({"male": 0.07}, {"others": "ignore"}, "0.07"),
        ({"label": "chair", "score": 0.9}, {"others": "ignore"}, "others alone"),
        ("Female", {"json_in_text": True}, "JSON alone"),
        ('Here: {"label": "female"}', {"json_in_text": True}, "JSON alone"),
        ('{"label": "female", "label": "male"}', {"json_in_text": True}, "twice"),
        ("", {"word_in_text": True}, "none"),
        ("A person.", {"word_in_text": True}, "none"),
        ("Shemale", {"word_in_text": True}, "none"),
        ("female-presenting", {"word_in_text": True}, "none"),
        ("Male or female", {"word_in_text": True}, "female, male"),
        ("not female", {"word_in_text": True}, "not"),
        ("This isn't a male.", {"word_in_text": True}, "isn't"),
        ("Female? No.", {"word_in_text": True}, "beside"),
        ("Anything but male", {"word_in_text": True}, "but"),
        ("Das ist kein male", {"word_in_text": True}, "kein"),
        ('{"label": "female"', {"word_in_text": True}, "JSON"),
        ("<p>female</p>", {"word_in_text": True}, "HTML"),
        ("I cannot tell male", {"word_in_text": True, "refused_labels": ["cannot tell"]}, "male"),
    ],
)
def test_options_never_turn_a_guess_into_a_label(message: Any, options: dict[str, Any], match: str) -> None:
    """With every option, too, what may mean two things is unreadable."""
    with pytest.raises(UnreadableError) as told:
        label(message, **{"classes": SEXES, **options})
    assert match in str(told.value)


@examples(100)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.99))
def test_a_threshold_decides_and_keeps_the_order(one: float, two: float, threshold: float) -> None:
    """Above the threshold it is the second class, below it the first, and a higher score never becomes a lower one."""
    assume(min(abs(one - threshold), abs(two - threshold)) > 1e-6)
    found = Reading(classes=SEXES, scores_are="probability-of-second", threshold=threshold).answers(
        np.array([[one], [two]])
    )
    assert found.labels.tolist() == [int(one > threshold), int(two > threshold)]
    assert (found.scores[0, 1] <= found.scores[1, 1]) == (one <= two) or abs(one - two) < 1e-6
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, atol=1e-6)


@examples(200)
@given(st.text(max_size=40), st.sampled_from(SEXES), st.text(max_size=40))
def test_a_sentence_names_one_class_or_none(before: str, word: str, after: str) -> None:
    """Whatever stands around it, a sentence with one class is read as that one or not at all, and never as another."""
    try:
        found = label(f"{before} {word} {after}", classes=SEXES, word_in_text=True)
    except UnreadableError:
        return
    assert found == SEXES.index(word)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scores_are": "odds"}, "one of"),
        ({"scores_are": "probability-of-second", "classes": CLASSES}, "two classes"),
        ({"scores_are": "logit-of-second", "missing_score": -1.0}, "missing_score"),
        ({"threshold": 0.4}, "threshold"),
        ({"threshold": 1.0, "scores_are": "probability-of-second"}, "between 0 and 1"),
        ({"first_label": -1}, "first_label"),
        ({"first_label": True}, "first_label"),
        ({"labels": {"man": "men"}}, "men"),
        ({"labels": ["man"]}, "table"),
        ({"labels": {" ": "male"}}, "table"),
        ({"labels": {"man": "male"}, "refused_labels": ["Man"]}, "no classes"),
        ({"refused_labels": ["MALE "]}, "no classes"),
        ({"others": "drop"}, "one of"),
        ({"json_in_text": True, "word_in_text": True}, "both"),
    ],
)
def test_a_reading_that_cannot_be_is_a_config_error(options: dict[str, Any], match: str) -> None:
    """Options that contradict each other, or name what is no class, are said before anything is asked."""
    with pytest.raises(ConfigError, match=match):
        Reading(**{"classes": SEXES, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"scores_are": "probability-of-second", "threshold": 0.4},
        {"first_label": 1},
        {"labels": {"man": "male"}},
        {"others": "ignore"},
        {"json_in_text": True},
        {"word_in_text": True},
        {"pick": "largest", "box": "b", "label": "l"},
        {"pick": "nearest-center", "box": "b", "label": "l"},
    ],
)
def test_how_an_answer_is_read_is_told_only_where_it_is_not_the_default(options: dict[str, Any]) -> None:
    """Each option is in what decides a reading, in nothing else, and a table without it is who it was."""
    plain, changed = (
        agreed("template", classes=SEXES, label="l"),
        agreed("template", classes=SEXES, **{"label": "l"} | options),
    )
    assert plain.identity == changed.identity
    assert plain.reading_identity is not None
    assert changed.reading_identity not in (None, plain.reading_identity)
    assert set(plain.reading_identity) == {
        "scores_are",
        "resolution",
        "missing_score",
        "refused_labels",
        "answer",
        "refused_statuses",
    }


# -- one score for each image ------------------------------------------------------------------------------------


def tf(outputs: dict[str, Any]) -> dict[str, Any]:
    """Return TensorFlow Serving's metadata of a model with these outputs, as (dtype, sizes)."""

    def described(dtype: str, sizes: list[int]) -> dict[str, Any]:
        return {"dtype": dtype, "tensor_shape": {"dim": [{"size": str(s)} for s in sizes], "unknown_rank": False}}

    signature = {
        "inputs": {"x": described("DT_FLOAT", [-1, *SHAPE])},
        "outputs": {name: described(*output) for name, output in outputs.items()},
    }
    return {"v1/models/m/metadata": {"metadata": {"signature_def": {"signature_def": {"serving_default": signature}}}}}


def v2(*outputs: tuple[str, str, list[int]]) -> dict[str, Any]:
    """Return KServe V2's metadata of a model with these outputs, as (name, datatype, shape)."""
    described = [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in outputs]
    inputs = [{"name": "x", "datatype": "UINT8", "shape": [-1, *SHAPE]}]
    return {"v2/models/m": {"name": "m", "inputs": inputs, "outputs": described}, "v2": {}}


ONE_COLUMN: list[tuple[str, dict[str, Any], Any]] = [
    ("tensorflow-serving", tf({"y": ("DT_FLOAT", [-1, 1])}), {"predictions": [[0.93], [0.07]]}),
    ("tensorflow-serving", tf({"y": ("DT_FLOAT", [-1])}), {"predictions": [0.93, 0.07]}),
    ("tensorflow-serving", tf({"y": ("DT_FLOAT", [-1, 1])}), {"predictions": [{"y": [0.93]}, {"y": [0.07]}]}),
    *(
        (
            "kserve-v2",
            v2(("p", "FP32", shape)),
            {"outputs": [{"name": "p", "datatype": "FP32", "shape": [2, *shape[1:]], "data": [0.93, 0.07]}]},
        )
        for shape in ([-1, 1], [-1])
    ),
]


@pytest.mark.parametrize(("protocol", "metadata", "message"), ONE_COLUMN)
def test_one_sigmoid_column_is_asked_where_the_table_says_whose_it_is(
    protocol: str, metadata: dict[str, Any], message: Any
) -> None:
    """One score for two classes is read with scores_are; without it, a sentence comes before anything is paid."""
    options: dict[str, Any] = {"model": "m", "classes": SEXES}
    found = said(agreed(protocol, metadata, scores_are="probability-of-second", **options), message, 2)
    assert found.labels.tolist() == [1, 0]
    np.testing.assert_allclose(found.scores, [[0.07, 0.93], [0.93, 0.07]], atol=1e-6)
    with pytest.raises(ConfigError, match="probability-of-second"):
        agreed(protocol, metadata, **options)


@pytest.mark.parametrize(
    ("protocol", "metadata"),
    [("tensorflow-serving", tf({"y": ("DT_FLOAT", [-1, 2])})), ("kserve-v2", v2(("p", "FP32", [-1, 2])))],
)
def test_one_score_is_not_expected_of_a_model_with_two(protocol: str, metadata: dict[str, Any]) -> None:
    """scores_are for one column, and metadata of two: a sentence before anything is paid."""
    with pytest.raises(ConfigError, match="remove scores_are"):
        agreed(protocol, metadata, model="m", classes=SEXES, scores_are="probability-of-second")


def test_a_number_beside_labels_is_none_of_the_scores() -> None:
    """A model that gives labels, and one more number for each image, is asked for its labels."""
    outputs: dict[str, Any] = {"label": ("DT_STRING", [-1]), "seconds": ("DT_FLOAT", [-1, 1])}
    wire = agreed("tensorflow-serving", tf(outputs), model="m", label_output="label")
    assert said(wire, {"predictions": [{"label": "dog", "seconds": [0.2]}]}).labels.tolist() == [1]


# -- what is told ------------------------------------------------------------------------------------------------


def test_a_word_that_is_no_class_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Rows that fail in an answer of which others are good say which word it was, and how to name it, once."""
    metadata = v2(("label", "BYTES", [-1]))
    one = agreed("kserve-v1", V1, model="m", classes=("car", "truck"))
    two = agreed("kserve-v2", metadata, model="m", classes=("car", "truck"))
    tensor = {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["car", "lorry"]}
    for wire, message in ((one, {"predictions": ["car", {"label": "lorry"}]}), (two, {"outputs": [tensor]})):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ttca"):
            for _ in range(3):
                assert said(wire, message, 2).labels.tolist() == [0, -1]
        assert len(caplog.messages) == 1
        assert 'labels = { "lorry" = "the class" }' in caplog.text
    named = agreed("kserve-v1", V1, model="m", classes=("car", "truck"), labels={"Lorry": "truck"})
    assert said(named, {"predictions": ["car", "lorry"]}, 2).labels.tolist() == [0, 1]


# -- several things found ------------------------------------------------------------------------------------------

FACES: dict[str, Any] = {
    "faces": [
        {"sex": "Male", "p": {"Male": 0.9, "Female": 0.1}, "at": {"x": 0, "y": 0, "w": 30, "h": 30}},
        {"sex": "Female", "p": {"Male": 0.2, "Female": 0.8}, "at": {"x": 25, "y": 15, "w": 10, "h": 10}},
    ]
}
BOX = "faces[*].at.{left: x, top: y, width: w, height: h}"


def test_one_of_several_things_is_picked_by_its_box() -> None:
    """The largest face and the one in the middle are read with their own label and scores; without a pick, none is."""
    places: dict[str, Any] = {"classes": SEXES, "label": "faces[*].sex", "scores": "faces[*].p"}
    largest = agreed("template", pick="largest", box=BOX, **places)
    center = agreed("template", pick="nearest-center", box=BOX, **places)
    assert said(largest, FACES).labels.tolist() == [0]
    found = said(center, FACES)
    assert found.labels.tolist() == [1]
    np.testing.assert_allclose(found.scores, [[0.2, 0.8]], atol=1e-6)
    assert said(largest, {"faces": []}).status.tolist() == [Status.REFUSED]
    with pytest.raises(AnswerError):
        said(agreed("template", **places), FACES)
    spoiled: list[Any] = [
        {"faces": [FACES["faces"][0], FACES["faces"][0]]},
        {"faces": [{**FACES["faces"][0], "at": None}]},
        {"faces": [FACES["faces"][1], {"sex": "Male", "at": {"x": 0, "y": 0, "w": 30, "h": 30}}]},
        {},
    ]
    for message in spoiled:
        with pytest.raises(AnswerError):
            said(largest, message)
    wrong: list[dict[str, Any]] = [{"pick": "largest"}, {"box": BOX}, {"pick": "first", "box": BOX}]
    for options in wrong:
        with pytest.raises(ConfigError, match="pick"):
            agreed("template", **places, **options)
    with pytest.raises(ConfigError, match="pick"):
        agreed("template", pick="largest", box=BOX)


@examples(100)
@given(st.lists(st.tuples(*[st.integers(0, 39)] * 2, *[st.integers(1, 20)] * 2), min_size=1, max_size=4))
def test_every_way_to_write_a_box_picks_the_same(boxes: list[tuple[int, int, int, int]]) -> None:
    """Edges, sizes, centers and corners, in pixels or in shares, are the same boxes."""
    height, width, _ = SHAPE

    def written(x: float, y: float, w: float, h: float) -> list[Any]:
        corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
        return [
            {"left": x, "top": y, "right": x + w, "bottom": y + h},
            {"Left": x, "Top": y, "Width": w, "Height": h},
            {"center_x": x + w / 2, "center_y": y + h / 2, "width": w, "height": h},
            [{"x": a, "y": b} for a, b in corners],
        ]

    assume(max(x + w for x, _, w, _ in boxes) > 2)
    away = [np.hypot(x + w / 2 - width / 2, y + h / 2 - height / 2) for x, y, w, h in boxes]
    shares = [(x / width, y / height, w / width, h / height) for x, y, w, h in boxes]
    for pick, ranks in (("largest", [-w * h for _, _, w, h in boxes]), ("nearest-center", away)):
        best = int(np.argmin(ranks))
        alike = sum(rank - ranks[best] < 1e-6 for rank in ranks) > 1
        for form in range(4):
            for given_in in (boxes, shares) if not alike else ():
                assert picked([written(*box)[form] for box in given_in], pick, SHAPE) == best  # type: ignore[arg-type]
        if alike and pick == "largest":
            with pytest.raises(UnreadableError, match="alike"):
                picked([written(*box)[1] for box in boxes], "largest", SHAPE)
    for odd in (
        None,
        {},
        {"x": 1, "y": 1, "width": 2, "height": 2},
        [1, 2, 3, 4],
        {"left": 3, "top": 1, "right": 1, "bottom": 2},
    ):
        with pytest.raises(UnreadableError, match="box"):
            picked([odd], "largest", SHAPE)


def test_texts_in_a_tensor_are_read_as_the_options_say() -> None:
    """A label tensor of sentences, of JSON or of others' words is read like any other answer; a bad row fails alone."""
    cases: list[tuple[dict[str, Any], list[str], list[int]]] = [
        ({"word_in_text": True}, ["It is a dog.", "not a dog", "a bird"], [1, -1, -1]),
        ({"json_in_text": True}, ['{"label": "dog"}', '{"dog": 0.2}', "dog"], [1, -1, -1]),
        ({"others": "ignore"}, ["DOG", "bird", "cat"], [1, -1, 0]),
        ({"others": "refuse"}, ["dog", "bird", "cat"], [1, -1, 0]),
    ]
    for options, texts, expected in cases:
        wire = agreed("kserve-v2", v2(("label", "BYTES", [-1])), model="m", **options)
        tensor = {"name": "label", "datatype": "BYTES", "shape": [3], "data": texts}
        found = said(wire, {"outputs": [tensor]}, 3)
        assert found.labels.tolist() == expected
        refusing = options.get("others") == "refuse"
        assert found.status[1] == (Status.REFUSED if refusing else Status.FAILED)


def test_a_chat_message_is_an_answer_in_a_text() -> None:
    """A template takes a sentence, or JSON with scores, from the place of the message; a number there is a label."""
    place = "choices[0].message.content"

    def chat(content: Any) -> dict[str, Any]:
        return {"choices": [{"message": {"content": content}}]}

    words = agreed("template", classes=SEXES, label=place, word_in_text=True)
    assert said(words, chat("Female.")).labels.tolist() == [1]
    scored = agreed("template", classes=SEXES, scores=place, json_in_text=True)
    found = said(scored, chat('{"male": 0.2, "female": "80%"}'))
    np.testing.assert_allclose(found.scores, [[0.2, 0.8]], atol=1e-6)
    one = agreed("template", classes=SEXES, label=place, scores_are="probability-of-second")
    assert said(one, chat(1)).labels.tolist() == [1]
    for wire, content in ((words, "I would rather not say."), (words, None), (scored, "{'male': 1}"), (one, 0.93)):
        with pytest.raises(AnswerError):
            said(wire, chat(content))
