"""Classification of one or two texts by a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, final

import torch

from foreword.backbone.model_info import ModelInfo
from foreword.prompts.head import Head, HeadSpec
from foreword.prompts.init import Material
from foreword.specs import PromptSpec
from foreword.tasks.base import EvalFeature, Example, LengthBudget, Losses, Prediction, Task, TrainFeature
from foreword.tasks.conversation import LAST_USER, check_conversation
from foreword.tasks.conversation import to_dict as conversation_to_dict
from foreword.tasks.head_task import HeadInputs, HeadTask, check_pooling, pool, resolved, row_of
from foreword.tasks.labels import check_labels, index_of, labels_in
from foreword.tasks.metrics import base as metrics
from foreword.tasks.metrics.base import Score
from foreword.tasks.metrics.label_metrics import macro_f1
from foreword.tasks.text_pairs import encode, eval_feature, has_second_text, text_columns


@final
@dataclass(frozen=True)
class HeadClassify(HeadTask):
    """p(label | text) = softmax(W·pool(states) + b); `pair` reads a second text from the column text_b.

    `pooling`: "first" ([CLS]), "last", "mean", or what the model's kind asks for. Heads of causal models have no bias, as transformers' have none.
    """

    labels: Sequence[str]
    pair: bool = False
    pooling: str = "auto"
    bias: bool = True
    description: str = ""
    conversation: str = LAST_USER
    kind: ClassVar[str] = "classify-head"
    metric: ClassVar[str] = "accuracy"
    target: ClassVar[str] = "label"

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        check_pooling(self.pooling)
        check_conversation(self.conversation, self.columns)
        check_labels(self.labels)

    @classmethod
    def of(cls, examples: Sequence[Example], **settings: Any) -> HeadClassify:
        """The task with every label of the examples, sorted, and a second text where they have one."""
        return cls(labels_in(examples, cls.target), **{"pair": has_second_text(examples), **settings})

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
        label = index_of(example.get(self.target), self.labels)
        encoded = encode(example, self.columns, info, length_budget)
        return [TrainFeature((row_of(encoded, info, length_budget),), (float(label),))], encoded.cut

    def eval_feature(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool, max_answer_tokens: int | None = None
    ) -> tuple[EvalFeature, bool]:
        return eval_feature(example, self.columns, info, length_budget, truncate=truncate)

    def head_losses(self, head: Head, train_features: Sequence[TrainFeature], inputs: HeadInputs) -> Losses:
        logits = head(pool(inputs, self.pooling))
        targets = torch.tensor([int(train_feature.target[0]) for train_feature in train_features], device=logits.device)
        found = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return Losses(found, torch.ones_like(found), [1] * len(train_features))

    def head_predictions(self, head: Head, eval_features: Sequence[EvalFeature], inputs: HeadInputs) -> list[Prediction]:
        logs = head(pool(inputs, self.pooling)).log_softmax(1).cpu()
        found = []
        for best, costs, shares in zip(logs.argmax(1).tolist(), (-logs).tolist(), logs.exp().tolist(), strict=True):
            costs, shares = (dict(zip(self.labels, row, strict=True)) for row in (costs, shares))
            found.append(Prediction(self.labels[int(best)], shares, costs))
        return found

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        predicted = [p.text for p in predictions]
        return {"accuracy": metrics.accuracy(predicted, targets), "macro_f1": macro_f1(predicted, targets)}

    def material(self, examples: Sequence[Example]) -> Material:
        text = self.description or f"Classify the text as {', '.join(self.labels[:-1])} or {self.labels[-1]}."
        return Material(text, tuple(self.labels), tuple(" ".join(example[name] for name in self.columns) for example in examples))

    def to_dict(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "conversation"}
        return {"kind": self.kind, **plain, "labels": list(self.labels), **conversation_to_dict(self.conversation)}
