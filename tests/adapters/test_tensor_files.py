"""Numbers to start from: files of one matrix, and folders; nothing that could run code is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from adapters.making import adapter
from safetensors.torch import save_file

from foreword.adapters.peft_prompt import read_numbers
from foreword.errors import AdapterError, FingerprintError

MATRIX = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_prompt_of_google_is_read(dtype: str, order: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.asarray(MATRIX, dtype=dtype, order=order))
    read = read_numbers(tmp_path / "p.npy")
    assert read.dtype == torch.float32
    assert read.tolist() == MATRIX.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_matrix_in_safetensors_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file({"any name": torch.from_numpy(MATRIX).to(dtype)}, tmp_path / "p.safetensors")
    assert read_numbers(tmp_path / "p.safetensors").tolist() == MATRIX.tolist()


def test_an_adapter_of_the_same_model_is_read(tmp_path: Path) -> None:
    made = adapter(method="prefix-tuning")
    folder = made.save(tmp_path / "a")
    assert torch.equal(read_numbers(folder, tiny.frozen("llama").info), made.flat)
    with pytest.raises(FingerprintError, match="^the adapter was trained on 'tiny-llama' with base model fingerprint "):
        read_numbers(folder, tiny.frozen("qwen2").info)


def npy(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "p.npy", array, allow_pickle=True)
    return folder / "p.npy"


def tensors(folder: Path, **found: torch.Tensor) -> Path:
    save_file(found, folder / "p.safetensors")
    return folder / "p.safetensors"


def raw(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def npy_header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


PLAIN = "'{path}' cannot be read as a plain .npy array; save it again with numpy.save and allow_pickle=False."
REFUSED: list[tuple[str, Any, str]] = [
    ("pickle", lambda folder: npy(folder, np.array([[{}]], dtype=object)), PLAIN),
    ("cut", lambda folder: raw(folder, "p.npy", npy_header("(2, 4)") + b"\0" * 31), PLAIN),
    ("huge", lambda folder: raw(folder, "p.npy", npy_header("(1000000000, 1000000000)")), PLAIN),
    ("empty", lambda folder: raw(folder, "p.npy", b""), PLAIN),
    (
        "text",
        lambda folder: npy(folder, np.array([["a"]])),
        "'{path}' holds numpy's <U1, but a prompt is floating-point; save it again as float32.",
    ),
    (
        "integers",
        lambda folder: npy(folder, MATRIX.astype("<i4")),
        "'{path}' holds int32 [2, 4], but a prompt is a floating-point matrix [virtual tokens, width]; give one.",
    ),
    (
        "cube",
        lambda folder: npy(folder, MATRIX[None]),
        "'{path}' holds float32 [1, 2, 4], but a prompt is a floating-point matrix [virtual tokens, width]; give one.",
    ),
    (
        "no rows",
        lambda folder: npy(folder, MATRIX[:0]),
        "'{path}' holds float32 [0, 4], but a prompt is a floating-point matrix [virtual tokens, width]; give one.",
    ),
    (
        "nan",
        lambda folder: npy(folder, np.array([[1.0, np.nan, np.inf]])),
        "'{path}' has 2 of 3 numbers that are NaN or infinite; give the prompt of a run that did not diverge.",
    ),
    (
        "too large for fp32",
        lambda folder: npy(folder, np.array([[1.0, 1e300]])),
        "'{path}' has 1 of 2 numbers that are NaN or infinite; give the prompt of a run that did not diverge.",
    ),
    (
        "two tensors",
        lambda folder: tensors(folder, a=torch.ones(1, 1), b=torch.ones(1, 1)),
        "'{path}' holds tensors a, b, but one matrix is needed; save only that one.",
    ),
    (
        "broken safetensors",
        lambda folder: raw(folder, "p.safetensors", b"\0" * 20),
        "'{path}' cannot be read as safetensors, perhaps it is truncated; copy it again.",
    ),
    (
        "another file",
        lambda folder: raw(folder, "p.bin", b""),
        "'{path}' is neither .npy nor .safetensors, and other files may run code when they are read; convert it to one of these.",
    ),
    ("nothing", lambda folder: folder / "p.npy", "'{path}' does not exist; give a .npy or .safetensors file with the numbers of a prompt."),
    ("a folder", lambda folder: folder, "'{path}' has no adapter_config.json; give a folder that PEFT saved."),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_no_prompt_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(AdapterError) as error:
        read_numbers(path)
    assert str(error.value) == message.format(path=path)
