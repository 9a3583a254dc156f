"""Mistakes: one whole sentence on standard error, nothing on standard output, exit 2."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli.given import QUICK, ROWS, Foreword, save_tiny, write
from typer.testing import Result

NOWHERE = "nowhere/model"  # whoever gets as far as reading this fails with another sentence


def sentence(result: Result) -> str:
    """The sentence of a mistake, once all the rest is as it must be."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("foreword: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("foreword: error: ").rstrip("\n")


def refused(foreword: Foreword, data: Path, out: Path, *options: object, model: object = NOWHERE) -> str:
    """What `train` says."""
    return sentence(foreword("train", data, "--model", model, "--out", out, *options))


def test_an_empty_file(foreword: Foreword, tmp_path: Path) -> None:
    data = write(tmp_path / "empty.jsonl", [])
    assert refused(foreword, data, tmp_path / "a") == f"'{data}' has no examples; give a file with at least one row."


def test_a_missing_file(foreword: Foreword, tmp_path: Path) -> None:
    data = tmp_path / "none.jsonl"
    assert refused(foreword, data, tmp_path / "a") == f"'{data}' does not exist; give a JSONL, CSV or Parquet file, or a datasets id."


def test_a_misnamed_column(foreword: Foreword, weightless: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"review": row["text"], "label": row["label"]} for row in ROWS])
    assert refused(foreword, data, tmp_path / "a", model=weightless) == (
        "the data has columns review, label, but a task needs text,label (classify) or input,output (generate) or tokens,tags (tag) "
        "or question,context,answers (qa) or question,choices,label (choice) or subject,answer (probe); rename them, or map them with --columns text=NAME."
    )
    assert refused(foreword, data, tmp_path / "a", "--task", "classify", model=weightless) == (
        f"row 1 of '{data}' has no column 'text' (found: review, label); rename it, or map it with --columns text=NAME."
    )
    assert refused(foreword, data, tmp_path / "a", "--columns", "text=body", model=weightless) == (
        f"'{data}' has no column 'body' to read as 'text' (found: review, label); correct --columns."
    )


def test_a_column_missing_in_one_row(foreword: Foreword, weightless: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [*ROWS, {"text": "a film"}])
    assert refused(foreword, data, tmp_path / "a", model=weightless) == (
        f"row 41 of '{data}' has no column 'label' (found: text); rename it, or map it with --columns label=NAME."
    )


