"""The tensors of an adapter as bytes: a safetensors file checked number by number; torch is not needed."""

from __future__ import annotations

import json
import math
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword.adapters.folder import TENSORS
from foreword.errors import AdapterError

KEY = "prompt_embeddings"
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class TensorInfo:
    """One entry of a safetensors header; its bytes are data[begin:end] of the whole file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(data: bytes, where: str) -> dict[str, TensorInfo]:
    """Tensors of a safetensors file by name; raises AdapterError unless header and bytes fit each other exactly."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= len(data) - 8:
        raise _broken(where, "its header does not fit in the file")
    try:
        header = json.loads(data[8 : 8 + size])
        found = [_info(name, entry, 8 + size) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _broken(where, "its header cannot be read") from error
    place = 8 + size
    for info in sorted(found, key=lambda info: info.begin):
        if info.begin != place or info.end - info.begin != math.prod(info.shape) * WIDTHS[info.dtype]:
            raise _broken(where, f"tensor '{info.name}' does not fill its place")
        place = info.end
    if place != len(data):
        raise _broken(where, f"its tensors take {place} bytes, but it has {len(data)}")
    return {info.name: info for info in found}


@dataclass(frozen=True)
class TensorShape:
    """What a manifest promises of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def read_tensors(data: bytes, expected: Mapping[str, TensorShape], where: str) -> dict[str, memoryview]:
    """Each tensor's little-endian bytes; raises AdapterError for other keys, dtypes or shapes and for NaN or infinity."""
    found = read_header(data, where)
    if set(found) != set(expected):
        raise AdapterError(
            f"adapter '{where}' has tensors {_names(found)} in {TENSORS}, but there must be {_names(expected)}; save it again or retrain."
        )
    parts = {}
    for name, promised in expected.items():
        info = found[name]
        if (info.dtype, info.shape) != (promised.dtype, promised.shape):
            raise AdapterError(
                f"adapter '{where}' has '{name}' as {info.dtype} {list(info.shape)}, but its manifest asks for {promised.dtype} {list(promised.shape)}; "
                "save it again or retrain."
            )
        parts[name] = memoryview(data)[info.begin : info.end]
        check_finite(parts[name], where, promised.dtype)
    return parts


def _names(tensors: Mapping[str, object]) -> str:
    """Names in a message: the first few of many."""
    names = sorted(tensors)
    return (", ".join(f"'{name}'" for name in names[:3]) or "none") + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_finite(data: memoryview | bytes, where: str, dtype: str = "F32") -> None:
    """Raise AdapterError if any of these little-endian numbers is NaN or infinite."""
    numbers = array("f" if dtype == "F32" else "H")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    if dtype == "F32":
        whole = math.isfinite(sum(numbers))  # fp32 numbers cannot overflow a double, so only NaN and infinity survive the sum
        bad = 0 if whole else len(numbers) - sum(map(math.isfinite, numbers))
    else:
        exponent = {"BF16": 0x7F80, "F16": 0x7C00}[dtype]
        bad = sum(bits & exponent == exponent for bits in numbers)
    if bad:
        raise AdapterError(
            f"adapter '{where}' has {bad} of {len(numbers)} numbers that are NaN or infinite; retrain it with a lower learning rate."
        )


def write_tensors(tensors: Mapping[str, tuple[TensorShape, bytes]]) -> bytes:
    """A safetensors file as PEFT writes it; the numbers are little-endian."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in sorted(tensors):
        kind, data = tensors[name]
        header[name] = {"dtype": kind.dtype, "shape": list(kind.shape), "data_offsets": [place, place + len(data)]}
        place += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(tensors[name][1] for name in sorted(tensors))])


def write_prompt(data: bytes, shape: tuple[int, int]) -> bytes:
    """A file with the one tensor [P, W] of a soft prompt; `data` is little-endian fp32."""
    return write_tensors({KEY: (TensorShape("F32", shape), data)})


def _info(name: str, entry: Mapping[str, Any], start: int) -> TensorInfo:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(n) is int and n >= 0 for n in (begin, end, *shape)) or entry["dtype"] not in WIDTHS or len(entry) != 3:
        raise ValueError(name)
    return TensorInfo(name, entry["dtype"], shape, start + begin, start + end)


def _broken(where: str, why: str) -> AdapterError:
    return AdapterError(f"adapter '{where}' has a broken {TENSORS} ({why}); copy it again or retrain.")
