"""Tasks whose answers are words: a template turns an example into text, and the answer comes from the model's own output matrix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.batch import Batch, collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.backbone.model_inputs import Tokens
from foreword.errors import DataError, ModelError, UsageError
from foreword.prompts.template import Row, Template
from foreword.specs import PromptSpec
from foreword.tasks.base import EvalFeature, Example, LengthBudget, Losses, Task, TrainFeature
from foreword.tasks.data.list_cells import check_texts


class TemplateTask(Task):
    """Abstract: `Classify` by label words and `Generate` are of this kind."""

    template: Template
    takes_shots: ClassVar[bool] = False  # whether a written prompt can contain examples with answers

    @property
    def columns(self) -> tuple[str, ...]:
        return self.template.fields

    @property
    def max_answer_tokens(self) -> int:
        """Maximum number of tokens of a generated answer; 0 if answers are not generated."""
        return 0

    @abstractmethod
    def answer(self, example: Example, info: ModelInfo) -> list[int]:
        """Token ids of the right answer; raises DataError for an invalid one."""

    @abstractmethod
    def with_template(self, template: Template) -> TemplateTask:
        """The same task with another template."""

    def shot_answer(self, example: Example) -> str:
        """The right answer in the model's words, after an example in a written prompt."""
        return example[self.target]

    def for_model(self, info: ModelInfo, spec: PromptSpec | None) -> Task:
        if info.shape.kind == "encoder":
            raise ModelError(
                f"task '{self.kind}' needs a model that writes words, but {info.name} is an encoder; use a task with a head, or a causal model."
            )
        if info.shape.kind == "encoder-decoder" and self.max_answer_tokens + len(info.answer_opening) > info.shape.positions:
            raise UsageError(
                f"max_new_tokens is {self.max_answer_tokens}, but {info.name} has {info.shape.positions} positions for an answer and its opening tokens; ask for fewer."
            )
        return for_site(self, spec)

    def answer_length(self, example: Example, info: ModelInfo) -> int:
        return len(self.answer(example, info))

    def train_features(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, dampening: float = 0.0
    ) -> tuple[list[TrainFeature], bool]:
        row, cut = self.train_row(example, info, length_budget, dampening)
        return [TrainFeature((row,), weight=sum(row.weights))], cut

    def eval_feature(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool, max_answer_tokens: int | None = None
    ) -> tuple[EvalFeature, bool]:
        row, cut = self.eval_row(
            example,
            info,
            length_budget,
            truncate=truncate,
            max_answer_tokens=self.max_answer_tokens if max_answer_tokens is None else max_answer_tokens,
        )
        return EvalFeature((row,)), cut

    def losses(self, model: FrozenModel, adapter_state: AdapterState, train_features: Sequence[TrainFeature]) -> Losses:
        batch = collate([row for train_feature in train_features for row in train_feature.rows], pad=model.tokenizer.pad).to(model.device)
        select = batch.labels >= 0
        return Losses(token_losses(model, batch, adapter_state.tokens), batch.weights[select], select.sum(1).tolist())

    def eval_row(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool, max_answer_tokens: int = 0
    ) -> tuple[Row, bool]:
        """A row without its answer, with `max_answer_tokens` positions left for it on causal models; raises DataError for a text that is too long unless `truncate`."""
        check_texts(example, self.columns)
        max_answer_tokens = 0 if info.shape.kind == "encoder-decoder" else max_answer_tokens
        if max_answer_tokens >= length_budget.max_tokens:
            raise DataError(
                f"an answer of {max_answer_tokens} tokens leaves none for a text, because {length_budget.max_tokens} fit in {info.name}; ask for fewer."
            )
        row, cut = self.template.fit(example, info.tokenizer, length_budget.soft_tokens, (), length_budget.max_tokens - max_answer_tokens)
        if cut and not truncate:
            full = self.template.render(example, info.tokenizer, length_budget.soft_tokens)
            raise DataError(
                f"a text needs {full.num_tokens + max_answer_tokens} tokens with its template and answer, "
                f"but {length_budget.max_tokens} fit in {info.name}; shorten it.",
                option="truncate",
            )
        return row, cut

    def train_row(self, example: Example, info: ModelInfo, length_budget: LengthBudget, dampening: float = 0.0) -> tuple[Row, bool]:
        """A row with its answer as labels, cut to the budget; `dampening` λ adds the text's own tokens to the loss with that weight."""
        check_texts(example, self.columns)
        answer = self.answer(example, info)
        apart = len(answer) if info.shape.kind == "encoder-decoder" else 0
        if apart and dampening:
            raise UsageError(
                f"dampening is {dampening}, but {info.name} is an encoder–decoder, which never predicts its source; leave it at 0."
            )
        if apart and apart + len(info.answer_opening) - 1 > info.shape.positions:
            raise DataError(f"an answer has {apart} tokens, but {info.name} has {info.shape.positions} positions for it; shorten it.")
        row, cut = self.template.fit(example, info.tokenizer, length_budget.soft_tokens, answer, length_budget.max_tokens + apart)
        if dampening:
            first = 1 if not row.at or row.at[0] > 0 else 0  # no token before the first one predicts it
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


def for_site(task: TemplateTask, spec: PromptSpec | None) -> Any:
    """The task for a spec: at the input site a template without {soft} gets it in front; at the kv site a bare {soft} is removed."""
    source, bos = task.template.source, task.template.bos
    if spec is None or spec.site == "kv":
        return task.with_template(Template.parse(source.replace("{soft}", ""), bos=bos))
    if task.template.has_soft:
        return task
    first = "{bos}" if source.startswith("{bos}") else ""
    return task.with_template(Template.parse(first + "{soft}" + source.removeprefix("{bos}"), bos=bos))
