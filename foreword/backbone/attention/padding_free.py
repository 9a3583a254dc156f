"""A padding-free batch: all real tokens in one sequence, padded to rows only inside attention.

Everything except attention works on single tokens, where pads cost as much as real tokens; cf. "effective transformers" (ByteTransformer, arXiv:2210.03052).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.backbone.attention.hooks import Attend, AttentionHook
from foreword.backbone.attention.interface import SDPA, attend
from foreword.shape import ModelShape

_WORTH = 12  # at least one column in so many must be a pad, or the copies cost more than they save


@dataclass(frozen=True)
class PaddingFreeBatch:
    """The hook of a forward pass over M real tokens of B rows: `index` gives each its column among B·N, `mask` is what rows see of themselves.

    `inner` is the hook of the attention over padded rows.
    """

    index: Int[Tensor, " M"]
    mask: Bool[Tensor, "B 1 N N"] | Bool[Tensor, "B 1 1 N"]
    rows: int
    inner: AttentionHook | None

    def pad_back(self, flat: Shaped[Tensor, "M ..."]) -> Shaped[Tensor, "B N ..."]:
        """The padded rows, with zeros for pads."""
        padded = flat.new_zeros(self.rows * self.mask.shape[3], *flat.shape[1:])
        return padded.index_copy(0, self.index, flat).unflatten(0, (self.rows, -1))

    def flat_index(self) -> Int[Tensor, "B N"]:
        """The index of each real token among the M; 0 at pads."""
        return self.pad_back(torch.arange(len(self.index), device=self.index.device))

    def attention(
        self,
        module: nn.Module,
        query: Float[Tensor, "1 A M D"],
        key: Float[Tensor, "1 K M D"],
        value: Float[Tensor, "1 K M O"],
        scaling: float | None,
        attend_to: Attend | None,
    ) -> Float[Tensor, "1 M A O"]:
        """The attention over padded rows, without its pads."""
        query, key, value = (self.pad_back(side[0].transpose(0, 1)).transpose(1, 2) for side in (query, key, value))
        found, _ = attend(module, query, key, value, self.mask, self.inner, scaling=scaling)
        return found.flatten(0, 1).index_select(0, self.index)[None]


def remove_padding(
    network: PreTrainedModel, shape: ModelShape, inputs: dict[str, Any], mask: Bool[Tensor, "B N"]
) -> tuple[dict[str, Any], PaddingFreeBatch | None]:
    """Keyword arguments for the same pass without pads; unchanged, with None, where this saves little or is not equivalent."""
    index = mask.flatten().nonzero().flatten()
    pads = mask.numel() - len(index)
    if pads * _WORTH < mask.numel() or pads == mask.numel() or not _suits(network, shape, mask.shape[1]):
        return inputs, None
    seen = mask[:, None, None, :]
    if shape.kind == "causal":
        earlier = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
        seen = seen & (earlier | ~mask[:, None, :, None])  # pads attend to everything, because a row without any key gives NaN
    batch = PaddingFreeBatch(index, seen, len(mask), inputs.get("foreword"))
    flat = {name: given.flatten(0, 1)[index][None] for name, given in inputs.items() if name not in ("foreword", "attention_mask")}
    return {**flat, "attention_mask": seen, "foreword": batch}, batch  # transformers passes a mask of four dimensions on unchanged


def _suits(network: PreTrainedModel, shape: ModelShape, width: int) -> bool:
    """Whether attention comes through the registered function over SDPA, and no sliding window ends within a row."""
    reach = width if shape.kind == "causal" else 2 * width
    windows = [kv.window for kv in shape.kv if kv.window is not None]
    return network.config._attn_implementation == SDPA and shape.kind != "encoder-decoder" and reach <= min(windows, default=reach)
