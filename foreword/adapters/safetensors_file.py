"""The safetensors file of an adapter: read and checked without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword.adapters.folder import TENSORS
from foreword.errors import AdapterError

KEY = "prompt_embeddings"
PRECISIONS = ("F32", "BF16", "F16")  # that an adapter may be stored in


@dataclass(frozen=True)
class TensorShape:
    """One tensor as the manifest describes it."""

    dtype: str
    shape: tuple[int, ...]


def read_tensors(data: bytes, expected: Mapping[str, TensorShape], where: str) -> dict[str, bytearray]:
    """Each tensor's little-endian bytes; raises AdapterError for a broken file, other keys, dtypes or shapes, and for NaN or infinity."""
    from safetensors import SafetensorError, deserialize  # here, as manifests are read without it

    try:
        found: dict[str, dict[str, Any]] = dict(deserialize(data))  # their bytes are bytearrays
    except SafetensorError as error:
        why = str(error).removeprefix("Error while deserializing: ")
        raise AdapterError(f"adapter '{where}' has a broken {TENSORS} ({why}); copy it again or retrain.") from error
    if set(found) != set(expected):
        raise AdapterError(
            f"adapter '{where}' has tensors {_names(found)} in {TENSORS}, but there must be {_names(expected)}; save it again or retrain."
        )
    for name, promised in expected.items():
        dtype, shape = found[name]["dtype"], tuple(found[name]["shape"])
        if (dtype, shape) != (promised.dtype, promised.shape):
            raise AdapterError(
                f"adapter '{where}' has '{name}' as {dtype} {list(shape)}, but its manifest says {promised.dtype} {list(promised.shape)}; "
                "save it again or retrain."
            )
        check_finite(found[name]["data"], where, promised.dtype)
    return {name: found[name]["data"] for name in expected}


def _names(tensors: Mapping[str, object]) -> str:
    """Names in a message: the first few of many."""
    names = sorted(tensors)
    return (", ".join(f"'{name}'" for name in names[:3]) or "none") + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_finite(data: bytes | bytearray, where: str, dtype: str = "F32") -> None:
    """Raise AdapterError if any of these little-endian numbers is NaN or infinite."""
    import numpy as np  # most commands read no numbers, and start faster without it

    if dtype == "BF16":  # NumPy has no such type: its exponent is the upper eight bits behind the sign
        bits = np.frombuffer(data, "<u2")
        bad = int(np.count_nonzero((bits & 0x7F80) == 0x7F80))
    else:
        bits = np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[dtype])
        bad = len(bits) - int(np.count_nonzero(np.isfinite(bits)))
    if bad:
        raise AdapterError(
            f"adapter '{where}' has {bad} of {len(bits)} numbers that are NaN or infinite; retrain it with a lower learning rate."
        )


def write_tensors(tensors: Mapping[str, tuple[TensorShape, bytes]]) -> bytes:
    """A safetensors file as PEFT writes it; the numbers are little-endian.

    The library writes tensors of torch, which this module does without, or arrays of NumPy, which has no bfloat16.
    """
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
