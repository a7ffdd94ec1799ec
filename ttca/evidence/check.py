"""Checks a bundle of evidence with Python's standard library alone: signatures, hashes, the chain, and every number.

    python check.py              the folder that this file lies in
    python check.py BUNDLE.zip   or a folder
    python check.py --key KEY    and whether the collective's key, as it told you, signed it
    python check.py --help       this text

It recomputes certificate and result row from the rows of the ledger, and says what it cannot recompute. It needs
Python 3.9 or newer, no network, and nothing of the program that wrote the bundle. Status 0: everything holds. 1:
something does not, and the sentence names the file. 2: there was nothing to check. Whoever wants to trust nothing in
the bundle takes this file from ttca itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["Refused", "check", "check_certificate", "check_contents", "main", "receipts", "verify_ed25519", "zip_bytes"]

FORMAT = "ttca-evidence-1"
_LETTER = " Fill in a copy of the letter, outside the bundle."
BATCH = 16
ON_THE_WAY = 0.2
#: Files that every bundle has.
NEEDED = (
    "README.txt", "certificate.json", "certificate.json.sig", "check.py", "consent.txt", "heads.json", "ledger.jsonl",
    "letter.md", "measurement.json", "members.json", "report.html", "row.json",
)  # fmt: skip
#: What no list of rows can tell: choices, and what machines took.
STATED = ("track", "regime", "answers", "queries", "seed", "composition", "zero_query_epochs", "threads", "shortened",
          "seconds_distil", "seconds_learn", "seconds", "peak_rss_mb", "overruled", "backbones", "recipe",
          "serves")  # fmt: skip


class Refused(Exception):
    """Something in the bundle does not hold; the sentence says what, and in which file."""


def _refuse(file: str, what: str) -> NoReturn:
    raise Refused(f"{file}: {what}")


def _expect(condition: object, file: str, what: str) -> None:
    if not condition:
        _refuse(file, what)


# --- Ed25519 (RFC 8032, section 6; verification alone) ------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def _add(a: Any, b: Any) -> Any:
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    w, x, y, z = f - e, d - c, d + c, f + e
    return (w * x % P, y * z % P, x * y % P, w * z % P)


def _times(n: Any, point: Any) -> Any:
    found = (0, 1, 1, 0)
    while n > 0:
        if n & 1:
            found = _add(found, point)
        point = _add(point, point)
        n >>= 1
    return found


def _x(y: Any, sign: Any) -> Any:
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if square == 0:
        return None if sign else 0
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P:
        return None
    return P - x if x & 1 != sign else x


def _point(raw: bytes) -> Any:
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    x = _x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (_x(BASE_Y, 0), BASE_Y, 1, _x(BASE_Y, 0) * BASE_Y % P)


def verify_ed25519(key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether a signature (64 bytes) over a message is that of a public key (32 bytes)."""
    if len(key) != 32 or len(signature) != 64:
        return False
    a, r, s = _point(key), _point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    left, right = _times(s, BASE), _add(r, _times(h, a))
    return all((left[i] * right[2] - right[i] * left[2]) % P == 0 for i in (0, 1))


# --- files --------------------------------------------------------------------------------------------------------


def zip_bytes(files: dict[str, bytes]) -> bytes:
    """Return the one ZIP of these files, name → bytes: uncompressed and without dates, so each byte has one value."""
    body, directory = b"", b""
    for name in sorted(files):
        content, raw = files[name], name.encode()
        facts = struct.pack("<HHHHHIIIHH", 20, 0x800, 0, 0, 0x21, zlib.crc32(content), len(content), len(content),
                            len(raw), 0)  # fmt: skip
        directory += (
            b"PK\x01\x02"
            + struct.pack("<H", 0x314)
            + facts
            + struct.pack("<HHHII", 0, 0, 0, 0o644 << 16, len(body))
            + raw
        )
        body += b"PK\x03\x04" + facts + raw + content
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, len(files), len(files), len(directory), len(body), 0)
    return body + directory + end


#: What is wrong with a ZIP that another program packed, or that somebody changed.
_PACKED = "it is not packed as it was written. Unpack it, and check the folder."


def _unzipped(path: Path) -> dict[str, bytes]:
    """Return the files of a bundle's ZIP; any other ZIP of the same files is refused, byte for byte."""
    content, files, at = path.read_bytes(), {}, 0
    while content[at : at + 4] == b"PK\x03\x04":
        try:
            size, length = struct.unpack_from("<IH", content, at + 22)
            name = content[at + 30 : at + 30 + length].decode("ascii")
        except (struct.error, UnicodeDecodeError):
            _refuse(path.name, "its list of files is damaged.")
        _expect(
            re.fullmatch(r"[A-Za-z0-9._-]+", name) and name not in files, path.name, f"a file called {name!r} is in it."
        )
        _expect(struct.unpack_from("<HH", content, at + 6) == (0x800, 0), path.name, _PACKED)
        files[name] = content[at + 30 + length : at + 30 + length + size]
        _expect(zlib.crc32(files[name]) == struct.unpack_from("<I", content, at + 14)[0], name, "was changed.")
        at += 30 + length + size
    _expect(zip_bytes(files) == content, path.name, _PACKED)
    return files


