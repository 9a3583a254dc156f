"""What the laws of encoder–decoders are told of: prompts, rows, and stock transformers whose attentions are worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import tiny_seq2seq
import torch
from contract.given import labelled, prompt, words
from contract.given import spec as plain_spec
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix, VirtualTokens
from foreword.specs import Layers, Parts, PromptSpec

EOS = tiny_seq2seq.EOS
PARTS = ("encoder", "decoder", "cross")


def spec(method: str, length: int = 4, *, parts: Parts = "all", layers: Layers = "all") -> PromptSpec:
    """A recipe with a small re-parameterisation, in some parts of the model."""
    return replace(plain_spec(method, length, layers=layers), parts=parts)


@cache
def tokens(name: str, method: str, length: int = 4, *, parts: Parts = "all", layers: Layers = "all", seed: int = 0) -> VirtualTokens:
    """Virtual tokens for a shared tiny model."""
    with torch.no_grad():
        return prompt(tiny_seq2seq.frozen(name), spec(method, length, parts=parts, layers=layers), seed)()


def row(source: int, answer: int, places: tuple[int, ...] = (), seed: int = 0) -> Row:
    """`source` words and the end token, then `answer` words that are labels."""
    ids, said = (*words(source, seed), EOS), words(answer, seed + 100)
    return labelled((*ids, *said), places, ((-100,) * len(ids)) + said)


def row_for(read: VirtualTokens | None, source: int, answer: int, seed: int = 0) -> Row:
    """The same, with the prompt in front where it is one of soft tokens."""
    return row(source, answer, (0,) * read.length if isinstance(read, EmbeddingPrefix) else (), seed)


def sides(row: Row) -> tuple[list[int], list[int]]:
    """Source and answer."""
    cut = next((i for i, label in enumerate(row.labels) if label >= 0), len(row.ids))
    return list(row.ids[:cut]), list(row.ids[cut:])


def attentions(network: PreTrainedModel) -> list[nn.Module]:
    """The attention modules by name: the encoder's, the decoder's, then those that look across."""
    encoder, decoder = network.get_encoder(), network.get_decoder()
    if hasattr(encoder, "block"):
        own = [block.layer[0].SelfAttention for block in encoder.block]
        both = [(block.layer[0].SelfAttention, block.layer[1].EncDecAttention) for block in decoder.block]
    else:
        own = [layer.self_attn for layer in encoder.layers]
        both = [(layer.self_attn, layer.encoder_attn) for layer in decoder.layers]
    return [*own, *(pair[0] for pair in both), *(pair[1] for pair in both)]


Side = tuple[Tensor, Tensor]


def _softmax(query: Tensor, key: Tensor, value: Tensor, prefix: Side | None, added: Tensor) -> Tensor:
    """Attention of heads [B, A, T, D] over [prefix | keys]; `added` [·, ·, T, S] holds mask and position bias of the model's own keys."""
    if prefix is not None:
        length = prefix[0].shape[1]
        key, value = (torch.cat([own.expand(len(side), -1, -1, -1), side], 2) for own, side in zip(prefix, (key, value), strict=True))
        added = torch.cat([torch.zeros(*added.shape[:3], length), added], 3)
    weights = (torch.einsum("batd,basd->bats", query, key) + added).softmax(-1)
    mixed = torch.einsum("bats,basd->batd", weights, value)
    return mixed.transpose(1, 2).reshape(len(mixed), mixed.shape[2], -1)


def _heads(states: Tensor, count: int) -> Tensor:
    return states.view(*states.shape[:2], count, -1).transpose(1, 2)


def _bart(module: Any, prefix: Side | None) -> Callable[..., Any]:
    def forward(hidden_states: Tensor, key_value_states: Tensor | None = None, attention_mask: Tensor | None = None, **_: Any) -> Any:
        source = hidden_states if key_value_states is None else key_value_states
        query, key, value = (
            _heads(made, module.num_heads) for made in (module.q_proj(hidden_states), module.k_proj(source), module.v_proj(source))
        )
        added = torch.zeros(1, 1, query.shape[2], key.shape[2]) if attention_mask is None else attention_mask
        return module.out_proj(_softmax(query / query.shape[3] ** 0.5, key, value, prefix, added)), None

    return forward


def _t5(module: Any, prefix: Side | None) -> Callable[..., Any]:
    def forward(
        hidden_states: Tensor,
        mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        position_bias: Tensor | None = None,
        **_: Any,
    ) -> Any:
        source = hidden_states if key_value_states is None else key_value_states
        query, key, value = (_heads(made, module.n_heads) for made in (module.q(hidden_states), module.k(source), module.v(source)))
        if position_bias is None:
            position_bias = torch.zeros(1, 1, query.shape[2], key.shape[2])
            if module.has_relative_attention_bias:
                position_bias = module.compute_bias(query.shape[2], key.shape[2])
        added = position_bias + (0.0 if mask is None else mask)
        return module.o(_softmax(query, key, value, prefix, added)), position_bias, None

    return forward


def by_hand(name: str, read: KVPrefix | None = None) -> PreTrainedModel:
    """A stock model whose every attention is worked out by hand, its own prefix in front."""
    network = tiny_seq2seq.network(name)
    network.set_attn_implementation("eager")
    make = _t5 if "t5" in network.config.model_type else _bart
    for slot, module in enumerate(attentions(network)):
        prefix = None if read is None or slot not in read.keys else (read.keys[slot], read.values[slot])
        module.forward = make(module, prefix)
    return network


def line(network: PreTrainedModel, row: Row, read: EmbeddingPrefix) -> Tensor:
    """Source embeddings [1, S, E] with soft tokens in line, scaled as the family scales its words."""
    scale = network.config.d_model**0.5 if getattr(network.config, "scale_embedding", False) else 1.0
    embeds = network.get_encoder().embed_tokens.weight[list(sides(row)[0])] * scale
    found: list[Tensor] = []
    for index in range(len(embeds) + 1):
        found += [vector for vector, place in zip(read.vectors, row.at, strict=True) if place == index]
        found += [embeds[index]] if index < len(embeds) else []
    return torch.stack(found)[None]


@torch.no_grad()
def reference(name: str, row: Row, read: VirtualTokens | None) -> Tensor:
    """Logits [1 + A, V] that predict each token of the answer, and what follows it."""
    network = by_hand(name, read if isinstance(read, KVPrefix) else None)
    source, answer = sides(row)
    opening = list(tiny_seq2seq.frozen(name).answer_opening)
    given = {"inputs_embeds": line(network, row, read)} if isinstance(read, EmbeddingPrefix) else {"input_ids": torch.tensor([source])}
    logits = network(**given, decoder_input_ids=torch.tensor([opening + answer]), use_cache=False).logits[0]
    return logits[len(opening) - 1 :]
