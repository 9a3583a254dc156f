"""The demo from end to end on a tiny model and its real texts: three processes, a table, answers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli.given import save_tiny
from rich.console import Console

from foreword.adapters.adapter import Adapter
from foreword.demo import gemma
from foreword.demo.run_demo import Listener, run
from foreword.errors import ModelError
from foreword.evaluation.example_results import read_results

pytestmark = pytest.mark.real
NAMES = ["sentiment", "topic", "headline"]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model that reads texts as long as the demo's."""
    folder = save_tiny(tmp_path / "model", max_position_embeddings=1024)
    monkeypatch.setattr(gemma, "prepare", lambda: folder)
    monkeypatch.setenv("PYTHONWARNINGS", "default")  # a user's, not the tests': warnings are no errors in processes
    return folder


def demo(out: Path, listener: Listener) -> tuple[dict[str, Any], str]:
    @contextmanager
    def display(metrics: Mapping[str, str]) -> Iterator[Listener]:
        assert dict(metrics) == {"sentiment": "accuracy", "topic": "accuracy", "headline": "loss"}
        yield listener

    said = io.StringIO()
    return run(out=out, quick=True, console=Console(file=said, width=200), display=display), said.getvalue()


def test_three_tasks_are_trained_evaluated_and_answered(model: Path, tmp_path: Path) -> None:
    events: list[tuple[str, str]] = []
    found, said = demo(tmp_path / "out", lambda name, event: events.append((name, event["event"])))
    assert [row["task"] for row in found["rows"]] == NAMES
    for name in NAMES:
        assert [kind for task, kind in events if task == name] == ["start", *["step"] * 10, "eval", "end", "evaluating"]
        adapter = Adapter.load(tmp_path / "out" / name)
        row = found["rows"][NAMES.index(name)]
        assert row["num_parameters"] == adapter.num_parameters and row["bytes"] == sum(t.nbytes for t in adapter.tensors.values())
        assert {side: scores["loss"]["n"] for side, scores in row["scores"].items()} == {"written": 40, "soft": 40}
        for side, scores in row["scores"].items():
            results = read_results(Path(row["examples"][side]))
            assert row["examples"][side] == str(tmp_path / "out" / "examples" / f"{name}-{side}.jsonl")
            assert sum(result.loss or 0 for result in results) / 40 == pytest.approx(scores["loss"]["value"])
    assert [answer["task"] for answer in found["answers"]] == [name for name in NAMES for _ in range(2)]
    lines = said.splitlines()
    assert "One frozen model: a written prompt against a soft prompt" in said and sum(line.startswith("sentiment  ") for line in lines) == 2
    assert lines[-1].strip() == f'foreword predict {tmp_path / "out" / "sentiment"} "a joy to watch"'


def test_a_task_that_fails_ends_the_others_and_says_why(model: Path, tmp_path: Path) -> None:
    (model / "config.json").unlink()
    with pytest.raises(ModelError) as caught:
        demo(tmp_path / "out", lambda name, event: None)
    assert str(caught.value).startswith("the demo's task 'sentiment' has no result: ")
    assert not (tmp_path / "out" / "sentiment").exists()


def test_ctrl_c_ends_all(model: Path, tmp_path: Path) -> None:
    def stop(name: str, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo(tmp_path / "out", stop)
