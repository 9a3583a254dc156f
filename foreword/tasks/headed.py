"""Tasks with a head: a linear layer on the frozen model's states answers, without label words (P-tuning v2, Liu et al. 2022, arXiv:2110.07602)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foreword.backbone.batch import collate
from foreword.backbone.encoded import Encoded
from foreword.backbone.frozen import FrozenModel
from foreword.backbone.learned import Learned
from foreword.errors import DataError, ModelError, UsageError
from foreword.prompts.template import Row
from foreword.specs import PromptSpec
from foreword.tasks.base import Reading, Task

Pooling = str  # one of POOLINGS
POOLINGS = ("auto", "first", "last", "mean")


class HeadTask(Task):
    """Abstract: a task whose answers a head gives, on encoders and on causal models."""

    def suited(self, model: FrozenModel, spec: PromptSpec | None) -> Task:
        if model.shape.kind == "encoder-decoder":
            raise ModelError(
                f"task '{self.kind}' reads one stack's states, but {model.name} is an encoder–decoder; "
                "use label words or seq2seq there, or an encoder or causal model here."
            )
        return self


def row_of(encoded: Encoded, model: FrozenModel, how: Reading, labels: Sequence[int] = ()) -> Row:
    """A text as the model reads it; soft tokens stand behind [CLS] or BOS. `labels` are classes of tokens, -100 where there is none."""
    return Row(
        encoded.ids,
        (len(model.tokenizer.opening),) * how.soft,
        tuple(labels),
        tuple(float(label >= 0) for label in labels),
        encoded.types,
    )


def check_fits(encoded: Encoded, needed: int, model: FrozenModel, how: Reading, *, truncate: bool) -> None:
    """Raise DataError for a text that was cut though nobody allowed it; `needed` is how many tokens it has uncut."""
    if encoded.cut and not truncate:
        raise DataError(
            f"a text needs {needed + how.soft} tokens with its virtual tokens, but {how.budget} fit in {model.name}; shorten it, or pass --truncate."
        )


def states(model: FrozenModel, learned: Learned, rows: Sequence[Row]) -> tuple[Float[Tensor, "B T H"], Bool[Tensor, "B T"]]:
    """The last states of rows at their own tokens, and which of them are no pads; rows end in their last column."""
    batch = collate(rows, pad=model.tokenizer.pad).to(model.device)
    return model.hidden(batch, learned.tokens), batch.mask


def pool(states: Float[Tensor, "B T H"], mask: Bool[Tensor, "B T"], how: str) -> Float[Tensor, "B H"]:
    """One state for a row: of its first token ([CLS]), of its last, or the mean of all; pads never take part."""
    if how == "mean":
        weights = mask[:, :, None].float()
        return (states.float() * weights).sum(1) / weights.sum(1)
    place = mask.long().argmax(1) if how == "first" else mask.shape[1] - 1 - mask.flip(1).long().argmax(1)
    return states[torch.arange(len(states), device=states.device), place].float()


def check_pooling(pooling: str) -> None:
    """Raise UsageError for a pooling that does not exist."""
    if pooling not in POOLINGS:
        raise UsageError(f"pooling '{pooling}' is not known; choose one of {', '.join(POOLINGS)}.")


def resolved(pooling: str, model: FrozenModel) -> str:
    """What "auto" means: the mean over an encoder's tokens (0.76 against 0.70 for the first alone, MiniLM: LOG.md); a causal model's last, which has read all."""
    if pooling != "auto":
        return pooling
    return "last" if model.shape.kind == "causal" else "mean"
