"""The run's log: one JSON line a step, an evaluation or a notice, and a tracker where one is installed."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Listener = Callable[[Event], None]


class RunLog:
    """Appends events to `record.jsonl` in the run's folder (when there is one) and passes them to a listener."""

    def __init__(self, run: Path | None, listener: Listener | None) -> None:
        self.listener = listener
        self.path = None if run is None else run / "record.jsonl"
        if run is not None:
            run.mkdir(parents=True, exist_ok=True)

    def add(self, kind: str, **facts: Any) -> None:
        event = {"event": kind, "time": round(time.time(), 3), **facts}
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        if self.listener is not None:
            self.listener(event)


def trackers(choice: str) -> list[Any]:
    """Names for `accelerate`'s log_with: TensorBoard by default where it is installed."""
    if choice == "none" or (choice == "auto" and importlib.util.find_spec("tensorboard") is None):
        return []
    return ["tensorboard" if choice == "auto" else choice]


def versions() -> dict[str, str]:
    """What ran: the versions that can change a number."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("foreword", "torch", "transformers", "accelerate")}}


def peak_memory() -> int:
    """Peak memory of this process in bytes: of the GPU when one is used, else resident."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
