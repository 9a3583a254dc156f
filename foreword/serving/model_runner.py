"""The model runner: runs the network for one step, over the new tokens of any sequences in one line without padding."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foreword.backbone.attention.paged_attention import AttentionRow, PagedAttention
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.kv_cache import PagedKVCache
from foreword.serving.sequence import Sequence


@dataclass(frozen=True, eq=False)
class Chunk:
    """The inputs `begin` … `end` - 1 of a sequence, which one step computes."""

    sequence: Sequence
    begin: int
    end: int

    @property
    def num_tokens(self) -> int:
        return self.end - self.begin

    @property
    def last(self) -> bool:
        """Whether the next token follows from it."""
        return self.end == len(self.sequence.inputs)

    @property
    def kept(self) -> range:
        """The inputs whose logits are needed: the last one before the next token, and those of the prompt where they are asked for."""
        begin = self.sequence.next_prompt_logits
        if begin is not None and begin < self.end:
            return range(max(begin, self.begin), self.end)
        return range(self.end - 1, self.end) if self.last else range(0)


@final
class ModelRunner:
    """Runs chunks of sequences of one network. Chunks of networks that share a base (LoRA) share the cache too."""

    def __init__(self, cache: PagedKVCache) -> None:
        self.cache = cache

    @torch.inference_mode()
    def run(self, chunks: Many[Chunk]) -> Float[Tensor, "M V"]:
        """Compute chunks, all of one model: the logits after the inputs that each keeps, in their order."""
        model = chunks[0].sequence.model
        device = model.device
        rows = [_row(chunk) for chunk in chunks]
        inputs = self._inputs(model, chunks)
        positions = np.concatenate([row.positions[-row.count :] for row in rows])
        inputs["position_ids"] = torch.from_numpy(positions)[None].to(device)
        inputs["attention_mask"] = torch.ones(
            1, 1, 1, 1, dtype=torch.bool, device=device
        )  # transformers passes one of four dimensions on unchanged
        keep: list[int] = []
        begin = 0
        for chunk in chunks:
            keep.extend(begin + index - chunk.begin for index in chunk.kept)
            begin += chunk.num_tokens
        hook = PagedAttention(model.slots, model.shape, self.cache, rows)
        index = torch.tensor(keep, dtype=torch.long, device=device)  # never the int 1: a slice would copy the output matrix
        return model.network(**inputs, foreword=hook, use_cache=False, logits_to_keep=index).logits[0]

    def _inputs(self, model: FrozenModel, chunks: Many[Chunk]) -> dict[str, Any]:
        """Token ids, or embeddings where any of the tokens is soft."""
        line = [token for chunk in chunks for token in chunk.sequence.inputs[chunk.begin : chunk.end]]
        ids = torch.tensor([line], device=model.device)
        if min(line) >= 0:
            return {"input_ids": ids}
        embeds = model.embeddings.table(ids.clamp_min(0))
        begin = 0
        for chunk in chunks:
            soft = chunk.sequence.soft
            if soft is not None:
                here = ids[0, begin : begin + chunk.num_tokens]
                at = (here < 0).nonzero().flatten()
                embeds[0, begin + at] = soft.vectors.to(embeds)[-1 - here[at]]
            begin += chunk.num_tokens
        return {"inputs_embeds": embeds}


def _row(chunk: Chunk) -> AttentionRow:
    table = chunk.sequence.table
    end = table.first + chunk.end
    return AttentionRow(table.slots(end), table.positions(end), table.pinned(end), chunk.num_tokens)
