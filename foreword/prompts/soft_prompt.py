"""The trainable prompt: initial values plus a trained displacement, used at a site."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foreword.prompts import reparam
from foreword.prompts.tokens import EmbeddingPrefix, VirtualTokens, unflatten_kv
from foreword.shape import ModelShape
from foreword.specs import PromptSpec


def as_tokens(flat: Float[Tensor, "P W"], spec: PromptSpec, shape: ModelShape) -> VirtualTokens:
    """Virtual tokens of a flat prompt at its site."""
    if spec.site == "input":
        return EmbeddingPrefix(flat)
    return unflatten_kv(flat, spec.chosen_layers(shape), spec.kv_shapes(shape), spec.window)


@final
class SoftPrompt(nn.Module):
    """P virtual tokens in fp32: flat = origin + scale · displacement, [P, W].

    `scale` [W] is the RMS of the model's own values (embeddings, or each layer's keys and values), so one relative
    learning rate fits every model, layer and site. `forward` gives unbatched virtual tokens; `bake` drops the re-parameterisation.
    """

    origin: Tensor
    scale: Tensor

    def __init__(
        self, spec: PromptSpec, shape: ModelShape, origin: Float[Tensor, "P W"], scale: Float[Tensor, " W"], *, seed: int = 0
    ) -> None:
        super().__init__()
        self.spec, self.shape = spec, shape
        self.register_buffer("origin", origin.detach().float().clone())
        self.register_buffer("scale", scale.detach().float().clone())
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs as well
            self.reparam = reparam.build(spec.reparam, spec.length, spec.width(shape))

    def flat(self) -> Float[Tensor, "P W"]:
        """The prompt as [P, W], still in the graph."""
        return self.origin + self.scale * self.reparam()

    def forward(self) -> VirtualTokens:
        flat = nn.functional.dropout(self.flat(), self.spec.dropout, self.training)
        return as_tokens(flat, self.spec, self.shape)

    @torch.no_grad()
    def bake(self) -> Float[Tensor, "P W"]:
        """The prompt without its re-parameterisation, as it is saved."""
        return self.flat().detach().clone()
