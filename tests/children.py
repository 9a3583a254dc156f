"""Processes that tests start: none outlives its test, whatever becomes of either."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def child(words: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command with pipes for what it writes, in a process group of its own; at the end the whole group is killed."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*map(str, words)], env=env, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
