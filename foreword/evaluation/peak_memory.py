"""Peak memory from now on: of the GPU if the model is on one, else the resident memory of this process."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

from foreword.training.run_log import peak_memory

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak(device: torch.device) -> None:
    """Reset the peak to the present use. If the system cannot (macOS), it stays that of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with suppress(OSError):  # some containers forbid it
            _CLEAR.write_text("5", "utf-8")


def peak(device: torch.device) -> int:
    """Bytes at most since `forget_peak`. `ru_maxrss` would not do: a process begins with the maximum of the one that started it."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _status("VmHWM:") if sys.platform == "linux" else peak_memory()


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text("utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