_LEFT_BEHIND = ("__pycache__", "__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


def _folder(path: Path) -> dict[str, bytes]:
    files = {}
    for found in sorted(path.iterdir()):
        # What Python and file managers leave behind is nobody's evidence.
        if found.name in _LEFT_BEHIND or found.name.startswith("._"):
            continue
        _expect(found.is_file(), found.name, "is no file, and the manifest does not list it. Move it away.")
        files[found.name] = found.read_bytes()
    return files


def _decoded(text: Any, size: int, file: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, TypeError):
        raw = b""
    plain = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    _expect(len(raw) == size and plain == text, file, "holds no key or signature where one belongs.")
    return raw


def _public(text: Any, file: str) -> bytes:
    _expect(isinstance(text, str) and text.startswith("ttca-ed25519:"), file, "names no public key.")
    return _decoded(text[len("ttca-ed25519:") :], 32, file)


def _is_signed(kind: str, content: bytes, key: str, signature: str, file: str) -> bool:
    message = b"ttca-signature-1 " + kind.encode() + b"\n" + content
    return verify_ed25519(_public(key, file), message, _decoded(signature, 64, file))


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _loads(files: dict[str, bytes], name: str) -> Any:
    try:
        # Python would take NaN and Infinity, which ttca never writes: whoever compares with them finds nothing wrong.
        return json.loads(files[name].decode("utf-8"), parse_constant=_no_number)
    except KeyError:
        _refuse(name, "is missing.")
    except (ValueError, RecursionError):
        _refuse(name, "cannot be read.")


def _signer(files: dict[str, bytes], name: str, kind: str) -> str:
    """Return the key whose right signature lies beside a file, written exactly as ttca writes signatures."""
    beside = name + ".sig"
    said = _loads(files, beside)
    _expect(isinstance(said, dict), beside, "holds no signature.")
    key, signature = said.get("key"), said.get("signature")
    wanted = {"format": "ttca-signature-1", "algorithm": "Ed25519", "key": key, "signature": signature}
    _expect(
        (json.dumps(wanted, indent=1) + "\n").encode() == files[beside], beside, "is not as ttca writes signatures."
    )
    _expect(isinstance(signature, str), beside, "holds no signature.")
    right = _is_signed(kind, files[name], key, signature, beside)
    _expect(right, name, f"was changed since it was signed, or {beside} was.")
    return str(key)


def _check_files(files: dict[str, bytes]) -> tuple[dict[str, Any], str]:
    """Check every file against the signed manifest; return the manifest and the key that signed it."""
    _expect("manifest.json" in files, "manifest.json", "is missing.")
    _expect("manifest.json.sig" in files, "manifest.json.sig", "is missing.")
    key = _signer(files, "manifest.json", "evidence")
    manifest = _loads(files, "manifest.json")
    _expect(manifest.get("format") == FORMAT, "manifest.json", f"is not of the format {FORMAT}.")
    listed = manifest["files"]
    for name in sorted({*listed, *files} - {"manifest.json", "manifest.json.sig"}):
        _expect(
            name in listed,
            name,
            "is not listed in manifest.json. Move away what you put beside the bundle's files, such as the ZIP itself.",
        )
        _expect(name in files, name, "is listed in manifest.json and missing.")
        _expect(
            hashlib.sha256(files[name]).hexdigest() == listed[name],
            name,
            "was changed since the bundle was signed." + (_LETTER if name == "letter.md" else ""),
        )
    for name in NEEDED:
        _expect(name in files, name, "is missing.")
    return manifest, key


# --- the chain ----------------------------------------------------------------------------------------------------


def _opened(line: str) -> tuple[bytes, dict[str, Any] | None]:
    """Return a row's commitment, and what it says; None where it is sealed."""
    row = json.loads(line)
    if "content" not in row:
        return bytes.fromhex(row["commitment"]), None
    salt = bytes.fromhex(row["salt"])
    if len(salt) != 32:
        raise ValueError("no salt")
    content: dict[str, Any] = json.loads(row["content"], parse_constant=_no_number)
    return hashlib.sha256(b"ttca-row-1\n" + salt + row["content"].encode()).digest(), content


class _Chain:
    """The rows of the ledger: what each says, as far as it is open, and the head after each."""

    def __init__(self, files: dict[str, bytes], action: str) -> None:
        file = "ledger.jsonl"
        head = hashlib.sha256(b"ttca-chain-1\n" + action.encode()).digest()
        self.heads, self.rows, self.sealed = [head.hex()], [], 0
        for number, line in enumerate(files[file].decode("utf-8").splitlines(), 1):
            try:
                commitment, content = _opened(line)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                _refuse(file, f"line {number} cannot be read as a row.")
            self.rows.append(content)
            self.sealed += content is None
            head = hashlib.sha256(head + commitment).digest()
            self.heads.append(head.hex())
        attempts: dict[tuple[int, int], dict[str, Any]] = {}
        self.answers: dict[str, list[int]] = {}
        self.place: dict[str, int] = {}
        self.seats: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.terms: dict[str, dict[str, Any]] = {}
        for number, row in enumerate(self.rows, 1):
            if row is None:
                continue
            if row["row"] == "query":
                # A later row about the same query counts.
                attempts[tuple(row["attempt"])] = row
                if row.get("answer") is not None:
                    self.answers[row["query"]] = row["answer"]
                if "query" in row:
                    self.place.setdefault(row["query"], number)
            elif row["row"] == "seat":
                self.seats[row["epoch"], row["side"], row["seat"]] = row
            elif row["row"] == "terms":
                self.terms[row["epoch"]] = row
        self.attempts = attempts

    def paid(self) -> Counter[str]:
        """Return the queries charged, refunds out, by purpose."""
        return Counter(row["purpose"] for row in self.attempts.values() if row["outcome"] != "refunded")


def _check_heads(files: dict[str, bytes], chain: _Chain, action: str, key: str, epoch: str) -> dict[str, Any]:
    """Check every signed head against the chain; return them by moment."""
    found = {}
    for head in _loads(files, "heads.json")["heads"]:
        bare = {name: value for name, value in head.items() if name not in ("key", "signature")}
        text = json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()
        _expect(_is_signed("head", text, head["key"], head["signature"], "heads.json"), "heads.json",
               f"the head {head['moment']} was changed since it was signed.")  # fmt: skip
        _expect(head["key"] == key and head["action"] == action, "heads.json", "a head is another action's.")
        _expect(0 <= head["rows"] < len(chain.heads) and chain.heads[head["rows"]] == head["head"], "ledger.jsonl",
               f"does not give the head that was signed {head['moment']}.")  # fmt: skip
        if head["epoch"] in (epoch, ""):
            found[head["moment"]] = head
    last = found.get("export")
    _expect(last is not None and last["rows"] == len(chain.rows), "ledger.jsonl", "has rows that no head covers.")
    return found


def _check_days(manifest: dict[str, Any], verified: str, heads: dict[str, Any]) -> None:
    """Check the days that are said against those of the signed heads: no other clock is in the bundle."""
    _expect(manifest["made"] == heads["export"]["at"], "manifest.json", "says another day than the head at export.")
    first, last = (heads.get(f"{when} verification") for when in ("before", "after"))
    day = datetime.fromisoformat(verified)
    # A computer's clock may be set in between; a day is more than that.
    early = first is not None and datetime.fromisoformat(first["at"]) - day > timedelta(days=1)
    late = last is not None and day - datetime.fromisoformat(last["at"]) > timedelta(days=1)
    _expect(not early and not late, "certificate.json", "says that it was verified on a day outside its signed heads.")


# --- numbers ------------------------------------------------------------------------------------------------------


def _betainc(a: Any, b: Any, x: float) -> float:
    """Return the regularized incomplete beta function, by its continued fraction (Lentz)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _betainc(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x) - math.log(a)
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10000):
        for top in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                    -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):  # fmt: skip
            d = 1 / (1 + top * d or 1e-300)
            c = 1 + top / c or 1e-300
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return float(min(1.0, math.exp(front) * value))


def _bisect(rises: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) < target else (low, middle)
    return (low + high) / 2


def _lower(k: Any, n: Any, alpha: float) -> float:
    """Return Clopper and Pearson's one-sided lower bound; counts need not be whole."""
    return _bisect(lambda p: _betainc(k, n - k + 1, p), alpha) if k > 1e-9 else 0.0


def _upper(k: Any, n: Any, alpha: float) -> float:
    """Return Clopper and Pearson's one-sided upper bound."""
    return 1 - _lower(n - k, n, alpha)


def _at_most(k: Any, n: Any, p: Any) -> float:
    """Return Pr[Bin(n, p) <= k]."""
    if k < 0 or k >= n:
        return float(k >= n)
    return _betainc(n - k, k + 1, 1 - p)


def _mcnemar(won: int, lost: int) -> float:
    """Return the exact one-sided p."""
    return float(sum(math.comb(won + lost, i) for i in range(lost + 1)) / 2 ** (won + lost))


def _two_sided_mcnemar(won: int, lost: int) -> float:
    """Return the exact two-sided p."""
    return min(1.0, 2 * _mcnemar(max(won, lost), min(won, lost))) if won + lost else 1.0


def _fisher(k: Any, m: int, right: Any, others: Any) -> float:
    """Return Fisher's exact one-sided p."""
    total = k + right
    ways = sum(math.comb(m, i) * math.comb(others, total - i) for i in range(k, min(m, total) + 1))
    return ways / math.comb(m + others, total)


def _score(estimate: float, variance: float) -> float:
    return estimate / math.sqrt(variance) if variance > 1e-15 else 0.0


def _difference_score(x: float, m: int, y: Any, n: Any, margin: float) -> float:
    """Return the score of Farrington and Manning (1990)."""
    s, a, theta, d = x / m, y / n, n / m, -margin
    c3, c2 = 1 + theta, -(1 + theta + s + theta * a + d * (theta + 2))
    c1, c0 = d**2 + d * (2 * s + theta + 1) + s + theta * a, -s * d * (1 + d)
    v = c2**3 / (27 * c3**3) - c2 * c1 / (6 * c3**2) + c0 / (2 * c3)
    u = (-1.0 if v < 0 else 1.0) * math.sqrt(max(c2**2 / (9 * c3**2) - c1 / (3 * c3), 0))
    cosine = min(1.0, max(-1.0, v / u**3)) if u else 0.0
    fitted = min(1 - margin, max(0.0, 2 * u * math.cos((math.pi + math.acos(cosine)) / 3) - c2 / (3 * c3)))
    other = min(1.0, fitted + margin)
    return _score(s - a + margin, fitted * (1 - fitted) / m + other * (1 - other) / n)


def _ratio_score(x: float, m: int, y: Any, n: Any, ratio: float) -> float:
    """Return the score of Miettinen and Nurminen (1985)."""
    b = x + ratio * y + ratio * m + n
    fitted = min(1.0, 2 * (x + y) / (b + math.sqrt(max(b**2 - 4 * ratio * (m + n) * (x + y), 0))))
    return _score(
        x / m - ratio * y / n, ratio * fitted * (1 - ratio * fitted) / m + ratio**2 * fitted * (1 - fitted) / n
    )


def _tango_score(won: int, lost: int, m: int, margin: float) -> float:
    """Return Tango's score (1998)."""
    b = won + lost + (2 * m - won + lost) * margin
    root = math.sqrt(max(b**2 - 8 * m * lost * margin * (1 + margin), 0))
    fitted = min((1 + margin) / 2, max(margin, (b + root) / (4 * m)))
    return _score((won - lost) / m + margin, (2 * fitted - margin * (1 + margin)) / m)


def _greatest(chance: Callable[[float], float], low: float, width: float, stop: float | None = None) -> float:
    """Return the greatest chance over a nuisance rate, by a grid and finer ones where it is highest."""

    def at(t: float) -> float:
        return chance(low + width * (1 - math.cos(t)) / 2)

    step, best = math.pi / 128, 0.0
    found = []
    for i in range(129):
        value = at(i * step)
        best = max(best, value)
        if stop is not None and best > stop:
            return best
        found.append((value, i * step))
    for _ in range(2):
        found = sorted(found, reverse=True)[:4]
        step /= 8
        found += [
            (at(t + j * step), t + j * step)
            for _, t in list(found)
            for j in range(-7, 8)
            if j and 0 <= t + j * step <= math.pi
        ]
        best = max(best, max(found)[0])
    return best


def _log_ways(n: Any) -> list[float]:
    return [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)]


