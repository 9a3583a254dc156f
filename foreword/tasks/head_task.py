"""Tasks with a head: a linear layer on the frozen model's states answers, without label words (P-tuning v2, Liu et al. 2022, arXiv:2110.07602)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.backbone.model_inputs import Tokens
from foreword.backbone.token_alignment import Encoded
from foreword.errors import DataError, ModelError, UsageError
from foreword.prompts.head import Head
from foreword.prompts.template import Row
from foreword.specs import PromptSpec
from foreword.tasks.base import EvalFeature, LengthBudget, Losses, Prediction, Task, TrainFeature

Pooling = str  # one of POOLINGS
POOLINGS = ("auto", "first", "last", "mean")


class HeadTask(Task):
    """Abstract: a task with a head, on encoders and on causal models."""

    def for_model(self, info: ModelInfo, spec: PromptSpec | None) -> Task:
        if info.shape.kind == "encoder-decoder":
            raise ModelError(
                f"task '{self.kind}' needs a model of one stack, but {info.name} is an encoder–decoder; "
                "use task 'classify' or 'seq2seq', or an encoder or causal model."
            )
        return self

    @abstractmethod
    def head_predictions(self, head: Head, eval_features: Sequence[EvalFeature], inputs: HeadInputs) -> list[Prediction]:
        """Predictions from the states of the eval features' rows, in order."""

    @abstractmethod
    def head_losses(self, head: Head, train_features: Sequence[TrainFeature], inputs: HeadInputs) -> Losses:
        """The losses of train features in fp32 from the states of their rows, in order."""

    def losses(self, model: FrozenModel, adapter_state: AdapterState, train_features: Sequence[TrainFeature]) -> Losses:
        return self.head_losses(
            adapter_state.needed_head(), train_features, read_inputs(model, adapter_state.tokens, _rows(train_features))
        )

    def predict(
        self, model: FrozenModel, adapter_state: AdapterState, eval_features: Sequence[EvalFeature], batch_size: int
    ) -> Iterator[Prediction]:
        for part in _runs(eval_features, batch_size):
            with torch.inference_mode():  # around the computation only, so that the caller of the generator keeps its own mode
                found = self.head_predictions(adapter_state.needed_head(), part, _in_batches(model, adapter_state, _rows(part), batch_size))
            yield from found

    def predict_with_losses(
        self, model: FrozenModel, adapter_state: AdapterState, asked: Sequence[tuple[EvalFeature, Sequence[TrainFeature]]], batch_size: int
    ) -> Iterator[tuple[Prediction, list[float]]]:
        """For each eval feature its prediction and the mean losses of its train features, which have the same rows: one pass gives both."""
        head, remaining = adapter_state.needed_head(), iter([train_features for _, train_features in asked])
        for part in _runs([eval_feature for eval_feature, _ in asked], batch_size):
            mine = [next(remaining) for _ in part]
            every = [train_feature for train_features in mine for train_feature in train_features]
            with torch.inference_mode():
                inputs = _in_batches(model, adapter_state, _rows(every), batch_size)
                answers, losses = self.head_predictions(head, part, inputs), self.head_losses(head, every, inputs)
                means = iter([float(one.mean()) for one in losses.losses.cpu().split(losses.sizes)])
            yield from zip(answers, ([next(means) for _ in train_features] for train_features in mine), strict=True)


@dataclass(frozen=True)
class HeadInputs:
    """What a head reads: the frozen model's last hidden states of rows at their own tokens, the mask of real tokens, and labels (-100: none)."""

    states: Float[Tensor, "R T H"]
    mask: Bool[Tensor, "R T"]
    labels: Int[Tensor, "R T"]

    @classmethod
    def concatenate(cls, parts: Sequence[HeadInputs]) -> HeadInputs:
        """The rows of all parts, padded on the left to one width."""
        if len(parts) == 1:
            return parts[0]
        width = max(part.mask.shape[1] for part in parts)

        def padded(name: str, value: float) -> Tensor:
            tensors: list[Tensor] = [getattr(part, name) for part in parts]
            return torch.cat([pad(tensor, (0, 0) * (tensor.ndim - 2) + (width - tensor.shape[1], 0), value=value) for tensor in tensors])

        return cls(padded("states", 0), padded("mask", False), padded("labels", -100))

    def select(self, rows: Sequence[int]) -> HeadInputs:
        """Some of the rows; a view where they are consecutive."""
        consecutive = list(rows) == list(range(rows[0], rows[0] + len(rows)))
        index = slice(rows[0], rows[-1] + 1) if consecutive else torch.tensor(rows, device=self.mask.device)
        return HeadInputs(self.states[index], self.mask[index], self.labels[index])


