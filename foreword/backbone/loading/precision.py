"""The precision in which a model is loaded: that of its checkpoint, unless this processor has no instructions for it."""

from __future__ import annotations

import logging
import os

import torch
from transformers import PreTrainedConfig

from foreword.errors import ModelError

DTYPES: dict[str, torch.dtype | str] = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HALF = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


def precision(name: str, dtype: str, config: PreTrainedConfig, device: torch.device) -> torch.dtype | str:
    """The dtype for `from_pretrained`; "auto" is the checkpoint's own.

    Checkpoints of 16 bits are read in float32 on a CPU without instructions for them, where their products are 6 to 150 times slower (LOG.md);
    the numbers, and so the fingerprint, stay the same. It is logged as a warning.
    """
    stored = _stored(config)
    if dtype != "auto" or stored not in _HALF or device.type != "cpu" or multiplies(stored):
        return DTYPES[dtype]
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("foreword").warning(
            "model '%s' is stored in %s, for which this processor has no instructions: it is read in float32, in twice the memory; "
            "dtype %s keeps it as stored, many times slower.",
            *(name, _HALF[stored], _HALF[stored]),
        )
    return torch.float32


def check_dtype(dtype: str) -> None:
    """Raise ModelError for an unknown precision."""
    if dtype not in DTYPES:
        raise ModelError(f"dtype '{dtype}' is not known; choose one of {', '.join(DTYPES)}.")


def multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN, which multiplies matrices for torch, has native instructions of this CPU for a 16-bit format; torch reports this nowhere else."""
    known = torch.ops.mkldnn._is_mkldnn_bf16_supported if dtype == torch.bfloat16 else torch.ops.mkldnn._is_mkldnn_fp16_supported
    return bool(known())


def computing(dtype: torch.dtype | str, config: PreTrainedConfig) -> torch.dtype:
    """The precision of weights that are not quantised: as given, or as stored."""
    found = _stored(config) if dtype == "auto" else dtype
    return found if isinstance(found, torch.dtype) else torch.float32


def stored_name(config: PreTrainedConfig) -> str:
    """The name of the checkpoint's own precision, "auto" where its config names none of ours."""
    return next((name for name, dtype in DTYPES.items() if dtype == _stored(config)), "auto")


def _stored(config: PreTrainedConfig) -> torch.dtype | None:
    found = config.dtype
    return found if isinstance(found, torch.dtype) else None
