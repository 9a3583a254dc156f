"""Folders saved by real PEFT, imported, give PEFT's logits; what is no soft prompt is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from adapters.saving import peft_config, saved
from contract.given import TOLERANCE, distance, words
from peft import get_peft_model
from safetensors.torch import load_file

from foreword.adapters.adapter import Adapter
from foreword.adapters.peft_prompt import import_peft, read_numbers
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.prompts.template import Row, Template
from foreword.tasks.classify import Classify
from foreword.tasks.registry import task_from_dict

# PEFT 0.21.2 itself uses a name that transformers 5 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

FAMILIES = tuple(name for name in tiny.TINY if name != "deepseek_v3")
TEXTS = ([tiny.BOS, *words(2)], [tiny.BOS, *words(13)])  # the second is longer than any window


def our_logits(made: Adapter, model: FrozenModel, ids: list[int]) -> torch.Tensor:
    """Our logits with soft tokens where the imported template has them: before BOS."""
    at = (0,) * made.spec.length if made.spec.site == "input" else ()
    return model.forward(collate([Row(tuple(ids), at)]), made.tokens())[0]


@pytest.mark.parity
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["prompt", "MLP", "LSTM", "prefix", "projected prefix", "cartridge"])
def test_an_import_gives_pefts_logits(kind: str, name: str, tmp_path: Path) -> None:
    model = tiny.frozen(name)
    theirs = saved(kind, name, tmp_path)
    made = import_peft(tmp_path, model)
    made.check(model.info)
    assert torch.equal(load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"], made.flat)
    for ids in TEXTS:
        with torch.no_grad():
            truth = theirs(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0]
        assert distance(our_logits(made, model, ids), truth[-len(ids) :]) < TOLERANCE


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["prompt", "LSTM", "prefix"])
def test_a_trained_import_answers_as_in_peft(kind: str, tmp_path: Path) -> None:
    model = tiny.frozen("gpt2")
    theirs = get_peft_model(tiny.network("gpt2"), peft_config(kind, "gpt2"))
    optimizer = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=0.05)
    ids = torch.tensor([TEXTS[1]])
    for _ in range(3):
        theirs(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    theirs.eval().save_pretrained(tmp_path)
    made = import_peft(tmp_path, model, task=Classify(("good", "bad")).to_dict())
    task = task_from_dict(made.task)
    row = task.template.render({"text": "a joy"}, model.tokenizer, made.spec.length if made.spec.site == "input" else 0)
    fed = model.tokenizer.inner("a joy\nLabel:", return_tensors="pt")
    with torch.no_grad():
        truth = theirs(**fed).logits[0]
    ours = model.forward(collate([row]), made.tokens())[0]
    assert list(row.ids) == fed["input_ids"][0].tolist()
    assert distance(ours, truth[-len(ours) :]) < TOLERANCE


def test_what_an_import_remembers(tmp_path: Path) -> None:
    saved("LSTM", "llama", tmp_path)
    made = import_peft(tmp_path, tiny.frozen("llama"))
    assert (made.spec.method, made.spec.length, made.spec.window, made.spec.reparam.kind) == ("p-tuning", 4, "model", "lstm")
    assert made.task["template"] == "{soft}{bos}{input}{answer}"
    assert made.provenance == {
        "imported": {
            "peft_type": "P_TUNING",
            "base_model_name_or_path": None,
            "revision": None,
            "task_type": "CAUSAL_LM",
            "peft_version": "0.21.2",
        }
    }
    made.save(tmp_path / "ours")
    assert Adapter.load(tmp_path / "ours").provenance == made.provenance


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("{soft}{text}\nLabel: {answer}", "{soft}{bos}{text}\nLabel: {answer}"),
        ("{bos}{soft}{text}{answer}", "{soft}{bos}{text}{answer}"),
        ("{bos}Is it good? {text}{answer}", "{soft}{bos}Is it good? {text}{answer}"),
        ("{{{text}}} {answer}", "{soft}{bos}{{{text}}} {answer}"),
    ],
)
def test_a_task_given_to_an_import_keeps_pefts_order(given: str, kept: str, tmp_path: Path) -> None:
    saved("prompt", "llama", tmp_path)
    made = import_peft(tmp_path, tiny.frozen("llama"), task=Classify(("good", "bad"), Template.parse(given)).to_dict())
    assert made.task["template"] == kept
    assert task_from_dict(made.task).to_dict() == made.task


def test_a_task_without_bos_keeps_doing_without(tmp_path: Path) -> None:
    saved("prefix", "llama", tmp_path)
    task = {**Classify(("good", "bad")).to_dict(), "bos": False}
    assert import_peft(tmp_path, tiny.frozen("llama"), task=task).task["template"] == "{text}\nLabel: {answer}"


def test_an_adapter_with_a_name_lies_in_a_folder_of_that_name(tmp_path: Path) -> None:
    saved("prompt", "llama", tmp_path, adapter_name="sst2")
    assert (tmp_path / "sst2" / "adapter_config.json").is_file()
    assert import_peft(tmp_path, tiny.frozen("llama")).spec.length == 4


def test_old_files_lack_some_keys(tmp_path: Path) -> None:
    saved("prefix", "llama", tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    old = {key: config[key] for key in ("peft_type", "task_type", "num_virtual_tokens", "num_transformer_submodules", "token_dim")}
    (tmp_path / "adapter_config.json").write_text(json.dumps(old))
    assert import_peft(tmp_path, tiny.frozen("llama")).spec.method == "prefix-tuning"


def test_numbers_come_from_a_peft_folder_too(tmp_path: Path) -> None:
    saved("prompt", "llama", tmp_path)
    assert torch.equal(read_numbers(tmp_path), load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"])
