"""Multi-label classification: each label holds or does not, by a head with one output a label."""

from __future__ import annotations

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
from foreword.tasks.data.list_cells import parse_texts
from foreword.tasks.data.row_origin import map_rows
from foreword.tasks.head_task import HeadInputs, HeadTask, check_pooling, pool, resolved, row_of
from foreword.tasks.metrics.base import Score
from foreword.tasks.metrics.multilabel_metrics import set_scores
from foreword.tasks.text_pairs import encode, eval_feature, has_second_text, text_columns


@final
@dataclass(frozen=True)
class MultiLabel(HeadTask):
    """p(label | text) = σ(W·pool(states) + b), each label for itself; those of at least `threshold` are the answer, which may be none.

    The label column holds a JSON list, or labels with | between. `pair` reads a second text from the column text_b.
    """

    labels: Sequence[str]
    threshold: float = 0.5
    pair: bool = False
    pooling: str = "auto"
    bias: bool = True
    description: str = ""
    conversation: str = LAST_USER
    kind: ClassVar[str] = "multi-label"
    metric: ClassVar[str] = "micro_f1"
    target: ClassVar[str] = "label"

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        check_pooling(self.pooling)
        check_conversation(self.conversation, self.columns)
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise DataError(
                f"labels {', '.join(self.labels) or 'none'} came, but they must be different and at least one; check the label column."
            )
        if not 0.0 < self.threshold < 1.0:
            raise UsageError(f"threshold is {self.threshold}, but it must be a probability between 0 and 1.")

    @classmethod
    def of(cls, examples: Sequence[Example], **settings: Any) -> MultiLabel:
        """The task with every label that occurs in the examples, sorted, and a second text where they have one."""
        found = map_rows(examples, lambda example: parse_texts(example, cls.target))
        return cls(tuple(sorted({label for labels in found for label in labels})), **{"pair": has_second_text(examples), **settings})

    @property
    def columns(self) -> tuple[str, ...]:
        return text_columns(self.pair)

    @property
    def head(self) -> HeadSpec:
        return HeadSpec(len(self.labels), self.bias)

    def for_model(self, info: ModelInfo, spec: PromptSpec | None) -> Task:
        super().for_model(info, spec)
        return replace(self, pooling=resolved(self.pooling, info), bias=info.shape.kind != "causal")

    def train_features(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, dampening: float = 0.0
    ) -> tuple[list[TrainFeature], bool]:
        meant = parse_texts(example, self.target)
        for label in meant:
            if label not in self.labels:
                raise DataError(f"label '{label}' is not one of {', '.join(self.labels)}; correct the data, or train with this label.")
        encoded = encode(example, self.columns, info, length_budget)
        return [TrainFeature((row_of(encoded, info, length_budget),), tuple(float(label in meant) for label in self.labels))], encoded.cut

    def eval_feature(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool, max_answer_tokens: int | None = None
    ) -> tuple[EvalFeature, bool]:
        return eval_feature(example, self.columns, info, length_budget, truncate=truncate)

    def head_losses(self, head: Head, train_features: Sequence[TrainFeature], inputs: HeadInputs) -> Losses:
        logits = head(pool(inputs, self.pooling))
        targets = torch.tensor([train_feature.target for train_feature in train_features], device=logits.device)
        found = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
        return Losses(found, torch.ones_like(found), [1] * len(train_features))

    def head_predictions(self, head: Head, eval_features: Sequence[EvalFeature], inputs: HeadInputs) -> list[Prediction]:
        predictions = []
        for row in head(pool(inputs, self.pooling)).sigmoid().tolist():
            found = [label for label, share in zip(self.labels, row, strict=True) if share >= self.threshold]
            predictions.append(Prediction("|".join(found), dict(zip(self.labels, row, strict=True)), value=found))
        return predictions

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        meant = [frozenset(parse_texts({self.target: text}, self.target)) for text in targets]
        return set_scores([frozenset(p.value) for p in predictions], meant, self.labels)

    def material(self, examples: Sequence[Example]) -> Material:
        text = self.description or f"Which of these hold: {', '.join(self.labels)}?"
        return Material(text, tuple(self.labels), tuple(" ".join(example[name] for name in self.columns) for example in examples))

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        del plain["conversation"]
        return {"kind": self.kind, **plain, "labels": list(self.labels), **conversation_to_dict(self.conversation)}
