"""The V2 / Open Inference Protocol's tensors as bytes, JSON and binary, for both ends of the wire."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.platforms.protocols.reading import UnreadableError, excerpt, read_json
from ttca.values import OneLine

__all__ = [
    "HEADER_LENGTH",
    "Tensor",
    "as_json",
    "join_body",
    "read_tensor",
    "read_tensors",
    "rounded_to_bf16",
    "split_body",
]

HEADER_LENGTH = "Inference-Header-Content-Length"

# The binary extension is little-endian whatever the machine.
_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
#: Without a numpy type of its own: the upper half of a float32, which is what it is held as.
_BF16 = "BF16"
_DATATYPES = (*_DTYPES, _BF16, "BYTES")
_DEEPEST_NESTING = 8


@dataclass(frozen=True, eq=False, repr=False)
class Tensor(OneLine):
    """One named tensor.

    Parameters
    ----------
    name : str
    datatype : str
        ``"UINT8"``, ``"FP32"``, ``"INT64"``, ``"BYTES"``, …
    data : array
        Of the tensor's shape; BF16 as float32, BYTES as texts, or bytes where it is to be written.
    parameters : mapping
        The tensor's ``parameters`` object, without ``binary_data_size``.
    """

    name: str
    datatype: str
    data: NDArray[Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def split_body(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON object of a message and the binary data after it (empty without ``header_length``).

    Raises
    ------
    UnreadableError
        If the length is no length, or the JSON is no JSON object.
    """
    size = len(body)
    if header_length is not None:
        text = header_length.strip()
        # isdecimal alone would let through other scripts' digits and numbers too long to convert.
        if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) <= len(body)):
            raise UnreadableError(
                f"Expected {HEADER_LENGTH} between 0 and the {len(body)} bytes received, got {excerpt(text, 40)!r}."
            )
        size = int(text)
    head = body[:size]
    message = read_json(head)
    if not isinstance(message, dict):
        raise UnreadableError(f"Expected a JSON object, got {type(message).__name__}: {excerpt(head)!r}.")
    return message, memoryview(body)[size:]


def read_tensors(entries: object, binary: memoryview) -> list[Tensor]:
    """Return the tensors of an ``inputs`` or ``outputs`` list, taking binary data in its order.

    Raises
    ------
    UnreadableError
        If an entry is malformed, a size does not fit its shape, or binary data is missing or left over.
    """
    if not isinstance(entries, list) or not entries:
        raise UnreadableError(f"Expected a list of tensors, got {excerpt(entries)!r}.")
    tensors = []
    for entry in entries:
        tensor, used = read_tensor(entry, binary)
        tensors.append(tensor)
        binary = binary[used:]
    if len(binary):
        raise UnreadableError(f"Expected no bytes after the last tensor, got {len(binary)}.")
    return tensors


def read_tensor(entry: object, binary: memoryview) -> tuple[Tensor, int]:
    """Return one tensor and the number of bytes it took from ``binary`` (0 for JSON data)."""
    if not isinstance(entry, dict):
        raise UnreadableError(f"Expected a tensor as a JSON object, got {excerpt(entry)!r}.")
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    parameters = entry.get("parameters") or {}
    if not isinstance(name, str) or not isinstance(parameters, dict):
        raise UnreadableError(f"Expected a tensor with a name and parameters, got {excerpt(entry)!r}.")
    if not isinstance(datatype, str) or datatype not in _DATATYPES:
        raise UnreadableError(
            f"Expected the datatype of {excerpt(name)!r} to be one of {', '.join(_DATATYPES)}, "
            f"got {excerpt(datatype)!r}."
        )
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(d) is int and 0 <= d < 2**40 for d in shape):
        raise UnreadableError(f"Expected the shape of {excerpt(name)!r} as a list of sizes, got {excerpt(shape)!r}.")
    size = parameters.get("binary_data_size")
    if size is None:
        flat, used = _from_json(name, datatype, entry.get("data")), 0
    else:
        if type(size) is not int or not 0 <= size <= len(binary):
            raise UnreadableError(
                f"Expected {excerpt(name)!r} to have {excerpt(size)!r} bytes of binary data, got "
                f"{len(binary)}: "
                "the body is truncated or its sizes are wrong."
            )
        flat, used = _from_binary(name, datatype, binary[:size]), size
    if math.prod(shape) != flat.size:
        raise UnreadableError(
            f"Expected {excerpt(name)!r} of shape {shape} to hold {math.prod(shape)} values, got {flat.size}."
        )
    rest = {k: v for k, v in parameters.items() if k != "binary_data_size"}
    return Tensor(name, datatype, flat.reshape(shape), rest), used