def _pmf(ways: list[float], p: Any) -> list[float]:
    n = len(ways) - 1
    if p <= 0 or p >= 1:
        return [float(k == (n if p >= 1 else 0)) for k in range(n + 1)]
    one, other = math.log(p), math.log1p(-p)
    return [math.exp(w + k * one + (n - k) * other) for k, w in enumerate(ways)]


def _first(reached: Callable[[int], bool], most: int) -> int:
    """Return the smallest of 0..most that is reached, most + 1 where none is; more is never worse."""
    low, high = 0, most + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle + 1, high)
    return low


def _independent_p(score: Callable[..., float], value: float, table: Any, stop: float | None = None) -> float:
    """Return the exact p of two groups of different persons, (right, m, reference right, n), over the nuisance."""
    k, m, right, n = table
    bar = score(k, m, right, n, value) - 1e-9

    def enough(y: int) -> Callable[[int], bool]:
        return lambda x: score(x, m, y, n, value) >= bar

    needed = [_first(enough(y), m) for y in range(n + 1)]
    for y in range(n - 1, -1, -1):
        needed[y] = min(needed[y], needed[y + 1])
    ours, theirs = _log_ways(m), _log_ways(n)

    def chance(rate: float) -> float:
        tail = [0.0] * (m + 2)
        mine = _pmf(ours, rate - value if score is _difference_score else value * rate)
        for x in range(m, -1, -1):
            tail[x] = tail[x + 1] + mine[x]
        return sum(p * tail[needed[y]] for y, p in enumerate(_pmf(theirs, rate)))

    return _greatest(chance, *((value, 1 - value) if score is _difference_score else (0.0, 1.0)), stop=stop)


def _tango(won: int, lost: int, m: int, margin: float, stop: float | None = None) -> float:
    """Return the exact p of the same persons under two conditions, over the nuisance."""
    bar = _tango_score(won, lost, m, margin) - 1e-9

    def enough(c: int) -> Callable[[int], bool]:
        return lambda w: _tango_score(w, c, m, margin) >= bar

    needed = [_first(enough(c), m - c) for c in range(m + 1)]
    needed = [m + 1 if w > m - c else w for c, w in enumerate(needed)]
    for c in range(m - 1, -1, -1):
        needed[c] = min(needed[c], needed[c + 1])
    ways = _log_ways(m)

    def chance(rate: float) -> float:
        total = 0.0
        share = min(1.0, max(0.0, (rate - margin) / (1 - rate))) if rate < 1 else 0.0
        for c, p in enumerate(_pmf(ways, rate)):
            if p > 1e-13 and needed[c] <= m - c:
                total += p * (1 - _at_most(needed[c] - 1, m - c, share))
        return total

    return _greatest(chance, margin, (1 - margin) / 2, stop=stop)


# --- e-values -----------------------------------------------------------------------------------------------------


def _bar_log_e(k: Any, n: Any, bar: float) -> float:
    """Return the log e-value against "S is at most the bar" after k right of n."""
    w = n - k
    if not n:
        return 0.0
    if bar >= 1:
        return -math.inf
    if bar <= 0:
        return math.inf if k else 0.0
    tail = 1 - _betainc(k + 1, w + 1, bar) if bar <= (k + 2) / (n + 4) else _betainc(w + 1, k + 1, 1 - bar)
    if tail < 1e-200:
        term = total = 1 / (w + 1)
        j = 0
        while term > 1e-17 * total:
            term *= (k - j) * (1 - bar) / bar / (w + j + 2)
            total += term
            j += 1
        return math.log(total)
    logs = math.lgamma(k + 1) + math.lgamma(w + 1) - math.lgamma(n + 2)
    return float(logs + math.log(tail) - k * math.log(bar) - (w + 1) * math.log1p(-bar))


def _pairs_log_e(differences: list[int], margin: float) -> float:
    """Return the greatest log e-value so far against "S is at most A - margin", over persons in their order."""
    lead = max(-margin, -1 + 1e-12)
    shares = [(i + 0.5) / 40 for i in range(40)]
    gain = {1: [math.log1p(s / (1 + lead) * (1 - lead)) for s in shares], -1: [math.log1p(-s) for s in shares],
            0: [math.log1p(-s / (1 + lead) * lead) for s in shares]}  # fmt: skip
    logs, best = [0.0] * 40, -math.inf
    for _difference in differences:
        logs = [a + b for a, b in zip(logs, gain[_difference])]
        most = max(logs)
        best = max(best, most + math.log(sum(math.exp(v - most) for v in logs) / 40))
    return best


def _running_lower(right: Any, alpha: float) -> float:
    """Return the greatest bar that was rejected after any person."""
    enough, best, k = -math.log(alpha), 0.0, 0
    for n, one in enumerate(right, 1):
        k += one
        # Only a bar above the best so far matters.
        if _bar_log_e(k, n, best) >= enough or best == 0.0:
            low, high = best, 1.0
            for _ in range(60):
                middle = (low + high) / 2
                low, high = (middle, high) if _bar_log_e(k, n, middle) >= enough else (low, middle)
            best = max(best, low)
    return best


# --- several images of a person -----------------------------------------------------------------------------------


def _student(freedom: float, t: float) -> float:
    """Return the distribution function of Student's t."""
    tail = _betainc(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2
    return tail if t < 0 else 1 - tail


def _student_quantile(freedom: float, p: Any) -> float:
    low, high = -1e6, 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _student(freedom, middle) < p else (low, middle)
    return (low + high) / 2


def _effective(images: Any) -> float:
    return float(sum(images) ** 2 / sum(n * n for n in images))


def _by_person(right: Any, images: Any) -> list[int]:
    found, at = [], 0
    for n in images:
        found.append(sum(right[at : at + n]))
        at += n
    return found


def _persons_p(right: Any, images: Any, others: Any, other_images: Any, margin: float) -> float:
    """Return the approximate p of persons with several images each."""
    parts = []
    for k, n in ((right, images), (others, other_images)):
        many, total = _effective(n), sum(n)
        if many < 2:
            return 1.0
        rate, shrunk = sum(k) / total, (sum(k) + 2) / (total + 4)
        between = many / (many - 1) * sum((a - rate * b) ** 2 for a, b in zip(k, n)) / total**2
        parts.append((rate, max(between, shrunk * (1 - shrunk) / total), many))
    (s, s_var, s_many), (a, a_var, a_many) = parts
    freedom = (s_var + a_var) ** 2 / (s_var**2 / (s_many - 1) + a_var**2 / (a_many - 1))
    return _student(freedom, -(s - a + margin) / math.sqrt(s_var + a_var))


# --- the rules that stop a test -----------------------------------------------------------------------------------


class _Goal:
    """What had to be shown, and how: the terms of a certificate."""

    def __init__(self, terms: dict[str, Any], examined: dict[str, Any]) -> None:
        self.alpha, self.stopping, self.every_image = terms["alpha"], terms["stopping"], terms["every_image"]
        self.value = 0.0
        if terms["within"] is not None:
            self.kind, self.value = "within", terms["within"]
        elif terms["accuracy_ratio"] is not None:
            self.kind, self.value = "accuracy_ratio", terms["accuracy_ratio"]
        elif terms["goal"] in ("parity", "improvement"):
            self.kind = terms["goal"]
        else:
            self.kind, self.value = "rate", terms["goal"]
        self.compares = {"improvement": "before", "rate": None}.get(self.kind, "reference")
        self.paired = self.compares == "before" or examined["design"] == "paired"
        layout = examined["layout"]
        self.layout = layout
        self.persons = examined["persons"] if layout is None else sum(layout[0])
        self.others = examined["others"] if layout is None else sum(layout[1])
        self.in_step = self.stopping == "anytime" and self.paired and self.compares is not None

    def __str__(self) -> str:
        return {
            "parity": "parity",
            "improvement": "improvement",
            "rate": f"a success rate of {self.value:g}",
            "within": f"parity within {100 * self.value:g} points",
            "accuracy_ratio": f"{self.value:g} times the reference accuracy",
        }[self.kind]


class _Count:
    """So many right answers are needed of all; None where all would not do."""

    def __init__(self, needed: int | None) -> None:
        self.needed = needed

    def verdict(self, right: Any, baseline: Any, persons: Any) -> bool | None:
        needed = persons + 1 if self.needed is None else self.needed
        if sum(right) >= needed:
            return True
        return None if sum(right) + persons - len(right) >= needed else False

    def told(self, right: Any, baseline: Any, persons: Any) -> str:
        needed = "more than all" if self.needed is None else f"{self.needed} of {persons}"
        return f"{sum(right)} of {len(right)} asked right, {needed} needed"

    def smallest(self, baseline: Any, persons: Any) -> Any:
        if self.needed is None:
            return None
        return _bisect(lambda s: _betainc(self.needed, persons - self.needed + 1, s), 0.8) if self.needed else 0.0


def _pairs(right: Any, baseline: Any) -> Any:
    won = sum(r and not b for r, b in zip(right, baseline))
    lost = sum(b and not r for r, b in zip(right, baseline))
    return won, lost


class _Pairs:
    """The same persons, compared one by one by a fixed test; the baseline is known in advance."""

    def __init__(self, p: Any, alpha: float, slow: bool) -> None:
        self.p, self.alpha, self.slow = p, alpha, slow

    def passes(self, won: int, lost: int) -> Any:
        return self.p(won, lost, self.alpha) <= self.alpha

    def verdict(self, right: Any, baseline: Any, persons: Any) -> bool | None:
        won, lost = _pairs(right, baseline)
        ahead = baseline[len(right) :]
        if self.passes(won, lost + sum(ahead)):
            return True
        return None if self.passes(won + len(ahead) - sum(ahead), lost) else False

    def told(self, right: Any, baseline: Any, persons: Any) -> str:
        won, lost = _pairs(right, baseline)
        p = self.p(won, lost + sum(baseline[len(right) :]), None)
        return f"{sum(right)} of {len(right)} asked right; {won} right only with δ, {lost} only without, p ≤ {p:.2g}"

    def smallest(self, baseline: Any, persons: Any) -> Any:
        if self.slow:
            return "slow"
        losable = sum(baseline)
        winnable = persons - losable
        needed, won = [], 0
        for lost in range(losable + 1):
            while won <= winnable and not self.passes(won, lost):
                won += 1
            needed.append(won)
        ways = _log_ways(losable)

        def passes(rate: float) -> Any:
            total = 0.0
            for lost, weight in enumerate(_pmf(ways, 1 - rate)):
                if weight > 1e-15 and needed[lost] <= winnable:
                    total += weight * (1 - _at_most(needed[lost] - 1, winnable, rate))
            return total

        return _smallest(passes)


def _smallest(passes: Callable[[float], float]) -> float | None:
    if passes(1.0) < 0.8:
        return None
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) >= 0.8 else (middle, high)
    return high


