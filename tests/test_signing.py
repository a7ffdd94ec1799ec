"""Tests of signatures: no changed byte passes, nobody else's key does, and the private half stays where it is."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import worlds
from ttca.kept import save_json
from ttca.perturbations import PerturbationSet
from ttca.pooling.export import export_books, to_text
from ttca.pooling.ledger import Ledger
from ttca.signing import (
    KEY_FILE,
    CollectiveKey,
    SignatureError,
    SignedKind,
    check_key,
    check_lease,
    check_signature,
    lease_bytes,
    signature_file,
    signer,
)

KINDS: tuple[SignedKind, ...] = ("perturbations", "certificate", "lease", "books")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> CollectiveKey:
    """Return a collective's key."""
    return CollectiveKey.open_or_make(tmp_path_factory.mktemp("collective"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> CollectiveKey:
    """Return another collective's key."""
    return CollectiveKey.open_or_make(tmp_path_factory.mktemp("stranger"))


def members_file(folder: Path) -> Path:
    """Write a certified perturbation set."""
    delta = np.random.default_rng(0).integers(-8, 9, (3, 8, 8, 3)).astype(np.int8)
    evidence = {"certificate": worlds.certified(99, epsilon=8).to_dict()}
    PerturbationSet(delta, 8, ("a", "b", "c"), "s", "f" * 64, evidence=evidence).save(folder / "p.safetensors")
    return folder / "p.safetensors"


def certificate_file(folder: Path) -> Path:
    """Write a certificate as an action keeps it."""
    held = {"epoch": "e", "verified": "2026-01-01", "certificate": worlds.certified(99, epsilon=8).to_dict()}
    save_json(folder / "certificate.json", held)
    return folder / "certificate.json"


def exported_books(folder: Path) -> Path:
    """Write the books of a small ledger."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.enrol({"ada": 9, "ben": 9})
        for member in ("ada", "ben"):
            ledger.charge(member, [member.encode() * 8] * 3, request_id=member, number=1, purpose="pool")
        (folder / "books.json").write_text(to_text(export_books(ledger, "a")))
    return folder / "books.json"


# -- what was signed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "kind"),
    [(members_file, "perturbations"), (certificate_file, "certificate"), (exported_books, "books")],
)
def test_a_thousand_changed_bytes_are_a_thousand_refusals(
    write: Callable[[Path], Path], kind: SignedKind, key: CollectiveKey, tmp_path: Path
) -> None:
    """Of each kind of file, 1,000 changes of one byte anywhere in it are all refused, and the file itself is not."""
    path = write(tmp_path)
    key.sign(path, kind)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(1000):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        with pytest.raises(SignatureError, match=r"Expected .* as it was signed, got other bytes"):
            check_signature(path, kind, anyway=True)
    path.write_bytes(whole)
    assert check_signature(path, kind, expected=key.public).key == key.public


def test_a_changed_signature_is_refused_or_says_the_same(key: CollectiveKey, tmp_path: Path) -> None:
    """A signature file with one byte changed is refused, unless that byte was a space between its words."""
    path = certificate_file(tmp_path)
    beside = key.sign(path, "certificate")
    whole = beside.read_bytes()
    for at in range(len(whole)):
        for other in (whole[at] ^ 1, whole[at] ^ 0x20, 0x20):
            beside.write_bytes(whole[:at] + bytes([other]) + whole[at + 1 :])
            if beside.read_bytes() == whole:
                continue
            try:
                found = signer(path, "certificate")
            except SignatureError:
                continue
            assert found == key.public
            assert chr(whole[at]).isspace()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200), more=st.binary(min_size=1, max_size=20), cut=st.integers(1, 20))
def test_exactly_the_signed_bytes_pass(
    content: bytes, more: bytes, cut: int, key: CollectiveKey, tmp_path: Path
) -> None:
    """Any bytes pass as they were signed; longer, shorter, or read as another kind of file they do not."""
    path = tmp_path / "file"
    path.write_bytes(content)
    key.sign(path, "perturbations")
    assert signer(path, "perturbations") == key.public
    others: list[tuple[bytes, SignedKind]] = [(content + more, "perturbations"), (content, "certificate")]
    others += [(content[:-cut], "perturbations")] if content else []
    for changed, kind in others:
        path.write_bytes(changed)
        with pytest.raises(SignatureError, match="other bytes"):
            signer(path, kind)


@given(data=st.data())
def test_no_signature_of_one_kind_is_one_of_another(data: st.DataObject, key: CollectiveKey) -> None:
    """The same bytes have another signature for every kind, and each is wrong for the others."""
    content = data.draw(st.binary(max_size=50))
    assert len({key.signature_of(content, kind) for kind in KINDS}) == len(KINDS)
    for kind in KINDS[:2]:
        with pytest.raises(SignatureError, match="lease"):
            check_lease(content, key.signature_of(content, kind), key.public)
    check_lease(content, key.signature_of(content, "lease"), key.public)


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 4000,
        b" " * 5000,
        json.dumps({"format": "ttca-signature-2", "algorithm": "Ed25519", "key": "k", "signature": "s"}).encode(),
        json.dumps({"format": "ttca-signature-1", "algorithm": "RSA", "key": "k", "signature": "s"}).encode(),
        json.dumps({"format": "ttca-signature-1", "algorithm": "Ed25519", "key": 7, "signature": "s"}).encode(),
        json.dumps({"format": "ttca-signature-1", "algorithm": "Ed25519", "key": "k"}).encode(),
    ],
)
def test_what_is_no_signature_is_refused(written: bytes, tmp_path: Path) -> None:
    """A signature file with anything else in it is a sentence that names it, and not taken for none."""
    path = certificate_file(tmp_path)
    signature_file(path).write_bytes(written)
    with pytest.raises(SignatureError, match=r"in the format ttca-signature-1 in .*certificate\.json\.sig"):
        check_signature(path, "certificate", anyway=True)


def test_what_cannot_be_read_is_a_sentence(key: CollectiveKey, tmp_path: Path) -> None:
    """A signature without its file, a folder in its place, and a link to nowhere are refused, not taken for none."""
    path = certificate_file(tmp_path)
    key.sign(path, "certificate")
    path.unlink()
    with pytest.raises(SignatureError, match="Expected to read"):
        signer(path, "certificate")
    with pytest.raises(SignatureError, match="Expected to sign"):
        key.sign(path, "certificate")
    certificate_file(tmp_path)
    signature_file(path).unlink()
    signature_file(path).symlink_to(tmp_path / "nowhere")
    with pytest.raises(SignatureError, match="Expected to read"):
        signer(path, "certificate")
    signature_file(path).unlink()
    signature_file(path).mkdir()
    with pytest.raises(SignatureError, match="Expected to read"):
        signer(path, "certificate")
    with pytest.raises(SignatureError, match="Expected to sign"):
        key.write_signed(path, "certificate", lambda to: None)


def test_a_kill_between_file_and_signature_leaves_none(key: CollectiveKey, tmp_path: Path) -> None:
    """The old signature is gone before the new file is written, so that no kill makes a file seem forged."""
    path = certificate_file(tmp_path)
    key.sign(path, "certificate")

    def killed(to: Path) -> None:
        to.write_bytes(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        key.write_signed(path, "certificate", killed)
    assert not key.has_signed(path, "certificate")
    key.write_signed(path, "certificate", lambda to: None)
    assert key.has_signed(path, "certificate")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["certificate.json", "certificate.json.sig"]


# -- by whom --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed_by", ["nobody", "the collective", "a stranger"])
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("anyway", [False, True])
def test_who_signed_is_told_and_who_should_have_is_held(
    signed_by: str, pinned: bool, anyway: bool, key: CollectiveKey, stranger: CollectiveKey, tmp_path: Path
) -> None:
    """With a key at hand only its signature passes, unless anyway; without one everything passes and is told."""
    path = members_file(tmp_path)
    who = {"nobody": None, "the collective": key, "a stranger": stranger}[signed_by]
    if who is not None:
        who.sign(path, "perturbations")
    expected = key.public if pinned else None
    if pinned and not anyway and who is not key:
        sentence = "got none" if who is None else f"got one signed with {stranger.public}"
        with pytest.raises(SignatureError, match=sentence):
            check_signature(path, "perturbations", expected=expected)
        return
    found = check_signature(path, "perturbations", expected=expected, anyway=anyway)
    assert (found.key, found.expected) == (None if who is None else who.public, expected)
    says = {
        ("nobody", False): "Not signed",
        ("nobody", True): "Not signed",
        ("the collective", False): "whose key that is, it cannot say",
        ("the collective", True): "Signed with the collective's key",
        ("a stranger", False): "whose key that is, it cannot say",
        ("a stranger", True): "another key than the collective's",
    }
    assert says[signed_by, pinned] in found.told


def test_a_collective_does_not_mend_what_another_key_signed(
    key: CollectiveKey, stranger: CollectiveKey, tmp_path: Path
) -> None:
    """A file in the collective's own folder with another key's signature is refused: members would see it change."""
    path = certificate_file(tmp_path)
    assert not key.has_signed(path, "certificate")
    stranger.sign(path, "certificate")
    with pytest.raises(SignatureError, match=r"Restore the collective\.key that signed it"):
        key.has_signed(path, "certificate")


@given(st.text(max_size=80) | st.binary(min_size=32, max_size=32).map(lambda b: "ttca-ed25519:" + b.hex()))
def test_only_a_public_key_is_one(text: str) -> None:
    """Any other text is refused without being shown: it may be the private half."""
    with pytest.raises(SignatureError, match="Expected the collective's public key as ttca-ed25519:") as caught:
        check_key(text)
    assert len(text) < 8 or text not in str(caught.value)


@given(st.binary(min_size=32, max_size=32))
def test_one_text_alone_stands_for_a_key(seed: bytes) -> None:
    """A public key has one spelling: with other letters at its end, padding or another case it is refused."""
    text = CollectiveKey(Ed25519PrivateKey.from_private_bytes(seed)).public
    assert check_key(f" {text}\n") == text
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    number = letters.index(text[-1])
    assert number % 4 == 0, "two bits of the last letter stand for nothing"
    for other in (text[:-1] + letters[number + 1], text + "=", text[:-1], text + "A", text.upper()):
        with pytest.raises(SignatureError):
            check_key(other)


# -- the private half -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_the_key_is_closed_to_others_under_any_umask(umask: int, tmp_path: Path) -> None:
    """The file has mode 0600 whatever the umask, nothing else is left, and it is the same key from then on."""
    before = os.umask(umask)
    try:
        made = CollectiveKey.open_or_make(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [KEY_FILE]
    assert CollectiveKey.open_or_make(tmp_path).public == made.public


def test_programs_that_start_together_have_one_key(tmp_path: Path) -> None:
    """Eight that make the key at one moment all sign with the same one, and leave nothing else."""
    gate, found = threading.Barrier(8), set()

    def make() -> None:
        gate.wait()
        found.add(CollectiveKey.open_or_make(tmp_path).public)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert [p.name for p in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604, 0o601])
def test_a_key_that_others_can_open_is_refused(mode: int, tmp_path: Path) -> None:
    """Any right of anybody else is a sentence with the mode and the way to close it."""
    CollectiveKey.open_or_make(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(SignatureError, match=f"got mode {mode:o}.*chmod 600"):
        CollectiveKey.open_or_make(tmp_path)


def pem(private: X25519PrivateKey | Ed25519PrivateKey, password: bytes | None = None) -> bytes:
    """Return a private key as a file holds it."""
    closed = NoEncryption() if password is None else BestAvailableEncryption(password)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, closed)


@pytest.mark.parametrize(
    "content",
    [b"", b"not-for-eyes", pem(X25519PrivateKey.generate()), pem(Ed25519PrivateKey.generate(), b"word")],
    ids=["empty", "no key", "another kind", "locked"],
)
def test_a_key_that_cannot_be_used_is_a_sentence(content: bytes, tmp_path: Path) -> None:
    """A file that is no such key is named, never shown, and never replaced."""
    path = tmp_path / KEY_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SignatureError, match=r"Expected the collective's private key .* Restore it") as caught:
        CollectiveKey.open_or_make(tmp_path)
    assert caught.value.__context__ is None
    assert not content or content.decode().strip().splitlines()[-1] not in str(caught.value)
    assert path.read_bytes() == content


def test_a_place_for_no_key_is_a_sentence(tmp_path: Path) -> None:
    """Where the folder is a file, or the key a folder, that is said."""
    (tmp_path / "file").write_text("")
    (tmp_path / KEY_FILE).mkdir()
    for folder in (tmp_path / "file", tmp_path):
        with pytest.raises(SignatureError, match="Check the folder's permissions"):
            CollectiveKey.open_or_make(folder)


def private_forms(folder: Path) -> tuple[bytes, ...]:
    """Return how the private half of a folder's key may be written: raw, hex, base64, and as its file has it."""
    content = (folder / KEY_FILE).read_bytes()
    private = load_pem_private_key(content, password=None)
    assert isinstance(private, Ed25519PrivateKey)
    seed = private.private_bytes_raw()
    coded = (base64.b64encode(seed), base64.urlsafe_b64encode(seed))
    return (seed, seed.hex().encode(), *(c.rstrip(b"=") for c in coded), content.splitlines()[1])


def test_the_private_half_is_said_nowhere(tmp_path: Path) -> None:
    """Neither the key's words about itself nor a signature beside a file nor a refusal hold it."""
    key = CollectiveKey.open_or_make(tmp_path)
    forms = private_forms(tmp_path)
    path = certificate_file(tmp_path)
    said = [repr(key).encode(), str(key).encode(), key.sign(path, "certificate").read_bytes()]
    path.write_bytes(b"changed")
    for act in (lambda: key.has_signed(path, "certificate"), lambda: check_key((tmp_path / KEY_FILE).read_text())):
        with pytest.raises(SignatureError) as caught:
            act()
        said.append(str(caught.value).encode())
    assert key.public.encode() in said[0]
    for text in said:
        assert not any(form in text for form in forms)


# -- leases ---------------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_a_lease_is_signed_for_its_name_its_platform_and_its_images(data: st.DataObject, key: CollectiveKey) -> None:
    """Any part changed, moved to another line or signed by another makes the signature wrong."""
    word = st.text("ABCabc012+/=", min_size=1, max_size=6)
    parts = data.draw(st.tuples(word, word, st.lists(word, min_size=1, max_size=3)))
    other = data.draw(st.tuples(word, word, st.lists(word, min_size=1, max_size=3)))
    signature = key.signature_of(lease_bytes(*parts), "lease")
    check_lease(lease_bytes(*parts), signature, key.public)
    if other != parts:
        with pytest.raises(SignatureError, match="got one whose signature does not fit that key"):
            check_lease(lease_bytes(*other), signature, key.public)


@pytest.mark.parametrize("signature", ["", "A", "A" * 86, "é" * 86, "!" * 86, "A" * 10_000])
def test_what_is_no_signature_of_a_lease_is_refused(signature: str, key: CollectiveKey) -> None:
    """Any other text is a wrong signature, not another error."""
    with pytest.raises(SignatureError, match=r"Expected a lease signed with hub_key.* got one "):
        check_lease(b"lease", signature, key.public)


def test_a_lease_without_a_signature_is_told_from_one_of_another_key(
    key: CollectiveKey, stranger: CollectiveKey
) -> None:
    """Whoever copied hub_key wrong hears that the key does not fit, not that the hub signs nothing."""
    with pytest.raises(SignatureError, match="got one without a signature"):
        check_lease(b"lease", "", key.public)
    with pytest.raises(SignatureError, match=r"does not fit that key\. Its .* Compare hub_key with"):
        check_lease(b"lease", stranger.signature_of(b"lease", "lease"), key.public)


def test_a_set_that_is_loaded_is_the_set_that_was_signed(key: CollectiveKey, tmp_path: Path) -> None:
    """Two sets of the same content but other facts have each a signature of their own."""
    path = members_file(tmp_path)
    key.sign(path, "perturbations")
    replace(PerturbationSet.load(path), subgroup="somebody else").save(path)
    with pytest.raises(SignatureError, match="other bytes"):
        signer(path, "perturbations")
