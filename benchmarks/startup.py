"""Start of the commands that need no model, against Python's own, in turn in one run: see benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import models
import store
from provenance import provenance
from speed import spread
from transformers.utils.logging import disable_progress_bar

import foreword as fw
from foreword.methods import METHODS, recipe

ASKED = 0.5  # seconds at most
PYTHON = "python -c pass"
QUIETER = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")  # a user has neither


def commands(folder: Path) -> dict[str, list[str]]:
    """What is timed, by the words a user types; `folder` holds an adapter of each method."""
    foreword = str(Path(sys.executable).with_name("foreword"))
    return {
        PYTHON: [sys.executable, "-c", "pass"],
        "foreword --help": [foreword, "--help"],
        "foreword list": [foreword, "list", str(folder)],
        "foreword show": [foreword, "show", str(folder / next(iter(METHODS)))],
    }


def adapters(folder: Path) -> None:
    """An adapter of each method, trained for one step on a small random model."""
    model = fw.wrap(models.network(models.SMALL), models.tokenizer(models.SMALL), name=models.SMALL)
    examples = [{"text": f"w{i} w{i + 1}", "label": ("w3", "w4")[i % 2]} for i in range(10, 26)]
    for method in METHODS:
        with tempfile.TemporaryDirectory() as place:
            plan = fw.TrainPlan(steps=1, tracker="none")
            fw.fit(model, recipe(method), fw.Classify(("w3", "w4")), examples, examples, plan, out=Path(place, "a")).adapter.save(
                folder / method
            )


def measure(timed: Mapping[str, Sequence[str]], rounds: int) -> list[dict[str, float]]:
    """Seconds of every command, in turn, after one round that is not counted; raises RuntimeError for a command that fails."""
    environment = {name: value for name, value in os.environ.items() if name not in QUIETER}
    return [{name: _seconds(name, words, environment) for name, words in timed.items()} for _ in range(rounds + 1)][1:]


def _seconds(name: str, words: Sequence[str], environment: Mapping[str, str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"'{name}' ended with {done.returncode}: {done.stderr.strip()}")
    return seconds


def summary(seen: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Medians and quartiles of seconds, and of the ratio to Python's own start round by round."""
    return {
        name: {
            "seconds": spread([one[name] for one in seen]),
            "times_python": spread([one[name] / one[PYTHON] for one in seen]),
            **({} if name == PYTHON else {"met": spread([one[name] for one in seen])["median"] < ASKED}),
        }
        for name in seen[0]
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/startup.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of all commands in turn (default 20)")
    parser.add_argument("--out", type=Path, default=store.RESULTS / "startup.json", help="results file")
    args = parser.parse_args(argv)
    disable_progress_bar()
    birth = provenance([0], 1)
    with tempfile.TemporaryDirectory() as place:
        adapters(Path(place))
        found = summary(measure(commands(Path(place)), args.rounds))
    setting = {"rounds": args.rounds, "adapters": len(METHODS), "seconds_at_most": ASKED}
    store.write(args.out, {"setting": setting, "commands": found, "provenance": birth})
    for name, one in found.items():
        print(f"{name}: {one['seconds']['median']:.3f} s, {one['times_python']['median']:.1f} times {PYTHON}")


if __name__ == "__main__":
    main()
