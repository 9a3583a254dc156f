"""`accelerate launch` with two real processes: the adapter of one, said and written once, and no process that waits for ever for another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import tiny
import torch
from children import child
from cli.given import ROWS, save_tiny, write
from training.launched import CASES, SPREAD, train

from foreword.adapters.adapter import Adapter
from foreword.training.checkpoint import Checkpoint

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = str(TESTS / "training" / "launched.py")
PATIENCE = 240  # seconds; a launch takes ten on an idle machine


def launch(*words: str | Path) -> AbstractContextManager[subprocess.Popen[str]]:
    """Two processes on the CPU, by the launcher of several, which only takes its name from GPUs."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    # The loopback device, so that no machine's network is asked for.
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(TESTS)}
    return child([*command, *words], {**os.environ, **environment})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """All cases by two processes, and what they said."""
    folder = tmp_path_factory.mktemp("two")
    with launch(SCRIPT, folder, "all") as process:
        said, problems = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 0, problems
    return folder, said.splitlines()


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_adapter_of_one(name: str, two: tuple[Path, list[str]], tmp_path: Path) -> None:
    assert_alike(tmp_path / name, two[0] / name, name)


@pytest.mark.parametrize("name", SPREAD)
def test_a_model_that_is_spread_out_gives_the_same(name: str, two: tuple[Path, list[str]], tmp_path: Path) -> None:
    assert_alike(tmp_path / name, two[0] / f"spread-{name}", name)


def assert_alike(alone: Path, together: Path, name: str) -> None:
    train(alone, name)
    one, other = Adapter.load(alone), Adapter.load(together)
    assert one.tensors.keys() == other.tensors.keys()
    for key, tensor in one.tensors.items():
        assert torch.allclose(tensor, other.tensors[key], atol=1e-5), key
    assert one.base_fingerprint == other.base_fingerprint and one.provenance["data"] == other.provenance["data"]
    events = [
        [json.loads(line) for line in (path.with_name(path.name + ".run") / "record.jsonl").read_text().splitlines()]
        for path in (alone, together)
    ]
    assert [event["event"] for event in events[0]] == [event["event"] for event in events[1]]
    losses = [torch.tensor([event["loss"] for event in each if event["event"] == "step"]) for each in events]
    assert torch.allclose(*losses, atol=1e-5)


def test_one_process_talks(two: tuple[Path, list[str]]) -> None:
    said = two[1]
    assert sorted(line.split()[1] for line in said if line.startswith("pid")) == ["0", "1"]
    assert [line for line in said if line.startswith("step")] == [f"step {i + 1}" for i in range(6)] * (len(CASES) + len(SPREAD))


def test_layers_are_really_spread_out(two: tuple[Path, list[str]]) -> None:
    whole = tiny.network("llama")
    layers = sum(parameter.numel() for parameter in whole.base_model.layers.parameters())  # type: ignore[union-attr,operator]
    assert [line for line in two[1] if line.startswith("spread")] == [f"spread {layers // 2}"] * 2


def test_what_cannot_be_shared_is_refused_by_all(two: tuple[Path, list[str]]) -> None:
    assert sorted(line.removeprefix("refused ") for line in two[1] if line.startswith("refused")) == [
        *["method 'prompt-tuning+lora' trains layers of the model, which --use_fsdp shards; launch it without."] * 2,
        *["the processes of this run differ in their plan, but they share every batch; give all of them the same files and options."] * 2,
    ]
    assert not (two[0] / "unlike").exists()


@pytest.mark.parametrize("victim", ["0", "1"])
def test_a_killed_process_ends_the_other(victim: str, tmp_path: Path) -> None:
    with launch(SCRIPT, tmp_path, "forever") as process:
        assert process.stdout is not None
        pids: dict[str, int] = {}
        for line in process.stdout:
            if line.startswith("pid"):
                _, rank, pid = line.split()
                pids[rank] = int(pid)
            if len(pids) == 2 and line.startswith("step"):
                os.kill(pids[victim], signal.SIGKILL)
                break
        process.communicate(timeout=PATIENCE)  # until nobody holds the pipes
    assert process.returncode not in (0, None)
    assert not (tmp_path / "forever").exists()


def test_the_command_stops_when_asked_and_keeps_one_checkpoint(tmp_path: Path) -> None:
    model, data, out = save_tiny(tmp_path / "model"), write(tmp_path / "reviews.jsonl", ROWS), tmp_path / "adapter"
    plan = (
        "--method",
        "prompt-tuning",
        "--length",
        "4",
        "--tracker",
        "none",
        "--steps",
        "100000",
        "--eval-every",
        "5",
        "--patience",
        "100000",
    )
    with launch("-m", "foreword", "train", data, "--model", model, "--out", out, *plan) as process:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if line.startswith("step 10 of"):
                process.send_signal(signal.SIGINT)
                break
        _, rest = process.communicate(timeout=PATIENCE)
    assert not out.exists()
    found = Checkpoint(**torch.load(tmp_path / "adapter.run" / "checkpoint.pt", weights_only=True))
    assert (seen + rest).count("foreword: stopped after step ") == 1, seen + rest
    assert f"foreword: stopped after step {found.step} of 100000; its checkpoint is in '{out}.run'" in rest
    assert seen.count("step 5 of 100000") == 1