class _Bar:
    """An e-value against a bar that was fixed before the first answer with δ."""

    def __init__(self, bar: float, alpha: float) -> None:
        self.bar, self.alpha = bar, alpha

    def _crossed(self, right: Any) -> bool:
        k = 0
        for n, one in enumerate(right, 1):
            k += one
            if _bar_log_e(k, n, self.bar) >= -math.log(self.alpha):
                return True
        return False

    def verdict(self, right: Any, baseline: Any, persons: Any) -> bool | None:
        if self._crossed(right):
            return True
        left = persons - len(right)
        return None if left and self._crossed(list(right) + [True] * left) else False

    def told(self, right: Any, baseline: Any, persons: Any) -> str:
        return f"{sum(right)} of {len(right)} asked right, against a bar of {self.bar:.3f}"

    def smallest(self, baseline: Any, persons: Any) -> Any:
        enough = -math.log(self.alpha)

        def crosses(n: int) -> Callable[[int], bool]:
            return lambda k: _bar_log_e(k, n, self.bar) >= enough

        first = [_first(crosses(n), n) for n in range(1, persons + 1)]

        def passes(rate: float) -> Any:
            on, through = [1.0] + [0.0] * persons, 0.0
            for n, k in enumerate(first, 1):
                on = (
                    [on[0] * (1 - rate)]
                    + [on[i] * (1 - rate) + on[i - 1] * rate for i in range(1, n + 1)]
                    + on[n + 1 :]
                )
                through += sum(on[k : n + 1])
                on[k : n + 1] = [0.0] * len(on[k : n + 1])
            return through

        return _smallest(passes)


class _Bet:
    """A bet on pairs, person by person."""

    def __init__(self, margin: float, alpha: float) -> None:
        self.margin, self.alpha = margin, alpha

    def _best(self, right: Any, baseline: Any) -> float:
        known = list(baseline[: len(right)]) + [False] * (len(right) - len(baseline))
        return _pairs_log_e([int(r) - int(b) for r, b in zip(right, known)], self.margin)

    def verdict(self, right: Any, baseline: Any, persons: Any) -> bool | None:
        enough, left = -math.log(self.alpha), persons - len(right)
        if self._best(right, baseline) >= enough:
            return True
        return None if left and self._best(list(right) + [True] * left, baseline) >= enough else False

    def told(self, right: Any, baseline: Any, persons: Any) -> str:
        won, lost = _pairs(right, baseline)
        return f"{sum(right)} of {len(right)} asked right; {won} right only with δ, {lost} only without"

    def smallest(self, baseline: Any, persons: Any) -> Any:
        return None


class _Either:
    """Two rules that share the error: passed where one is."""

    def __init__(self, first: Any, last: Any) -> None:
        self.first, self.last = first, last

    def verdict(self, *table: Any) -> bool | None:
        said = self.first.verdict(*table), self.last.verdict(*table)
        return True if True in said else None if None in said else False

    def told(self, *table: Any) -> str:
        early = self.first.verdict(*table) is True and self.last.verdict(*table) is not True
        return f"{self.first.told(*table)}, passed on the way" if early else self.last.told(*table)

    def smallest(self, baseline: Any, persons: Any) -> Any:
        return self.last.smallest(baseline, persons)


class _Persons:
    """The approximate test of persons with several images each."""

    def __init__(self, layout: Any, margin: float, alpha: float) -> None:
        self.layout, self.margin, self.alpha = layout, margin, alpha

    def p(self, right: Any, baseline: Any) -> float:
        ours, theirs = self.layout
        return _persons_p(_by_person(right, ours), ours, _by_person(baseline, theirs), theirs, self.margin)

    def verdict(self, right: Any, baseline: Any, persons: Any) -> bool | None:
        return None if len(right) < persons else self.p(right, baseline) <= self.alpha

    def told(self, right: Any, baseline: Any, persons: Any) -> str:
        p = self.p(right, baseline)
        return f"{sum(right)} of {len(right)} images asked right, approximate p {p:.2g}, {self.alpha:.2g} needed"

    def smallest(self, baseline: Any, persons: Any) -> Any:
        return None


def _rule_of(goal: _Goal, baseline: Any, figures: str) -> Any:
    """Return the rule of an action; ``figures`` say what was needed where finding it anew takes long."""
    if goal.layout is not None:
        # Which share of the error keeps to it in this layout was simulated; the figures say which was taken.
        shares = [s for s in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4) if figures.endswith(f", {s * goal.alpha:.2g} needed")]
        _expect(shares, "certificate.json", "was tested at an error that none of its kind is.")
        return _Persons(goal.layout, goal.value, shares[0] * goal.alpha)
    way = ON_THE_WAY * goal.alpha
    if goal.stopping == "curtailed":
        return _fixed_rule(goal, baseline, goal.alpha, figures)
    if goal.stopping == "anytime":
        return _anytime_rule(goal, baseline, goal.alpha)
    return _Either(_anytime_rule(goal, baseline, way), _fixed_rule(goal, baseline, goal.alpha - way, figures))


def _fixed_rule(goal: _Goal, baseline: Any, alpha: float, figures: str) -> Any:
    right, others, m, value = sum(baseline), len(baseline), goal.persons, goal.value
    if goal.kind == "rate":
        return _Count(_needed(lambda k: _lower(k, m, alpha) >= value, m))
    if goal.kind == "improvement" or (goal.kind == "parity" and goal.paired):
        return _Pairs(lambda won, lost, stop: _mcnemar(won, lost), alpha, slow=False)
    if goal.kind == "within" and goal.paired:
        return _Pairs(lambda won, lost, stop: _tango(won, lost, m, value, stop), alpha, slow=True)
    if goal.kind == "accuracy_ratio" and goal.paired:
        return _Count(_needed(lambda k: _lower(k, m, alpha / 2) >= value * _upper(right, m, alpha / 2), m))
    if not others:
        return _Count(None)
    if goal.kind == "parity":
        return _Count(_needed(lambda k: _fisher(k, m, right, others) <= alpha, m))
    score = _difference_score if goal.kind == "within" else _ratio_score

    def p(k: Any) -> float:
        return _independent_p(score, value, (k, m, right, others), alpha)

    stated = re.search(r", (\d+) of \d+ needed", figures)
    # Theirs is never below the exact p, and above it by less than a thousandth.
    if stated and int(stated[1]) <= m:
        needed = int(stated[1])
        if p(needed) <= alpha * (1 + 1e-6) and (needed == 0 or p(needed - 1) > alpha * (1 - 1e-3)):
            return _Count(needed)
    return _Count(_needed(lambda k: p(k) <= alpha, m))


