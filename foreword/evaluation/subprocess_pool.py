"""Jobs in their own processes: a process that has imported everything forks one for every job, so that each starts fast."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any, final

Job = dict[str, Any]
Outcome = dict[str, Any]
Listener = Callable[[dict[str, Any]], None]
Work = Callable[[Job, Listener], Outcome]
WORKER = "foreword.evaluation.compare_worker"


@final
class Processes:
    """Call it with a job: events go to the listener, the outcome is returned. The outcome of a process that dies is `failed`, with the reason.

    `worker` is a module whose main program is `forked_jobs.serve`. One job at a time.
    """

    def __init__(self, worker: str = WORKER) -> None:
        self._command = (sys.executable, "-m", worker)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (what processes say on standard error, until they all end)
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *problem: object) -> None:
        self.kill()
        if self._server is not None:
            self._server.communicate()
        self._said.close()

    def kill(self) -> None:
        """Stop the running job, from any thread."""
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)

    def __call__(self, job: Job, listener: Listener) -> Outcome:
        server = self._running()
        assert server.stdin is not None and server.stdout is not None
        begin = self._said.seek(0, os.SEEK_END)
        with suppress(BrokenPipeError):
            server.stdin.write(json.dumps(job) + "\n")
            server.stdin.flush()
        outcome: Outcome | None = None
        for line in server.stdout:
            event = json.loads(line)
            if event["event"] == "ended":
                return outcome or {"status": "failed", "reason": self._death(event["code"], begin)}
            if event["event"] == "outcome":
                outcome = {key: value for key, value in event.items() if key != "event"}
            else:
                listener(event)
        return {"status": "failed", "reason": self._death(server.wait(), begin)}

    def _running(self) -> subprocess.Popen[str]:
        """The process that forks, started when there is none (or none any more)."""
        if self._server is None or self._server.poll() is not None:
            pipe = subprocess.PIPE  # its own session, so that only this process gets Ctrl-C
            self._server = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, stderr=self._said, encoding="utf-8", start_new_session=True
            )
        return self._server

    def _death(self, code: int, begin: int) -> str:
        """Why a process ended without an outcome."""
        if code < 0:
            name = signal.Signals(-code).name
            return f"its process was stopped by {name}" + (
                ", which the operating system does when memory is full." if code == -signal.SIGKILL else "."
            )
        self._said.seek(begin)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return f"its process ended with exit code {code} ({lines[-1].strip().rstrip('.') if lines else 'without a word'})."
