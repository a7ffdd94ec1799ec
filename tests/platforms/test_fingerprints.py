"""Tests of fingerprints: what makes answers differ is in them, how answers are read is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.platforms.scripted import CLASSES, METADATA, scripted
from ttca.errors import ChargeState, TransportError
from ttca.platforms.addresses import checked_url, one_address
from ttca.platforms.base import Credential, PlatformInfo
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.http import HttpPlatform
from ttca.platforms.protocols import PROTOCOLS, Fetch, Response, Wire, create_protocol

SHAPE = [4, 5, 3]
READ: dict[str, Any] = {"scores_are": "percent", "resolution": 0.01, "refused_labels": ["no face"]}
#: For each protocol: its options, and the fingerprint that version 0.1 gave them with READ at http://localhost:1.
KNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "kserve-v2": ({"model": "m"}, "87aa557c28743ca6646487fa35dd33419a478f76a0fcaa79ab94da9f2580d846"),
    "tensorflow-serving": (
        {"model": "m", "image_shape": SHAPE, "scores_output": "p"},
        "50cff2012e2953edde5eb84a274e795cb7e84678bdf0c5febc85ca17273cf8f9",
    ),
    "torchserve": (
        {"model": "m", "image_shape": SHAPE},
        "daced616ab1a05f9f5452b1494a26264e5460656c2372c68b0e9cb7c9cae0094",
    ),
    "huggingface": (
        {"model": "o/m", "image_shape": SHAPE, "top_k": 2},
        "a63901ce0462c3799934bd1d2953848be813bd6a28a384cb969224efcab3ce4d",
    ),
    "bentoml": ({"image_shape": SHAPE}, "f51d48eed5d0050eb0be063fa968bfd51255fe65540b1e3cc7ed25e7cc8bc873"),
    "template": (
        {"image_shape": SHAPE, "scores": "a[*].b", "refused": "e", "refused_statuses": [422]},
        "cce452feff52403c2cd9e428d072c1f86dbf87bcc2a374ca5531e25692c37d12",
    ),
}
_SAID: dict[str, Any] = {
    "v2/models/m": METADATA,
    "v2": {"name": "scripted", "extensions": []},
    "v1/models/m": {"ready": True},
    "docs.json": {},
}


class Offline:
    """A protocol whose metadata are at hand, so that no server is needed."""

    def __init__(self, name: str, said: Mapping[str, Any], options: dict[str, Any]) -> None:
        self.name, self._said = name, said
        self._inner = create_protocol(name, **options)

    def describe(self, _fetch: Fetch) -> Wire:
        """Describe what was said."""

        def fetch(path: str) -> Response:
            if path not in self._said:
                raise TransportError("none", platform="p", charge=ChargeState.REFUNDED, retryable=False, status=404)
            return Response(200, {}, json.dumps(self._said[path]).encode(), "p")

        return self._inner.describe(fetch)


def info_of(
    name: str, *, url: str = "http://localhost:1", said: Mapping[str, Any] = _SAID, **options: Any
) -> PlatformInfo:
    """Return what is known of a platform with these options."""
    given: dict[str, Any] = {"classes": CLASSES, **options}
    return HttpPlatform(url, classes=given["classes"], protocol=Offline(name, said, given)).info


@pytest.mark.parametrize("name", KNOWN)
def test_the_fingerprint_of_version_0_1_is_remembered(name: str) -> None:
    """For every protocol, what version 0.1 called a platform is known to the last bit: its answers are found by it."""
    options, former = KNOWN[name]
    assert info_of(name, **options, **READ).former_fingerprint == former


def test_every_protocol_is_remembered() -> None:
    """No protocol of version 0.1 is left out above; kserve-v1 is tensorflow-serving under another name."""
    assert set(PROTOCOLS) - set(KNOWN) == {"kserve-v1"}


@pytest.mark.parametrize("name", KNOWN)
def test_how_answers_are_read_is_no_part_of_a_fingerprint(name: str) -> None:
    """Scores in percent, refusals and class names change how an answer is read, and not who was asked."""
    options, _ = KNOWN[name]
    plain, changed = info_of(name, **options), info_of(name, **options, **READ)
    renamed = info_of(name, **options, classes=("Cat", "Dog", "Owl"))
    assert plain.fingerprint == changed.fingerprint == renamed.fingerprint
    assert len({i.fingerprint_as_read for i in (plain, changed, renamed)}) == 3
    assert len({i.reading_mark for i in (plain, changed, renamed)}) == 3


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("template", {"scores": "a"}, {"scores": "b", "refused": "c", "error": "e", "refused_statuses": [404 + 18]}),
        ("tensorflow-serving", {"model": "m", "scores_output": "a"}, {"model": "m", "label_output": "b"}),
    ],
)
def test_where_an_answer_lies_is_no_part_of_a_fingerprint(
    name: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """A place in the answer that is corrected makes no answer another."""
    first, second = (info_of(name, image_shape=SHAPE, **options) for options in (one, other))
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint_as_read != second.fingerprint_as_read


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("kserve-v2", {"version": "8", "said": _SAID | {"v2/models/m/versions/8": METADATA}}),
        ("kserve-v2", {"said": _SAID | {"v2/models/m": METADATA | {"versions": ["8"]}}}),
        ("tensorflow-serving", {"send": "levels"}),
        ("tensorflow-serving", {"layout": "NCHW"}),
        ("torchserve", {"image_shape": [5, 5, 3]}),
        ("huggingface", {"top_k": 3}),
        ("bentoml", {"route": "other"}),
        ("template", {"method": "PUT"}),
        ("template", {"headers": {"X-Crop": "yes"}}),
        ("template", {"version": "2"}),
        ("torchserve", {"url": "http://localhost:2"}),
        ("torchserve", {"url": "http://localhost:1/api"}),
    ],
)
def test_what_makes_answers_differ_is_in_the_fingerprint(name: str, changes: dict[str, Any]) -> None:
    """Another version, another request or another address is another platform."""
    options, _ = KNOWN[name]
    assert info_of(name, **options).fingerprint != info_of(name, **{**options, **changes}).fingerprint


def test_one_machine_has_one_address() -> None:
    """localhost, 127.0.0.1 and [::1] are one platform, as are two spellings of a host and a port that is the usual."""
    options, _ = KNOWN["torchserve"]
    local = {
        info_of("torchserve", url=f"http://{host}:8000/api/", **options).fingerprint
        for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST", "localhost.")
    }
    assert len(local) == 1
    assert one_address("https://api.example.org:443/v1") == one_address("https://api.example.org/v1")
    assert one_address("https://api.example.org:8443") != one_address("https://api.example.org")
    assert one_address("http://[::2]:80/a") == "http://[::2]/a"


@examples(60)
@given(
    host=st.sampled_from(["localhost", "127.0.0.1", "[::1]", "[fe80::1]", "a.example.org", "127.0.0.2"]),
    port=st.none() | st.integers(1, 65535),
    path=st.sampled_from(["", "/", "/v1/Models", "/a%20b/"]),
)
def test_an_address_has_one_spelling(host: str, port: int | None, path: str) -> None:
    """The one spelling of a URL is a URL, and its own."""
    url = checked_url(f"https://{host}{'' if port is None else f':{port}'}{path}")[0]
    once = one_address(url)
    assert one_address(checked_url(once)[0]) == once


def test_a_guest_that_says_nothing_of_reading_is_who_it_was() -> None:
    """A protocol whose identity says all keeps its fingerprint, class names in it, and hands no bodies on."""
    options, _ = KNOWN["torchserve"]

    class Old(Offline):
        def describe(self, fetch: Fetch) -> Wire:
            wire = super().describe(fetch)
            object.__setattr__(wire, "reading_identity", None)
            return wire

    with scripted(lambda e: e.reply(200, b'{"cat": 0.9}')) as server:
        platform = HttpPlatform(
            server.url, classes=CLASSES, protocol=Old("torchserve", _SAID, {"classes": CLASSES, **options})
        )
        info = platform.info
        assert info.fingerprint == info.fingerprint_as_read == info.former_fingerprint
        assert info.reading_mark is None
        images = np.zeros((1, *SHAPE), np.uint8)
        assert platform.attempt(images, Credential("ada"), request_id="r").body is None


def test_habits_keep_both_fingerprints_apart() -> None:
    """A platform with habits has a former fingerprint of its own, as version 0.1 gave it."""
    options, former = KNOWN["torchserve"]
    inner = HttpPlatform("http://localhost:1", classes=CLASSES, protocol="torchserve", **options, **READ)
    assert WithHabits(inner, Habits(latency_s=1.0)).info.former_fingerprint == former
    rounded = WithHabits(inner, Habits(decimals=1)).info
    assert len({rounded.fingerprint, rounded.former_fingerprint, former, inner.info.fingerprint}) == 4
    inner.close()
