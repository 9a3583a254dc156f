"""The frozen model: virtual tokens go in and come out here, and every output lines up with the caller's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from foreword.backbone import attention, combine
from foreword.backbone.batch import Batch
from foreword.backbone.fingerprint import fingerprint_model, fingerprint_tokenizer
from foreword.backbone.recompute import recomputing
from foreword.backbone.tokenizer import TextTokenizer
from foreword.errors import DataError
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix, VirtualTokens
from foreword.shape import ModelShape

Tokens = VirtualTokens | Sequence[VirtualTokens | None] | None


@dataclass(frozen=True)
class Prepared:
    """Keyword arguments for the network, the merged mask [B, N] and the column [B, T] of each of the caller's tokens."""

    inputs: dict[str, Any]
    mask: Bool[Tensor, "B N"]
    text: Int[Tensor, "B T"]


@final
class FrozenModel:
    """A base model that never changes: eval mode, no gradients, Foreword's attention installed."""

    def __init__(self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, shape: ModelShape, name: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = TextTokenizer(tokenizer)
        self.shape, self.name = shape, name
        attention.install(network)

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_model(self.network, self.shape)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        return fingerprint_tokenizer(self.tokenizer.inner)

    def forward(self, batch: Batch, tokens: Tokens = None) -> Float[Tensor, "B T V"]:
        """Logits after each of the caller's T tokens."""
        ready = self.prepare(batch, tokens)
        logits = self.network(**ready.inputs, use_cache=False).logits
        return logits.gather(1, ready.text[:, :, None].expand(-1, -1, logits.shape[2]))

    def predicting(self, batch: Batch, tokens: Tokens, select: Bool[Tensor, "B T"]) -> Float[Tensor, "M V"]:
        """Logits that predict the M selected tokens, row by row: those after whatever stands before each, a soft token perhaps.

        Only columns that predict something reach the output matrix, which at V = 262,144 is most of the work. Raises DataError for a
        selected token that nothing stands before.
        """
        ready = self.prepare(batch, tokens)
        rows, columns = select.nonzero(as_tuple=True)
        before = ready.text[rows, columns] - 1
        if bool(((before < 0) | ~ready.mask[rows, before]).any()):
            raise DataError(
                "a label stands first in its row, where nothing predicts it; begin the template with {bos}, words, a field or a soft token."
            )
        keep, where = before.unique(return_inverse=True)
        logits = self.network(**ready.inputs, use_cache=False, logits_to_keep=keep).logits
        return logits[rows, where]

    def prepare(self, batch: Batch, tokens: Tokens) -> Prepared:
        """Merge virtual tokens with a batch into the network's keyword arguments."""
        batch = batch.to(self.device)
        tokens = list(tokens) if isinstance(tokens, Sequence) else tokens
        soft = self._soft(batch, tokens)
        if soft is None:
            mask = batch.mask
            text = torch.arange(batch.ids.shape[1], device=self.device).expand(len(batch.ids), -1)
            inputs: dict[str, Any] = {"input_ids": batch.ids}
        else:
            merged = combine.merge(self.network.get_input_embeddings()(batch.ids), batch.mask, soft, batch.at)
            mask, text, inputs = merged.mask, merged.text, {"inputs_embeds": merged.embeds}
        prefixes = [t if isinstance(t, KVPrefix) else None for t in (tokens if isinstance(tokens, list) else [tokens])]
        lengths = torch.tensor([p.length if p else 0 for p in prefixes], device=self.device)
        inputs["attention_mask"] = mask.long()
        inputs["position_ids"] = combine.positions(mask, lengths.expand(len(mask)))
        if any(prefixes):
            inputs["foreword"] = self._attachment(prefixes, lengths, inputs["position_ids"])
        return Prepared(inputs, mask, text)

    def _soft(self, batch: Batch, tokens: VirtualTokens | list[VirtualTokens | None] | None) -> Tensor | None:
        """Input-level virtual tokens as [B, P, E], or None where no row has any."""
        rows = tokens if isinstance(tokens, list) else [tokens] * len(batch.ids)
        wanted = (batch.at >= 0).sum(1).tolist()
        given = [t.length if isinstance(t, EmbeddingPrefix) else 0 for t in rows]
        for need, have in zip(wanted, given, strict=True):
            if need != have:
                raise DataError(
                    f"a row has places for {need} soft tokens, but its prompt has {have}; render the row with the same prompt it is read with."
                )
        width = batch.at.shape[1]
        if width == 0:
            return None
        if isinstance(tokens, EmbeddingPrefix):
            return tokens.vectors.to(self.device)[None].expand(len(rows), -1, -1)
        blank = torch.zeros(width, self.shape.embedding, device=self.device)
        stacked = [
            torch.cat([blank[: width - t.length], t.vectors.to(self.device).float()]) if isinstance(t, EmbeddingPrefix) else blank
            for t in rows
        ]
        return torch.stack(stacked)

    def _attachment(self, prefixes: list[KVPrefix | None], lengths: Tensor, position_ids: Tensor) -> attention.Attachment:
        """KV prefixes of one shared or B different rows as one attachment, cast once to the network's precision."""
        longest = int(lengths.max())
        layers = sorted({layer for prefix in prefixes if prefix for layer in prefix.keys})

        def stack(side: str, layer: int) -> Tensor:
            kv = self.shape.kv[layer]
            rows = []
            for prefix in prefixes:
                part = getattr(prefix, side).get(layer) if prefix else None
                if part is None:
                    part = torch.zeros(kv.heads, 0, kv.dim)
                part = part.to(self.device, self.dtype)
                rows.append(part if part.shape[1] == longest else torch.nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])))
            return torch.stack(rows)

        real = torch.arange(longest, device=self.device) < lengths[:, None]

        def present(layer: int) -> Tensor:
            """A row whose prefix leaves this layer out sees nothing of it here."""
            has = [prefix is not None and layer in prefix.keys for prefix in prefixes]
            return real if all(has) else real & torch.tensor(has, device=self.device)[:, None]

        return attention.Attachment(
            keys={layer: stack("keys", layer) for layer in layers},
            values={layer: stack("values", layer) for layer in layers},
            mask={layer: present(layer) for layer in layers},
            fading=torch.tensor([prefix is not None and prefix.window == "model" for prefix in prefixes], device=self.device),
            positions=position_ids,
            windows=tuple(kv.window for kv in self.shape.kv),
        )

    def gradient_checkpointing(self, on: bool = True) -> AbstractContextManager[None]:
        """`with model.gradient_checkpointing():` forward passes inside keep one activation per layer and compute the rest again.

        Costs about a third more time. Do not generate inside the block, nor in another thread meanwhile. Raises ModelError where
        layers hold dropout of their own.
        """
        return recomputing(self.network, self.name) if on else nullcontext()

    def embed(self, ids: Sequence[int]) -> Float[Tensor, "N E"]:
        """Input embeddings as the first layer gets them (Gemma's are scaled inside)."""
        return self.network.get_input_embeddings()(torch.tensor(list(ids), dtype=torch.long, device=self.device)).detach()

    def frequent_tokens(self, count: int) -> list[int]:
        """Up to `count` ordinary word pieces in the order of the vocabulary, which for merged vocabularies is the order of frequency."""
        inner = self.tokenizer.inner
        skip = set(inner.all_special_ids) | set(inner.added_tokens_decoder)
        found: list[int] = []
        for index in range(min(len(inner), self.shape.vocabulary)):
            if len(found) == count:
                break
            if index not in skip and any(c.isalpha() for c in inner.decode([index])):
                found.append(index)
        return found

    @torch.no_grad()
    def keys_values(self, embeddings: Float[Tensor, "N E"]) -> Float[Tensor, "N W"]:
        """Keys and values of every layer for a run of input embeddings behind BOS (whose own are left out), flat."""
        from foreword.backbone.compile import read_cache  # compile reads FrozenModel's own parts

        bos = self.tokenizer.bos
        head = self.embed([bos]) if bos is not None else self.embed([])
        run = torch.cat([head, embeddings.to(self.device, self.dtype)])[None]
        cache = DynamicCache()
        self.network(inputs_embeds=run, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return read_cache(cache, self.shape, skip=len(head)).to(embeddings.device)