def _needed(reached: Callable[[int], bool], m: int) -> int | None:
    found = _first(reached, m)
    return None if found > m else found


def _anytime_rule(goal: _Goal, baseline: Any, alpha: float) -> Any:
    if goal.kind == "rate":
        return _Bar(goal.value, alpha)
    if goal.paired:
        return _Bet(goal.value, alpha)
    reference = _upper(sum(baseline), len(baseline), alpha / 2) if baseline else 1.0
    bar = {"parity": reference, "within": reference - goal.value, "accuracy_ratio": goal.value * reference}[goal.kind]
    return _Bar(max(bar, 0.0), alpha / 2)


def _quoted(right: Any, goal: _Goal, alpha: float) -> tuple[float, float]:
    """Return one-sided bounds of S, each at alpha, that hold however the test stopped."""
    persons = goal.persons
    if goal.layout is not None:
        many, rate = math.floor(_effective(goal.layout[0])), sum(right) / persons
        return _lower(math.floor(rate * many), many, alpha), _upper(math.ceil(rate * many), many, alpha)
    k, unasked = sum(right), persons - len(right)

    def fixed(error: float) -> tuple[float, float]:
        return _lower(k, persons, error), _upper(k + unasked, persons, error)

    def running(error: float) -> tuple[float, float]:
        return _running_lower(right, error), 1 - _running_lower([not r for r in right], error)

    if goal.stopping == "curtailed":
        return fixed(alpha)
    if goal.stopping == "anytime":
        return running(alpha)
    parts = running(ON_THE_WAY * alpha), fixed(alpha - ON_THE_WAY * alpha)
    return max(p[0] for p in parts), min(p[1] for p in parts)


# --- the certificate ----------------------------------------------------------------------------------------------


def _near(a: Any, b: Any, within: float = 1e-6) -> bool:
    """Whether two numbers are one, up to rounding; None is none."""
    if a is None or b is None or isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b or abs(a - b) <= within * max(1.0, abs(b)))


def _same_words(said: Any, found: Any) -> bool:
    """Whether two figures say the same; a p over a nuisance is an upper bound and may be a little larger."""
    pattern = r"(?<=p ≤ )\S+|(?<=approximate p )[^,\s]+"
    a, b = re.findall(pattern, said), re.findall(pattern, found)
    close = len(a) == len(b) and all(abs(float(x) - float(y)) <= 0.1 * max(float(x), 1e-6) for x, y in zip(a, b))
    return close and re.sub(pattern, "", said) == re.sub(pattern, "", found)


def check_certificate(certificate: dict[str, Any]) -> tuple[_Goal, list[str]]:
    """Recompute a certificate from its answers; return its goal, and what was not recomputed."""
    file, goal = "certificate.json", _Goal(certificate["terms"], certificate["examined"])
    family, tests = certificate["family"], certificate["tests"]
    _expect(certificate["format"] == 3 and tests, file, "is of another format.")
    _expect(family == sorted(set(family), reverse=True) and [t["epsilon"] for t in tests] == family[: len(tests)], file,
           "was not tested from the largest ε downward.")  # fmt: skip
    passed = [t["epsilon"] for t in tests if t["passed"]]
    whole = len(passed) == len(tests) == len(family) or len(passed) == len(tests) - 1
    _expect(whole, file,
           "did not stop at the first failure.")  # fmt: skip
    _expect(certificate["epsilon"] == (passed[-1] if passed else None), file, "names another ε than passed.")
    parity = bool(passed) if goal.kind == "parity" else None
    _expect(certificate["parity_certified"] is parity, file, "says something else of parity than its tests.")
    baseline = [c != "0" for c in certificate["baseline"]]
    most = {"reference": goal.others, "before": goal.persons, None: 0}[goal.compares]
    if goal.in_step:
        most = max(len(t["answers"]) for t in tests)
    _expect(len(baseline) == most, file, "was asked about another number of persons without δ.")
    rule = _rule_of(goal, [] if goal.in_step else baseline, tests[0]["figures"])
    known = 0
    for test in tests:
        _check_test(rule, goal, test, baseline, known)
        known = max(known, len(test["answers"]))
    last = next((t for t in tests if t["epsilon"] == certificate["epsilon"]), tests[0])
    right, size = [c == "1" for c in last["answers"]], len(family)
    bound, low_high = certificate["lower"], _quoted(right, goal, 0.025 / size)
    least = _quoted(right, goal, goal.alpha / size)[0]
    same = _near(bound["value"], least) and _near(bound["confidence"], 1 - goal.alpha) and bound["shared_by"] == size
    _expect(same, file, "does not give its lower bound.")
    ends = certificate["interval"]
    _expect(_near(ends["low"], low_high[0]) and _near(ends["high"], low_high[1]) and _near(ends["confidence"], 0.95)
           and ends["shared_by"] == size, file, "does not give its interval.")  # fmt: skip
    power = certificate["power"]
    start = [] if goal.in_step else baseline
    _expect(power["possible"] is (rule.verdict([True] * goal.persons, start or baseline, goal.persons) is True), file,
           "says something else of what could have been shown.")  # fmt: skip
    smallest = rule.smallest(baseline, goal.persons)
    _expect(smallest == "slow" or _near(power["smallest_rate"], smallest), file, "does not give its power.")
    _expect(power["probability"] == 0.8, file, "does not give its power.")
    return goal, (["the certificate's power: for this goal it takes minutes"] if smallest == "slow" else [])


def _check_test(rule: Any, goal: _Goal, test: dict[str, Any], baseline: Any, known: int) -> None:
    """Check that a test stopped where its answers decide it, with the verdict and the figures that it says."""
    file, answers = "certificate.json", [c == "1" for c in test["answers"]]
    asked, persons = len(answers), goal.persons
    where = f"the test of ε = {test['epsilon']}"
    _expect(asked == persons or (0 < asked < persons and asked % BATCH == 0), file, f"{where} stopped within a batch.")

    def table(n: Any) -> Any:
        return answers[:n], baseline[: max(n, known)] if goal.in_step else baseline, persons

    verdict = rule.verdict(*table(asked))
    _expect(verdict is test["passed"], file, f"{where} does not have the verdict that its answers give.")
    before = (asked - 1) // BATCH * BATCH
    _expect(before == 0 or rule.verdict(*table(before)) is None, file, f"{where} went on after its verdict was sure.")
    _expect(_same_words(test["figures"], rule.told(*table(asked))), file, f"{where} does not give its figures.")


def _check_answers(certificate: dict[str, Any], epoch: str, goal: _Goal, chain: _Chain, heads: dict[str, Any]) -> int:
    """Check every answer of a certificate against the ledger's rows; return how many rest on forgotten people."""
    file, before, forgotten = "certificate.json", heads.get("before verification"), 0
    said = {str(t["epsilon"]): t["answers"] for t in certificate["tests"]}
    if goal.compares is not None:
        said[goal.compares] = certificate["baseline"]
    _expect(epoch in chain.terms, "ledger.jsonl", "has no row with the terms of the verification.")
    terms = chain.terms[epoch]
    _expect((terms["terms"], terms["epsilons"]) == (certificate["terms"], certificate["family"])
           and terms["examined"] == certificate["examined"], file, "has other terms than the ledger.")  # fmt: skip
    if before is not None:
        fixed = [row for row in chain.rows[: before["rows"]] if row is not None]
        _expect(terms in fixed, "ledger.jsonl", "has terms that were not fixed before verification.")
        late = [row for row in chain.rows[before["rows"] :] if row is not None and row["row"] in ("seat", "terms")]
        _expect(not late, "ledger.jsonl", "has seats that were not fixed before verification.")
    missing = {"subgroup": goal.persons, "reference": goal.others}
    for _, side, _ in [seat for seat in chain.seats if seat[0] == epoch]:
        missing[side] -= 1
    _expect(min(missing.values()) >= 0 and sum(missing.values()) <= chain.sealed, "ledger.jsonl",
           "lacks seats of people who were not forgotten.")  # fmt: skip
    for condition, answers in said.items():
        side = "reference" if condition == "reference" else "subgroup"
        for place, character in enumerate(answers):
            seat = chain.seats.get((epoch, side, place))
            if seat is None:
                forgotten += 1
                continue
            query = seat["asks"][condition]
            answer = chain.answers.get(query)
            _expect(before is None or answer is None or chain.place[query] > before["rows"], "ledger.jsonl",
                   "has verification queries from before verification.")  # fmt: skip
            now = "?" if answer is None else "1" if answer == [0, seat["class"]] else "0"
            _expect(
                character in ("?", now),
                file,
                f"says {character!r} of seat {place} under {condition}, the ledger {now!r}.",
            )
    return forgotten


