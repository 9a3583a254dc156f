"""`foreword serve` in a process of its own, with a store of three tasks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from cli.given import save_tiny
from server.given import adapter, until

from foreword.adapters.adapter import Adapter


@dataclass
class ServerProcess:
    """A server, and what it says."""

    popen: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    url: str = ""
    ended: bool = False

    def listen(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.said.append(line.rstrip("\n"))
        self.ended = True

    def peak_bytes(self) -> int:
        """The most memory it has had."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.popen.pid}/status").read_text("utf-8"))
        assert found is not None
        return int(found[1]) << 10

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(30)
        until(lambda: self.ended)
        assert self.popen.stderr is not None
        self.popen.stderr.close()


def save_prompts(folder: Path) -> Path:
    """Three tasks beside the model they record as a folder."""
    base = save_tiny(folder / "base")
    for name in ("writer", "sentiment", "pairs"):
        found = adapter(name)
        Adapter(**{**vars(found), "base": str(base)}).save(folder / "prompts" / name)
    return folder / "prompts"


def start(*words: str | Path, **environment: str) -> ServerProcess:
    """A server on a free port, once it takes requests."""
    command = [sys.executable, "-m", "foreword", "serve", *map(str, words), "--port", "0"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    made = ServerProcess(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables))
    threading.Thread(target=made.listen, daemon=True).start()
    until(lambda: any("  try:" in line for line in made.said) or made.popen.poll() is not None, 280)
    assert made.popen.poll() is None, made.said
    made.url = next(line for line in made.said if " at http" in line).split(" at ")[1].split()[0]
    return made
