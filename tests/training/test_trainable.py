"""What is trained as a model of its own: its logits, its loss and its files, inside real trainers and by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_encoders
import torch
from datasets import Dataset
from training.lessons import LABELS, METHOD_NAMES, TASK, examples, spec
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, EvalPrediction, Trainer, TrainingArguments

from foreword.adapters.adapter import Adapter
from foreword.backbone.batch import collate
from foreword.backbone.frozen import FrozenModel
from foreword.errors import ForewordError
from foreword.evaluation.evaluate import Reader
from foreword.recipe import LoraSpec
from foreword.tasks.base import reading
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify
from foreword.training.trainable import STATE, Trainable, trainable

MODELS = ["llama", "gemma3_text"]
HEADED = HeadClassify(LABELS)


def moved(model: Trainable) -> Trainable:
    """The same, with numbers as if it had learned something."""
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    return model


def batch_of(model: Trainable, side: str, rows: list[dict[str, str]]) -> dict[str, torch.Tensor]:
    """Rows of a task as a collator pads them, on either side."""
    tokenizer = model.base.tokenizer.inner
    collator = DataCollatorForSeq2Seq(tokenizer) if model.task.head is None else DataCollatorWithPadding(tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "padding_side", side)
        return dict(collator([model.features(row) for row in rows]))


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    given = {"max_steps": 12, "per_device_train_batch_size": 4, "logging_steps": 1, "lr_scheduler_type": "constant", **changes}
    return TrainingArguments(str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **given)


def optimizers(model: Trainable, rate: float | None = 0.3) -> tuple[torch.optim.Optimizer, None]:
    return torch.optim.AdamW(model.groups(rate)), None


def losses(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("family", MODELS)
def test_logits_and_loss_are_those_of_the_frozen_model_with_the_prompt(family: str, name: str, side: str) -> None:
    frozen = tiny.frozen(family)
    model = moved(trainable(frozen, spec(name), TASK, examples(8)))
    rows = examples(5)
    found = model(**batch_of(model, side, rows))
    lessons = [model.task.lessons(row, frozen, reading(spec(name), frozen))[0][0] for row in rows]
    learned = model.adapter().learned()
    costs = model.task.losses(frozen, learned, lessons)
    assert found.loss.item() == pytest.approx(costs.losses.mean().item(), abs=1e-5)
    batch = collate([lesson.rows[0] for lesson in lessons], pad=tiny.PAD)
    expected = frozen.predicting(batch, learned.tokens, batch.labels >= 0)
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


@pytest.mark.parametrize("name", ["prompt-tuning", "prefix-tuning"])
def test_trainer_trains_it(name: str, tmp_path: Path) -> None:
    frozen = tiny.build("llama")
    before = {key: tensor.clone() for key, tensor in frozen.network.state_dict().items()}
    model = trainable(frozen, spec(name), TASK, examples(16))
    rows = [model.features(row) for row in examples(16)]
    seen: list[tuple[int, ...]] = []

    def accuracy(found: EvalPrediction) -> dict[str, float]:
        seen.append(found.predictions.shape)  # type: ignore[union-attr]
        labelled = found.label_ids[:, 1:] >= 0
        right = np.argmax(found.predictions, -1)[:, :-1][labelled] == found.label_ids[:, 1:][labelled]  # type: ignore[index,arg-type]
        return {"token_accuracy": float(right.mean())}

    trainer = Trainer(
        model,
        arguments(tmp_path / "out", max_steps=24, save_steps=12, eval_strategy="steps", eval_steps=12, load_best_model_at_end=True),
        train_dataset=rows,  # type: ignore[arg-type]
        eval_dataset=rows[:6],  # type: ignore[arg-type]
        data_collator=DataCollatorForSeq2Seq(tiny.tokenizer()),
        compute_metrics=accuracy,
        optimizers=optimizers(model),
    )
    trainer.train()
    assert sum(losses(trainer)[-4:]) < 0.9 * sum(losses(trainer)[:4])
    assert {shape[2] for shape in seen} == {320} and {shape[1] for shape in seen} == {max(len(row["labels"]) for row in rows[:6])}
    assert all(torch.equal(before[key], tensor) for key, tensor in frozen.network.state_dict().items())
    trainer.save_model(str(tmp_path / "out"))  # beside its checkpoints
    assert_reads_alike(model, frozen, tmp_path / "out")


def assert_reads_alike(model: Trainable, frozen: FrozenModel, folder: Path) -> None:
    """The saved adapter gives the logits of the model that wrote it."""
    adapter = Adapter.load(folder)
    reader = Reader.of(frozen, adapter)
    rows = examples(6, 50)
    given = batch_of(model, "right", rows)
    lessons = [reader.task.lessons(row, frozen, reader.how)[0][0] for row in rows]
    batch = collate([lesson.rows[0] for lesson in lessons], pad=tiny.PAD)
    expected = reader.model.predicting(batch, reader.learned.tokens, batch.labels >= 0)
    with torch.no_grad():
        found = model.eval()(**given).logits[:, :-1][given["labels"][:, 1:] >= 0]
    assert torch.allclose(found, expected, atol=1e-4)
    assert {prediction.text for prediction in reader.predict(rows)} <= set(LABELS)


def test_a_killed_trainer_resumes_where_it_was(tmp_path: Path) -> None:
    """The checkpoint holds the re-parameterisation too, so the run goes on as if nothing had happened."""

    def run(folder: str, steps: int, resume: bool) -> torch.Tensor:
        model = trainable(tiny.build("llama"), spec("prefix-tuning"), TASK, examples(16))
        trainer = Trainer(
            model,
            arguments(tmp_path / folder, max_steps=8, save_steps=4),
            train_dataset=[model.features(row) for row in examples(16)],  # type: ignore[arg-type]
            data_collator=DataCollatorForSeq2Seq(tiny.tokenizer()),
            optimizers=optimizers(model, None),
        )
        trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4") if resume else None)
        assert trainer.state.global_step == steps
        return model.adapter().flat

    assert torch.equal(run("whole", 8, False), run("cut", 8, True))


def test_trainer_trains_a_head(tmp_path: Path) -> None:
    for frozen in (tiny.build("llama"), tiny_encoders.build("bert")):
        model = trainable(frozen, spec("p-tuning-v2"), HEADED, examples(16))
        assert {name.split(".")[1] for name, _ in model.named_parameters()} == {"prompt", "head"}
        trainer = Trainer(
            model,
            arguments(tmp_path / frozen.name),
            train_dataset=[model.features(row) for row in examples(16)],  # type: ignore[arg-type]
            data_collator=DataCollatorWithPadding(frozen.tokenizer.inner),
            optimizers=optimizers(model, 0.03),
        )
        trainer.train()
        assert sum(losses(trainer)[-4:]) < sum(losses(trainer)[:4])
        trainer.save_model(str(tmp_path / frozen.name))
        reader, rows = Reader.of(frozen, Adapter.load(tmp_path / frozen.name)), examples(6, 50)
        with torch.no_grad():
            found = model.eval()(**batch_of(model, "left", rows)).logits.softmax(1)
        expected = torch.tensor([[prediction.scores[label] for label in LABELS] for prediction in reader.predict(rows)])
        assert torch.allclose(found, expected, atol=1e-5)


def sft(model: Trainable, folder: Path, **changes: Any) -> Any:
    """TRL's SFTTrainer, as it is, on prompts and completions."""
    from trl import SFTConfig, SFTTrainer

    rows = [{"prompt": row["text"] + "\nLabel:", "completion": " " + row["label"]} for row in examples(16)]
    given = {"max_steps": 12, "per_device_train_batch_size": 4, "logging_steps": 1, "lr_scheduler_type": "constant", **changes}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)  # TRL's own use of it
        config = SFTConfig(str(folder), report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, **given)
    data = Dataset.from_list(rows)
    return SFTTrainer(model, config, train_dataset=data, eval_dataset=data, processing_class=tiny.tokenizer(), optimizers=optimizers(model))


