"""The benchmark at servers of others compares every label, and both sides send the same bodies."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks import foreign
from benchmarks._foreign_servers import node
from benchmarks._instant_server import CLASSES, IMAGE_SHAPE
from benchmarks.foreign import SERVERS, Triton, against
from tests.examples import examples
from ttca.errors import ConfigError, TTCAError
from ttca.images import Images
from ttca.platforms.protocols.reading import Reading, UnreadableError

_NEEDS_NODE = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


def _is_whole(row: dict[str, Any], variants: int) -> None:
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert len(row["variants"]) == variants
    assert row["ttca_over_bare"] == min(one["ratio"] for one in row["variants"].values())
    assert math.isfinite(row["ttca_over_bare"])
    assert row["ttca_over_bare"] > 0


@pytest.mark.e2e
@_NEEDS_NODE
def test_the_node_server_is_asked_by_both_sides() -> None:
    """Both sides read the model's own label of every image, and each concurrency has its ratio."""
    _is_whole(foreign.main(["--servers=node", "--requests=40", "--turns=1", "--concurrency", "2", "8"]), 2)


@pytest.mark.e2e
@pytest.mark.full
def test_triton_is_asked_by_both_sides() -> None:
    """Triton's own binary starts, and one image and sixteen a request are answered as the model says."""
    _is_whole(foreign.main(["--servers=triton", "--requests=40", "--turns=1", "--concurrency", "8"]), 2)


@dataclass(frozen=True)
class _Liar(Triton):
    """A bare side that reads nothing."""

    def platform(self, url: str) -> Any:
        """Return the platform of the Node server."""
        return SERVERS["node"][0].platform(url)

    def bare(self, session: requests.Session, url: str, images: Images) -> NDArray[np.int64]:
        """Say the first class of everything."""
        return np.zeros(len(images), np.int64)


@pytest.mark.e2e
@_NEEDS_NODE
def test_a_side_that_reads_nothing_is_found_out() -> None:
    """A fast reader of nothing would win every race: other labels than the model's end the benchmark."""
    with node() as url, pytest.raises(TTCAError, match="model's own label"):
        against(_Liar(1, node), url, concurrency=2, n=20, turns=1)


@pytest.mark.e2e
@_NEEDS_NODE
def test_both_sides_send_the_same_body() -> None:
    """What the bare session sends of an image to the Node server is what the platform sends, byte for byte."""
    served = SERVERS["node"][0]
    images = np.random.default_rng(3).integers(0, 256, (1, *IMAGE_SHAPE), dtype=np.uint8)
    sent: list[bytes] = []

    class Session(requests.Session):
        def send(self, request: requests.PreparedRequest, **given: Any) -> requests.Response:
            assert isinstance(request.body, bytes)
            sent.append(request.body)
            return super().send(request, **given)

    with node() as url, served.platform(url) as platform, Session() as session:
        served.bare(session, url, images)
        _, wire = platform._meet()
    assert sent == [wire.request(images, request_id="x").body]


@pytest.mark.parametrize("arguments", [["--turns=0"], ["--concurrency", "0"], ["--requests=4", "--concurrency", "8"]])
def test_what_cannot_be_measured_is_refused(arguments: list[str]) -> None:
    """No turn, no thread, and fewer requests than threads are errors before any server starts."""
    with pytest.raises(ConfigError, match="turns and concurrency"):
        foreign.main(arguments)


@examples(200)
@given(
    st.lists(st.integers(0, 50), min_size=len(CLASSES), max_size=len(CLASSES)).filter(any),
    st.permutations(range(len(CLASSES))),
    st.one_of(st.none(), st.integers(0, len(CLASSES) - 1)),
)
def test_the_short_way_reads_as_the_long_one(weights: list[int], order: list[int], called: int | None) -> None:
    """A probability for each class, in any order and with any label beside, is read alike without numpy and with it."""
    shares = [w / sum(weights) for w in weights]
    reading = Reading(classes=CLASSES)
    scores = [(k, shares[k]) for k in order]
    short = reading._scale.one_plain(called, scores, len(CLASSES))
    said: dict[str, Any] = {"scores": {CLASSES[k]: share for k, share in scores}}
    found = reading._grammar.read(said if called is None else {**said, "label": CLASSES[called]})
    try:
        long = reading._settled(found, scores)
    except UnreadableError:
        assert short is None
        return
    assert short is not None
    assert short[0] == long[0]
    assert long[1] is not None
    assert np.array_equal(short[1], long[1])
