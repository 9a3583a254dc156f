"""LoRA, prompts with LoRA, and all weights in the one training loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from training.train_features import LABELS, PLAN, TASK, examples, spec

from foreword import methods
from foreword.adapters.adapter import Adapter
from foreword.backbone.fingerprint import fingerprint_model
from foreword.backbone.loading.load_model import load
from foreword.errors import ModelError, UsageError
from foreword.evaluation.evaluate import Reader
from foreword.recipe import LoraSpec, Recipe
from foreword.tasks.head_classify import HeadClassify
from foreword.training.loop import fit

RECIPES = {
    "lora": methods.lora(4),
    "both": spec("prefix-tuning") + methods.lora(4, targets="all-linear"),
    "full": methods.full(),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("task", [TASK, HeadClassify(LABELS)], ids=["words", "head"])
def test_training_lowers_the_loss_leaves_the_base_alone_and_reads_back(name: str, task: HeadClassify, tmp_path: Path) -> None:
    model, train, valid = tiny.build("llama"), examples(16), examples(8, 100)
    before = {key: tensor.clone() for key, tensor in model.network.state_dict().items()}
    losses: list[float] = []
    plan = replace(PLAN, steps=40, learning_rate=0.005, eval_every=20, patience=9)
    result = fit(
        model,
        RECIPES[name],
        task,
        train,
        valid,
        plan,
        out=tmp_path / "out",
        listener=lambda e: losses.append(e["loss"]) if e["event"] == "step" else None,
    )
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert all(torch.equal(before[key], tensor) for key, tensor in model.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    again = Adapter.load(tmp_path / "out")
    assert again.recipe == RECIPES[name] and all(torch.equal(again.tensors[key], result.adapter.tensors[key]) for key in again.tensors)
    asked = [{"text": example["text"]} for example in valid]
    first, second = (Reader.of(reader, made).predict(asked) for reader, made in ((model, result.adapter), (tiny.build("llama"), again)))
    assert [prediction.scores for prediction in first] == [prediction.scores for prediction in second]


@pytest.mark.parametrize("name", RECIPES)
def test_killed_and_resumed_is_never_killed(name: str, tmp_path: Path) -> None:
    model, train, valid = tiny.build("llama"), examples(16), examples(8, 100)
    recipe = RECIPES[name]
    if recipe.lora is not None:
        recipe = replace(recipe, lora=replace(recipe.lora, dropout=0.2))
    whole = fit(model, recipe, TASK, train, valid, PLAN, out=tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(event: dict[str, object]) -> None:
        if event["event"] == "step" and event["step"] == 5:
            raise Killed

    with pytest.raises(Killed):
        fit(model, recipe, TASK, train, valid, PLAN, out=tmp_path / "cut", listener=kill)
    torch.manual_seed(123)
    resumed = fit(model, recipe, TASK, train, valid, PLAN, out=tmp_path / "cut", resume=True)
    assert whole.adapter.tensors.keys() == resumed.adapter.tensors.keys()
    assert all(torch.equal(whole.adapter.tensors[key], resumed.adapter.tensors[key]) for key in whole.adapter.tensors)


def test_a_prompt_on_top_of_a_saved_lora(tmp_path: Path) -> None:
    """Frozen, the LoRA's numbers stay to the last bit; else they go on from where they were. Its rank and targets are its own."""
    model, train, valid = tiny.build("llama"), examples(16), examples(8, 100)
    first = fit(model, methods.lora(2, targets=("q_proj",)), TASK, train, valid, PLAN, out=tmp_path / "first").adapter
    frozen = LoraSpec(path=str(tmp_path / "first"), frozen=True)
    second = fit(model, spec("prefix-tuning") + frozen, TASK, train, valid, PLAN, out=tmp_path / "second").adapter
    assert second.recipe.lora == LoraSpec(2, targets=("q_proj",), path=str(tmp_path / "first"), frozen=True)
    lora = {key for key in second.tensors if key.startswith("lora.")}
    assert lora == first.tensors.keys() and all(torch.equal(first.tensors[key], second.tensors[key]) for key in lora)
    moved = fit(model, spec("prefix-tuning") + replace(frozen, frozen=False), TASK, train, valid, PLAN).adapter
    assert not any(torch.equal(first.tensors[key], moved.tensors[key]) for key in lora)
    assert Reader.of(model, Adapter.load(tmp_path / "second")).predict([{"text": "good film"}])
    with pytest.raises(UsageError) as caught:
        fit(model, frozen, TASK, train, valid, PLAN)
    assert str(caught.value) == "method 'lora' trains nothing of task 'classify', which has no head; evaluate it as it is."


def test_qlora_trains_on_a_base_in_four_bits_only(tmp_path: Path) -> None:
    tiny.network("llama").save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    train, valid = examples(16), examples(8, 100)
    recipe: Recipe = methods.qlora(2)
    with pytest.raises(ModelError) as caught:
        fit(load(tmp_path / "model", device="cpu"), recipe, TASK, train, valid, PLAN)
    assert str(caught.value) == (
        f"method 'qlora' is for a base in nf4, but '{tmp_path / 'model'}' is loaded without quantisation; load it with quantize='nf4'."
    )
    model = load(tmp_path / "model", device="cpu", quantize="nf4")
    marks = model.fingerprint
    made = fit(model, recipe, TASK, train, valid, replace(PLAN, gradient_checkpointing=True), out=tmp_path / "out").adapter
    assert fingerprint_model(model.network, model.shape) == marks == made.base_fingerprint
    assert Reader.of(model, Adapter.load(tmp_path / "out")).predict([{"text": "good film"}])
