"""What is trained as a model of its own, inside transformers' Trainer and TRL's SFTTrainer."""

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
from training.train_features import LABELS, METHOD_NAMES, TASK, examples, spec
from training.trained import arguments, assert_reads_alike, batch_of, losses, moved, optimizers, refusal
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, EvalPrediction, Trainer

from foreword.adapters.adapter import Adapter
from foreword.evaluation.evaluate import Reader
from foreword.tasks.head_classify import HeadClassify
from foreword.training.hf_trainer import Trainable, trainable

MODELS = ["llama", "gemma3_text"]
HEADED = HeadClassify(LABELS)


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
        "the trainer passes 'position_ids', which a model with a prompt does not accept; turn packing and padding_free off."
    )
    assert refusal(lambda: model.base_model(input_ids=ids, output_router_logits=True)) == (
        "the trainer passes 'output_router_logits', which a model with a prompt does not accept; "
        "set router_aux_loss_coef=0.0, as a frozen router cannot be balanced."
    )
    assert model(input_ids=ids, output_attentions=False, return_dict=None).logits.shape == (1, 4, 320)
