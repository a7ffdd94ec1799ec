"""Signatures: the collective's key, what it signs, and whether a file is still what was signed, and by whom."""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ttca.errors import TTCAError

__all__ = [
    "KEY_FILE",
    "CollectiveKey",
    "SignatureError",
    "Signed",
    "SignedKind",
    "check_key",
    "check_lease",
    "check_signature",
    "lease_bytes",
    "signature_file",
    "signer",
    "unsigned",
]

#: The collective's private key, in the folder of its action.
KEY_FILE = "collective.key"
#: What is signed. The kind is signed with the bytes, so that a signature of one is none of another.
SignedKind = Literal["perturbations", "certificate", "lease", "books", "expiry", "head", "evidence"]

_FORMAT, _ALGORITHM, _PREFIX = "ttca-signature-1", "Ed25519", "ttca-ed25519:"
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64
# Ours are a few hundred bytes long: nobody is made to read more.
_LONGEST = 4096
# So many other signatures of a folder are looked at.
_MOST_OTHERS = 100
_GET_AGAIN = "Do not use it. Get both files again from the collective."
_LOST = (
    "If it is lost, delete {}, run again, and tell every member the new key. Evidence of this action can no longer be "
    "written then: the lost key signed its heads."
)
#: What a collective signs that members have.
_SIGNED_FIRST = ("certificate.json", "perturbations.safetensors")
_OWN_AGAIN = "Restore both from a copy, or delete both and run ttca verify again: what was answered costs nothing."


class SignatureError(TTCAError):
    """A file or lease is not what was signed, is not signed by whom it should be, or a key cannot be used."""


@dataclass(frozen=True)
class Signed:
    """Who signed a file.

    Parameters
    ----------
    key : str or None
        The public key whose signature is right; None for a file without a signature.
    expected : str or None
        The public key that the reader knows as the collective's.
    missing : str
        Where a signature was looked for, and what lies there instead: sentences. Empty where there is one.
    """

    key: str | None
    expected: str | None = None
    missing: str = ""

    @property
    def told(self) -> str:
        """What that says and what it does not, for people."""
        if self.key is None:
            return f"Not signed: nobody can tell whether the file is as the collective wrote it. {self.missing}".strip()
        if self.expected is None:
            return (
                f"Signed with the key {self.key}. So the file is whole, but whose key that is, it cannot say: compare "
                "it with the one that the collective gave you, and give it with --key."
            )
        if self.key == self.expected:
            return f"Signed with the collective's key, {self.key}."
        return f"Signed with another key than the collective's: {self.key}."