# --- intervals ----------------------------------------------------------------------------------------------------

ALPHA = 0.025


def _mean(values: Any) -> float:
    return float(sum(values) / len(values))


def _independent(values: Any, persons: Any) -> float:
    """Return which share of the answers' number would vary as much as they do, if they were independent."""
    images, many = len(values), len(set(persons))
    if many == images:
        return 1.0
    if many == 1:
        return 1 / images
    middle = _mean(values)
    of: dict[int, float] = {}
    rest, counts = [v - middle for v in values], Counter(persons)
    for person, r in zip(persons, rest):
        of[person] = of.get(person, 0.0) + r
    each = sum(n * n for n in counts.values()) / images
    unlike = max(abs(r) for r in rest) ** 2 or 1.0
    plain = sum(r * r for r in rest) + each * unlike
    by_person = sum(v * v for v in of.values()) * many / (many - 1) + each**2 * unlike
    variance = max(by_person, plain)
    freedom = variance**2 / (by_person**2 / (many - 1))
    narrower = _student_quantile(images - 1, ALPHA) / _student_quantile(max(freedom, 1.0), ALPHA)
    return float(min(1.0, plain / variance * narrower**2))


def _limits(k: Any, n: Any, alpha: float = ALPHA) -> tuple[float, float]:
    """Return Clopper and Pearson's limits, each at alpha."""
    return (_lower(k, n, alpha), _upper(k, n, alpha)) if n > 0 else (0.0, 1.0)


def _known(values: Any, persons: Any) -> Any:
    pairs = [(v, p) for v, p in zip(values, persons) if v is not None]
    return [float(v) for v, _ in pairs], [p for _, p in pairs]


def _sized(values: Any, persons: Any) -> tuple[float, float]:
    """Return right and asked of what was answered, as independent answers."""
    found, owners = _known(values, persons)
    if not found:
        return 0.0, 0.0
    size = len(found) * _independent(found, owners)
    return size * _mean(found), size


def _rate_interval(values: Any, persons: Any) -> list[float] | None:
    k, n = _sized(values, persons)
    return list(_limits(k, n)) if n else None


def _difference(k: Any, n: Any, k2: float, n2: float, alpha: float = ALPHA) -> tuple[float, float]:
    if not n or not n2:
        return -1.0, 1.0
    (low, high), (low2, high2), a, b = _limits(k, n, alpha), _limits(k2, n2, alpha), k / n, k2 / n2
    return max(-1.0, a - b - math.hypot(a - low, high2 - b)), min(1.0, a - b + math.hypot(high - a, b - low2))


class _Cells:
    """Exact limits of the shares of answers that exclude each other."""

    def __init__(self, counts: Any, base: int | None = None) -> None:
        size = sum(counts)
        self.rate = [c / size for c in counts]
        self.ends = [_limits(c, size) for c in counts]
        self.base = counts.index(max(counts)) if base is None else base

    def reach(self, weights: Any) -> list[float]:
        found = []
        odds = [math.sqrt(r / (1 - r)) if r < 1 else 0.0 for r in self.rate]
        odds[self.base] = 0.0
        for sign in (1, -1):
            moved = []
            for weight, rate, (low, high) in zip(weights, self.rate, self.ends):
                relative = weight - weights[self.base]
                moved.append(relative * (rate - low if sign * relative > 0 else high - rate))
            square = sum(m * m for m in moved) - sum(m * o for m, o in zip(moved, odds)) ** 2
            found.append(max(0.0, square + sum((m * o) ** 2 for m, o in zip(moved, odds))))
        return found


def _gap_interval(reference: Any, before: Any, persons: Any, others: Any, paired: bool) -> list[float] | None:
    if not paired:
        a, b = _sized(reference, others), _sized(before, persons)
        return list(_difference(*a, *b)) if a[1] and b[1] else None
    rows = [(a, b, p) for a, b, p in zip(reference, before, persons) if a is not None and b is not None]
    if not rows:
        return None
    share = _independent([float(a) - float(b) for a, b, _ in rows], [p for _, _, p in rows])
    signs = [(a > b) - (a < b) for a, b, _ in rows]
    counts = [share * signs.count(sign) for sign in (0, 1, -1)]
    down, up = _Cells(counts, 0).reach([0.0, 1.0, -1.0])
    middle = _mean([float(a) - float(b) for a, b, _ in rows])
    return [max(-1.0, middle - math.sqrt(down)), min(1.0, middle + math.sqrt(up))]


def _joint(columns: Any, persons: Any) -> _Cells:
    shares = [_independent(c, persons) for c in columns]
    for i, a in enumerate(columns):
        shares += [_independent([x - y for x, y in zip(a, b)], persons) for b in columns[i + 1 :]]
    counts = [0.0] * 2 ** len(columns)
    for row in zip(*columns):
        counts[sum(int(v) << i for i, v in enumerate(reversed(row)))] += min(shares)
    return _Cells(counts)


def _closed_interval(before: Any, after: Any, reference: Any, persons: Any, others: Any, paired: bool) -> Any:
    """Return the interval of the share of a gap that was closed; the caller knows that a gap was shown."""
    columns = [before, after, reference] if paired else [before, after]
    rows = [row for row in zip(*columns, persons) if None not in row]
    if not rows:
        return None
    columns = [[float(v) for v in column] for column in list(zip(*rows))[:-1]]
    parts = [_joint(columns, [row[-1] for row in rows])]
    if not paired:
        theirs, owners = _known(reference, others)
        parts.append(_joint([theirs], owners))
        columns.append(theirs)
    start, end, bar = (_mean(c) for c in columns)
    if bar <= start:
        return None
    count = 3 if paired else 2
    bits = [[float(i >> (count - 1 - j) & 1) for i in range(2**count)] for j in range(count)]

    def ends(g: float) -> tuple[float, float]:
        weights = [[b1 - (1 - g) * b0 for b0, b1 in zip(bits[0], bits[1])]]
        if paired:
            weights[0] = [w - g * b for w, b in zip(weights[0], bits[2])]
        else:
            weights.append([0.0, -g])
        reaches = [part.reach(w) for part, w in zip(parts, weights)]
        middle = end - start - g * (bar - start)
        return middle - math.sqrt(sum(r[0] for r in reaches)), middle + math.sqrt(sum(r[1] for r in reaches))

    best = (end - start) / (bar - start)
    return [_outermost(lambda g: -ends(g)[0], best, -1.0), _outermost(lambda g: ends(g)[1], best, 1.0)]


def _outermost(above: Callable[[float], float], start: Any, way: float) -> float | None:
    step = 2.0**-7
    while above(start + way * step) > 0:
        step *= 2
        if step > 2**20:
            return None
    low, high = start, start + way * step
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > 0 else (low, middle)
    return float((low + high) / 2)


def _fairness(truth: Any, said: Any, persons: Any, classes: int) -> Any:
    """Return three metrics and their intervals; each argument holds two lists, of subgroup and reference."""

    def counted(of: Any, right: Any) -> Any:
        return [_sized([float(right(t, s)) for t, s in zip(*g) if of(t, s)], [p for t, s, p in zip(*g, o) if of(t, s)])
                for g, o in zip(zip(truth, said), persons)]  # fmt: skip

    def everybody(t: float, s: Any) -> bool:
        return True

    def share(pairs: Any) -> list[float]:
        return [k / n if n else math.nan for k, n in pairs]

    accuracy = counted(everybody, lambda t, s: t == s)
    positive = [counted(lambda t, s, c=c: t == c, lambda t, s, c=c: s == c) for c in range(classes)]
    selected = [counted(everybody, lambda t, s, c=c: s == c) for c in range(classes)]
    rates, chosen = [share(p) for p in positive], [share(p) for p in selected]
    ratio = [min(r) / max(r) if max(r) > 0 else math.nan for r in chosen]
    values = {
        "worst_group": min(share(accuracy)),
        "equal_opportunity_gap": _most(
            [max(r) - min(r) if r == r and r[0] == r[0] and r[1] == r[1] else math.nan for r in rates]
        ),
        "demographic_parity_ratio": -_most([-r for r in ratio]),
    }
    spans = {
        "worst_group": _bounded(
            min(_limits(k, n)[0] for k, n in accuracy), min(_limits(k, n, ALPHA / 2)[1] for k, n in accuracy)
        ),
        "equal_opportunity_gap": _bounded(*_largest(positive)),
        "demographic_parity_ratio": _bounded(*_least_ratio(selected)),
    }
    return values, spans