def test_one_label_only(foreword: Foreword, weightless: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", ROWS[:4])
    assert refused(foreword, data, tmp_path / "a", model=weightless) == (
        "labels good came, but a classifier needs at least two different ones; check the label column."
    )


def test_an_empty_label(foreword: Foreword, weightless: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [*ROWS, {"text": "a film", "label": None}])
    assert (
        refused(foreword, data, tmp_path / "a", model=weightless)
        == f"row 41 of '{data}': the column 'label' is empty; fill it or remove the row."
    )


def test_bytes_that_are_no_text(foreword: Foreword, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(b'{"text": "fine", "label": "a"}\n{"text": "caf\xe9", "label": "b"}\n')
    assert refused(foreword, data, tmp_path / "a") == f"'{data}' is not UTF-8 text: byte 0xe9 in line 2; save the file as UTF-8."


def test_an_adapter_that_is_there_already(foreword: Foreword, reviews: Path, trained: Path) -> None:
    assert refused(foreword, reviews, trained) == (
        f"'{trained}' already holds an adapter; choose another name, or give --force (overwrite=True) to replace it."
    )


def test_a_folder_of_other_things_is_not_replaced_even_by_force(foreword: Foreword, reviews: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.jpg").write_bytes(b"x")
    assert refused(foreword, reviews, tmp_path / "photos", "--force") == (
        f"'{tmp_path / 'photos'}' is a folder that holds files, but no foreword.json, so it is not replaced; choose another name."
    )


@pytest.mark.parametrize("name", ["..", "../..", "../my task", "a.run", ".hidden", "con.prompts"])
def test_names_that_no_adapter_may_have(foreword: Foreword, reviews: Path, tmp_path: Path, name: str) -> None:
    assert refused(foreword, reviews, tmp_path / name) == (
        f"adapter name {Path(name).name!r} cannot be used; give at most 100 letters (a to z), digits, '.', '_' or '-', "
        "beginning with a letter or digit, not ending in '.' or '.run', and no device name such as 'con'."
    )


def test_a_folder_that_cannot_be_made(foreword: Foreword, model: Path, reviews: Path) -> None:
    out = reviews / "a"
    assert refused(foreword, reviews, out, model=model) == f"'{out}.run' cannot be made (Not a directory); choose another --out."


METHOD_MISTAKES = {
    ("--method", "magic"): (
        "method 'magic' is not known; choose one of prompt-tuning, p-tuning, prefix-tuning, p-tuning-v2, "
        "lora, qlora, full, head-only, zero-shot, few-shot, or a sum like prefix-tuning+lora."
    ),
    ("--length", "0"): "num_virtual_tokens is 0, but it must be a whole number of at least 1.",
    ("--init", "magic"): (
        "initialiser 'magic' is not known; choose one of "
        "default, random, uniform, vocabulary, text, labels, mean, kv_of_text, adapter, file."
    ),
    ("--init", "file"): "initialiser 'file' needs a path; give one, for example --init file:PATH.",
    ("--init", "vocabulary", "--init-text", "x"): (
        "--init-text does not apply to --init vocabulary, which takes no text; leave one of them out, or use --init text."
    ),
    ("--layers", "some"): "--layers 'some' is not valid; use all, last:N or indices such as 0,2,5.",
    (
        "--method",
        "prompt-tuning",
        "--layers",
        "last:1",
    ): "layers 'last:1' do not apply to the input site; leave layers out, or use a method of the kv site.",
    ("--dropout", "1"): "dropout is 1.0, but it must be at least 0 and below 1; 0.1 is common.",
    ("--steps", "0"): "steps is 0, but it must be at least 1.",
    ("--tracker", "paper"): "tracker is 'paper', but it must be auto, none or a tracker's name.",
    ("--columns", "text"): "--columns 'text' cannot be read; give pairs such as text=sentence,label=y, each name once.",
    ("--columns", "text=a,text=b"): "--columns 'text=a,text=b' cannot be read; give pairs such as text=sentence,label=y, each name once.",
    (
        "--task",
        "magic",
    ): "task 'magic' is not known; choose one of classify, classify-head, multi-label, regress, generate, seq2seq, tag, qa, choice, probe.",
    ("--max-new-tokens", "5"): "--max-new-tokens does not apply to a classify task, which writes no text; leave it out.",
    ("--words", "no"): "1 label words came for 2 labels; give one word for each.",
    ("--template", "{text}"): "template '{text}' has {answer} 0 times or not last, but it must end with one {answer}; move it.",
    ("--dtype", "int3"): "dtype 'int3' is not known; choose one of auto, float32, bfloat16, float16.",
}


@pytest.mark.parametrize("options", METHOD_MISTAKES, ids=" ".join)
def test_options_that_cannot_be(foreword: Foreword, weightless: Path, reviews: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert refused(foreword, reviews, tmp_path / "a", *options, model=weightless) == METHOD_MISTAKES[options]
    assert not (tmp_path / "a.run").exists()


def test_words_for_a_writer(foreword: Foreword, weightless: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [{"input": "a", "output": "b"}] * 2)
    assert refused(foreword, data, tmp_path / "a", "--words", "x,y", model=weightless) == (
        "--words does not apply to a generate task, which has no label words; leave it out."
    )


def test_a_model_that_is_not_there(foreword: Foreword, reviews: Path, tmp_path: Path) -> None:
    message = refused(foreword, reviews, tmp_path / "a")
    assert message.startswith(f"model '{NOWHERE}' cannot be read (")
    assert message.endswith("); give a hub id or a folder with config.json.")
    assert not (tmp_path / "a.run").exists()


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "no/such/folder"])
def test_a_model_folder_that_is_not_there(foreword: Foreword, reviews: Path, tmp_path: Path, name: str) -> None:
    assert refused(foreword, reviews, tmp_path / "a", model=name) == (
        f"model '{name}' is not an existing folder; give a hub id or a folder with config.json."
    )


def test_a_device_that_is_not_there(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    message = refused(foreword, reviews, tmp_path / "a", "--device", "abacus", model=model)
    assert message.startswith("device 'abacus' cannot be used (")
    assert message.endswith("); give cpu, or a device that this machine has.")


def test_nothing_to_resume(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    run = tmp_path / "a.run"
    assert refused(foreword, reviews, tmp_path / "a", "--resume", model=model) == (
        f"'{run / 'checkpoint.pt'}' does not exist, so there is nothing to resume; train without --resume."
    )


def test_a_checkpoint_of_other_options(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    train = ("train", reviews, "--model", model, "--out", tmp_path / "a", *QUICK, "--checkpoint-every", 2)
    assert foreword(*train).exit_code == 0
    result = foreword(*train, "--resume", "--method", "p-tuning-v2")
    assert result.exit_code == 2
    assert f"foreword: error: the checkpoint in '{tmp_path / 'a.run'}' was made with another method (" in result.stderr


def test_an_unknown_label_in_other_data(foreword: Foreword, trained: Path, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [*ROWS, {"text": "a film", "label": "mixed"}])
    expected = f"row {len(ROWS) + 1} of '{data}': label 'mixed' is not one of bad, good; correct the data, or train with this label."
    assert sentence(foreword("evaluate", trained, data)) == expected
    assert refused(foreword, write(tmp_path / "train.jsonl", ROWS), tmp_path / "a", "--valid", data, model=model) == expected


def test_a_text_that_is_too_long(foreword: Foreword, trained: Path, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"text": "joy " * 200, "label": "good"}])
    for command in (("evaluate", trained, data), ("predict", trained, "--file", data)):
        message = sentence(foreword(*command))
        assert message.startswith(f"row 1 of '{data}': a text needs ")
        assert message.endswith(f" tokens with its template and answer, but 128 fit in {model}; shorten it, or pass --truncate.")
        assert foreword(*command, "--truncate").exit_code == 0


def test_a_line_that_is_too_long(foreword: Foreword, trained: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("a joy\n\n" + "joy " * 200 + "\n", "utf-8")
    assert sentence(foreword("predict", trained, "--file", lines)).startswith(f"line 3 of '{lines}': a text needs ")
    assert sentence(foreword("predict", trained, "joy " * 200)).startswith("a text needs ")


def test_another_base_model(foreword: Foreword, trained: Path, model: Path, reviews: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", hidden_size=16)
    recorded, found = (foreword("show", path, "--json").stdout for path in (trained, trained))
    assert recorded == found
    message = sentence(foreword("evaluate", trained, reviews, "--model", other))
    assert message.startswith(f"the adapter was trained on '{model}' with base model fingerprint ")
    assert f", but that of '{other}' is " in message
    assert message.endswith(f"; load the same version of '{model}', or retrain.")


def test_a_base_model_that_has_moved(foreword: Foreword, trained: Path, model: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    manifest = moved / "foreword.json"
    manifest.write_text(manifest.read_text("utf-8").replace(str(model), NOWHERE), "utf-8")
    message = sentence(foreword("predict", moved, "a joy"))
    assert message.startswith(f"model '{NOWHERE}' cannot be read (")
    assert message.endswith(
        f"); give a hub id or a folder with config.json, or say with --model where the base of adapter '{moved}' is now."
    )
    assert foreword("predict", moved, "a joy", "--model", model).exit_code == 0


@pytest.mark.parametrize("command", [("evaluate", "DATA"), ("predict", "a joy"), ("export", "--out", "OUT")], ids=lambda c: c[0])
def test_a_broken_adapter(foreword: Foreword, broken: Path, reviews: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    name, *rest = command
    size = (broken / "adapter_model.safetensors").stat().st_size
    given = [{"DATA": reviews, "OUT": tmp_path / "out"}.get(word, word) for word in rest]
    assert sentence(foreword(name, broken, *given)) == (
        f"adapter '{broken}' has {size} bytes in adapter_model.safetensors, but {size + 1} were saved; copy it again or retrain."
    )


def test_no_adapter_at_all(foreword: Foreword, tmp_path: Path) -> None:
    missing = tmp_path / "none"
    expected = f"adapter '{missing}' does not exist; give the folder that holds its foreword.json."
    assert sentence(foreword("show", missing)) == expected
    assert sentence(foreword("predict", missing, "a joy")) == expected


@pytest.mark.parametrize("words", [("train",), ("train", "--magic"), ("magic",), ("predict", "x", "--batch-size", "0")], ids=" ".join)
def test_wrong_options_are_usage_errors(foreword: Foreword, words: tuple[str, ...]) -> None:
    result = foreword(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: foreword" in result.stderr
