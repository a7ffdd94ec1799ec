"""Tests of check.py: its Ed25519 is the standard's, and it finds in any certificate what ttca finds, and no more."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from ttca.certificates import Certificate, Condition, Examined, certify
from ttca.errors import ConfigError
from ttca.evidence.check import STATED, Refused, check_certificate, verify_ed25519, zip_bytes
from ttca.goals import Certifying, Design, Stopping
from ttca.row import Row

#: RFC 8032, section 7.1: public key, message, signature.
VECTORS = (
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e"
        "2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17a"
        "d9bef1177331a704",
    ),
)


def test_whatever_a_row_may_leave_out_is_known() -> None:
    """Keys that a plain action's row does not have would be found by nobody who checks plain bundles."""
    assert {f.name for f in fields(Row)} - set(Row.keys()) - {"extra"} <= set(STATED)


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_signatures_of_the_standard_are_right(key: str, message: str, signature: str) -> None:
    """Every vector of RFC 8032 verifies, and none does with a bit changed anywhere."""
    parts = [bytes.fromhex(part) for part in (key, message, signature)]
    assert verify_ed25519(*parts)
    for part in (0, 1, 2):
        if parts[part]:
            wrong = list(parts)
            wrong[part] = bytes([wrong[part][0] ^ 1]) + wrong[part][1:]
            assert not verify_ed25519(*wrong)


@examples(25)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80), st.integers(0, 511), st.booleans())
def test_signatures_are_judged_as_cryptography_judges_them(seed: bytes, message: bytes, bit: int, change: bool) -> None:
    """Of any key and message, right or changed in one bit."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key, signature = private.public_key().public_bytes_raw(), bytearray(private.sign(message))
    if change:
        signature[bit // 8] ^= 1 << bit % 8
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(bytes(signature), message)
        right = True
    except InvalidSignature:
        right = False
    assert verify_ed25519(key, message, bytes(signature)) is right is not change


def test_a_signature_has_one_form() -> None:
    """S plus the group's order, short keys and points off the curve are refused."""
    key, message, signature = (bytes.fromhex(part) for part in VECTORS[2])
    order = 2**252 + 27742317777372353535851937790883648493
    twin = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert not verify_ed25519(key, message, signature[:32] + twin)
    assert not verify_ed25519(key[:31], message, signature)
    assert not verify_ed25519(b"\x02" + bytes(31), message, signature)


# --- certificates -------------------------------------------------------------------------------------------------

GOALS: tuple[dict[str, Any], ...] = (
    {"goal": "parity"},
    {"goal": "improvement"},
    {"goal": 0.8},
    {"within": 0.05},
    {"accuracy_ratio": 0.9},
)


def made(
    goal: dict[str, Any], stopping: Stopping, design: Design, *, seed: int, most: int = 60, every_image: bool = False
) -> Certificate | None:
    """Return the certificate of people at rates drawn by chance; None where no test serves the goal."""
    rng = np.random.default_rng(seed)
    persons = int(rng.integers(4, most))
    others = persons if design == "paired" else int(rng.integers(3, 3 * most))
    layout, answers, other_answers = None, persons, others
    if every_image:
        persons, others = 30, 40
        layout = tuple(rng.integers(1, 3, persons).tolist()), tuple(rng.integers(1, 3, others).tolist())
        answers, other_answers = sum(layout[0]), sum(layout[1])
    rate = {"delta": rng.uniform(0.75, 1), "asis": rng.uniform(0.5, 0.95)}
    held: dict[Condition, str] = {}

    def ask(condition: Condition, start: int, stop: int) -> str:
        p = rate["asis" if isinstance(condition, str) else "delta"] * 0.98
        size = other_answers if condition == "reference" else answers
        said = held.setdefault(condition, "".join(rng.choice(["1", "0", "?"], p=[p, 0.98 - p, 0.02], size=size)))
        return said[start:stop]

    try:
        terms = Certifying(stopping=stopping, every_image=every_image, **goal)
        examined = Examined(design, persons, others, answers + other_answers, layout)
        return certify(ask, terms, epsilons=(2, 4, 8), examined=examined)
    except ConfigError:
        return None


def stored(certificate: Certificate) -> dict[str, Any]:
    """Return it as a file holds it."""
    found: dict[str, Any] = json.loads(json.dumps(certificate.to_dict()))
    return found


