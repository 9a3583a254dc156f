"""One side of a speed comparison in a process of its own, so that its memory is its own; told over a pipe to do steps."""

from __future__ import annotations

import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import flops
import models
import torch
from sides import SIDES, Case, Work
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar


def serve(pipe: Connection, side: str, case: Case, work: Work, threads: int) -> None:
    """Answer `("steps", k)`, `("peak", tokens)`, `("needed", soft, prefix)` and `("memory",)` until the pipe closes."""
    torch.set_num_threads(threads)
    disable_progress_bar()
    network = models.network(case.model)
    touch(network)
    idle = resident()
    forget_peak()
    one = SIDES[side](network, case, work)
    answers: dict[str, Any] = {
        "steps": lambda count: _steps(one.step, count),
        "peak": lambda tokens: flops.peak(network, tokens),
        "needed": lambda soft, prefix: flops.needed(
            network, len(work.rows), len(work.rows[0]), soft=soft, prefix=prefix, labels=work.labels * len(work.rows)
        ),
        "memory": lambda: {"idle": idle, "peak": highest()},
    }
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(answers[name](*arguments))


def _steps(step: Any, count: int) -> dict[str, float]:
    """Seconds on the wall and of this process's threads, for `count` steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        loss = step()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu, "loss": loss}


def touch(network: PreTrainedModel) -> None:
    """Read every weight once: a checkpoint is mapped into memory, and pages that were never read would count as the step's."""
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.detach().reshape(-1)[::1024].sum()


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def resident() -> int:
    """Bytes of this process in memory now."""
    return _status("VmRSS:") if sys.platform == "linux" else _most()


def forget_peak() -> None:
    """Start the kernel's high-water mark again from what is resident now."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", "utf-8")


def highest() -> int:
    """The most bytes that were resident at once since `forget_peak`."""
    return _status("VmHWM:") if sys.platform == "linux" else _most()


def _most() -> int:
    """The peak since the process began; in bytes on macOS, in kilobytes elsewhere."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
