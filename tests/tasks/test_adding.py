"""A new task is one file and one row: the task of docs/adding.md, known to nothing else, is trained, asked, scored, advised on and served."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from adding import block, commands
from server.given import Served, ask, serve
from typer.testing import CliRunner

import foreword.tasks
from foreword.adapters.adapter import Adapter
from foreword.cli.main import app
from foreword.evaluation.evaluate import Reader
from foreword.task_kinds import TASK_KINDS, TaskKind
from foreword.tasks.registry import task_class, task_from_dict

NAME, MODULE = "yes-no", "foreword.tasks.yes_no"
QUICK = ("--tracker", "none", "--steps", "2", "--eval-every", "2", "--batch-size", "4", "--json")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with data and a tiny model, where the package has one file and one row more."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "yes_no.py").write_text(block("yes_no.py"), "utf-8")
    monkeypatch.setattr(foreword.tasks, "__path__", [*foreword.tasks.__path__, str(folder)])
    row = eval(block("row"), {"TaskKind": TaskKind})
    monkeypatch.setitem(TASK_KINDS, row.name, row)
    (tmp_path / "yes_no.jsonl").write_text(block("yes_no.jsonl") * 2, "utf-8")
    tiny.network("llama").save_pretrained(tmp_path / "model")
    tiny.tokenizer(chat=True).save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    if sys.modules.pop(MODULE, None) is not None:
        del foreword.tasks.yes_no  # type: ignore[attr-defined]  # it was there for this test only


def typed(*words: str) -> str:
    """What a command prints, once it has ended well."""
    found = CliRunner().invoke(app, list(words), prog_name="foreword")
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, f"{words}: {found.output}"
    return found.stdout


def objects(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def over_http(served: Served, rows: list[dict[str, str]], expected: list[dict[str, Any]]) -> None:
    """The task's own endpoint and the one of all tasks answer as `predict`; others say where it is answered."""
    examples = [{name: row[name] for name in ("passage", "question")} for row in rows]
    found = ask(served.url, "/v1/classify", {"model": NAME, "input": examples}).json["data"]
    assert [item["label"] for item in found] == [row["reply"] for row in expected]
    for item, row in zip(found, expected, strict=True):
        assert item["scores"] == pytest.approx(row["scores"], abs=1e-5)
    batch = ask(served.url, "/v1/batch", {"model": NAME, "input": examples}).json["data"]
    assert [item["text"] for item in batch] == [row["reply"] for row in expected]
    assert ask(served.url, "/v1/tag", {"model": NAME, "input": "a"}).message == (
        "The task `yes-no` is of kind yes-no, which /v1/tag does not answer; use /v1/classify."
    )
    assert ask(served.url, "/v1/completions", {"model": NAME, "prompt": examples[0], "temperature": 1}).message == (
        "The task `yes-no` (yes-no) samples no tokens, so `temperature` does not apply; leave it out."
    )


def test_a_new_task_is_one_file_and_one_row(place: Path) -> None:
    advise, train, predict, evaluate, serving, asking = commands("A new task", place / "model")
    recommended = json.loads(typed(*advise, "--text-tokens", "32", "--json"))["recommended"]
    assert f"--task {NAME} --method {recommended['method']}" in recommended["command"]
    assert json.loads(typed(*train, *QUICK))["task"] == NAME, "guessed from its columns"

    rows = objects((place / "yes_no.jsonl").read_text("utf-8"))
    answers = objects(typed(*predict, "--json"))
    assert [answer["input"] for answer in answers] == [{name: row[name] for name in ("passage", "question")} for row in rows]
    assert {answer["reply"] for answer in answers} <= {"yes", "no"} and all(sum(a["scores"].values()) == pytest.approx(1) for a in answers)
    right = sum(answer["reply"] == row["reply"] for answer, row in zip(answers, rows, strict=True)) / len(rows)
    scores = json.loads(typed(*evaluate, "--json"))["scores"]
    assert list(scores) == ["accuracy", "loss"] and scores["accuracy"]["value"] == pytest.approx(right)

    adapter = Adapter.load(place / "prompts/yes-no")
    task = task_from_dict(adapter.task)
    assert type(task) is task_class(NAME) and task.to_dict() == adapter.task
    reader = Reader.of(tiny.build("llama", chat=True), adapter)
    assert [prediction.text for prediction in reader.predict(rows)] == [answer["reply"] for answer in answers]

    assert serving == ["serve", "prompts"]
    served = serve(place / "prompts")
    try:
        over_http(served, rows, answers)
        assert typed(*asking, "--url", served.url) == typed(*predict)
    finally:
        served.stop()
        served.join()


def test_its_options_are_those_of_its_row(place: Path) -> None:
    train = next(words for words in commands("A new task", place / "model") if words[0] == "train")
    found = CliRunner().invoke(app, [*train, "--pooling", "mean"], prog_name="foreword")
    assert found.exit_code == 2
    assert (
        found.stderr
        == "foreword: error: --pooling does not apply to a yes-no task, which has no head on one state of a text; leave it out.\n"
    )
    made = json.loads(typed(*train, *QUICK, "--template", r"{soft}{passage}\n{question}: {answer}", "--chat"))
    assert made["task"] == NAME
    assert Adapter.load(place / "prompts/yes-no").task["template"] == "{bos}<user>{passage}\n{question}:<eos>\n<model>{answer}"
