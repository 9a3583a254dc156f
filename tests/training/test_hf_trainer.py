"""What is trained as a model of its own: its logits, its loss and its files, inside real trainers and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from training.train_features import LABELS, METHOD_NAMES, TASK, examples, spec
from training.trained import arguments, assert_reads_alike, batch_of, moved, optimizers, refusal
from transformers import DataCollatorForSeq2Seq, Trainer

from foreword.adapters.adapter import Adapter
from foreword.backbone.batch import collate
from foreword.recipe import LoraSpec
from foreword.tasks.base import budget_for
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify
from foreword.training.hf_trainer import STATE, trainable

MODELS = ["llama", "gemma3_text"]
HEADED = HeadClassify(LABELS)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("family", MODELS)
def test_logits_and_loss_are_those_of_the_frozen_model_with_the_prompt(family: str, name: str, side: str) -> None:
    frozen = tiny.frozen(family)
    model = moved(trainable(frozen, spec(name), TASK, examples(8)))
    rows = examples(5)
    found = model(**batch_of(model, side, rows))
    train_features = [model.task.train_features(row, frozen.info, budget_for(spec(name), frozen.info))[0][0] for row in rows]
    adapter_state = model.adapter().adapter_state()
    costs = model.task.losses(frozen, adapter_state, train_features)
    assert found.loss.item() == pytest.approx(costs.losses.mean().item(), abs=1e-5)
    batch = collate([train_feature.rows[0] for train_feature in train_features], pad=tiny.PAD)
    expected = frozen.predicting(batch, adapter_state.tokens, batch.labels >= 0)
    given = batch_of(model, side, rows)
    assert found.logits.shape[:2] == given["input_ids"].shape
    assert torch.allclose(found.logits[:, :-1][given["labels"][:, 1:] >= 0], expected, atol=1e-4)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_model_whose_texts_have_no_beginning(name: str) -> None:
    """The prompt stands first in a row, whichever side is padded."""
    frozen = tiny.build("llama", bos=False)
    model = moved(trainable(frozen, spec(name), TASK, examples(8)))
    left, right = (batch_of(model, side, examples(5)) for side in ("left", "right"))
    one, other = (model(**given).logits[:, :-1][given["labels"][:, 1:] >= 0] for given in (left, right))
    assert torch.allclose(one, other, atol=1e-4)


def test_what_is_trained_is_all_there_is() -> None:
    frozen = tiny.build("llama")
    before = {name: tensor.clone() for name, tensor in frozen.network.state_dict().items()}
    model = trainable(frozen, spec("p-tuning-v2"))
    assert [name for name, _ in model.named_parameters()] == ["tuning.prompt.reparam.table"]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config is not frozen.network.config and model.device == torch.device("cpu")
    model.train()
    assert not any(module.training for module in frozen.network.modules())
    batch = dict(batch_of(model, "right", [{"input": "a", "output": "b"}]).items())
    model(**batch).loss.backward()
    assert all(torch.equal(before[key], tensor) for key, tensor in frozen.network.state_dict().items())
    assert all(parameter.grad is None for parameter in frozen.network.parameters())


@pytest.mark.parametrize("what", [spec("prefix-tuning"), spec("prompt-tuning") + LoraSpec(2)], ids=["prefix", "prompt and lora"])
def test_gradient_checkpointing_changes_no_number(what: Any) -> None:
    grads = []
    for on in (False, True):
        model = trainable(tiny.build("llama"), what, TASK, examples(8)).train()
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        assert model.is_activation_checkpointing == on == model.is_gradient_checkpointing
        model(**batch_of(model, "right", examples(4))).loss.backward()
        grads.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))  # type: ignore[union-attr]
    assert grads[0].abs().max() > 0 and torch.allclose(*grads, atol=1e-6)
    model.gradient_checkpointing_disable()
    assert not model.is_activation_checkpointing
    assert refusal(lambda: model.gradient_checkpointing_enable({"use_reentrant": True})) == (
        "gradient checkpointing with use_reentrant=True is not supported, because every layer is computed again as it is; leave it out."
    )


def test_prompt_and_lora_train_together(tmp_path: Path) -> None:
    frozen = tiny.build("llama")
    model = trainable(frozen, spec("p-tuning-v2") + LoraSpec(2), TASK, examples(16))
    trainer = Trainer(
        model,
        arguments(tmp_path),
        train_dataset=[model.features(row) for row in examples(16)],  # type: ignore[arg-type]
        data_collator=DataCollatorForSeq2Seq(tiny.tokenizer()),
        optimizers=optimizers(model),
    )
    trainer.train()
    model.save_pretrained(tmp_path / "saved")
    assert any(name.startswith("lora.") for name in Adapter.load(tmp_path / "saved").tensors)
    assert_reads_alike(model, frozen, tmp_path / "saved")


def test_saving_leaves_other_files_alone(tmp_path: Path) -> None:
    model = trainable(tiny.frozen("llama"), spec("prompt-tuning"))
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "notes.txt").write_text("keep me")
    model.save_pretrained(tmp_path)
    moved(model).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "never", is_main_process=False)
    found = sorted(entry.name for entry in tmp_path.iterdir())
    assert found == ["adapter_config.json", "adapter_model.safetensors", "checkpoint-1", "foreword.json", STATE, "notes.txt"]
    assert torch.equal(Adapter.load(tmp_path).flat, model.adapter().flat)


def test_an_adapter_of_another_task_with_the_same_words() -> None:
    model = trainable(tiny.frozen("llama"), spec("prompt-tuning"))
    assert model.adapter().task["kind"] == "generate"
    assert model.adapter(TASK).task["template"] == "{soft}{text}\nLabel: {answer}"
    assert refusal(lambda: model.adapter(Classify(LABELS, template="{text}{soft}{answer}"))) == (
        "template '{text}{soft}{answer}' does not begin with its soft tokens, but inside a trainer the prompt comes before the text; "
        "begin it with {soft}."
    )
    assert refusal(lambda: model.adapter(Generate(template="{soft}{bos}{input}{answer}"))).startswith(
        "template '{soft}{bos}{input}{answer}'"
    )
    assert refusal(lambda: model.adapter(HEADED)) == (
        "the head of this 'classify-head' task differs from the trained one; give the task that this model was made with."
    )


def test_what_cannot_be_trained_so_is_refused() -> None:
    frozen = tiny.frozen("llama")
    assert refusal(lambda: trainable(frozen, spec("prompt-tuning"), HEADED)) == (
        "a 'classify-head' task has a head, which is scaled by the states of examples, but no examples came; give some."
    )
    model = trainable(frozen, spec("prompt-tuning"), TASK)
    assert refusal(lambda: model(input_ids=torch.ones(1, 3, dtype=torch.long), attention_mask=torch.zeros(1, 3, dtype=torch.long))) == (
        "a row of the batch has no token; leave empty texts out of the data."
    )
    assert refusal(lambda: model(input_ids=torch.ones(1, 3, dtype=torch.long), labels=torch.ones(1, 4, dtype=torch.long))) == (
        "the labels have shape [1, 4], but those of task 'classify' need [1, 3] here; make them agree."
    )
    away = trainable(tiny.build("llama"), spec("prompt-tuning")).to("meta")
    assert refusal(lambda: away(input_ids=torch.ones(1, 3, dtype=torch.long))) == (
        "the trainer works on meta, but 'tiny-llama' is on cpu; load it with device='meta', or tell the trainer to use cpu."
    )
