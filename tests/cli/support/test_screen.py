"""What a person sees: the bar on a real terminal, plain lines elsewhere, numbers in words, help from one source."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from cli.given import QUICK, Foreword
from rich.text import Text

from foreword.cli.main import app
from foreword.cli.support import output
from foreword.cli.support.progress import TrainingLines
from foreword.training.plan import TrainPlan

_COLOUR, _MOVE = re.compile(r"\x1b\[[0-9;]*m"), re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def on_a_terminal(words: list[str]) -> tuple[str, list[str]]:
    """Run in a process whose standard error is a terminal of 80 columns: its standard output, and all lines drawn."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "foreword", *words], stdin=slave, stdout=subprocess.PIPE, stderr=slave, text=True, env=environment
    ) as process:
        os.close(slave)
        drawn = b""
        try:
            while block := os.read(master, 65536):
                drawn += block
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(master)
        assert process.stdout is not None
        result = process.stdout.read()
    return result, [line for line in _MOVE.sub("\n", _COLOUR.sub("", drawn.decode())).splitlines() if line.strip()]


def test_a_terminal_gets_a_bar_of_one_line_and_nothing_else(model: Path, reviews: Path, tmp_path: Path) -> None:
    result, drawn = on_a_terminal(["train", str(reviews), "--model", str(model), "--out", str(tmp_path / "a"), *QUICK, "--json"])
    assert result.count("\n") == 1
    assert all("starting" in line or f"loading {model}"[:40] in line or "━" in line for line in drawn)
    bars = [line for line in drawn if "━" in line]
    assert max(map(len, bars)) <= 80
    assert re.search(r"━ 4/4 loss \d+\.\d{3} best accuracy [01]\.\d{3}", bars[-1])


def test_a_line_for_each_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    score = {"accuracy": {"value": 0.8125, "stderr": 0.028, "n": 200}}
    with TrainingLines("accuracy") as display:
        display({"event": "start", "step": 10, "steps": 20, "rows": 1, "cut": 0, "rate": 0.1})
        display({"event": "step", "step": 11, "loss": 0.25})
        display({"event": "step", "step": 12, "loss": 0.75})
        display({"event": "notice", "step": 12, "text": "step 12: the loss swings."})
        display({"event": "eval", "step": 20, "scores": score})
        display({"event": "end", "step": 20, "scores": score})
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.splitlines() == [
        "training on 1 example, step 10 of 20",
        "note: step 12: the loss swings.",
        "step 20 of 20  loss 0.500  accuracy 0.812 ± 0.028 (n 200)  best accuracy 0.812  0.0 s left",
    ]


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (2_345_678, "2.3 MB"), (5 * 10**9, "5.0 GB")]
)
def test_sizes(number: int, text: str) -> None:
    assert output.size(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (61.2, "1 min 1 s"), (3600.0, "1 h 0 min")])
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_json_has_no_numbers_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    output.document({"a": [float("nan"), 1.5], "b": {"c": float("inf")}, "d": "ü"})
    assert capsys.readouterr().out == '{"a": [null, 1.5], "b": {"c": null}, "d": "ü"}\n'


def test_every_field_of_the_plan_is_an_option_with_its_own_help() -> None:
    options = {option.name: option for option in typer.main.get_command(app).commands["train"].params}  # type: ignore[attr-defined]
    for field in fields(TrainPlan):
        option = options[field.name]
        assert option.opts == ["--" + field.name.replace("_", "-")]
        assert Text.from_markup(option.help).plain == field.metadata["help"]
        assert option.default == field.default


def test_several_processes_speak_with_one_voice(model: Path, reviews: Path, tmp_path: Path, foreword: Foreword) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    train = ["-m", "foreword", "train", str(reviews), "--model", str(model), "--out", str(tmp_path / "a"), *QUICK, "--json"]
    done = subprocess.run([*launch, *train], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr.count("training on 36 examples") == 1
    assert foreword("verify", tmp_path / "a").exit_code == 0
