"""A training that is stopped or killed: what is kept, what is said, and that going on gives the same bytes."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from children import child
from cli.given import Foreword

LONG = ("--steps", "150", "--eval-every", "10", "--checkpoint-every", "10", "--patience", "1000", "--length", "4", "--tracker", "none")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, foreword: Foreword, model: Path, reviews: Path) -> Path:
    out = tmp_path_factory.mktemp("whole") / "sentiment"
    assert foreword(*command(model, reviews, out)).exit_code == 0
    return out


def command(model: Path, reviews: Path, out: Path) -> list[str]:
    return ["train", str(reviews), "--model", str(model), "--out", str(out), *LONG]


def stopped(words: Sequence[str], sign: signal.Signals) -> tuple[int, list[str]]:
    """Run in a process that gets a signal once it has reached step 20; its exit code and last lines on standard error."""
    with child([sys.executable, "-m", "foreword", *words]) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 20 of 150"):
                process.send_signal(sign)
                break
        rest = process.stderr.read().splitlines()
        assert process.stdout.read() == ""
        return process.wait(), [line for line in rest if not line.startswith("step ")]


def files(adapter: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in adapter.iterdir()}


def test_after_ctrl_c_the_command_it_prints_gives_the_same_bytes(
    foreword: Foreword, model: Path, reviews: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    out = tmp_path / "with space" / "sentiment"
    code, (said, again) = stopped(command(model, reviews, out), signal.SIGINT)
    assert code == 130
    assert said.startswith("foreword: stopped after step ")
    assert said.endswith(f" of 150; its checkpoint is in '{out}.run'; continue with --resume.")
    assert not out.exists()
    assert (out.parent / "sentiment.run/checkpoint.pt").is_file()
    words = shlex.split(again)
    assert words[-1] == "--resume"
    resumed = foreword(*words[words.index("train") :])
    assert resumed.exit_code == 0
    assert not resumed.stderr.startswith("training on 36 examples, step 0 ")
    assert files(out) == files(uninterrupted)


def test_after_a_kill_resuming_gives_the_same_bytes(
    foreword: Foreword, model: Path, reviews: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    out = tmp_path / "sentiment"
    words = command(model, reviews, out)
    assert stopped(words, signal.SIGKILL) == (-signal.SIGKILL, [])
    assert not out.exists()
    assert foreword(*words, "--resume").exit_code == 0
    assert files(out) == files(uninterrupted)
    assert foreword(*words, "--resume").exit_code == 0, "a finished run may be resumed too: nothing is left to do"
    assert files(out) == files(uninterrupted)
