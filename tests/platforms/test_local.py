"""The platform in this process: each behaviour really acts, and the same seed acts the same."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.pooling.places import fresh_ledger
from ttca.answers import Answers
from ttca.errors import AnswerError, ChargeState, ConfigError, ImageError, ModelError, TransportError
from ttca.images import Images
from ttca.platforms.base import Credential, Platform
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.local import LocalPlatform
from ttca.pooling.pool import Member, Pace, QueryPool

ADA = Credential("ada")
CLASSES = ("a", "b", "c", "d")
SHAPE = (4, 5, 3)


def images(n: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def model(batch: Images) -> NDArray[np.float64]:
    """Return a softmax of the sums of four stripes."""
    logits = batch.reshape(len(batch), 60).astype(np.float64).reshape(len(batch), 4, 15).mean(axis=2) / 40
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    out: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return out


def platform(**options: Any) -> WithHabits:
    """Return the model in process; options are the model's, or how it is asked, or habits."""
    given: dict[str, Any] = {"classes": CLASSES, "image_shape": SHAPE}
    given |= {name: options.pop(name) for name in (*given, "version", "max_batch") if name in options}
    means = {name: options.pop(name) for name in ("sleep", "clock") if name in options}
    return WithHabits(LocalPlatform(model, **given), Habits(**options), **means)


def processed(asked: WithHabits) -> int:
    """Return the images its model has run on."""
    assert isinstance(asked.inner, LocalPlatform)
    return asked.inner.processed


def say(asked: Platform, batch: Images) -> Answers:
    return asked.attempt(batch, ADA, request_id="r")


def test_without_options_it_says_what_the_model_says() -> None:
    """Labels and scores are the model's own."""
    plain = platform()
    answers = say(plain, images(9))
    assert isinstance(plain, Platform)
    np.testing.assert_allclose(answers.scores, model(images(9)), rtol=1e-6)
    assert answers.labels.tolist() == model(images(9)).argmax(1).tolist()
    assert processed(plain) == 9


def test_label_only_gives_no_scores() -> None:
    """Labels are unchanged and every score is missing."""
    answers = say(platform(label_only=True), images(9))
    assert answers.labels.tolist() == model(images(9)).argmax(1).tolist()
    assert np.isnan(answers.scores).all()
    assert not platform(label_only=True).info.gives_scores


def test_top_k_and_decimals_combine() -> None:
    """The two highest scores are named, rounded to a tenth; the label is that of the exact scores."""
    answers = say(platform(top_k=2, decimals=1), images(50))
    exact = model(images(50))
    assert (np.isnan(answers.scores).sum(axis=1) == 2).all()
    kept = ~np.isnan(answers.scores)
    np.testing.assert_allclose(answers.scores[kept], np.round(exact, 1)[kept], rtol=1e-6)
    assert answers.labels.tolist() == exact.argmax(1).tolist()
    assert set(answers.resolution.tolist()) == {np.float32(0.1).item()}


def test_noise_changes_repeats_and_is_fixed_by_the_seed_whatever_the_batches() -> None:
    """The same image gets other noise each time; the same seed gives the same noise in any split of the batch."""
    whole, split, other = platform(noise=1.0, seed=3), platform(noise=1.0, seed=3), platform(noise=1.0, seed=4)
    batch = images(12)
    first, second = say(whole, batch).scores, say(whole, batch).scores
    assert not np.allclose(first, second)
    parts = [say(split, batch[6:]).scores, say(split, batch[:6]).scores]
    np.testing.assert_array_equal(np.concatenate(parts[::-1]), first)
    assert not np.allclose(say(other, batch).scores, first)
    np.testing.assert_allclose(first.sum(axis=1), 1, rtol=1e-5)


def test_latency_is_slept() -> None:
    """Every request takes latency_s, by the sleep it was given."""
    slept: list[float] = []
    asked = platform(latency_s=0.5, sleep=slept.append)
    say(asked, images(3))
    say(asked, images(3))
    assert slept == [0.5, 0.5]