def _from_json(name: str, datatype: str, data: object) -> NDArray[Any]:
    """Return flat values of JSON data, nested or not, refusing every type that is not the datatype's own."""
    if not isinstance(data, list):
        raise UnreadableError(f"Expected the data of {excerpt(name)!r} as a list, got {excerpt(data)!r}.")
    flat: list[Any] = data
    types = set(map(type, flat))
    for _ in range(_DEEPEST_NESTING):
        if list not in types:
            break
        if types != {list}:
            raise UnreadableError(f"Expected the data of {excerpt(name)!r} nested evenly, got lists beside values.")
        flat = list(chain.from_iterable(flat))
        types = set(map(type, flat))
    # A number written as a string, or true for 1, is a sign of another meaning: it is refused, not converted.
    allowed: set[type] = (
        {str}
        if datatype == "BYTES"
        else {bool}
        if datatype == "BOOL"
        else {int, float, type(None)}
        if datatype.startswith(("FP", "BF"))
        else {int}
    )
    if types - allowed:
        raise UnreadableError(
            f"Expected the data of {excerpt(name)!r} as {datatype}, got "
            f"{', '.join(sorted(t.__name__ for t in types - allowed))}."
        )
    if datatype == "BYTES":
        # An object array keeps strings exactly; numpy's fixed-width strings drop trailing NULs.
        texts = np.empty(len(flat), dtype=object)
        texts[:] = flat
        return texts
    dtype = _DTYPES["FP32" if datatype == _BF16 else datatype]
    try:
        if dtype.kind == "f":
            with np.errstate(over="ignore", invalid="ignore"):
                return np.array(flat, dtype=np.float64).astype(dtype)
        if dtype.kind == "b":
            return np.array(flat, dtype=dtype)
        wide = np.array(flat, dtype=np.uint64 if datatype == "UINT64" else np.int64)
    except (OverflowError, ValueError):
        raise UnreadableError(
            f"Expected the data of {excerpt(name)!r} to fit {datatype}, got a larger number."
        ) from None
    limits = np.iinfo(dtype)
    if wide.size and (int(wide.min()) < limits.min or int(wide.max()) > limits.max):
        raise UnreadableError(f"Expected the data of {excerpt(name)!r} to fit {datatype}, got a number outside it.")
    return wide.astype(dtype)


def _from_binary(name: str, datatype: str, data: memoryview) -> NDArray[Any]:
    """Return flat values of a tensor's binary data."""
    if datatype != "BYTES":
        dtype = _DTYPES["UINT16" if datatype == _BF16 else datatype]
        if len(data) % dtype.itemsize:
            raise UnreadableError(f"Expected {excerpt(name)!r} in whole {datatype} values, got {len(data)} bytes.")
        # BOOL bytes other than 0 and 1 would make an invalid numpy bool.
        values: NDArray[Any] = np.frombuffer(data, np.uint8) != 0 if datatype == "BOOL" else np.frombuffer(data, dtype)
        return values if datatype != _BF16 else (values.astype(np.uint32) << 16).view(np.float32)
    texts: list[str] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise UnreadableError(f"Expected {excerpt(name)!r} as length-prefixed strings, got a cut-off length.")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise UnreadableError(f"Expected {excerpt(name)!r} as length-prefixed strings, got a cut-off string.")
        texts.append(bytes(data[at : at + length]).decode("utf-8", "replace"))
        at += length
    flat = np.empty(len(texts), dtype=object)
    flat[:] = texts
    return flat


def as_json(body: bytes, header_length: str) -> dict[str, Any]:
    """Return a message with binary data as JSON has it: each tensor's values under ``data``, as text or number.

    Raises
    ------
    UnreadableError
        If the message is malformed.
    """
    message, binary = split_body(body, header_length)
    found = dict(message)
    for key in ("inputs", "outputs"):
        if isinstance(message.get(key), list):
            found[key] = []
            for entry in message[key]:
                tensor, used = read_tensor(entry, binary)
                binary = binary[used:]
                found[key].append({**entry, "data": tensor.data.reshape(-1).tolist()})
    return found


def join_body(
    message: Mapping[str, Any], key: str, tensors: Sequence[Tensor], *, binary: bool
) -> tuple[bytes, dict[str, str]]:
    """Return a message with ``tensors`` under ``key``, and the headers that say how it is written.

    Parameters
    ----------
    message : mapping
        The other members of the JSON object.
    key : str
        ``"inputs"`` or ``"outputs"``.
    tensors : sequence of Tensor
    binary : bool
        Whether the data goes after the JSON as bytes, or into it: bytes then in base64, which a parameter
        ``content_type`` says.
    """
    entries, tail = [], []
    for tensor in tensors:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.data.shape),
        }
        parameters = dict(tensor.parameters)
        if binary:
            raw = _to_binary(tensor)
            parameters["binary_data_size"] = len(raw)
            tail.append(raw)
        else:
            entry["data"] = _as_json(tensor)
            if tensor.datatype == "BYTES" and any(isinstance(text, bytes) for text in tensor.data.flat):
                parameters["content_type"] = "base64"
        if parameters:
            entry["parameters"] = parameters
        entries.append(entry)
    head = json.dumps({**message, key: entries}, separators=(",", ":"), allow_nan=False).encode()
    if not binary:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join([head, *tail]), headers


def _as_json(tensor: Tensor) -> list[Any]:
    """Return the flat values of a tensor as JSON has them."""
    values: list[Any] = tensor.data.reshape(-1).tolist()
    return (
        [base64.b64encode(v).decode("ascii") if isinstance(v, bytes) else v for v in values]
        if tensor.datatype == "BYTES"
        else values
    )


def _to_binary(tensor: Tensor) -> bytes:
    if tensor.datatype == "BYTES":
        return b"".join(_prefixed(tensor.data.reshape(-1).tolist()))
    if tensor.datatype == _BF16:
        return rounded_to_bf16(tensor.data).tobytes()
    return np.ascontiguousarray(tensor.data, dtype=_DTYPES[tensor.datatype]).tobytes()


def rounded_to_bf16(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Return finite numbers as the upper halves of float32, little-endian, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")


def _prefixed(texts: Iterable[str | bytes]) -> Iterable[bytes]:
    for text in texts:
        raw = text if isinstance(text, bytes) else text.encode()
        yield struct.pack("<I", len(raw)) + raw
