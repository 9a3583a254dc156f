"""From rows and virtual tokens to a network's keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.backbone import encoder_decoder, merge_virtual_tokens
from foreword.backbone.attention.attention_observer import AttentionObserver
from foreword.backbone.attention.observed_pass import ObservedPass
from foreword.backbone.attention.pass_layout import PassLayout, one_stack, two_stacks
from foreword.backbone.batch import Batch
from foreword.backbone.input_embeddings import InputEmbeddings
from foreword.backbone.kv_attachment import attach
from foreword.backbone.model_info import ModelInfo
from foreword.errors import DataError
from foreword.families.registry import family_of
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix, VirtualTokens

Tokens = VirtualTokens | Sequence[VirtualTokens | None] | None
Observers = Sequence[AttentionObserver]


@dataclass(frozen=True)
class ModelInputs:
    """Keyword arguments for the network, the merged mask [B, N] and the column [B, T] of each of the caller's tokens."""

    inputs: dict[str, Any]
    mask: Bool[Tensor, "B N"]
    text: Int[Tensor, "B T"]
    observed: ObservedPass | None = None

    def finish(self) -> None:
        """Call this once the network has run, so that recomputed layers are not observed again."""
        if self.observed:
            self.observed.finish()


@final
class InputMerger:
    """Merges batches with virtual tokens for one network."""

    def __init__(self, network: PreTrainedModel, info: ModelInfo, embeddings: InputEmbeddings) -> None:
        self._network, self._info, self._embeddings, self._shape = network, info, embeddings, info.shape

    @cached_property
    def first_position(self) -> int:
        """Where an encoder's positions begin: RoBERTa's count from behind its pad token."""
        return int(self._network.config.pad_token_id) + 1 if family_of(self._shape.family).after_pad else 0

    @cached_property
    def typed(self) -> bool:
        """Whether the model tells a first text from a second by token types."""
        return self._shape.kind == "encoder" and (getattr(self._network.config, "type_vocab_size", 0) or 0) > 1

    def prepare(self, batch: Batch, tokens: Tokens, slots: Callable[[], Mapping[nn.Module, int]], observers: Observers = ()) -> ModelInputs:
        """Merge virtual tokens with a batch into the network's keyword arguments; `observers` see every attention of the pass.

        `slots` is called where a kv prefix or an observer comes: it gives the attention modules, numbered as `shape.kv`.
        """
        device = self._network.device
        batch = batch.to(device)
        tokens = list(tokens) if isinstance(tokens, Sequence) else tokens
        soft = self._soft(batch, tokens)
        if self._shape.kind == "encoder-decoder":
            inputs, mask, text = encoder_decoder.inputs(batch, soft, self._embeddings.table, self._info.answer_opening)
        else:
            inputs, mask, text = self._line(batch, soft)
        prefixes = [t if isinstance(t, KVPrefix) else None for t in (tokens if isinstance(tokens, list) else [tokens])]
        lengths = torch.tensor([p.length if p else 0 for p in prefixes], device=device)
        positions = merge_virtual_tokens.positions(mask, self._start(lengths).expand(len(mask)))
        if self._shape.kind != "encoder-decoder":
            inputs["position_ids"] = positions
        if any(prefixes):
            inputs["foreword"] = attach(prefixes, self._shape, slots(), positions, self._network.dtype)
        if not observers:
            return ModelInputs(inputs, mask, text)
        observed = ObservedPass(slots(), self._shape, self._layout(batch), inputs.get("foreword"), observers)
        return ModelInputs({**inputs, "foreword": observed}, mask, text, observed)

    def _layout(self, batch: Batch) -> PassLayout:
        if self._shape.kind != "encoder-decoder":
            return one_stack(batch.mask, batch.at)
        return two_stacks(batch.mask, batch.at, encoder_decoder.answers(batch), len(self._info.answer_opening))

    def _line(self, batch: Batch, soft: Tensor | None) -> tuple[dict[str, Any], Tensor, Tensor]:
        """One stack's inputs, merged mask and text columns."""
        if soft is None:
            mask = batch.mask
            text = torch.arange(batch.ids.shape[1], device=mask.device).expand(len(batch.ids), -1)
            inputs: dict[str, Any] = {"input_ids": batch.ids}
        else:
            merged = merge_virtual_tokens.merge(self._embeddings.table(batch.ids), batch.mask, soft, batch.at)
            mask, text, inputs = merged.mask, merged.text, {"inputs_embeds": merged.embeds}
        if self.typed:
            inputs["token_type_ids"] = torch.zeros_like(mask, dtype=torch.long).scatter(1, text, batch.types)
        return {**inputs, "attention_mask": mask.long()}, mask, text

    def _start(self, lengths: Int[Tensor, " R"]) -> Int[Tensor, " R"]:
        """The position of a text's first token: after a kv prefix on causal models, as in serving engines; elsewhere a prefix has no positions."""
        return lengths if self._shape.kind == "causal" else torch.full_like(lengths, self.first_position)

    def _soft(self, batch: Batch, tokens: VirtualTokens | list[VirtualTokens | None] | None) -> Tensor | None:
        """Input-level virtual tokens as [B, P, E], or None where no row has any."""
        rows = tokens if isinstance(tokens, list) else [tokens] * len(batch.ids)
        wanted = (batch.at >= 0).sum(1).tolist()
        given = [t.length if isinstance(t, EmbeddingPrefix) else 0 for t in rows]
        for need, have in zip(wanted, given, strict=True):
            if need != have:
                raise DataError(f"a row has {need} soft tokens, but its prompt has {have}; render the row for this prompt.")
        width, device = batch.at.shape[1], batch.ids.device
        if width == 0:
            return None
        if isinstance(tokens, EmbeddingPrefix):
            return tokens.vectors.to(device)[None].expand(len(rows), -1, -1)
        blank = torch.zeros(width, self._shape.embedding, device=device)
        stacked = [
            torch.cat([blank[: width - t.length], t.vectors.to(device).float()]) if isinstance(t, EmbeddingPrefix) else blank for t in rows
        ]
        return torch.stack(stacked)
