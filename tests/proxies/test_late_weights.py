"""Late weights: other networks that say the same, made from a trained proxy, which stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from ttca.proxies import distillation
from ttca.proxies.distillation import Proxy, Targets, late_weights, train_proxy
from ttca.proxies.options import Distilling

OPTIONS = Distilling(architectures=("perceptron",), epochs=12, shift=0, threads=1)


@pytest.fixture(scope="module")
def lesson() -> tuple[np.ndarray, Targets]:
    """Return images of two classes, dark and light, the last of which nobody answered."""
    rng = np.random.default_rng(0)
    classes = np.arange(80) % 2
    images = (rng.integers(0, 90, (80, 8, 8, 3)) + 120 * classes[:, None, None, None]).astype(np.uint8)
    labels = classes.copy()
    labels[-4:] = -1
    return images, Targets.from_labels(labels, 2)


@pytest.fixture(scope="module")
def trained(lesson: tuple[np.ndarray, Targets]) -> Proxy:
    """Return a proxy of both classes."""
    return train_proxy(*lesson, OPTIONS).proxy


def test_late_weights_differ_and_still_know_the_lesson(lesson: tuple[np.ndarray, Targets], trained: Proxy) -> None:
    """Every set is another network that names the classes; the same seed gives the same ones; the proxy stays."""
    before = trained.digest()
    found = late_weights(trained, *lesson, OPTIONS, sets=3)
    assert trained.digest() == before
    digests = [one.digest() for one in found]
    assert len({before, *digests}) == 4
    assert [one.digest() for one in late_weights(trained, *lesson, OPTIONS, sets=3)] == digests
    named = lesson[1].labels >= 0
    for one in found:
        assert not one.training
        assert (one.predict(lesson[0]).argmax(1) == lesson[1].labels)[named].mean() > 0.9


def test_a_descent_that_diverges_leaves_the_proxy(
    lesson: tuple[np.ndarray, Targets], trained: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where plain descent diverges at once, δ is learned against the proxy itself; no answers at all are refused."""
    monkeypatch.setattr(distillation, "_LATE_RATE", 1e38)
    assert late_weights(trained, *lesson, OPTIONS, sets=3) == [trained]
    with pytest.raises(ValueError, match="Expected at least one image with an answer"):
        late_weights(trained, lesson[0], Targets.from_labels(np.full(80, -1), 2), OPTIONS, sets=3)
