"""The one tensor of an adapter as bytes: a safetensors file checked number by number, with the standard library only."""

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


def read_prompt(data: bytes, shape: tuple[int, int], where: str) -> memoryview:
    """The bytes of the prompt [P, W], little-endian fp32; raises AdapterError for other keys, dtypes or shapes and for NaN or infinity."""
    found = read_header(data, where)
    if set(found) != {KEY}:
        raise AdapterError(
            f"adapter '{where}' has tensors {', '.join(sorted(found)) or 'none'} in {TENSORS}, but there must be one, '{KEY}'; "
            "save it again or retrain."
        )
    info = found[KEY]
    if info.dtype != "F32" or info.shape != shape:
        raise AdapterError(
            f"adapter '{where}' has '{KEY}' as {info.dtype} {list(info.shape)}, but its manifest asks for F32 {list(shape)}; "
            "save it again or retrain."
        )
    part = memoryview(data)[info.begin : info.end]
    check_finite(part, where)
    return part


def check_finite(data: memoryview | bytes, where: str) -> None:
    """Raise AdapterError if any of these little-endian fp32 numbers is NaN or infinite."""
    numbers = array("f")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    if not math.isfinite(sum(numbers)):  # fp32 numbers cannot overflow a double, so only NaN and infinity survive the sum
        bad = len(numbers) - sum(map(math.isfinite, numbers))
        raise AdapterError(
            f"adapter '{where}' has {bad} of {len(numbers)} numbers that are NaN or infinite; retrain it with a lower learning rate."
        )


def write_prompt(data: bytes, shape: tuple[int, int]) -> bytes:
    """A safetensors file with the one tensor [P, W] as PEFT writes it; `data` is little-endian fp32."""
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, KEY: entry}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def _info(name: str, entry: Mapping[str, Any], start: int) -> TensorInfo:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(n) is int and n >= 0 for n in (begin, end, *shape)) or entry["dtype"] not in WIDTHS or len(entry) != 3:
        raise ValueError(name)
    return TensorInfo(name, entry["dtype"], shape, start + begin, start + end)


def _broken(where: str, why: str) -> AdapterError:
    return AdapterError(f"adapter '{where}' has a broken {TENSORS} ({why}); copy it again or retrain.")