@pytest.mark.parametrize("name", ["p-tuning", "p-tuning-v2"])
def test_sft_trainer_trains_it(name: str, tmp_path: Path) -> None:
    frozen = tiny.build("llama")
    model = trainable(frozen, spec(name), TASK, examples(16))
    trainer = sft(model, tmp_path / "out", max_steps=16)
    trainer.train()
    assert sum(losses(trainer)[-4:]) < 0.9 * sum(losses(trainer)[:4])
    trainer.save_model(str(tmp_path / "out"))
    assert_reads_alike(model, frozen, tmp_path / "out")


@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("family", MODELS)
def test_sft_trainer_counts_tokens_right(family: str, name: str, tmp_path: Path) -> None:
    """Half the rows end with the token that the model says itself, behind the first and behind later tokens."""
    model = moved(trainable(tiny.frozen(family), spec(name), TASK, examples(8)))
    rows, costs = [], []
    for index, row in enumerate(examples(8)):
        ids = model.features(row)["input_ids"][: 1 + index % 4]
        with torch.no_grad():
            said = model(input_ids=torch.tensor([ids])).logits[0, -1]
        token = int(said.argmax() if index < 4 else said.argmin())
        rows.append({"input_ids": [*ids, token], "labels": [-100] * len(ids) + [token]})
        costs.append(-said.log_softmax(-1)[token])
    found = sft(model, tmp_path, per_device_eval_batch_size=8).evaluate(Dataset.from_list(rows))
    assert found["eval_mean_token_accuracy"] == 0.5
    assert found["eval_loss"] == pytest.approx(torch.stack(costs).mean().item(), rel=1e-5)


