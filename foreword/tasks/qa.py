"""Extractive question answering: a head scores each token of the context as the begin or end of the answer (SQuAD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.backbone.model_info import ModelInfo
from foreword.errors import DataError, UsageError
from foreword.prompts.head import Head, HeadSpec
from foreword.prompts.init import Material
from foreword.tasks.base import EvalFeature, Example, LengthBudget, Losses, Prediction, TrainFeature
from foreword.tasks.data.list_cells import cell, excerpt
from foreword.tasks.data.row_origin import map_rows
from foreword.tasks.data.squad_answers import checked_answers, parse_answers
from foreword.tasks.doc_stride import Window, windows
from foreword.tasks.head_task import HeadInputs, HeadTask
from foreword.tasks.metrics.base import Score
from foreword.tasks.metrics.squad_metrics import answer_scores

_Span = tuple[float, int, int]  # log-odds, first and last character


@final
@dataclass(frozen=True)
class QA(HeadTask):
    """p(begin), p(end) = softmax over the context's tokens and one that means "not here": [CLS], or the last token of a causal model.

    The question stands before the context, so that a causal model reads the context knowing it. A context that does not fit is read in windows
    that overlap by `overlap` tokens; its answer is the span of at most `max_answer` tokens whose log-odds against "not here" are highest. If
    `unanswerable`, log-odds of at most `threshold` give the empty answer (Rajpurkar et al. 2018, arXiv:1806.03822).
    """

    unanswerable: bool = False
    threshold: float = 0.0
    overlap: int = 128
    max_answer: int = 30
    description: str = ""
    kind: ClassVar[str] = "qa"
    metric: ClassVar[str] = "f1"
    target: ClassVar[str] = "answers"

    def __post_init__(self) -> None:
        if self.overlap < 0 or self.max_answer < 1:
            raise UsageError(f"overlap {self.overlap} and max_answer {self.max_answer} came, but they must be at least 0 and 1.")

    @classmethod
    def of(cls, examples: Sequence[Example], **settings: Any) -> QA:
        """The task, with unanswerable questions if there are any among the examples."""
        return cls(not all(map_rows(examples, lambda example: parse_answers(cell(example, cls.target)))), **settings)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("question", "context")

    @property
    def head(self) -> HeadSpec:
        return HeadSpec(2)

    def train_features(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, dampening: float = 0.0
    ) -> tuple[list[TrainFeature], bool]:
        """One train feature per window; if a window does not contain the whole first answer, its target is "not here"."""
        spans = checked_answers(example)
        if not spans and not self.unanswerable:
            raise DataError(
                f"the question '{excerpt(example['question'])}' has no answer, but this task is for questions that have one; remove it, or set unanswerable."
            )
        found = []
        for window in self._windows(example, info, length_budget):
            places = window.places(*spans[0]) if spans else None
            begin, end = places or (window.null, window.null)
            found.append(TrainFeature((window.row,), (float(begin), float(end))))
        return found, False

    def eval_feature(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool, max_answer_tokens: int | None = None
    ) -> tuple[EvalFeature, bool]:
        parts = self._windows(example, info, length_budget)
        return EvalFeature(tuple(window.row for window in parts), (cell(example, "context"), parts)), False

    def _windows(self, example: Example, info: ModelInfo, length_budget: LengthBudget) -> list[Window]:
        return windows(cell(example, "question"), cell(example, "context"), info, length_budget, self.overlap)

    def head_losses(self, head: Head, train_features: Sequence[TrainFeature], inputs: HeadInputs) -> Losses:
        logs = _logits(head, inputs).log_softmax(1)
        pads = torch.tensor([logs.shape[1] - len(train_feature.rows[0].ids) for train_feature in train_features])
        places = (torch.tensor([train_feature.target for train_feature in train_features]).long() + pads[:, None]).to(logs.device)
        found = -logs.gather(1, places[:, None]).mean((1, 2))
        return Losses(found, torch.ones_like(found), [1] * len(train_features))

    def head_predictions(self, head: Head, eval_features: Sequence[EvalFeature], inputs: HeadInputs) -> list[Prediction]:
        logits = _logits(head, inputs).cpu()
        predictions, row = [], 0
        for eval_feature in eval_features:
            context, parts = eval_feature.notes
            found = logits[row : row + len(parts)]
            row += len(parts)
            best = max(self._best(window, each[len(each) - len(window.row.ids) :]) for window, each in zip(parts, found, strict=True))
            predictions.append(self._answer(context, best))
        return predictions

    def _answer(self, context: str, best: _Span) -> Prediction:
        odds, first, last = best
        text = "" if self.unanswerable and odds <= self.threshold else context[first:last].strip()
        return Prediction(text, value={"answer": text, "start": context.find(text, first) if text else None, "log_odds": odds})

    def _best(self, window: Window, logits: Float[Tensor, "T 2"]) -> _Span:
        """The likeliest answer of a window: its log-odds against "not here", and its characters."""
        starts, ends = logits[window.begin : window.end].T
        best = (-float("inf"), 0, 0)
        for more in range(min(self.max_answer, len(starts))):
            sums = starts[: len(starts) - more] + ends[more:]
            place = int(sums.argmax())
            best = max(best, (float(sums[place]), place, place + more))
        value, first, last = best
        return value - float(logits[window.null].sum()), window.spans[first][0], window.spans[last][1]

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        found = answer_scores([p.text for p in predictions], [[answer.text for answer in parse_answers(text)] for text in targets])
        return {"f1": found["f1"], "exact_match": found["exact_match"]}

    def material(self, examples: Sequence[Example]) -> Material:
        text = self.description or "Find the words of the context that answer the question."
        return Material(text, (), tuple(" ".join(example[name] for name in self.columns) for example in examples))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


def _logits(head: Head, inputs: HeadInputs) -> Float[Tensor, "R T 2"]:
    """Logits of begin and end at every token, -∞ at tokens that cannot be in an answer."""
    return head(inputs.states).masked_fill((inputs.labels < 0)[:, :, None], -float("inf"))
