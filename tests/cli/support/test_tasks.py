"""Every kind of task from the command line: trained from a file, guessed from its columns, asked and answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli.given import ROWS, Foreword, write

from foreword.cli.support.options import POOLINGS

QUICK = ("--method", "p-tuning-v2", "--length", "2", "--tracker", "none", "--steps", "2", "--eval-every", "2", "--batch-size", "4")
CONLLU = "".join(f"1\tgood\t_\tADJ\t_\t_\t0\troot\t_\t_\n2\tfilm{i}\t_\tNOUN\t_\t_\t1\tdep\t_\t_\n\n" for i in range(8))
QA = [{"question": "What is it?", "context": f"The film {i} is bad", "answers": ["bad"]} for i in range(8)]
CHOICE = [{"question": f"film {i}", "choices": ["good", "bad"], "label": i % 2} for i in range(8)]
STARS = [{"text": f"film {i}", "label": i / 2} for i in range(8)]
KINDS_OF_FILM = [{"text": f"film {i}", "label": ["fun", "war"][: i % 3]} for i in range(8)]
FACTS = [{"subject": f"film {i}", "answer": ("good", "bad, no")[i % 2]} for i in range(8)]
PAIRS = [{"text": row["text"], "text_b": "a film", "label": row["label"]} for row in ROWS[:8]]


def trained(foreword: Foreword, model: Path, folder: Path, rows: list[Any] | str, *options: str) -> Path:
    """An adapter for these rows."""
    data = write(folder / "data.jsonl", rows) if isinstance(rows, list) else folder / "data.conllu"
    if isinstance(rows, str):
        data.write_text(rows, "utf-8")
    result = foreword("train", data, "--model", model, "--out", folder / "a", *QUICK, *options)
    assert result.exit_code == 0, result.stderr
    assert "foreword predict" in result.stdout
    return folder / "a"


def answer(foreword: Foreword, adapter: Path, row: dict[str, Any]) -> dict[str, Any]:
    """What predict --json says to one object on standard input."""
    result = foreword("predict", adapter, "--json", input=json.dumps(row) + "\n")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_command_knows_every_pooling() -> None:
    from foreword.tasks.head_task import POOLINGS as ALL

    assert ALL == POOLINGS


def test_a_tagger_from_conllu(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    adapter = trained(foreword, model, tmp_path, CONLLU)
    assert json.loads((adapter / "foreword.json").read_text("utf-8"))["task"]["labels"] == ["ADJ", "NOUN"]
    found = answer(foreword, adapter, {"tokens": ["good", "film"]})
    assert found["input"] == ["good", "film"] and len(found["tags"]) == 2 and set(found["tags"]) <= {"ADJ", "NOUN"}
    lines = foreword("predict", adapter, "good film").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["good", "film"] and [line.split()[1] for line in lines] == found["tags"]
    assert foreword("predict", adapter, "good film", "film").stdout.splitlines()[0] == " ".join(
        f"{word}/{tag}" for word, tag in zip(("good", "film"), found["tags"], strict=True)
    )
    scores = json.loads(foreword("evaluate", adapter, tmp_path / "data.conllu", "--json").stdout)["scores"]
    assert list(scores) == ["token_accuracy", "loss"] and scores["token_accuracy"]["n"] == 8


def test_questions_answered_from_a_context(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    found = answer(foreword, trained(foreword, model, tmp_path, QA), QA[0])
    assert found["input"] == {"question": QA[0]["question"], "context": QA[0]["context"]}
    assert str(QA[0]["context"])[found["start"] :].startswith(found["answer"]) and isinstance(found["log_odds"], float)


def test_choices(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    adapter = trained(foreword, model, tmp_path, CHOICE)
    found = answer(foreword, adapter, CHOICE[0])
    assert found["input"]["choices"] == ["good", "bad"] and found["label"] == ["good", "bad"][found["index"]]
    assert sum(found["scores"].values()) == pytest.approx(1.0)


def test_numbers(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    adapter = trained(foreword, model, tmp_path, STARS, "--task", "regress", "--pooling", "mean")
    found = answer(foreword, adapter, STARS[0])
    assert isinstance(found["label"], float) and float(foreword("predict", adapter, "film 0").stdout) == pytest.approx(
        found["label"], rel=1e-3
    )


def test_sets_of_labels(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    adapter = trained(foreword, model, tmp_path, KINDS_OF_FILM, "--task", "multi-label")
    found = answer(foreword, adapter, {"text": "a film"})
    assert found["label"] == [label for label, share in found["scores"].items() if share >= 0.5] and set(found["scores"]) == {"fun", "war"}
    assert len(foreword("predict", adapter, "a film").stdout.splitlines()) == 2
    assert foreword("predict", adapter, "a film", "a film").stdout.count("a film") == 2


def test_facts(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    adapter = trained(foreword, model, tmp_path, FACTS, "--template", "{subject} is {answer}")
    found = answer(foreword, adapter, {"subject": "film 0"})
    assert found["answer"] == max(found["scores"], key=found["scores"].__getitem__) and set(found["scores"]) == {"good", "bad, no"}


def test_two_texts_are_read_by_a_head(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    adapter = trained(foreword, model, tmp_path, PAIRS)
    found = answer(foreword, adapter, {"text": "a", "text_b": "b"})
    assert found["input"] == {"text": "a", "text_b": "b"} and found["label"] in ("good", "bad")
    assert json.loads((adapter / "foreword.json").read_text("utf-8"))["task"]["kind"] == "classify-head"


def test_an_encoder_classifies_by_a_head(foreword: Foreword, tmp_path: Path) -> None:
    import tiny_encoders
    import tiny_tokenizers

    tiny_encoders.network("bert").save_pretrained(tmp_path / "bert")
    tiny_tokenizers.bert().save_pretrained(tmp_path / "bert")
    adapter = trained(foreword, tmp_path / "bert", tmp_path, [{**row} for row in ROWS[:8]])
    assert json.loads((adapter / "foreword.json").read_text("utf-8"))["task"]["kind"] == "classify-head"
    assert answer(foreword, adapter, {"text": "a joy"})["label"] in ("good", "bad")


@pytest.mark.parametrize("kind", ["causal", "encoder", "encoder-decoder"])
def test_the_task_is_inferred_once_and_the_model_loaded_once(
    foreword: Foreword, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import tiny_encoders
    import tiny_seq2seq

    from foreword.backbone.loading import load_model
    from foreword.cli.commands import train

    calls: list[str] = []
    infer, load = train.task_of, load_model.load
    monkeypatch.setattr(train, "task_of", lambda *given, **more: (calls.append("task"), infer(*given, **more))[1])
    monkeypatch.setattr(load_model, "load", lambda *given, **more: (calls.append("load"), load(*given, **more))[1])
    if kind != "causal":
        made, name = (tiny_encoders, "bert") if kind == "encoder" else (tiny_seq2seq, "t5")
        model = tmp_path / name
        made.network(name).save_pretrained(model)
        made.tokenizer(name).save_pretrained(model)
    adapter = trained(foreword, model, tmp_path, [{**row} for row in ROWS[:8]])
    found = json.loads((adapter / "foreword.json").read_text("utf-8"))["task"]["kind"]
    assert found == ("classify-head" if kind == "encoder" else "classify") and calls == ["task", "load"]


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        (
            PAIRS,
            ("--template", "{text} {answer}"),
            "the examples have two texts, text and text_b, but the template reads only one; put {text_b} into --template, or use --task classify-head.",
        ),
        (CHOICE, ("--words", "a,b"), "--words does not apply to a choice task, which has no label words; leave it out."),
        (CHOICE, ("--chat",), "--chat does not apply to a choice task, which reads texts in the tokenizer's own format; leave it out."),
        (QA, ("--pooling", "mean"), "--pooling does not apply to a qa task, which has no head on one state of a text; leave it out."),
        (QA, ("--conversation", "whole"), "--conversation does not apply to a qa task, which does not read one plain text; leave it out."),
        (ROWS, ("--conversation", "first"), "conversation 'first' is not known; choose one of last-user, system-in-front, whole."),
        (STARS, ("--task", "regress", "--pooling", "sum"), "pooling 'sum' is not known; choose one of auto, first, last, mean."),
        (
            ROWS,
            ("--task", "tag"),
            "row 1 of '{data}' has no column 'tokens' (found: text, label); rename it, or map it with --columns tokens=NAME.",
        ),
        (
            ROWS,
            ("--task", "regress"),
            "row 1 of '{data}': 'label' is 'good', but regression needs a finite number; correct the data, or classify instead.",
        ),
    ],
)
def test_what_cannot_be(foreword: Foreword, model: Path, tmp_path: Path, rows: list[Any], options: tuple[str, ...], sentence: str) -> None:
    data = write(tmp_path / "data.jsonl", rows)
    result = foreword("train", data, "--model", model, "--out", tmp_path / "a", *QUICK, *options)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "foreword: error: " + sentence.replace("{data}", str(data)))