def test_failures_come_at_their_rate_before_and_after_the_model() -> None:
    """Failed attempts leave the charge unknown, half of them processed; the same seed fails the same attempts."""

    def outcome(asked: WithHabits, batch: Images) -> TransportError | None:
        try:
            say(asked, batch)
        except TransportError as error:
            return error
        return None

    def history(asked: WithHabits) -> list[bool]:
        errors = [outcome(asked, images(1, seed=i % 30)) for i in range(300)]
        assert {(e.charge, e.retryable) for e in errors if e is not None} == {(ChargeState.UNKNOWN, True)}
        return [e is None for e in errors]

    asked = platform(failure_rate=0.4, seed=5)
    fates = history(asked)
    counts = Counter(fates)
    assert 80 <= counts[False] <= 160
    assert counts[True] < processed(asked) < 300
    assert history(platform(failure_rate=0.4, seed=5)) == fates


def test_the_rate_limit_refuses_says_when_and_then_lets_through() -> None:
    """Two requests a second: the third at once is refused and refunded, and passes after the wait it was told."""
    now = [0.0]
    asked = platform(rate_limit_per_s=2.0, clock=lambda: now[0])
    for _ in range(2):
        say(asked, images(1))
    with pytest.raises(TransportError) as caught:
        say(asked, images(1))
    error = caught.value
    assert (error.status, error.charge, error.retryable) == (429, ChargeState.REFUNDED, True)
    assert error.retry_after == pytest.approx(0.5)
    assert processed(asked) == 2
    now[0] += error.retry_after or 0.0
    say(asked, images(1))


def test_the_fingerprint_follows_what_changes_answers() -> None:
    """Version, rounding and the seed of noise make another platform; latency and outages do not."""
    prints = [
        platform(**options).info.fingerprint
        for options in ({}, {"version": "2"}, {"decimals": 2}, {"noise": 0.1}, {"noise": 0.1, "seed": 1})
    ]
    assert len(set(prints)) == 5
    assert platform(latency_s=1.0, failure_rate=0.5, seed=9).info.fingerprint == prints[0]


@pytest.mark.parametrize(
    "options",
    [
        {"classes": ("a",)},
        {"classes": "abcd"},
        {"classes": ("a", " ")},
        {"classes": ("a", "b\nc")},
        {"classes": ("a", "b\x1b[2J")},
        {"classes": ("a", 1)},
        {"classes": 3},
        {"image_shape": 4},
        {"image_shape": ("4", 5, 3)},
        {"max_batch": "2"},
        {"image_shape": (4, 5, 1)},
        {"label_only": True, "top_k": 1},
        {"label_only": True, "decimals": 1},
        {"top_k": 5},
        {"decimals": -1},
        {"noise": -1.0},
        {"latency_s": float("nan")},
        {"failure_rate": 1.5},
        {"rate_limit_per_s": 0.0},
        {"max_batch": 0},
    ],
)
def test_options_are_checked_and_none_is_silently_ignored(options: dict[str, Any]) -> None:
    """Values out of range, and options that would have no effect together, are ConfigErrors."""
    with pytest.raises(ConfigError):
        platform(**options)


def test_bad_images_and_bad_models_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    """Images of another size never reach the model; what are no probabilities is an unreadable answer, told once."""
    asked = platform(max_batch=2)
    for batch in (np.zeros((1, 5, 4, 3), np.uint8), images(3)):
        with pytest.raises(ImageError):
            say(asked, batch)
    assert processed(asked) == 0
    for wrong in (lambda x: np.full((len(x), 4), 3.0), lambda x: np.ones((len(x), 3)) / 3):
        with pytest.raises(AnswerError):
            say(LocalPlatform(wrong, classes=CLASSES, image_shape=SHAPE), images(2))
    lost = LocalPlatform(lambda x: np.full((len(x), 4), np.nan), classes=CLASSES, image_shape=SHAPE)
    with pytest.raises(AnswerError, match="got NaN or infinity among them"):
        say(lost, images(2))
    with fresh_ledger() as ledger, pytest.raises(AnswerError, match="NaN"), caplog.at_level("WARNING", "ttca"):
        QueryPool(lost, ledger, [Member("ada", 500)], pace=Pace(batch=2)).ask(images(60))
    assert caplog.messages == []
    with pytest.raises(ConfigError, match="got an object of type int, which cannot be called"):
        LocalPlatform(3, classes=CLASSES, image_shape=SHAPE)  # type: ignore[arg-type]


