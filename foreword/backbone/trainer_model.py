"""A frozen model for transformers' Trainer and TRL: a `PreTrainedModel` that holds the trained parameters and nothing of the base."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, SequenceClassifierOutput

from foreword.backbone.batch import Batch
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_inputs import ModelInputs, Tokens
from foreword.errors import ModelError, UsageError

__all__ = ["BaseModelOutput", "CausalLMOutput", "SequenceClassifierOutput", "TrainerModel", "led", "next_logits", "next_states"]


class TrainerModel(PreTrainedModel):
    """Abstract. The frozen model is not a sub-module, so parameters, state and device are those of the trained part.

    `config` and `generation_config` are copies, since trainers write into them.
    """

    accepts_loss_kwargs = True  # the loss is a sum over the labels of all batches that make one step, divided by their number

    def __init__(self, frozen: FrozenModel) -> None:
        config = copy.deepcopy(frozen.network.config)
        config._attn_implementation = "eager"  # not used: the frozen model keeps its own
        super().__init__(config)
        self.frozen = frozen
        self.generation_config = copy.deepcopy(getattr(frozen.network, "generation_config", None))  # encoders have none
        self._recomputes = False

    def get_input_embeddings(self) -> nn.Module:
        return self.frozen.network.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | None:
        return self.frozen.network.get_output_embeddings()

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **how: Any) -> None:
        """Forward passes in training mode keep one activation per layer; raises UsageError for another kind of checkpointing."""
        asked = {**(gradient_checkpointing_kwargs or {}), **how}
        usual = {"use_reentrant": False, "every_n_layers": 1, "offload": False}
        for name, value in asked.items():
            if name not in usual or value != usual[name]:
                raise UsageError(
                    f"gradient checkpointing with {name}={value!r} is not supported, because every layer is computed again as it is; leave it out."
                )
        self._recomputes = True

    def gradient_checkpointing_disable(self) -> None:
        self._recomputes = False

    @property
    def is_activation_checkpointing(self) -> bool:
        return self._recomputes

    @property
    def is_gradient_checkpointing(self) -> bool:
        return self._recomputes

    def recomputing(self) -> AbstractContextManager[None]:
        """The context of a forward pass."""
        return self.frozen.gradient_checkpointing(self._recomputes and self.training)

    def check_device(self) -> None:
        """Raise ModelError if a trainer has moved the trained parameters to another device than the model."""
        here, there = self.device, self.frozen.device
        if here.type != there.type or (here.index or 0) != (there.index or 0):
            raise ModelError(
                f"the trainer works on {here}, but '{self.frozen.name}' is on {there}; load it with device='{here}', "
                f"or tell the trainer to use {there}."
            )


def led(
    model: FrozenModel, input_ids: Int[Tensor, "B T"], mask: Int[Tensor, "B T"] | None, types: Int[Tensor, "B T"] | None, soft: int
) -> Batch:
    """A trainer's tensors as a batch; `soft` soft tokens in every row come after its opening tokens ([CLS], BOS), or first where it has none.

    Rows may be padded on either side. Raises UsageError for a row without any token.
    """
    real = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
    if not bool(real.any(1).all()):
        raise UsageError("a row of the batch has no token; leave empty texts out of the data.")
    first = real.long().argmax(1)
    opening = torch.tensor(model.tokenizer.opening, dtype=torch.long, device=input_ids.device)
    columns = (first[:, None] + torch.arange(len(opening), device=input_ids.device)).clamp_max(input_ids.shape[1] - 1)
    opened = (input_ids.gather(1, columns) == opening).all(1)  # true for every row if there are no opening tokens
    at = (first + opened * len(opening))[:, None].expand(-1, soft)
    none = torch.full_like(input_ids, -100)
    return Batch(input_ids, real, at, none, torch.zeros_like(none, dtype=torch.float), torch.zeros_like(none) if types is None else types)


def _next(ready: ModelInputs) -> Int[Tensor, "B T"]:
    """The column that predicts each token's successor: the one before it, a soft token's perhaps; of the last token the row's last."""
    last = torch.full_like(ready.text[:, :1], ready.mask.shape[1] - 1)
    return torch.cat([ready.text[:, 1:] - 1, last], 1)


def next_states(model: FrozenModel, batch: Batch, tokens: Tokens) -> Float[Tensor, "B T H"]:
    """The last layer's output from which each token's successor is predicted."""
    ready = model.prepare(batch, tokens)
    states = model.network.base_model(**ready.inputs, use_cache=False).last_hidden_state
    return states.gather(1, _next(ready)[:, :, None].expand(-1, -1, states.shape[2]))


def next_logits(model: FrozenModel, batch: Batch, tokens: Tokens) -> Float[Tensor, "B T V"]:
    """At t what predicts token t + 1 of the caller's T tokens."""
    ready = model.prepare(batch, tokens)
    keep, where = _next(ready).unique(return_inverse=True)
    logits = model.network(**ready.inputs, use_cache=False, logits_to_keep=keep).logits
    if len(keep) == where.shape[1]:  # the same columns in every row
        return logits
    return logits.gather(1, where[:, :, None].expand(-1, -1, logits.shape[2]))
