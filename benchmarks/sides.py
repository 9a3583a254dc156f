"""The two sides of the speed benchmark: the same batch, one training step each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import models
import theirs
import torch
from peft import PrefixTuningConfig, PromptTuningConfig
from torch import Tensor
from transformers import PreTrainedModel

from foreword.backbone.batch import collate
from foreword.backbone.loading.load_model import wrap
from foreword.methods import METHODS
from foreword.prompts import init
from foreword.prompts.init import Material
from foreword.prompts.soft_prompt import SoftPrompt
from foreword.prompts.template import Row
from foreword.specs import PromptSpec
from foreword.tasks import template_task

TEXT = "Is this review of a film negative or positive?"
_RATE = 1e-3  # never compared: the numbers move, which is all a timing needs


@dataclass(frozen=True)
class Case:
    """One comparison, with the bars it is asked to clear: at least this many times PEFT's speed, at most this share of its memory."""

    name: str
    method: str
    model: str
    keep: bool = False  # PEFT is told which logits to keep
    faster: float = 1.0
    memory: float | None = None
    length: int = 20

    @property
    def spec(self) -> PromptSpec:
        return METHODS[self.method](self.length)


@dataclass(frozen=True)
class Work:
    """The batch: token ids of every row, all rows of one length, of which the last `labels` are to be predicted."""

    rows: tuple[tuple[int, ...], ...]
    labels: int

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.rows))


class Side(Protocol):
    def step(self) -> float:
        """Forward, loss, backward, AdamW; returns the loss."""
        ...


class Ours:
    """Foreword's step, as `training/loop.py` does it."""

    def __init__(self, network: PreTrainedModel, case: Case, work: Work) -> None:
        spec = case.spec
        self.model = wrap(network, models.tokenizer(case.model), name=case.model)
        start = init.initial_values(spec, self.model, Material(TEXT))
        self.prompt = SoftPrompt(spec, self.model.shape, start.origin, start.scale)
        begin = int(work.rows[0][0] == self.model.tokenizer.bos)
        at = (begin,) * case.length if spec.site == "input" else ()
        self.batch = collate([_row(ids, at, work.labels) for ids in work.rows], pad=self.model.tokenizer.pad)
        self.optimizer = torch.optim.AdamW(self.prompt.reparam.parameters(), lr=_RATE)

    def step(self) -> float:
        loss = template_task.token_losses(self.model, self.batch, self.prompt()).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


class Theirs:
    """PEFT's step with the model's own loss; with `keep` the logits of the predicting columns alone, which PEFT passes on when asked."""

    def __init__(self, network: PreTrainedModel, case: Case, work: Work) -> None:
        self.model = theirs.attach(network, case.model, _variant(case), length=case.length, text=TEXT)
        self.keep, self.pad = case.keep, 0
        self.rows = [_row(ids, (), work.labels) for ids in work.rows]
        batch = collate(self.rows, pad=self.pad)
        self.inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "labels": batch.labels}
        self.optimizer = torch.optim.AdamW(theirs.trained(self.model), lr=_RATE)

    def step(self) -> float:
        loss = self._few() if self.keep else self.model(**self.inputs, use_cache=False).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def _few(self) -> Tensor:
        return theirs.token_losses(self.model, self.rows, self.pad)[0].mean()


SIDES: dict[str, type[Ours] | type[Theirs]] = {"foreword": Ours, "peft": Theirs}


def _variant(case: Case) -> theirs.Variant:
    """PEFT's configuration of the same kind with its own default initial values; the encoder, where there is one, as wide as ours."""
    if case.spec.site == "input":
        return theirs.Variant(PromptTuningConfig)
    projected = case.spec.reparam.kind == "mlp"
    width = {"encoder_hidden_size": case.spec.reparam.hidden} if projected else {}
    return theirs.Variant(PrefixTuningConfig, {"prefix_projection": projected, **width})


def _row(ids: tuple[int, ...], at: tuple[int, ...], labels: int) -> Row:
    blank = len(ids) - labels
    return Row(ids, at, (-100,) * blank + ids[blank:], (0.0,) * blank + (1.0,) * labels)