@pytest.mark.parametrize("stopping", ["curtailed", "anytime", "hybrid"])
@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_every_certificate_is_recomputed(goal: dict[str, Any], stopping: Stopping) -> None:
    """Of any goal, rule and design, passed or failed: test by test, bounds, figures and power."""
    designs: tuple[Design, ...] = ("disjoint", "paired")
    for design in designs:
        for seed in (1, 2):
            certificate = made(goal, stopping, design, seed=seed)
            if certificate is not None:
                found, left = check_certificate(stored(certificate))
                assert str(found) == str(certificate.terms.aim)
                assert bool(left) == ("within" in goal and design == "paired" and stopping != "anytime")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4))
def test_large_certificates_are_recomputed(seed: int) -> None:
    """With up to 300 persons, of any goal, rule and design."""
    stoppings: tuple[Stopping, ...] = ("curtailed", "anytime", "hybrid")
    designs: tuple[Design, ...] = ("disjoint", "paired")
    for goal, stopping, design in itertools.product(GOALS, stoppings, designs):
        certificate = made(goal, stopping, design, seed=seed, most=300)
        if certificate is not None:
            check_certificate(stored(certificate))


@pytest.mark.full
def test_a_certificate_of_every_image_is_recomputed() -> None:
    """The approximate test of persons gives the same p; the error it was given is one of those it may have."""
    certificate = made({"within": 0.1}, "curtailed", "disjoint", seed=3, every_image=True)
    assert certificate is not None
    check_certificate(stored(certificate))


def _edits(certificate: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what somebody may want to change in a certificate, each as a path and another value."""
    first, lower = certificate["tests"][0], certificate["lower"]["value"]
    flipped = first["answers"][:-1] + ("0" if first["answers"][-1] == "1" else "1")
    return [
        ("epsilon", 2 if certificate["epsilon"] is None else None),
        ("parity_certified", not certificate["parity_certified"]),
        ("family", [*certificate["family"], 1]),
        ("baseline", certificate["baseline"][:-1]),
        ("baseline", "0" * len(certificate["baseline"])),
        ("lower.value", min(1.0, lower + 0.02)),
        ("lower.shared_by", 1),
        ("lower.confidence", 0.99),
        ("interval.low", certificate["interval"]["low"] + 0.02),
        ("interval.high", certificate["interval"]["high"] - 0.02),
        ("power.possible", not certificate["power"]["possible"]),
        ("power.smallest_rate", 0.5),
        ("power.probability", 0.9),
        ("terms.alpha", 0.01),
        ("examined.persons", certificate["examined"]["persons"] + 1),
        ("tests.0.passed", not first["passed"]),
        ("tests.0.answers", flipped),
        ("tests.0.answers", first["answers"] + "1" * 16),
        ("tests.0.figures", first["figures"].replace("asked right", "asked, all right")),
    ]


@pytest.mark.parametrize("number", range(19))
def test_an_edited_certificate_is_refused(number: int) -> None:
    """Each of its numbers follows from its answers: a file that says another one is named."""
    certificate = made({"goal": "parity"}, "curtailed", "disjoint", seed=2)
    assert certificate is not None
    edited = stored(certificate)
    path, value = _edits(edited)[number]
    *places, last = path.split(".")
    table: Any = edited
    for place in places:
        table = table[int(place) if place.isdecimal() else place]
    assert table[last] != value
    table[last] = copy.deepcopy(value)
    with pytest.raises(Refused, match=r"^certificate\.json: "):
        check_certificate(edited)


def test_check_py_imports_the_standard_library_alone() -> None:
    """Nothing that it imports has to be installed."""
    import ast
    import sys

    import ttca.evidence.check as program

    tree = ast.parse(Path(program.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_a_zip_of_the_same_files_has_the_same_bytes(tmp_path: Path) -> None:
    """Whatever order they come in, and other programs read it."""
    import zipfile

    files = {"b.txt": b"two", "a.txt": b""}
    (tmp_path / "x.zip").write_bytes(zip_bytes(files))
    assert zip_bytes(dict(reversed(files.items()))) == zip_bytes(files)
    with zipfile.ZipFile(tmp_path / "x.zip") as found:
        assert found.testzip() is None
        assert {name: found.read(name) for name in found.namelist()} == files
