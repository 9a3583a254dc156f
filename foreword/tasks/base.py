"""What an answer means: a task turns examples into rows, and the model's outputs into predictions and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.backbone.batch import Batch
from foreword.backbone.frozen import FrozenModel, Tokens
from foreword.errors import DataError, UsageError
from foreword.prompts.init import Material
from foreword.prompts.template import Row, Template
from foreword.prompts.tokens import VirtualTokens
from foreword.specs import PromptSpec
from foreword.tasks.metrics import Score

Example = Mapping[str, str]


@dataclass(frozen=True)
class Prediction:
    """One answer: `text` is a label or generated text.

    Where the task has labels, `scores` maps each to its probability and `losses` to the nats per token of its words.
    """

    text: str
    scores: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """How a prompt reads rows: `soft` places per row (0 at the kv site) and `budget`, the most tokens a row may have."""

    soft: int
    budget: int


def reading(spec: PromptSpec, model: FrozenModel, max_length: int | None = None) -> Reading:
    """The reading of a spec on a model; a kv prefix takes its positions off the budget. Raises UsageError when nothing fits."""
    soft = spec.length if spec.site == "input" else 0
    budget = model.shape.positions - (spec.length - soft)
    if max_length is not None:
        budget = min(budget, max_length + soft)
    if budget - soft < 8:
        raise UsageError(
            f"{spec.length} virtual tokens and a text of at least 8 tokens need more than the {model.shape.positions} positions of {model.name}; use fewer."
        )
    return Reading(soft, budget)


class Task(ABC):
    """Abstract: `Classify` and `Generate` are the kinds. Immutable; `to_dict` and `task_from_dict` are inverse."""

    kind: ClassVar[str]
    metric: ClassVar[str]
    target: ClassVar[str]
    template: Template

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns an example must have to be predicted."""
        return self.template.fields

    @abstractmethod
    def answer(self, example: Example, model: FrozenModel) -> list[int]:
        """Token ids of the right answer; raises DataError for one that cannot be."""

    @abstractmethod
    def predict(self, model: FrozenModel, tokens: VirtualTokens | None, rows: Sequence[Row], batch_size: int) -> Iterator[Prediction]:
        """Predictions for question rows (rendered without an answer), in order."""

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        """Metrics with standard error and n; `metric` names the one that people read first."""

    @abstractmethod
    def monitor(self, scores: Mapping[str, Score]) -> float:
        """The number that chooses the best checkpoint, higher is better."""

    @abstractmethod
    def material(self, examples: Sequence[Example]) -> Material:
        """What initialisers may start from."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """This task as JSON."""

    @abstractmethod
    def with_template(self, template: Template) -> Task:
        """The same task, read through another template."""

    def question(self, example: Example, model: FrozenModel, how: Reading, *, truncate: bool, room: int = 0) -> tuple[Row, bool]:
        """A row without its answer, leaving `room` tokens for one; raises DataError for a text that is too long unless `truncate`."""
        row, cut = self.template.fit(example, model.tokenizer, how.soft, (), how.budget - room)
        if cut and not truncate:
            full = self.template.render(example, model.tokenizer, how.soft)
            raise DataError(
                f"a text needs {full.num_tokens + room} tokens with its template and answer, but {how.budget} fit in {model.name}; shorten it, or pass --truncate."
            )
        return row, cut

    def lesson(self, example: Example, model: FrozenModel, how: Reading, dampening: float = 0.0) -> tuple[Row, bool]:
        """A row with its answer as labels, cut to the budget; `dampening` λ adds the text's own tokens to the loss with that weight."""
        row, cut = self.template.fit(example, model.tokenizer, how.soft, self.answer(example, model), how.budget)
        if dampening:
            first = 1 if not row.at or row.at[0] > 0 else 0  # nothing stands before the very first token to predict it from
            labels = (*row.labels[:first], *row.ids[first:])
            weights = tuple(
                dampening if old < 0 <= new else weight for old, new, weight in zip(row.labels, labels, row.weights, strict=True)
            )
            row = Row(row.ids, row.at, labels, weights)
        return row, cut


def token_losses(model: FrozenModel, batch: Batch, tokens: Tokens) -> Float[Tensor, " M"]:
    """Cross-entropy of every labelled token in nats, row by row, in fp32."""
    batch = batch.to(model.device)
    select = batch.labels >= 0
    logits = model.predicting(batch, tokens, select)
    return torch.nn.functional.cross_entropy(logits.float(), batch.labels[select], reduction="none")


def parsed(template: Template | str) -> Template:
    """A template, from text if need be."""
    return Template.parse(template) if isinstance(template, str) else template


def for_site(task: Task, spec: PromptSpec) -> Task:
    """The task as a spec reads it: at the input site a template without {soft} gets it first; at the kv site a bare {soft} has no place and goes."""
    source, bos = task.template.source, task.template.bos
    if spec.site == "kv":
        return task.with_template(Template.parse(source.replace("{soft}", ""), bos=bos))
    if task.template.has_soft:
        return task
    first = "{bos}" if source.startswith("{bos}") else ""
    return task.with_template(Template.parse(first + "{soft}" + source.removeprefix("{bos}"), bos=bos))
