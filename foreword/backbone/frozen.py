"""The frozen model: virtual tokens go in and come out here, and every output lines up with the caller's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foreword.backbone import encoder_decoder, merge
from foreword.backbone.attention import interface
from foreword.backbone.attention.introspection import number_attentions
from foreword.backbone.attention.observed_pass import ObservedPass
from foreword.backbone.attention.observer import AttentionObserver
from foreword.backbone.attention.observers import Recorder
from foreword.backbone.attention.padding_free import remove_padding
from foreword.backbone.attention.pass_layout import PassLayout, one_stack, two_stacks
from foreword.backbone.batch import Batch
from foreword.backbone.families.model_overrides import override_modules
from foreword.backbone.fingerprint import fingerprint_model, fingerprint_tokenizer
from foreword.backbone.gradient_checkpointing import recomputing
from foreword.backbone.kv_attachment import attach
from foreword.backbone.quantization import quantization_of, settle
from foreword.backbone.tokenizer import TextTokenizer
from foreword.errors import DataError
from foreword.families.registry import family_of
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix, VirtualTokens
from foreword.shape import ModelShape

Tokens = VirtualTokens | Sequence[VirtualTokens | None] | None
Observers = Sequence[AttentionObserver]


@dataclass(frozen=True)
class Prepared:
    """Keyword arguments for the network, the merged mask [B, N] and the column [B, T] of each of the caller's tokens."""

    inputs: dict[str, Any]
    mask: Bool[Tensor, "B N"]
    text: Int[Tensor, "B T"]
    observed: ObservedPass | None = None

    def finish(self) -> None:
        """To be called once the network has run: observers are shown nothing that is computed again later."""
        if self.observed:
            self.observed.finish()