class CollectiveKey:
    """The collective's key: whoever has it speaks for the collective.

    Its private half is in :data:`KEY_FILE` (PEM, PKCS #8, mode 0600), and nowhere else.

    Parameters
    ----------
    private : Ed25519PrivateKey

    Notes
    -----
    Ed25519 is *published* (Bernstein et al. 2012; RFC 8032); the code is that of ``cryptography``. What stands around
    the signed bytes is *ours*: ``ttca-signature-1 KIND``, a line feed, and the exact bytes of the file.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        #: The public half, as people pass it on: ``ttca-ed25519:`` and 43 letters of base64url.
        self.public = _PREFIX + _text(private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"CollectiveKey({self.public})"

    @classmethod
    def open_or_make(cls, folder: Path) -> CollectiveKey:
        """Return the key of a folder; made on first use.

        Raises
        ------
        SignatureError
            If the file is no such key, others than its owner can read or write it, or it cannot be made; if it is not
            there although something in the folder is signed: a new key would be one that nobody knows; or if another
            key signed what members have.
        """
        path = folder / KEY_FILE
        try:
            if not path.exists():
                signed = sorted(folder.glob("*.sig"))
                if signed:
                    raise SignatureError(
                        f"Expected the collective's key in {path}, which signed {signed[0].stem}, got no such file. "
                        f"Put it back. {_LOST.format(', '.join(file.name for file in signed))}"
                    )
                _make(path)
            key = cls(_read(path))
            key._check_others(folder)
            return key
        except OSError as error:
            raise SignatureError(
                f"Expected to read or write the collective's key in {path}, got: {error}. Check the folder's "
                "permissions."
            ) from None

    def _check_others(self, folder: Path) -> None:
        """Raise where another key signed what lies in the folder: nobody who has that would heed this one's word."""
        for path in (folder / name for name in _SIGNED_FIRST):
            key = _key_in(signature_file(path))
            if key not in (None, self.public):
                raise self._other(path, key)

    def _other(self, path: Path, key: str | None) -> SignatureError:
        """Return the error that another key signed a file."""
        return SignatureError(
            f"Expected {path} to be signed with the key in {KEY_FILE}, {self.public}, got one signed with {key}. "
            f"Restore the {KEY_FILE} that signed it. {_LOST.format(signature_file(path))}"
        )

    def signature_of(self, content: bytes, kind: SignedKind) -> str:
        """Return the signature over a kind and exact bytes, in base64url."""
        return _text(self._private.sign(_message(content, kind)))

    def signature_content(self, content: bytes, kind: SignedKind) -> bytes:
        """Return what the file with the signature over a kind and exact bytes holds."""
        signature = self.signature_of(content, kind)
        said = {"format": _FORMAT, "algorithm": _ALGORITHM, "key": self.public, "signature": signature}
        return (json.dumps(said, indent=1) + "\n").encode()

    def sign(self, path: Path, kind: SignedKind) -> Path:
        """Write the signature of a file beside it, and return where; never seen half written.

        Raises
        ------
        SignatureError
            If the file cannot be read, or its signature cannot be written.
        """
        beside = signature_file(path)
        partial = beside.with_name(f"{beside.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(self.signature_content(path.read_bytes(), kind))
            partial.replace(beside)
        except OSError as error:
            raise SignatureError(f"Expected to sign {path}, got: {error}. Check the folder.") from None
        return beside

    def write_signed(self, path: Path, kind: SignedKind, write: Callable[[Path], None]) -> None:
        """Write a file and sign it.

        The old signature goes first: a kill in between leaves a file without one, never one that seems forged.
        """
        try:
            signature_file(path).unlink(missing_ok=True)
        except OSError as error:
            raise SignatureError(f"Expected to sign {path}, got: {error}. Check the folder.") from None
        write(path)
        self.sign(path, kind)

    def has_signed(self, path: Path, kind: SignedKind) -> bool:
        """Whether this key's right signature lies beside a file of the collective's own; False where none does.

        Raises
        ------
        SignatureError
            If the file is not what was signed, or another key signed it: neither is mended in silence.
        """
        key = signer(path, kind, otherwise=_OWN_AGAIN)
        if key not in (None, self.public):
            raise self._other(path, key)
        return key is not None


def signature_file(path: Path) -> Path:
    """Return where the signature of a file lies."""
    return path.with_name(path.name + ".sig")


def unsigned(path: Path, kind: SignedKind, *, otherwise: str = "Get both files from the collective.") -> str:
    """Return where the signature of a file was looked for in vain, and which other one in its folder it may be.

    Downloads get other names. None is taken by itself: whoever put it there may have meant another file.
    """
    beside = signature_file(path)
    looked = f"Looked for {beside.name} beside it."
    try:
        content = path.read_bytes()
        others = sorted(one for one in path.parent.glob("*.sig*") if one != beside and one.is_file())
        for other in others[:_MOST_OTHERS]:
            with other.open("rb") as file, suppress(ValueError, RecursionError, SignatureError):
                if _is_right(*_parts(file.read(_LONGEST + 1)), content, kind):
                    return f"{looked} {other.name!r} lies there and is its signature: rename that to {beside.name!r}."
        strays = [one.name for one in others if not one.with_name(one.name.partition(".sig")[0]).exists()]
    except OSError:
        strays = []
    if not strays:
        return f"{looked} {otherwise}"
    return (
        f"{looked} {strays[0]!r} lies there and does not fit: it is another file's, or one of the two was changed. "
        f"{otherwise}"
    )


def check_key(text: str) -> str:
    """Return a public key as people pass it on, without spaces around it; raise SignatureError where it is none."""
    _public(text.strip())
    return text.strip()


def signer(path: Path, kind: SignedKind, *, otherwise: str = _GET_AGAIN) -> str | None:
    """Return the public key whose right signature lies beside a file; None where no signature does.

    Parameters
    ----------
    path : Path
    kind : SignedKind
        As what the file is read.
    otherwise : str
        What to do where the signature is wrong, a sentence.

    Raises
    ------
    SignatureError
        If the file is not what was signed, or the signature cannot be read.
    """
    if path.is_dir():
        raise SignatureError(f"Expected a file, got the folder {str(path)!r}. Name the file in it.")
    beside = signature_file(path)
    try:
        if not os.path.lexists(beside):
            return None
        with beside.open("rb") as file:
            text = file.read(_LONGEST + 1)
        content = path.read_bytes()
    except OSError as error:
        raise SignatureError(f"Expected to read {path} and its signature, got: {error}. {otherwise}") from None
    try:
        key, signature = _parts(text)
    except (ValueError, RecursionError, SignatureError):
        raise SignatureError(
            f"Expected a signature in the format {_FORMAT} in {beside}, got something else: another version of ttca "
            f"wrote it, or it was changed on its way. {otherwise}"
        ) from None
    if not _is_right(key, signature, content, kind):
        raise SignatureError(
            f"Expected {path} as it was signed, got other bytes: the file or {beside.name} was changed on its way. "
            f"{otherwise}"
        )
    return key


def check_signature(path: Path, kind: SignedKind, *, expected: str | None = None, anyway: bool = False) -> Signed:
    """Return who signed a file that others wrote.

    Parameters
    ----------
    path : Path
    kind : SignedKind
        As what the file is read.
    expected : str, optional
        The collective's public key. Without it nobody can tell whose key signed, and files of earlier versions have
        no signature at all: what is known is returned, to be told.
    anyway : bool
        Let pass what is not signed, or not by that key. A file that is not what was signed never passes.

    Raises
    ------
    SignatureError
    """
    known = None if expected is None else check_key(expected)
    key = signer(path, kind)
    found = Signed(key, known, unsigned(path, kind) if key is None else "")
    if known is None or anyway or found.key == known:
        return found
    if found.key is None:
        raise SignatureError(
            f"Expected the signature of the collective's key beside {path}, got none. "
            f"Anybody may have written the file. {found.missing}"
        )
    raise SignatureError(
        f"Expected {path} to be signed with {known}, got one signed with {found.key}. Another collective wrote it, or "
        "yours has a new key. Ask it, by another way than the one the file came."
    )


def lease_bytes(lease: str, fingerprint: str, images: Sequence[str]) -> bytes:
    """Return what is signed of a lease: its name, the platform to ask, and what to ask, one a line.

    The member chose the name by chance, so that no signed lease can be handed out twice.
    """
    return "\n".join((lease, fingerprint, *images)).encode()


def check_lease(content: bytes, signature: str, expected: str) -> None:
    """Raise SignatureError where a lease (:func:`lease_bytes`) is not signed with the expected public key."""
    try:
        raw = _bytes(signature, _SIGNATURE_BYTES)
    except ValueError:
        raw = b""
    if not raw or not _is_right(expected, raw, content, "lease"):
        raise SignatureError(
            f"Expected a lease signed with hub_key, {expected}, got one "
            f"{'whose signature does not fit that key' if raw else 'without a signature'}. Its queries were not asked. "
            "Compare hub_key with the key of your invitation. Where both are the same, ask whoever invited you whether "
            "the hub, or the collective's key, is another one now."
        )


# -- bytes and letters ------------------------------------------------------------------------------------------


def _message(content: bytes, kind: SignedKind) -> bytes:
    return f"{_FORMAT} {kind}\n".encode() + content


def _is_right(key: str, signature: bytes, content: bytes, kind: SignedKind) -> bool:
    try:
        _public(key).verify(signature, _message(content, kind))
    except InvalidSignature:
        return False
    return True


def _parts(text: bytes) -> tuple[str, bytes]:
    """Return key and signature of a signature file; raises ValueError or SignatureError for anything else."""
    # Editors put a byte-order mark in front; the signature itself is checked over the signed file.
    said: Any = json.loads(text.decode("utf-8-sig"))
    if (
        len(text) > _LONGEST
        or not isinstance(said, dict)
        or set(said) != {"format", "algorithm", "key", "signature"}
        or not all(isinstance(value, str) for value in said.values())
        or (said["format"], said["algorithm"]) != (_FORMAT, _ALGORITHM)
    ):
        raise ValueError("not in the format")
    return check_key(said["key"]), _bytes(said["signature"], _SIGNATURE_BYTES)


def _key_in(signature: Path) -> str | None:
    """Return the key that a signature file names; None for none, and for one that cannot be read: `signer` says so."""
    with suppress(OSError, ValueError, RecursionError, SignatureError):
        return _parts(signature.read_bytes()[: _LONGEST + 1])[0]
    return None


def _public(text: str) -> Ed25519PublicKey:
    try:
        if not text.startswith(_PREFIX):
            raise ValueError("no prefix")
        return Ed25519PublicKey.from_public_bytes(_bytes(text.removeprefix(_PREFIX), _KEY_BYTES))
    except (ValueError, UnsupportedAlgorithm):
        # What came instead is not shown: it may be the private half.
        raise SignatureError(
            f"Expected the collective's public key as {_PREFIX} and 43 letters, got what is no key: a letter may be "
            "missing or wrong. Copy it whole from the invitation."
        ) from None


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str, size: int) -> bytes:
    """Return so many bytes from base64url; one text alone stands for each, or ValueError is raised."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if len(raw) != size or _text(raw) != text:
        raise ValueError(f"not {size} bytes in base64url")
    return raw


# -- the file of the private half -------------------------------------------------------------------------------


def _make(path: Path) -> None:
    """Write a new key whole and closed to others; where another program was faster, its key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # A umask can take rights away that the owner needs.
            partial.chmod(0o600)
            made = Ed25519PrivateKey.generate()
            file.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
        try:
            # Not a rename, which would replace a key that has signed already.
            os.link(partial, path)
        except FileExistsError:
            return
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> Ed25519PrivateKey:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        content = file.read(_LONGEST)
    # Windows has no such bits.
    if os.name == "posix" and mode & 0o077:
        raise SignatureError(
            f"Expected the collective's key {path} to be open to its owner alone (mode 600), got mode {mode:o}: others "
            f"may have copied it. If nobody else could, close it with: chmod 600 {path}. Else make a new key: delete "
            "it and the .sig files, run again, and tell every member."
        )
    try:
        found = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, Ed25519PrivateKey):
        # Raised out here, and without a word of what is in the file.
        raise SignatureError(
            f"Expected the collective's private key (Ed25519, PEM) in {path}, got something else. Restore it from a "
            "copy."
        )
    return found
