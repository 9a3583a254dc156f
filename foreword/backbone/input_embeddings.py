"""Input embeddings of token ids, and the scale that some families give them."""

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
    """The embedding table of a network, as its argument `inputs_embeds` takes embeddings.

    Three ways to scale: Gemma's embedding module multiplies by √H itself, so the table has it. Granite multiplies in its forward pass, ids and
    `inputs_embeds` alike, so the table must not. Marian and Pegasus multiply token ids' embeddings only, so `scale` does it here.
    """

    def __init__(self, network: PreTrainedModel, shape: ModelShape) -> None:
        self._network, self._shape = network, shape

    @cached_property
    def scale(self) -> float:
        """What the model multiplies the embeddings of token ids with, but not `inputs_embeds`; 1 for all but Marian and Pegasus."""
        return encoder_decoder.embed_scale(self._network) if self._shape.kind == "encoder-decoder" else 1.0

    def table(self, ids: Int[Tensor, "*N"]) -> Float[Tensor, "*N E"]:
        """Input embeddings of these ids."""
        stack = self._network.get_encoder() if self._shape.kind == "encoder-decoder" else self._network
        embeds = stack.get_input_embeddings()(ids)
        return embeds if self.scale == 1.0 else embeds * self.scale

    def embed(self, ids: Sequence[int]) -> Float[Tensor, "N E"]:
        """`table` of a list of ids."""
        return self.table(torch.tensor(list(ids), dtype=torch.long, device=self._network.device)).detach()
