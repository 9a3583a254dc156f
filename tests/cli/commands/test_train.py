"""`foreword train` from a file to an adapter: what it prints, where, and what its options do."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from cli.given import QUICK, ROWS, Foreword, write

from foreword.methods import DEFAULT_METHOD

SHARED = {"adapter", "method", "task", "model", "num_parameters", "bytes", "steps", "seconds", "peak_memory", "scores"}


def test_a_file_and_a_model_are_enough(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "reviews.jsonl", ROWS)
    result = foreword("train", data, "--model", model, "--out", tmp_path / "new" / "sentiment", "--steps", 2)
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["sentiment", "sentiment.run"]
    first, *lines = result.stdout.splitlines()
    assert first == f"{tmp_path / 'new' / 'sentiment'}: {DEFAULT_METHOD} on {model}"
    assert [line.split()[0] for line in lines[:6]] == ["accuracy", "macro_f1", "loss", "numbers", "time", "memory"]
    assert lines[3] == "numbers   2,560 in 10.4 kB"


def test_the_commands_it_recommends_work(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    result = foreword("train", reviews, "--model", model, "--out", tmp_path / "my-task", *QUICK)
    commands = [shlex.split(line) for line in result.stdout.partition("Next:\n")[2].splitlines()]
    assert [words[:2] for words in commands] == [["foreword", "predict"], ["foreword", "evaluate"], ["foreword", "show"]]
    for words in commands:
        assert foreword(*[str(reviews) if word == "TEST.jsonl" else word for word in words[1:]]).exit_code == 0


def test_json_is_one_document_and_all_else_is_on_standard_error(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    result = foreword("train", reviews, "--model", model, "--out", tmp_path / "a", *QUICK, "--json")
    found = json.loads(result.stdout)
    assert set(found) == SHARED | {"truncated", "notices"}
    assert found["adapter"] == str(tmp_path / "a")
    assert (found["method"], found["task"], found["model"]) == ("prompt-tuning", "classify", str(model))
    assert (found["num_parameters"], found["bytes"], found["steps"]) == (
        4 * 32,
        (tmp_path / "a/adapter_model.safetensors").stat().st_size,
        4,
    )
    assert {name: sorted(score) for name, score in found["scores"].items()} == dict.fromkeys(
        ("accuracy", "macro_f1", "loss"), ["n", "stderr", "value"]
    )
    assert [line.split("  ")[0] for line in result.stderr.splitlines()] == [
        "training on 36 examples, step 0 of 4",
        "step 2 of 4",
        "step 4 of 4",
    ]


def test_a_validation_file_takes_the_place_of_the_held_out_tenth(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    valid = write(tmp_path / "valid.jsonl", ROWS[:7])
    result = foreword("train", reviews, "--model", model, "--out", tmp_path / "a", "--valid", valid, *QUICK, "--json")
    assert json.loads(result.stdout)["scores"]["accuracy"]["n"] == 7
    assert result.stderr.splitlines()[0] == "training on 40 examples, step 0 of 4"


def test_columns_of_other_names_are_mapped(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"sentence": row["text"], "y": row["label"]} for row in ROWS])
    options = ("--columns", "text=sentence,label=y", "--json", *QUICK)
    result = foreword("train", data, "--model", model, "--out", tmp_path / "a", *options)
    assert json.loads(result.stdout)["task"] == "classify"


def test_options_reach_the_adapter(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    options = ("--method", "p-tuning-v2", "--layers", "last:1", "--dropout", "0.1", "--init", "vocabulary", "--words", "no,yes")
    more = ("--template", r"{text}\nGood? {answer}", "--description", "Is it good?", "--seed", 3, "--calibrate-prior", "--dtype", "float32")
    assert foreword("train", reviews, "--model", model, "--out", tmp_path / "a", *QUICK, *options, *more).exit_code == 0
    found = json.loads(foreword("show", tmp_path / "a", "--json").stdout)
    spec, task, plan = found["manifest"]["recipe"]["prompt"], found["manifest"]["task"], found["manifest"]["provenance"]["plan"]
    assert (spec["method"], spec["layers"], spec["dropout"], spec["length"]) == ("p-tuning-v2", "last:1", 0.1, 4)
    assert spec["init"]["kind"] == "vocabulary"
    assert (task["template"], task["words"], task["description"]) == ("{text}\nGood? {answer}", ["no", "yes"], "Is it good?")
    assert task["labels"] == ["bad", "good"]
    assert len(task["prior"]) == 2
    assert (plan["seed"], plan["steps"], plan["calibrate_prior"]) == (3, 4, True)


def test_the_chat_format_surrounds_the_template(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    assert foreword("train", reviews, "--model", model, "--out", tmp_path / "a", *QUICK, "--chat").exit_code == 0
    shown = foreword("show", tmp_path / "a").stdout
    assert "template      ⟨bos⟩<user>⟨4 soft⟩{text}↵Label:<eos>↵<model>{answer}\n" in shown


def test_a_template_may_name_any_columns(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [{"first": row["text"], "second": "a film", "label": row["label"]} for row in ROWS])
    options = ("--template", "{first}{soft}{second} {answer}", *QUICK)
    result = foreword("train", data, "--model", model, "--out", tmp_path / "a", *options)
    assert f"foreword predict {tmp_path / 'a'} --file MORE.jsonl" in result.stdout
    answered = foreword("predict", tmp_path / "a", "--file", data, "--json")
    assert json.loads(answered.stdout.splitlines()[0])["input"] == {"first": "a joy to watch 0", "second": "a film"}


def test_texts_that_are_cut_are_counted(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [*ROWS, *({"text": "a joy " * 100, "label": "good"} for _ in range(3))])
    result = foreword("train", data, "--model", model, "--out", tmp_path / "a", *QUICK)
    assert "note: 3 texts did not fit and lost the end.\n" in result.stderr
    assert result.exit_code == 0


def test_early_stopping_is_said(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    options = ("--steps", 50, "--eval-every", 1, "--patience", 1, "--learning-rate", "1e-9", "--length", 4)
    result = foreword("train", reviews, "--model", model, "--out", tmp_path / "a", *options)
    assert "note: stopped early at step " in result.stderr
    assert " of 50: 1 evaluation without a better score.\n" in result.stderr


def test_force_replaces_and_notes_the_old_checkpoint(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    train = ("train", reviews, "--model", model, "--out", tmp_path / "a", *QUICK, "--checkpoint-every", 2)
    assert foreword(*train).exit_code == 0
    before = (tmp_path / "a/foreword.json").read_bytes()
    result = foreword(*train, "--seed", 7, "--force")
    assert result.exit_code == 0
    assert (tmp_path / "a/foreword.json").read_bytes() != before
    note = f"note: this run replaces the checkpoint in '{tmp_path / 'a.run'}'; to continue from it, stop now and add --resume.\n"
    assert result.stderr.startswith(note)


def test_a_divergence_says_where_the_best_prompt_is(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    loud = _loud(model, tmp_path / "loud")
    steps = ("--steps", 100, "--eval-every", 5, "--patience", 100, "--learning-rate", 10, "--warmup", 0.5)
    options = (*QUICK, "--method", "p-tuning-v2", "--dtype", "float16", *steps)
    result = foreword("train", reviews, "--model", loud, "--out", tmp_path / "a", *options)
    note, error = result.stderr.splitlines()[-2:]
    assert result.exit_code == 2
    assert note == f"note: the best prompt of this run is the adapter '{tmp_path / 'a.best'}'."
    assert re.fullmatch(
        r"foreword: error: the loss became nan at step \d+; the best prompt so far is kept: train again with a lower --learning-rate "
        r"\(this run: 10\), more --warmup, or --dtype float32\.",
        error,
    )
    assert not (tmp_path / "a").exists()
    assert foreword("verify", tmp_path / "a.best").exit_code == 0


def _loud(model: Path, target: Path) -> Path:
    """A copy of the model whose attention leaves fp16's range when keys and values grow a hundredfold."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        for layer in network.model.layers:
            layer.self_attn.o_proj.weight.mul_(1000)
    network.save_pretrained(target)
    AutoTokenizer.from_pretrained(model).save_pretrained(target)
    return target


@pytest.mark.parametrize("method", ["prefix-tuning", "p-tuning"])
def test_every_method_is_trained_by_name(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path, method: str) -> None:
    result = foreword("train", reviews, "--model", model, "--out", tmp_path / "a", *QUICK, "--method", method, "--json")
    assert json.loads(result.stdout)["method"] == method