def _most(values: Any) -> float:
    return math.nan if any(v != v for v in values) else max(values)


def _bounded(low: float, high: float) -> list[float] | None:
    return None if low != low or (low <= 0 and high >= 1) else [low, high]


def _largest(counts: Any) -> tuple[float, float]:
    if any(n == 0 for pair in counts for _, n in pair):
        return math.nan, math.nan
    inner = [_difference(k, n, k2, n2, ALPHA / len(counts)) for (k, n), (k2, n2) in counts]
    outer = [_difference(*a, *b) for a, b in counts]
    return max(0.0, *(max(low, -high) for low, high in inner)), max(max(abs(low), abs(high)) for low, high in outer)


def _least_ratio(counts: Any) -> tuple[float, float]:
    if any(n == 0 for pair in counts for _, n in pair) or any(a[0] == 0 and b[0] == 0 for a, b in counts):
        return math.nan, math.nan
    outer = [_ratio_limits(k, n, k2, n2, ALPHA) for (k, n), (k2, n2) in counts]
    inner = [_ratio_limits(k, n, k2, n2, ALPHA / len(counts)) for (k, n), (k2, n2) in counts]
    return (min(min(low, 1 / max(high, 1e-300)) for low, high in outer),
            min(1 / max(low, 1e-300) if low > 1 else min(high, 1.0) for low, high in inner))  # fmt: skip


def _ratio_limits(k: Any, n: Any, k2: float, n2: float, alpha: float) -> tuple[float, float]:
    a, b = k / n, k2 / n2
    (low, high), (low2, high2) = _limits(k, n, alpha), _limits(k2, n2, alpha)
    product = a * b
    below = math.sqrt(max(0.0, product**2 - low * high2 * (2 * a - low) * (2 * b - high2)))
    above = math.sqrt(max(0.0, product**2 - high * low2 * (2 * a - high) * (2 * b - low2)))
    least = low * (2 * a - low) / (product + below) if low > 0 else 0.0
    return least, (product + above) / (low2 * (2 * b - low2)) if low2 > 0 else math.inf


# --- the row ------------------------------------------------------------------------------------------------------


class _Condition:
    """What the platform said under one condition of the row, from the ledger's rows."""

    def __init__(self, said: Any, group: dict[str, Any], chain: _Chain) -> None:
        file = "measurement.json"
        _expect(
            len(said["hit"]) == len(said["queries"]) == len(group["truth"]), file, f"{said['name']} has other people."
        )
        self.name, self.key, self.truth, self.persons = said["name"], said["key"], group["truth"], group["persons"]
        answers = [chain.answers.get(q) for q in said["queries"]]
        self.labels = [-1 if a is None else a[1] for a in answers]
        self.resolved = [a is not None for a in answers]
        self.answered = [a is not None and a[0] == 0 for a in answers]
        self.values = [None if a is None else label == hit for a, label, hit in zip(answers, self.labels, said["hit"])]

    @property
    def rate(self) -> float | None:
        known = [v for v in self.values if v is not None]
        return _mean(known) if known else None


def _check_row(
    files: dict[str, bytes], chain: _Chain, certificate: dict[str, Any], goal: _Goal, epoch: str
) -> tuple[dict[str, Any], list[str]]:
    """Recompute the result row; return it, and which of its values were not recomputed."""
    row, said = _loads(files, "row.json"), _loads(files, "measurement.json")
    _expect(said["epoch"] == epoch, "measurement.json", "is about other questions.")
    groups = said["groups"]
    for side, group in groups.items():
        for place, truth in zip(group["seats"], group["truth"]):
            seat = chain.seats.get((epoch, side, place))
            _expect(
                seat is not None and seat["class"] == truth, "measurement.json", f"has another class in {side} {place}."
            )
    of = {c["name"]: _Condition(c, groups[c["side"]], chain) for c in said["conditions"]}
    found, spans = _recomputed(of, said, certificate, goal)
    paid = chain.paid()
    found.update(
        queries_pool=sum(paid[p] for p in ("pool", "pool-race", "pool-cross-check", "pool-audit")),
        queries_baseline=paid["baseline"] + paid["audit"],
        queries_verification=paid["verification"],
        queries_controls=paid["controls"],
    )
    extra = row.get("extra", {})
    guests = {c.name: c.rate for c in of.values() if c.key is None}
    for name, value in found.items():
        _expect(name in row and _near(row[name], None if value != value else value), "row.json",
               f"says {name} is {row.get(name)}, the ledger's rows give {value}.")  # fmt: skip
    for name, value in guests.items():
        _expect(_near(extra.get(name), value), "row.json", f"says {name} is {extra.get(name)}, the rows give {value}.")
    _expect(set(row["intervals"]) == set(spans), "row.json", "has intervals of other values.")
    for name, span in row["intervals"].items():
        ok = span == spans[name] or (span and spans[name] and all(_near(a, b, 1e-5) for a, b in zip(span, spans[name])))
        _expect(ok, "row.json", f"says {name} lies in {span}, the rows give {spans[name]}.")
    rest = set(row) - set(found) - {"intervals", "extra"}
    _expect(rest <= set(STATED), "row.json", f"holds {', '.join(sorted(rest - set(STATED)))}, which nobody knows.")
    _expect(sum(row["composition"].values()) == row["queries"], "row.json",
           f"says queries is {row['queries']}, its composition gives {sum(row['composition'].values())}.")  # fmt: skip
    return row, sorted(rest) + sorted(set(extra) - set(guests))


def _recomputed(of: Any, said: Any, certificate: dict[str, Any], goal: _Goal) -> Any:
    """Return values and intervals of the row that follow from the answers."""
    before, after, reference, zero = (
        of[n] for n in ("subgroup_before", "subgroup_after", "reference_before", "zero_query")
    )
    paired = said["groups"]["subgroup"]["persons"] == said["groups"]["reference"]["persons"]
    found = {c.key: c.rate for c in of.values() if c.key is not None}
    spans = {c.key or c.name: _rate_interval(c.values, c.persons) for c in of.values()}
    gap = _gap_interval(reference.values, before.values, before.persons, reference.persons, paired)
    shown = gap is not None and gap[0] > 0
    distance = (reference.rate or 0.0) - (before.rate or 0.0) if None not in (reference.rate, before.rate) else None
    low, high = _limits(sum(v for v in after.values if v is not None), sum(after.resolved))
    both = [(a, b) for a, b in zip(after.values, zero.values) if a is not None and b is not None]
    won, lost = sum(a and not b for a, b in both), sum(b and not a for a, b in both)
    ours = [c for c in of.values() if c.key is not None]
    resolved = [r for c in ours for r in c.resolved]
    epsilon = certificate["epsilon"] or certificate["family"][0]
    test = next(t for t in certificate["tests"] if t["epsilon"] == epsilon)
    right = [c == "1" for c in test["answers"]]
    found.update(
        epsilon=epsilon,
        coverage=_mean(resolved),
        gap_before=distance,
        subgroup_after_lower=low,
        subgroup_after_upper=high,
        gap_closed=(after.rate - before.rate) / distance if shown and after.rate is not None else None,
        goal=str(goal),
        stopping=goal.stopping,
        certified=test["passed"],
        parity_certified=test["passed"] if goal.kind == "parity" else None,
        persons_verification=certificate["examined"]["persons"],
        persons_asked=len(right),
        certificate_lower=_quoted(right, goal, goal.alpha / len(certificate["family"]))[0],
        certificate_power=certificate["power"]["smallest_rate"],
        paired_p=_two_sided_mcnemar(won, lost),
        paired_b=won,
        paired_c=lost,
    )
    closed = _closed_interval(before.values, after.values, reference.values, before.persons, reference.persons, paired)
    spans.update(gap_before=gap, gap_closed=closed if shown else None)
    for side, condition in (("subgroup", before), ("reference", reference)):
        picks = said["picks"][side]
        agreed = [label == pick if ok else None for label, pick, ok in zip(condition.labels, picks, condition.answered)]
        known = [a for a in agreed if a is not None]
        found[f"fidelity_{side}"] = _mean(known) if known else None
        spans[f"fidelity_{side}"] = _rate_interval(agreed, condition.persons)
    for when, condition in (("before", before), ("after", after)):
        pair = (condition, reference)
        truth, labels, persons = (
            [[v for v, known in zip(getattr(c, name), c.resolved) if known] for c in pair]
            for name in ("truth", "labels", "persons")
        )
        if not any(truth):
            continue
        values, ends = _fairness(truth, labels, persons, said["classes"])
        found.update({f"{name}_{when}": value for name, value in values.items()})
        spans.update({f"{name}_{when}": end for name, end in ends.items()})
    return found, spans


