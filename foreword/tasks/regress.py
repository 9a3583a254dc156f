"""Regression: a number for one or two texts, by a head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, final

import torch

from foreword.backbone.model_info import ModelInfo
from foreword.errors import DataError, UsageError
from foreword.prompts.head import Head, HeadSpec
from foreword.prompts.init import Material
from foreword.specs import PromptSpec
from foreword.tasks.base import EvalFeature, Example, LengthBudget, Losses, Prediction, Task, TrainFeature
from foreword.tasks.conversation import LAST_USER, check_conversation
from foreword.tasks.conversation import to_dict as conversation_to_dict
from foreword.tasks.data.list_cells import cell
from foreword.tasks.data.row_origin import map_rows
from foreword.tasks.head_task import HeadInputs, HeadTask, check_pooling, pool, resolved, row_of
from foreword.tasks.metrics.base import Score
from foreword.tasks.metrics.regression_metrics import number_scores
from foreword.tasks.text_pairs import encode, eval_feature, has_second_text, text_columns


@final
@dataclass(frozen=True)
class Regress(HeadTask):
    """number = center + spread · (W·pool(states) + b), trained with half the squared error in units of `spread`.

    `Regress.of(examples)` takes center, spread and pair from them; `pair` reads a second text from the column text_b.
    """

    center: float = 0.0
    spread: float = 1.0
    pair: bool = False
    pooling: str = "auto"
    bias: bool = True
    description: str = ""
    conversation: str = LAST_USER
    kind: ClassVar[str] = "regress"
    metric: ClassVar[str] = "pearson"
    target: ClassVar[str] = "label"

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        check_conversation(self.conversation, self.columns)
        if not (math.isfinite(self.center) and math.isfinite(self.spread) and self.spread > 0):
            raise UsageError(f"center {self.center} and spread {self.spread} came, but both must be numbers and spread above 0.")

    @classmethod
    def of(cls, examples: Sequence[Example], **settings: Any) -> Regress:
        """The task with the mean and the standard deviation of these labels; raises DataError where they are all the same."""
        numbers = map_rows(examples, lambda example: number(example, cls.target))
        center = sum(numbers) / max(len(numbers), 1)
        spread = math.sqrt(sum((n - center) ** 2 for n in numbers) / max(len(numbers), 1))
        if spread == 0:
            raise DataError(f"all {len(numbers)} labels are the same number, so there is nothing to learn; check the label column.")
        return cls(center, spread, **{"pair": has_second_text(examples), **settings})

    @property
    def columns(self) -> tuple[str, ...]:
        return text_columns(self.pair)

    @property
    def head(self) -> HeadSpec:
        return HeadSpec(1, self.bias)

    def for_model(self, info: ModelInfo, spec: PromptSpec | None) -> Task:
        super().for_model(info, spec)
        return replace(self, pooling=resolved(self.pooling, info), bias=info.shape.kind != "causal")

    def train_features(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, dampening: float = 0.0
    ) -> tuple[list[TrainFeature], bool]:
        target = (number(example, self.target) - self.center) / self.spread
        encoded = encode(example, self.columns, info, length_budget)
        return [TrainFeature((row_of(encoded, info, length_budget),), (target,))], encoded.cut

    def eval_feature(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool, max_answer_tokens: int | None = None
    ) -> tuple[EvalFeature, bool]:
        return eval_feature(example, self.columns, info, length_budget, truncate=truncate)

    def head_losses(self, head: Head, train_features: Sequence[TrainFeature], inputs: HeadInputs) -> Losses:
        found = head(pool(inputs, self.pooling))[:, 0]
        targets = torch.tensor([train_feature.target[0] for train_feature in train_features], device=found.device)
        errors = (found - targets).square() / 2
        return Losses(errors, torch.ones_like(errors), [1] * len(train_features))

    def head_predictions(self, head: Head, eval_features: Sequence[EvalFeature], inputs: HeadInputs) -> list[Prediction]:
        values = [self.center + self.spread * unit for unit in head(pool(inputs, self.pooling))[:, 0].tolist()]
        return [Prediction(f"{value:.4g}", value=value) for value in values]

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        return number_scores([p.value for p in predictions], [number({self.target: text}, self.target) for text in targets])

    def material(self, examples: Sequence[Example]) -> Material:
        text = self.description or "How much? Rate the text with a number."
        return Material(text, (), tuple(" ".join(example[name] for name in self.columns) for example in examples))

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        del plain["conversation"]
        return {"kind": self.kind, **plain, **conversation_to_dict(self.conversation)}


def number(example: Example, column: str) -> float:
    """A cell as a finite number; raises DataError for anything else."""
    text = cell(example, column)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"'{column}' is '{text}', but regression needs a finite number; correct the data, or classify instead.")
    return value
