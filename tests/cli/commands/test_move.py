"""`foreword import` and `export`: to PEFT's folders and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapters.making import adapter
from cli.given import QUICK, Foreword, write

from foreword.adapters.safetensors_file import KEY
from foreword.backbone.loading.load_model import load
from foreword.backbone.weights.lora import attach
from foreword.recipe import LoraSpec, Recipe


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, foreword: Foreword, model: Path, reviews: Path) -> Path:
    """A prefix, trained and exported; beside it the adapter it came from."""
    folder = tmp_path_factory.mktemp("move")
    train = ("train", reviews, "--model", model, "--out", folder / "adapter", *QUICK, "--method", "p-tuning-v2")
    assert foreword(*train).exit_code == 0
    result = foreword("export", folder / "adapter", "--out", folder / "peft")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"{folder / 'peft'}: PREFIX_TUNING"
    return folder / "peft"


def test_there_and_back_answers_alike(foreword: Foreword, exported: Path, model: Path, reviews: Path, tmp_path: Path) -> None:
    options = ("--labels", "bad,good", "--json")
    result = foreword("import", exported, "--model", model, "--out", tmp_path / "back", *options)
    found = json.loads(result.stdout)
    assert {key: found[key] for key in ("adapter", "task", "num_parameters")} == {
        "adapter": str(tmp_path / "back"),
        "task": "classify",
        "num_parameters": 4 * 2 * 64,
    }
    predict = ("--file", reviews, "--json")
    assert foreword("predict", tmp_path / "back", *predict).stdout == foreword("predict", exported.parent / "adapter", *predict).stdout


def test_without_a_word_on_the_task_it_writes_on(foreword: Foreword, exported: Path, model: Path, tmp_path: Path) -> None:
    result = foreword("import", exported, "--model", model, "--out", tmp_path / "bare")
    assert result.stdout == (
        f"{tmp_path / 'bare'}: prefix-tuning, 4 virtual tokens, 512 numbers\nNext:\n  foreword show {tmp_path / 'bare'}\n"
    )
    assert "template      ⟨bos⟩{input}{answer}\n" in foreword("show", tmp_path / "bare").stdout
    assert foreword("predict", tmp_path / "bare", "a joy").exit_code == 0


def test_a_prompt_behind_bos_is_exported_through_its_model(foreword: Foreword, trained: Path, model: Path, tmp_path: Path) -> None:
    alone = foreword("export", trained, "--out", tmp_path / "peft")
    assert alone.exit_code == 2
    assert alone.stderr == (
        "foreword: error: the adapter's prompt comes after the beginning-of-sequence token or other text, "
        "so its export to PEFT needs a forward pass of the base model; give --model.\n"
    )
    result = foreword("export", trained, "--out", tmp_path / "peft", "--model", model, "--json")
    found = json.loads(result.stdout)
    assert (found["adapter"], found["folder"], found["peft_type"]) == (str(trained), str(tmp_path / "peft"), "PREFIX_TUNING")


def test_keys_and_values_as_a_cartridge(foreword: Foreword, exported: Path, trained: Path, model: Path, tmp_path: Path) -> None:
    result = foreword("export", exported.parent / "adapter", "--out", tmp_path / "peft", "--as", "cartridge")
    assert result.stdout.splitlines()[0] == f"{tmp_path / 'peft'}: CARTRIDGE"
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["peft_type"] == "CARTRIDGE"
    back = foreword("import", tmp_path / "peft", "--model", model, "--out", tmp_path / "back")
    assert (back.exit_code, back.stdout.splitlines()[0]) == (0, f"{tmp_path / 'back'}: prefix-tuning, 4 virtual tokens, 512 numbers")
    result = foreword("export", trained, "--out", tmp_path / "compiled", "--model", model, "--as", "cartridge")
    assert result.stdout.splitlines()[0] == f"{tmp_path / 'compiled'}: CARTRIDGE"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--task", "classify"], "task 'classify' came without --labels; only a classifier has labels; add or remove them."),
        (
            ["--task", "generate", "--labels", "a,b"],
            "task 'generate' came with --labels; only a classifier has labels; add or remove them.",
        ),
        (["--labels", "a"], "labels a came, but a classifier needs at least two different ones; check the label column."),
    ],
)
def test_tasks_that_cannot_be(foreword: Foreword, exported: Path, tmp_path: Path, options: list[str], sentence: str) -> None:
    result = foreword("import", exported, "--model", "nowhere/model", "--out", tmp_path / "a", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"foreword: error: {sentence}\n")


def test_an_adapter_is_no_peft_folder_and_is_not_replaced(
    foreword: Foreword, exported: Path, trained: Path, model: Path, tmp_path: Path
) -> None:
    result = foreword("import", trained, "--model", model, "--out", tmp_path / "a")
    assert result.stderr == f"foreword: error: '{trained}' is already an adapter of Foreword; use it as it is.\n"
    adapter = exported.parent / "adapter"
    result = foreword("export", adapter, "--out", trained, "--force")
    assert result.stderr == f"foreword: error: '{trained}' holds a Foreword adapter, which would be lost; choose another folder.\n"
    there = foreword("import", exported, "--model", "nowhere/model", "--out", adapter)
    assert there.stderr == (
        f"foreword: error: '{adapter}' already holds an adapter; choose another name, or give --force (overwrite=True) to replace it.\n"
    )


def test_a_folder_of_something_else(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    write(tmp_path / "data.jsonl", [])
    result = foreword("import", tmp_path, "--model", model, "--out", tmp_path / "a")
    assert result.stderr == f"foreword: error: '{tmp_path}' has no adapter_config.json; give a folder that PEFT saved.\n"


def test_lora_goes_out_and_comes_in_and_beside_a_prompt_becomes_two_folders(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    """Adapters made in Python: what the commands do with them is the same whoever trained them."""
    made, frozen = adapter("llama", "prefix-tuning", template="{text}\nLabel: {answer}", window="model"), load(model, device="cpu")
    lora = attach(frozen, LoraSpec(2))[1].state()
    marks = {"shape": frozen.shape, "base": frozen.name, "base_fingerprint": frozen.fingerprint}
    marks["tokenizer_fingerprint"] = frozen.tokenizer_fingerprint
    alone = replace(made, recipe=Recipe("lora", lora=LoraSpec(2)), tensors=lora, **marks)
    alone.save(tmp_path / "alone")
    result = foreword("export", tmp_path / "alone", "--out", tmp_path / "peft")
    assert result.stdout.startswith(f"{tmp_path / 'peft'}: LORA\nGive PEFT the text")
    result = foreword("import", tmp_path / "peft", "--model", model, "--out", tmp_path / "back")
    assert result.stdout == f"{tmp_path / 'back'}: lora, {alone.num_parameters} numbers\nNext:\n  foreword show {tmp_path / 'back'}\n"
    prompt = torch.zeros(4, made.spec.width(frozen.shape))
    both = replace(alone, recipe=made.recipe + LoraSpec(2), tensors={KEY: prompt} | lora)
    both.save(tmp_path / "both")
    result = foreword("export", tmp_path / "both", "--out", tmp_path / "two", "--json")
    found = json.loads(result.stdout)
    assert [(part["folder"], part["peft_type"]) for part in found["folders"]] == [
        (str(tmp_path / "two" / "prompt"), "PREFIX_TUNING"),
        (str(tmp_path / "two" / "lora"), "LORA"),
    ]
