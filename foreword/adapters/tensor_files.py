"""Prompts from files: Google's `.npy` prompts [P, E] (arXiv:2104.08691, published for T5) and single-tensor safetensors files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from foreword.errors import AdapterError

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def read_file(path: Path) -> Float[Tensor, "P W"]:
    """The one matrix of a `.npy` or `.safetensors` file in fp32; raises AdapterError for anything else. Nothing is ever unpickled."""
    if path.suffix not in (".npy", ".safetensors"):
        raise AdapterError(
            f"'{path}' is neither .npy nor .safetensors, and other files may run code when they are read; convert it to one of these."
        )
    if not path.is_file():
        raise AdapterError(f"'{path}' does not exist; give a .npy or .safetensors file with the numbers of a prompt.")
    tensor = _npy(path) if path.suffix == ".npy" else _only(read_tensors_file(path), path)
    return as_matrix(tensor, str(path))


def read_tensors_file(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; raises AdapterError for a broken one."""
    try:
        return load(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"'{path}' cannot be read as safetensors, perhaps it is truncated; copy it again.") from error


def as_matrix(tensor: Tensor, where: str) -> Float[Tensor, "P W"]:
    """A tensor as fp32 [P, W]; raises AdapterError unless it is a matrix of finite floating-point numbers."""
    if tensor.dim() != 2 or tensor.dtype not in _FLOATS or not tensor.numel():
        kind = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        raise AdapterError(f"'{where}' holds {kind}, but a prompt is a floating-point matrix [virtual tokens, width]; give one.")
    matrix = tensor.detach().float().contiguous()
    bad = int((~matrix.isfinite()).sum())
    if bad:
        raise AdapterError(
            f"'{where}' has {bad} of {matrix.numel()} numbers that are NaN or infinite; give the prompt of a run that did not diverge."
        )
    return matrix


def _npy(path: Path) -> Tensor:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped, so that a false size is refused before memory is taken
    except (ValueError, EOFError, OSError) as error:
        raise AdapterError(
            f"'{path}' cannot be read as a plain .npy array; save it again with numpy.save and allow_pickle=False."
        ) from error
    if array.dtype.kind not in "fiu":
        raise AdapterError(f"'{path}' holds numpy's {array.dtype}, but a prompt is floating-point; save it again as float32.")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))


def _only(tensors: dict[str, Tensor], path: Path) -> Tensor:
    if len(tensors) != 1:
        raise AdapterError(f"'{path}' holds tensors {', '.join(sorted(tensors)) or 'none'}, but one matrix is needed; save only that one.")
    return next(iter(tensors.values()))