def read_inputs(model: FrozenModel, tokens: Tokens, rows: Sequence[Row]) -> HeadInputs:
    """The head's inputs for rows, all with the same virtual tokens or each with its own."""
    batch = collate(rows, pad=model.tokenizer.pad).to(model.device)
    return HeadInputs(model.hidden(batch, tokens), batch.mask, batch.labels)


def _in_batches(model: FrozenModel, adapter_state: AdapterState, rows: Sequence[Row], batch_size: int) -> HeadInputs:
    """As `read_inputs`, `batch_size` rows at a time."""
    return HeadInputs.concatenate(
        [read_inputs(model, adapter_state.tokens, rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    )


def _rows(things: Sequence[EvalFeature] | Sequence[TrainFeature]) -> list[Row]:
    return [row for thing in things for row in thing.rows]


def _runs(eval_features: Sequence[EvalFeature], batch_size: int) -> Iterator[list[EvalFeature]]:
    """Eval features in runs of at most `batch_size` rows, where none has more by itself."""
    part: list[EvalFeature] = []
    rows = 0
    for eval_feature in eval_features:
        if part and rows + len(eval_feature.rows) > batch_size:
            yield part
            part, rows = [], 0
        part.append(eval_feature)
        rows += len(eval_feature.rows)
    if part:
        yield part


def row_of(encoded: Encoded, info: ModelInfo, length_budget: LengthBudget, labels: Sequence[int] = ()) -> Row:
    """A text as the model reads it; soft tokens come after [CLS] or BOS. `labels` are classes of tokens, -100 where there is none."""
    return Row(
        encoded.ids,
        (len(info.tokenizer.opening),) * length_budget.soft_tokens,
        tuple(labels),
        tuple(float(label >= 0) for label in labels),
        encoded.types,
    )


def check_fits(encoded: Encoded, needed: int, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool) -> None:
    """Raise DataError for a text that was truncated without `truncate`; `needed` is its full number of tokens."""
    if encoded.cut and not truncate:
        raise DataError(
            f"a text needs {needed + length_budget.soft_tokens} tokens with its virtual tokens, but {length_budget.max_tokens} fit in {info.name}; shorten it.",
            option="truncate",
        )


def pool(inputs: HeadInputs, pooling: str) -> Float[Tensor, "R H"]:
    """One state for a row: of its first token ([CLS]), of its last, or the mean of all; pads are left out."""
    states, mask = inputs.states, inputs.mask
    if pooling == "mean":
        weights = mask[:, :, None].float()
        return (states.float() * weights).sum(1) / weights.sum(1)
    position = mask.long().argmax(1) if pooling == "first" else mask.shape[1] - 1 - mask.flip(1).long().argmax(1)
    return states[torch.arange(len(states), device=states.device), position].float()


def check_pooling(pooling: str) -> None:
    """Raise UsageError for a pooling that does not exist."""
    if pooling not in POOLINGS:
        raise UsageError(f"pooling '{pooling}' is not known; choose one of {', '.join(POOLINGS)}.")


def resolved(pooling: str, info: ModelInfo) -> str:
    """What "auto" means: the mean over an encoder's tokens (0.76 against 0.70 for the first alone, MiniLM: LOG.md); a causal model's last, which has read all."""
    if pooling != "auto":
        return pooling
    return "last" if info.shape.kind == "causal" else "mean"
