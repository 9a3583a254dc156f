"""Where a number comes from: command, commit, versions, seeds, machine and date, written beside it. No host names, no paths."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("foreword", "torch", "transformers", "peft", "accelerate")
MATTERS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # instruction sets that decide how fast a matrix product is


def provenance(seeds: Sequence[int], threads: int) -> dict[str, Any]:
    """What to repeat to get the numbers of this process again."""
    return {
        "command": command(sys.argv),
        **commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seeds": list(seeds),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {**machine(), "threads": threads},
    }


def command(argv: Sequence[str]) -> str:
    """The command line, with the script as it stands in the repository and no path of this machine."""
    script = Path(argv[0]).resolve()
    home = script.relative_to(ROOT) if script.is_relative_to(ROOT) else Path("benchmarks", script.name)
    words = [home.as_posix(), *(Path(word).name if os.path.isabs(word) else word for word in argv[1:])]
    return shlex.join(["python", *words])


def commit() -> dict[str, Any]:
    """The commit, and whether what was measured differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "foreword", "benchmarks", ":!benchmarks/results", ":!*.md")
        return {"commit": git("rev-parse", "--short=12", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):  # no git, or not a checkout
        return {"commit": "unknown", "dirty": True}


def machine() -> dict[str, Any]:
    """CPU, cores, memory, and how busy the machine was when this was asked."""
    facts = cpu_facts()
    flags = set(facts.get("flags", "").split())
    return {
        "cpu": facts.get("model name", platform.processor() or platform.machine()),
        "instructions": [name for name in MATTERS if name in flags],
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
    }


def cpu_facts() -> dict[str, str]:
    """The first processor of /proc/cpuinfo, where there is one."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