def test_a_model_that_raises_is_told_and_nothing_is_booked_as_answered() -> None:
    """A model's own error ends the asking in a sentence with its name and the error, once, and counts no answer."""
    calls = []

    def broken(batch: Images) -> NDArray[np.float64]:
        calls.append(len(batch))
        raise RuntimeError("no weights loaded")

    house = LocalPlatform(broken, classes=CLASSES, image_shape=SHAPE, name="the house")
    with fresh_ledger() as ledger:
        pool = QueryPool(WithHabits(house, Habits(decimals=2)), ledger, [Member("ada", 9)], pace=Pace(batch=2))
        with pytest.raises(
            ModelError, match=r"from the model the house, got RuntimeError: no weights loaded\. N"
        ) as it:
            pool.ask(images(6))
        assert isinstance(it.value.__cause__, RuntimeError)
        (balance,) = ledger.balances()
    assert calls == [2]
    assert (balance.charged, balance.answered, balance.unknown) == (2, 0, 2)
    assert house.processed == 0


def test_a_torch_module_answers_with_its_own_softmax() -> None:
    """A module in training mode is evaluated, in batches, and its weights are its version."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.Dropout(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )
    adapted = LocalPlatform.from_module(net, classes=CLASSES, image_shape=SHAPE, batch_size=4)
    asked = WithHabits(adapted, Habits(decimals=3))
    answers = say(asked, images(10))
    with torch.no_grad():
        x = torch.from_numpy(images(10)).permute(0, 3, 1, 2).float() / 255
        expected = torch.softmax(net(x), dim=1).numpy()
    np.testing.assert_allclose(answers.scores, expected, atol=6e-4)
    before = adapted.info.fingerprint
    with torch.no_grad():
        net[0].bias += 1
    assert LocalPlatform.from_module(net, classes=CLASSES, image_shape=SHAPE).info.fingerprint != before


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def message(*fields: tuple[int, int | bytes | str]) -> bytes:
    """Return a protobuf message of integer and byte fields."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(raw)) + raw
    return out


def write_onnx(path: Path, *, height: int = 4) -> None:
    """Write an ONNX file whose logits are the channel means, without needing the onnx package."""

    def tensor(name: str, *dims: int | str) -> bytes:
        shape = message(*((1, message((1, d) if isinstance(d, int) else (2, d))) for d in dims))
        return message((1, name), (2, message((1, message((1, 1), (2, shape))))))

    pool = message((1, "x"), (2, "p"), (4, "GlobalAveragePool"))
    axis = message((1, "axis"), (3, 1), (20, 2))
    flat = message((1, "p"), (2, "y"), (4, "Flatten"), (5, axis))
    graph = message((1, pool), (1, flat), (2, "g"), (11, tensor("x", "n", 3, height, 5)), (12, tensor("y", "n", 3)))
    path.write_bytes(message((1, 8), (7, graph), (8, message((1, ""), (2, 13)))))


def test_an_onnx_file_answers_with_its_own_softmax(tmp_path: Path) -> None:
    """A file is read through onnxruntime, in batches, and its bytes are its version."""
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    write_onnx(path)
    asked = LocalPlatform.from_onnx(path, classes=CLASSES[:3], image_shape=SHAPE, batch_size=4)
    means = images(10).astype(np.float64).mean(axis=(1, 2)) / 255
    expected = np.exp(means) / np.exp(means).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(say(asked, images(10)).scores, expected, atol=1e-5)
    write_onnx(path, height=7)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for wrong in (path, tmp_path / "broken.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(ConfigError):
            LocalPlatform.from_onnx(wrong, classes=CLASSES[:3], image_shape=SHAPE)


_THREADS = """
import sys
import psutil
from ttca.platforms.local import LocalPlatform

kept, started = [], []
for threads in (1, 1, 3):
    before = psutil.Process().num_threads()
    kept.append(LocalPlatform.from_onnx(sys.argv[1], classes=["a", "b", "c"], image_shape=(6, 5, 3), threads=threads))
    started.append(psutil.Process().num_threads() - before)
print(started[1:])
"""


def test_an_onnx_file_computes_with_the_threads_it_is_given(tmp_path: Path) -> None:
    """One thread needs no other, three need two more: many platforms on one machine do not wait for each other."""
    pytest.importorskip("onnxruntime")
    write_onnx(tmp_path / "model.onnx", height=6)
    # Of its own: in a process of many tests threads come and go.
    command = [sys.executable, "-c", _THREADS, str(tmp_path / "model.onnx")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[0, 2]\n"
