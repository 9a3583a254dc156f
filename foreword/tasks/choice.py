"""Multiple choice: the question is read with each choice, and a head scores the pairs against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.backbone.model_info import ModelInfo
from foreword.errors import DataError
from foreword.prompts.head import Head, HeadSpec
from foreword.prompts.init import Material
from foreword.prompts.template import Row
from foreword.specs import PromptSpec
from foreword.tasks.base import EvalFeature, Example, LengthBudget, Losses, Prediction, Task, TrainFeature
from foreword.tasks.data.list_cells import cell, excerpt, parse_list
from foreword.tasks.head_task import HeadInputs, HeadTask, check_fits, check_pooling, pool, resolved, row_of
from foreword.tasks.metrics import base as metrics
from foreword.tasks.metrics.base import Score
from foreword.tasks.text_pairs import ENDLESS


@final
@dataclass(frozen=True)
class Choice(HeadTask):
    """p(choice c) = softmax over the example's choices of w·pool(states of question and c). Examples may have different numbers of choices."""

    pooling: str = "auto"
    description: str = ""
    kind: ClassVar[str] = "choice"
    metric: ClassVar[str] = "accuracy"
    target: ClassVar[str] = "label"

    def __post_init__(self) -> None:
        check_pooling(self.pooling)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("question", "choices")

    @property
    def head(self) -> HeadSpec:
        return HeadSpec(1)

    def for_model(self, info: ModelInfo, spec: PromptSpec | None) -> Task:
        super().for_model(info, spec)
        return replace(self, pooling=resolved(self.pooling, info))

    def train_features(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, dampening: float = 0.0
    ) -> tuple[list[TrainFeature], bool]:
        choices = choices_of(example)
        right = index_of(cell(example, self.target), choices)
        rows, cut = self._rows(example, choices, info, length_budget, truncate=True)
        return [TrainFeature(rows, (float(right),))], cut

    def eval_feature(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool, max_answer_tokens: int | None = None
    ) -> tuple[EvalFeature, bool]:
        choices = choices_of(example)
        rows, cut = self._rows(example, choices, info, length_budget, truncate=truncate)
        return EvalFeature(rows, choices), cut

    @staticmethod
    def _rows(
        example: Example, choices: list[str], info: ModelInfo, length_budget: LengthBudget, *, truncate: bool
    ) -> tuple[tuple[Row, ...], bool]:
        """The question with each choice; the longer of the two is cut where they do not fit."""
        rows, cut, question = [], False, cell(example, "question")
        for choice in choices:
            encoded = info.tokenizer.pair(question, choice, length_budget.max_tokens - length_budget.soft_tokens)
            if encoded.cut and not truncate:
                check_fits(encoded, len(info.tokenizer.pair(question, choice, ENDLESS).ids), info, length_budget, truncate=False)
            rows.append(row_of(encoded, info, length_budget))
            cut = cut or encoded.cut
        return tuple(rows), cut

    def head_losses(self, head: Head, train_features: Sequence[TrainFeature], inputs: HeadInputs) -> Losses:
        logits = self._logits(head, inputs, [len(train_feature.rows) for train_feature in train_features])
        targets = torch.tensor([int(train_feature.target[0]) for train_feature in train_features], device=logits.device)
        found = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return Losses(found, torch.ones_like(found), [1] * len(train_features))

    def _logits(self, head: Head, inputs: HeadInputs, sizes: Sequence[int]) -> Float[Tensor, "B C"]:
        """The head's number for each choice, -∞ where an example has fewer than others."""
        parts = list(head(pool(inputs, self.pooling))[:, 0].split(list(sizes)))
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=-float("inf"))

    def head_predictions(self, head: Head, eval_features: Sequence[EvalFeature], inputs: HeadInputs) -> list[Prediction]:
        shares = self._logits(head, inputs, [len(eval_feature.rows) for eval_feature in eval_features]).softmax(1).tolist()
        predictions = []
        for eval_feature, row in zip(eval_features, shares, strict=True):
            choices = eval_feature.notes
            best = max(range(len(choices)), key=row.__getitem__)
            found = {"label": choices[best], "index": best}
            predictions.append(Prediction(choices[best], dict(zip(choices, row, strict=False)), value=found))
        return predictions

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        right = [float(p.value["index"] == index_of(text, list(p.scores))) for p, text in zip(predictions, targets, strict=True)]
        return {"accuracy": metrics.mean(right)}

    def material(self, examples: Sequence[Example]) -> Material:
        text = self.description or "Choose the right answer to the question."
        return Material(text, (), tuple(f"{example['question']} {' '.join(choices_of(example))}" for example in examples))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


def choices_of(example: Example) -> list[str]:
    """At least two different choices; raises DataError that names the question."""
    choices = parse_list(cell(example, "choices"), "choices")
    if len(choices) < 2 or len(set(choices)) != len(choices):
        raise DataError(
            f"the question '{excerpt(cell(example, 'question'))}' has the choices {', '.join(choices) or 'none'}, but it needs at least two different ones; correct the data."
        )
    return choices


def index_of(label: str, choices: Sequence[str]) -> int:
    """Which choice a label means: the choice itself, or its number counted from 0; raises DataError for neither."""
    if label in choices:
        return choices.index(label)
    if label.isdecimal() and int(label) < len(choices):
        return int(label)
    raise DataError(f"label '{label}' is neither one of {', '.join(choices)} nor the number of one, counted from 0; correct the data.")