@final
class FrozenModel:
    """A base model that never changes: eval mode, no gradients, Foreword's attention installed."""

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, shape: ModelShape, name: str, base: FrozenModel | None = None
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.base = base
        self.tokenizer = TextTokenizer(tokenizer, closing=shape.kind != "causal")
        self.shape, self.name = shape, name
        if not override_modules(network):
            interface.install(network)
        settle(network)

    @property
    def _no_cache(self) -> dict[str, Any]:
        return {} if self.shape.kind == "encoder" else {"use_cache": False}

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    @cached_property
    def quantization(self) -> str | None:
        """How the weights are stored: nf4, int8, or None for plain numbers."""
        return quantization_of(self.network)

    @cached_property
    def fingerprint(self) -> str:
        return self.base.fingerprint if self.base else fingerprint_model(self.network, self.shape)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        return self.base.tokenizer_fingerprint if self.base else fingerprint_tokenizer(self.tokenizer.inner)

    def over(self, network: PreTrainedModel) -> FrozenModel:
        """The same base model read through another network, one with LoRA perhaps: tokenizer, shape and fingerprints stay."""
        return FrozenModel(network, self.tokenizer.inner, self.shape, self.name, base=self)

    @cached_property
    def slots(self) -> dict[nn.Module, int]:
        """The attention modules, numbered as `shape.kv`."""
        if self.base is None:
            return number_attentions(self.network, self.shape)
        names = {module: name for name, module in self.base.network.named_modules()}
        return {self.network.get_submodule(names[module]): index for module, index in self.base.slots.items()}

    def hidden(self, batch: Batch, tokens: Tokens = None, observers: Observers = ()) -> Float[Tensor, "B T H"]:
        """The last layer's output at each of the caller's T tokens: what a task's head reads."""
        assert self.shape.kind != "encoder-decoder", "head tasks refuse encoder–decoders"
        ready = self.prepare(batch, tokens, observers)
        inputs, flat = remove_padding(self.network, self.shape, ready.inputs, ready.mask)
        states = self.network.base_model(**inputs, **self._no_cache).last_hidden_state
        ready.finish()
        states = flat.pad_back(states[0]) if flat else states
        return states.gather(1, ready.text[:, :, None].expand(-1, -1, states.shape[2]))

    def forward(self, batch: Batch, tokens: Tokens = None, observers: Observers = ()) -> Float[Tensor, "B T V"]:
        """Logits after each of the caller's T tokens; an encoder–decoder reads a source as a whole, so they are the same for all its tokens."""
        ready = self.prepare(batch, tokens, observers)
        logits = self.network(**ready.inputs, use_cache=False).logits
        ready.finish()
        return logits.gather(1, ready.text[:, :, None].expand(-1, -1, logits.shape[2]))

    def predicting(self, batch: Batch, tokens: Tokens, select: Bool[Tensor, "B T"], observers: Observers = ()) -> Float[Tensor, "M V"]:
        """Logits that predict the M selected tokens, row by row: those after whatever stands before each, a soft token perhaps.

        Only columns that predict something reach the output matrix, which at V = 262,144 is most of the work. Raises DataError for a
        selected token that nothing stands before.
        """
        ready = self.prepare(batch, tokens, observers)
        rows, columns = select.nonzero(as_tuple=True)
        before = ready.text[rows, columns] - 1
        if bool(((before < 0) | ~ready.mask[rows, before]).any()):
            raise DataError(
                "a label stands first in its row, where nothing predicts it; begin the template with {bos}, words, a field or a soft token."
            )
        if self.shape.kind == "encoder-decoder":  # hardly any column of a decoder predicts nothing
            logits = self.network(**ready.inputs, use_cache=False).logits
            ready.finish()
            return logits[rows, before]
        inputs, flat = remove_padding(self.network, self.shape, ready.inputs, ready.mask)
        columns = flat.flat_index()[rows, before] if flat else before
        keep, where = columns.unique(return_inverse=True)
        logits = self.network(**inputs, use_cache=False, logits_to_keep=keep).logits
        ready.finish()
        return logits[torch.zeros_like(rows) if flat else rows, where]

    def prepare(self, batch: Batch, tokens: Tokens, observers: Observers = ()) -> Prepared:
        """Merge virtual tokens with a batch into the network's keyword arguments; `observers` see every attention of the pass."""
        batch = batch.to(self.device)
        tokens = list(tokens) if isinstance(tokens, Sequence) else tokens
        soft = self._soft(batch, tokens)
        if self.shape.kind == "encoder-decoder":
            inputs, mask, text = encoder_decoder.inputs(batch, soft, self.table, self.answer_opening)
        else:
            inputs, mask, text = self._line(batch, soft)
        prefixes = [t if isinstance(t, KVPrefix) else None for t in (tokens if isinstance(tokens, list) else [tokens])]
        lengths = torch.tensor([p.length if p else 0 for p in prefixes], device=self.device)
        positions = merge.positions(mask, self._start(lengths).expand(len(mask)))
        if self.shape.kind != "encoder-decoder":
            inputs["position_ids"] = positions
        if any(prefixes):
            inputs["foreword"] = attach(prefixes, self.shape, self.slots, positions, self.dtype)
        if not observers:
            return Prepared(inputs, mask, text)
        observed = ObservedPass(self.slots, self.shape, self._layout(batch), inputs.get("foreword"), observers)
        return Prepared({**inputs, "foreword": observed}, mask, text, observed)

    def _layout(self, batch: Batch) -> PassLayout:
        if self.shape.kind != "encoder-decoder":
            return one_stack(batch.mask, batch.at)
        return two_stacks(batch.mask, batch.at, encoder_decoder.answers(batch), len(self.answer_opening))

    def _line(self, batch: Batch, soft: Tensor | None) -> tuple[dict[str, Any], Tensor, Tensor]:
        """One stack's inputs, merged mask and text columns."""
        if soft is None:
            mask = batch.mask
            text = torch.arange(batch.ids.shape[1], device=self.device).expand(len(batch.ids), -1)
            inputs: dict[str, Any] = {"input_ids": batch.ids}
        else:
            merged = merge.merge(self.table(batch.ids), batch.mask, soft, batch.at)
            mask, text, inputs = merged.mask, merged.text, {"inputs_embeds": merged.embeds}
        if self.typed:
            inputs["token_type_ids"] = torch.zeros_like(mask, dtype=torch.long).scatter(1, text, batch.types)
        return {**inputs, "attention_mask": mask.long()}, mask, text

    def _start(self, lengths: Int[Tensor, " R"]) -> Int[Tensor, " R"]:
        """The position of a text's first token: after a kv prefix on causal models, as their engines count; else all positions stay the text's."""
        return lengths if self.shape.kind == "causal" else torch.full_like(lengths, self.first_position)

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

    def gradient_checkpointing(self, on: bool = True) -> AbstractContextManager[None]:
        """`with model.gradient_checkpointing():` forward passes inside keep one activation per layer and compute the rest again.

        Costs about a third more time. Do not generate inside the block, nor in another thread meanwhile. Raises ModelError where
        layers hold dropout of their own.
        """
        return recomputing(self.network, self.name) if on else nullcontext()

    @cached_property
    def first_position(self) -> int:
        """Where an encoder's positions begin: RoBERTa's count from behind its pad token."""
        return int(self.network.config.pad_token_id) + 1 if family_of(self.shape.family).after_pad else 0

    @cached_property
    def typed(self) -> bool:
        """Whether the model tells a first text from a second by token types."""
        return self.shape.kind == "encoder" and (getattr(self.network.config, "type_vocab_size", 0) or 0) > 1

    @cached_property
    def answer_opening(self) -> tuple[int, ...]:
        """What an encoder–decoder's decoder reads before every answer."""
        return encoder_decoder.opening(self.network, self.name)

    @cached_property
    def embed_scale(self) -> float:
        """What the model multiplies embeddings with when it is given token ids instead (Marian, Pegasus)."""
        return encoder_decoder.embed_scale(self.network) if self.shape.kind == "encoder-decoder" else 1.0

    def table(self, ids: Int[Tensor, "*N"]) -> Float[Tensor, "*N E"]:
        """Input embeddings as the first layer gets them (Gemma's are scaled inside)."""
        stack = self.network.get_encoder() if self.shape.kind == "encoder-decoder" else self.network
        embeds = stack.get_input_embeddings()(ids)
        return embeds if self.embed_scale == 1.0 else embeds * self.embed_scale

    def embed(self, ids: Sequence[int]) -> Float[Tensor, "N E"]:
        """`table` of a list of ids."""
        return self.table(torch.tensor(list(ids), dtype=torch.long, device=self.device)).detach()

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
    def keys_values(self, embeddings: Float[Tensor, "N E"], *, opening: bool = False) -> Float[Tensor, "M W"]:
        """Keys and values of every attention for a run of input embeddings between special tokens (whose own are left out), flat.

        With `opening` those of the token before it come first (M = N + 1), where the model has one and reads one text (M = N elsewhere).
        An encoder–decoder reads it as a source and as an answer. A run longer than the model's positions is read in pieces.
        """
        room = self.shape.positions - len(self.tokenizer.opening) - len(self.tokenizer.closing) - 2  # a decoder's own opening
        if len(embeddings) > room:
            pieces = embeddings.split(room)
            return torch.cat([self.keys_values(piece, opening=opening and piece is pieces[0]) for piece in pieces])
        text = embeddings.to(self.device, self.dtype)
        first = self.tokenizer.bos
        before = self.embed([first]) if first is not None else self.embed([])
        given, begin = {"inputs_embeds": torch.cat([before, text])[None]}, {"self": 0 if opening else len(before)}
        count = len(before) + len(text) - begin["self"]
        if self.shape.kind == "encoder-decoder":
            before, after, start = (self.embed(ids) for ids in (self.tokenizer.opening, self.tokenizer.closing, self.answer_opening))
            given, begin = encoder_decoder.sides(text, before, after, start, self.embed_scale)
            count = len(text)
        recorder = Recorder()
        observed = ObservedPass(self.slots, self.shape, PassLayout.empty(self.shape), None, [recorder])
        self.network.base_model(**given, foreword=observed, **self._no_cache)
        parts = []
        for slot, kv in enumerate(self.shape.kv):
            skip, call = begin[kv.part], recorder.calls[slot][0]
            pair = torch.stack([side[0, :, skip : skip + count] for side in (call.key, call.value)])  # [2, K, N, D]
            parts.append(pair.permute(2, 0, 1, 3).reshape(count, -1))
        return torch.cat(parts, dim=1).to(embeddings.device)
