"""Embeddings of token ids as a network's first layer gets them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from foreword.backbone import encoder_decoder
from foreword.shape import ModelShape


@final
class InputEmbeddings:
    """The embedding table of a network, scaled as the network itself scales it."""

    def __init__(self, network: PreTrainedModel, shape: ModelShape) -> None:
        self._network, self._shape = network, shape

    @cached_property
    def scale(self) -> float:
        """What the model multiplies embeddings with when it is given token ids instead (Marian, Pegasus)."""
        return encoder_decoder.embed_scale(self._network) if self._shape.kind == "encoder-decoder" else 1.0

    def table(self, ids: Int[Tensor, "*N"]) -> Float[Tensor, "*N E"]:
        """Input embeddings as the first layer gets them (Gemma's are scaled inside)."""
        stack = self._network.get_encoder() if self._shape.kind == "encoder-decoder" else self._network
        embeds = stack.get_input_embeddings()(ids)
        return embeds if self.scale == 1.0 else embeds * self.scale

    def embed(self, ids: Sequence[int]) -> Float[Tensor, "N E"]:
        """`table` of a list of ids."""
        return self.table(torch.tensor(list(ids), dtype=torch.long, device=self._network.device)).detach()
