"""Helpers for tests of what is trained as a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from training.train_features import LABELS, examples
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, Trainer, TrainingArguments

from foreword.adapters.adapter import Adapter
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import ForewordError
from foreword.evaluation.evaluate import Reader
from foreword.training.hf_trainer import Trainable


def moved(model: Trainable) -> Trainable:
    """The same, with numbers as if it were trained."""
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


def refusal(action: Any) -> str:
    with pytest.raises(ForewordError) as caught:
        action()
    return str(caught.value)


def assert_reads_alike(model: Trainable, frozen: FrozenModel, folder: Path) -> None:
    """The saved adapter gives the logits of the model that wrote it."""
    adapter = Adapter.load(folder)
    reader = Reader.of(frozen, adapter)
    rows = examples(6, 50)
    given = batch_of(model, "right", rows)
    train_features = [reader.task.train_features(row, frozen.info, reader.length_budget)[0][0] for row in rows]
    batch = collate([train_feature.rows[0] for train_feature in train_features], pad=tiny.PAD)
    expected = reader.model.predicting(batch, reader.adapter_state.tokens, batch.labels >= 0)
    with torch.no_grad():
        found = model.eval()(**given).logits[:, :-1][given["labels"][:, 1:] >= 0]
    assert torch.allclose(found, expected, atol=1e-4)
    assert {prediction.text for prediction in reader.predict(rows)} <= set(LABELS)
