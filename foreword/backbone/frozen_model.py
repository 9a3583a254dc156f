"""The frozen model: it adds virtual tokens to a batch and removes them from the outputs, which align with the caller's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foreword.backbone.attention import interface
from foreword.backbone.attention.introspection import number_attentions
from foreword.backbone.attention.padding_free import remove_padding
from foreword.backbone.batch import Batch
from foreword.backbone.encoder_decoder import decoder_opening
from foreword.backbone.family_overrides.model_overrides import override_modules
from foreword.backbone.fingerprint import fingerprint_model
from foreword.backbone.gradient_checkpointing import recomputing
from foreword.backbone.input_embeddings import InputEmbeddings
from foreword.backbone.model_info import ModelInfo
from foreword.backbone.model_inputs import InputMerger, ModelInputs, Observers, Tokens
from foreword.backbone.quantization import prepare_bitsandbytes, quantization_of
from foreword.backbone.text_to_kv import keys_values
from foreword.backbone.tokenizer import TextTokenizer
from foreword.errors import DataError, ModelError
from foreword.shape import ModelShape


@final
class FrozenModel:
    """A base model that never changes: eval mode, no gradients, Foreword's attention installed."""

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, shape: ModelShape, name: str, base: FrozenModel | None = None
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.base = base
        self.info = base.info if base else _info(network, tokenizer, shape, name)
        self.embeddings = InputEmbeddings(network, shape)
        self.inputs = InputMerger(network, self.info, self.embeddings)
        if not override_modules(network):
            interface.install(network)
        prepare_bitsandbytes(network)

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def shape(self) -> ModelShape:
        return self.info.shape

    @property
    def tokenizer(self) -> TextTokenizer:
        return self.info.tokenizer

    @property
    def quantization(self) -> str | None:
        """How the weights are stored: nf4, int8, or None for plain numbers."""
        return self.info.quantization

    @property
    def fingerprint(self) -> str:
        return self.info.fingerprint

    @property
    def tokenizer_fingerprint(self) -> str:
        return self.info.tokenizer_fingerprint

    @property
    def _no_cache(self) -> dict[str, Any]:
        return {} if self.shape.kind == "encoder" else {"use_cache": False}

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    def over(self, network: PreTrainedModel) -> FrozenModel:
        """The same base model with another network, for example one with LoRA: tokenizer, shape and fingerprints stay."""
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
        """Logits after each of the caller's T tokens; on an encoder–decoder they are the same for all tokens of a source.

        Raises ModelError for an encoder, which has no logits.
        """
        if self.shape.kind == "encoder":
            raise ModelError(f"forward came for {self.name}, but an encoder has no logits; use hidden.")
        ready = self.prepare(batch, tokens, observers)
        logits = self.network(**ready.inputs, use_cache=False).logits
        ready.finish()
        return logits.gather(1, ready.text[:, :, None].expand(-1, -1, logits.shape[2]))

    def predicting(self, batch: Batch, tokens: Tokens, select: Bool[Tensor, "B T"], observers: Observers = ()) -> Float[Tensor, "M V"]:
        """Logits that predict the M selected tokens, row by row: those at the column before each, which may be a soft token's.

        Only columns that predict something reach the output matrix, which at V = 262,144 is most of the work. Raises DataError for a
        selected token without a column before it.
        """
        ready = self.prepare(batch, tokens, observers)
        rows, columns = select.nonzero(as_tuple=True)
        before = ready.text[rows, columns] - 1
        if bool(((before < 0) | ~ready.mask[rows, before]).any()):
            raise DataError(
                "the first token of a row is a label, but no token before it predicts it; begin the template with {bos}, words, a field or a soft token."
            )
        if self.shape.kind == "encoder-decoder":  # nearly every column of a decoder predicts a token
            logits = self.network(**ready.inputs, use_cache=False).logits
            ready.finish()
            return logits[rows, before]
        inputs, flat = remove_padding(self.network, self.shape, ready.inputs, ready.mask)
        columns = flat.flat_index()[rows, before] if flat else before
        keep, where = columns.unique(return_inverse=True)
        logits = self.network(**inputs, use_cache=False, logits_to_keep=keep).logits
        ready.finish()
        return logits[torch.zeros_like(rows) if flat else rows, where]

    def prepare(self, batch: Batch, tokens: Tokens, observers: Observers = ()) -> ModelInputs:
        """Merge virtual tokens with a batch into the network's keyword arguments; `observers` see every attention of the pass."""
        return self.inputs.prepare(batch, tokens, lambda: self.slots, observers)

    def gradient_checkpointing(self, on: bool = True) -> AbstractContextManager[None]:
        """`with model.gradient_checkpointing():` forward passes inside keep one activation per layer and compute the rest again.

        Costs about a third more time. Do not generate inside the block, nor in another thread meanwhile. Raises ModelError if
        layers have dropout.
        """
        return recomputing(self.network, self.name) if on else nullcontext()

    @property
    def first_position(self) -> int:
        """Where an encoder's positions begin: RoBERTa's count from behind its pad token."""
        return self.inputs.first_position

    @property
    def typed(self) -> bool:
        """Whether the model tells a first text from a second by token types."""
        return self.inputs.typed

    @property
    def answer_opening(self) -> tuple[int, ...]:
        """What an encoder–decoder's decoder reads before every answer."""
        return self.info.answer_opening

    def embed(self, ids: Sequence[int]) -> Float[Tensor, "N E"]:
        """Input embeddings of token ids as the first layer gets them."""
        return self.embeddings.embed(ids)

    def frequent_tokens(self, count: int) -> list[int]:
        """Up to `count` ordinary word pieces, the most frequent first."""
        return self.info.frequent_tokens(count)

    def keys_values(self, embeddings: Float[Tensor, "N E"], *, opening: bool = False) -> Float[Tensor, "M W"]:
        """Keys and values of every attention for a run of input embeddings between special tokens, flat; with `opening` those of the token before it too."""
        return keys_values(self.network, self.info, self.embeddings, self.slots, embeddings, opening=opening)


def _info(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, shape: ModelShape, name: str) -> ModelInfo:
    """A base model without its weights; its fingerprint is computed from them at first use."""
    return ModelInfo(
        name=name,
        shape=shape,
        tokenizer=TextTokenizer(tokenizer, closing=shape.kind != "causal"),
        read_fingerprint=lambda: fingerprint_model(network, shape),
        quantization=quantization_of(network),
        decoder_opening=decoder_opening(network.generation_config) if shape.kind == "encoder-decoder" else (),
    )