def test_sft_with_all_it_can_ask_for(tmp_path: Path) -> None:
    """Label smoothing and checkpointing switched off take other ways through the model."""
    with pytest.warns(FutureWarning, match="label_smoothing_factor"):
        trainer = sft(
            trainable(tiny.build("llama"), spec("prompt-tuning")), tmp_path, label_smoothing_factor=0.1, activation_checkpointing=False
        )
    trainer.train()
    assert sum(losses(trainer)[-4:]) < sum(losses(trainer)[:4])


def test_packed_rows_are_refused(tmp_path: Path) -> None:
    model = trainable(tiny.build("llama"), spec("prompt-tuning"))
    ids = torch.tensor([[1, 5, 6, 7]])
    assert refusal(lambda: model(input_ids=ids, position_ids=torch.arange(4)[None])) == (
        "the trainer passes 'position_ids', which a model with a prompt does not take; turn packing and padding_free off."
    )
    assert refusal(lambda: model.base_model(input_ids=ids, output_router_logits=True)) == (
        "the trainer passes 'output_router_logits', which a model with a prompt does not take; "
        "set router_aux_loss_coef=0.0, as a frozen router cannot be balanced."
    )
    assert model(input_ids=ids, output_attentions=False, return_dict=None).logits.shape == (1, 4, 320)


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
        "gradient checkpointing with use_reentrant=True came, but every layer is computed again as it is; leave it out."
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
        "template '{text}{soft}{answer}' does not begin with its soft tokens, but inside a trainer the prompt stands before the text; "
        "begin it with {soft}."
    )
    assert refusal(lambda: model.adapter(Generate(template="{soft}{bos}{input}{answer}"))).startswith(
        "template '{soft}{bos}{input}{answer}'"
    )
    assert refusal(lambda: model.adapter(HEADED)) == (
        "a 'classify-head' task came with another head than was trained; give the task that this model was made with."
    )


def test_what_cannot_be_trained_so_is_refused() -> None:
    frozen = tiny.frozen("llama")
    assert refusal(lambda: trainable(frozen, spec("prompt-tuning"), HEADED)) == (
        "a 'classify-head' task has a head, whose scale is that of real states, but no examples came; give some."
    )
    model = trainable(frozen, spec("prompt-tuning"), TASK)
    assert refusal(lambda: model(input_ids=torch.ones(1, 3, dtype=torch.long), attention_mask=torch.zeros(1, 3, dtype=torch.long))) == (
        "a row of the batch has no token; leave empty texts out of the data."
    )
    assert refusal(lambda: model(input_ids=torch.ones(1, 3, dtype=torch.long), labels=torch.ones(1, 4, dtype=torch.long))) == (
        "labels of shape [1, 4] came, but a task 'classify' has [1, 3] here; make them agree."
    )
    away = trainable(tiny.build("llama"), spec("prompt-tuning")).to("meta")
    assert refusal(lambda: away(input_ids=torch.ones(1, 3, dtype=torch.long))) == (
        "the trainer works on meta, but 'tiny-llama' is on cpu; load it with device='meta', or tell the trainer to use cpu."
    )


def refusal(action: Any) -> str:
    with pytest.raises(ForewordError) as caught:
        action()
    return str(caught.value)