# --- all of it ----------------------------------------------------------------------------------------------------


def _check_members(files: dict[str, bytes], chain: _Chain) -> tuple[int, int, int]:
    """Check consents against their words, and who paid against the rows; return members, consents, those who left."""
    file, said = "members.json", _loads(files, "members.json")
    texts = said["texts"]
    for digest, text in texts.items():
        _expect(hashlib.sha256(text.encode()).hexdigest() == digest, file, "holds words of consent that were changed.")
    whose = {request: name for name, member in said["members"].items() for request in member["requests"]}
    _expect(
        sum(len(m["requests"]) for m in said["members"].values()) == len(whose), file, "has a request of two members."
    )
    charged: Counter[str] = Counter()
    for (request, _), row in chain.attempts.items():
        _expect(request in whose, file, f"does not say who paid for request {request}.")
        if row["outcome"] != "refunded":
            charged[whose[request]] += 1
    agreed = 0
    for name, member in said["members"].items():
        _expect(member["charged"] == charged[name], file, f"says another number of queries than {name} paid.")
        for consent in member["consents"]:
            _expect(consent["sha256"] in texts, file, f"holds a consent of {name} to words that are missing.")
        agreed += any(c["withdrawn"] is None for c in member["consents"])
    _expect(receipts(said).encode() == files["consent.txt"], "consent.txt", "says something else than members.json.")
    return len(said["members"]), agreed, sum(m["forgotten"] for m in said["members"].values())


def receipts(members: dict[str, Any]) -> str:
    """Return who agreed to which words when, as consent.txt says it of members.json."""
    lines = []
    for name, member in members["members"].items():
        for consent in member["consents"]:
            until = "" if consent["withdrawn"] is None else f", and withdrew it on {consent['withdrawn']}"
            lines.append(f"{name} agreed on {consent['agreed']} to the words {consent['sha256']}{until}.")
        if not member["consents"]:
            lines.append(f"{name}: no consent is on record in the ledger.")
    texts = [f"\nThe words with the SHA-256 {digest}:\n\n{text}" for digest, text in members["texts"].items()]
    return "\n".join([*lines, *texts]) + "\n"


def _holds_no_bundle(path: Path) -> bool:
    """Return whether nothing of a bundle is there at all."""
    if path.is_dir():
        there = {found.name for found in path.iterdir()}
        # This file may have been copied there alone; and an action's folder holds a certificate too.
        return "action.toml" in there or not there & {"manifest.json", "certificate.json", "ledger.jsonl"}
    content = path.read_bytes()
    return content[:2] != b"PK" and b"manifest.json" not in content


def _served(row: dict[str, Any]) -> str:
    """Return the rates that report and letter speak of, so that a reader can compare."""

    def rate(name: str) -> str:
        return "unknown" if row[name] is None else f"{100 * row[name]:.1f} %"

    said = (
        f"Right answers, by the rows: for the subgroup {rate('subgroup_before')} without the change and "
        f"{rate('subgroup_after')} with it; for the others {rate('reference_before')} without it."
    )
    abused = f" With the change of a wrong class, {rate('abuse_rate')} are read as that class."
    return said if row["abuse_rate"] is None else said + abused


def _read(path: Path) -> dict[str, bytes]:
    """Return the files of a bundle, a folder or a ZIP."""
    return _folder(path) if path.is_dir() else _unzipped(path)


def check(path: Path | str, key: str | None = None) -> list[str]:
    """Check a bundle; return sentences that say what holds, and raise Refused where something does not."""
    return check_contents(_read(Path(path)), key)


def check_contents(files: dict[str, bytes], key: str | None = None) -> list[str]:
    """Check the files of a bundle, name → bytes, as :func:`check` does."""
    manifest, signer = _check_files(files)
    _expect(
        key is None or key == signer,
        "manifest.json.sig",
        f"is signed with {signer}, another key than the collective's.",
    )
    try:
        return _checked(files, manifest, signer, key)
    except Refused:
        raise
    except (ValueError, KeyError, TypeError, IndexError, ArithmeticError, AttributeError) as error:
        _refuse("manifest.json", f"what it lists does not go together ({type(error).__name__}: {error}).")


def _checked(files: dict[str, bytes], manifest: dict[str, Any], signer: str, key: str | None) -> list[str]:
    action = manifest["action"]
    stored = _loads(files, "certificate.json")
    _expect(_signer(files, "certificate.json", "certificate") == signer, "certificate.json.sig", "is another key's.")
    certificate, epoch = stored["certificate"], stored["epoch"]
    chain = _Chain(files, action)
    heads = _check_heads(files, chain, action, signer, epoch)
    _check_days(manifest, stored["verified"], heads)
    goal, unchecked = check_certificate(certificate)
    forgotten = _check_answers(certificate, epoch, goal, chain, heads)
    row, stated = _check_row(files, chain, certificate, goal, epoch)
    unchecked += stated
    members, agreed, left = _check_members(files, chain)
    asked = max(len(t["answers"]) for t in certificate["tests"])
    verdict = f"certified at ε = {certificate['epsilon']}" if certificate["epsilon"] else "not certified"
    said = [
        f"{len(files)} files are as they were signed, with the key {signer}.",
        "That is the key you gave."
        if key
        else "Whose key that is, this cannot say: compare it with the one you were told.",
        f"{len(chain.rows)} rows of the ledger give every signed head; {chain.sealed} of them are sealed, since "
        "whoever they were about is forgotten.",
        f"The certificate follows from its answers: {goal} {verdict}, {asked} persons asked, S at least "
        f"{math.floor(1000 * certificate['lower']['value'] + 1e-9) / 1000:.3f}.",
        f"Its answers are the ledger's, but for {forgotten} about people who are forgotten.",
        _served(row),
        "Every number of the result row follows from the ledger's rows, but for what can only be stated: "
        f"{', '.join(unchecked)}.",
        f"{members} members paid {sum(chain.paid().values())} queries; {agreed} have a consent on record that stands, "
        f"{left} were forgotten.",
        "The words and pictures of report.html, letter.md and README.txt are as they were signed, and not recomputed: "
        "compare them with the numbers above and in row.json.",
    ]
    for moment in ("before verification", "after verification", "export"):
        head = heads.get(moment)
        said.append(
            f"Head of all rows, at export, {head['at']}: {head['head']} ({head['rows']} rows). letter.md names it."
            if head is not None and moment == "export"
            else f"No head was signed {moment}: nothing shows that rows were not changed in between."
            if head is None
            else f"Head signed {moment}, {head['at']}: {head['head']} ({head['rows']} rows). Whoever was sent "
            "it then can compare."
        )
    return said


def main(arguments: list[str]) -> int:
    """Check a bundle and say what holds; return the exit status: 2 where there is nothing to check."""
    if not hasattr(math, "comb"):
        return _say(2, f"Expected Python 3.9 or newer, got {sys.version.split()[0]}. Nothing was checked.")
    if {"-h", "--help"} & set(arguments):
        return _say(0, str(__doc__).strip())
    key = None
    if "--key" in arguments:
        at = arguments.index("--key")
        key = (arguments[at + 1 : at + 2] or [""])[0].strip()
        arguments = arguments[:at] + arguments[at + 2 :]
    wrong = [word for word in arguments if word.startswith("-")] or arguments[1:]
    if wrong or key == "" or (arguments and not Path(arguments[0]).exists()):
        got = wrong[0] if wrong else "--key without a key" if key == "" else f"{arguments[0]}, which is not there"
        return _say(2, f"Expected at most the path of a bundle and --key KEY, got {got}. Nothing was checked.")
    try:
        if key is not None:
            _public(key, "--key")
    except Refused:
        return _say(
            2,
            f"Expected the collective's key as ttca-ed25519: and 43 letters, got {key!r}, which is no key: a letter "
            "may be missing or wrong. Nothing was checked.",
        )
    path = Path(arguments[0]) if arguments else Path(__file__).resolve().parent
    try:
        if _holds_no_bundle(path):
            wanted = "Expected a bundle of evidence, a ZIP or a folder"
            return _say(2, f"{wanted}, got {path}, which is none. Nothing was checked.")
        said = check(path, key)
    except Refused as error:
        return _say(1, f"REFUSED. {error}")
    except OSError as error:
        return _say(1, f"REFUSED. {path}: {error}")
    return _say(0, "\n".join(said))


def _say(status: int, words: str) -> int:
    """Print the outcome, and return its status, whether or not it can be read to its end (``| head``, a full disk)."""
    try:
        print(words, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))
