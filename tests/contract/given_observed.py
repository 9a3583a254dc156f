"""What the laws of observers are told of: a batch of rows of different lengths for each kind of model, and the pass that reads it."""

from __future__ import annotations

import tiny
import tiny_encoders
import tiny_seq2seq
import torch
from contract import given, given_encoders, given_seq2seq
from contract.laws import kind_of
from torch import Tensor

from foreword.backbone.attention.attention_observer import AttentionObserver
from foreword.backbone.batch import Batch, collate
from foreword.backbone.frozen_model import FrozenModel, Tokens
from foreword.prompts.template import Row
from foreword.prompts.tokens import KVPrefix, VirtualTokens

LENGTHS = (3, 17, 9)  # so many pads that they are removed where a family allows it
P = 4


def model_of(name: str) -> FrozenModel:
    """The shared tiny model of any kind."""
    return {"causal": tiny, "encoder": tiny_encoders, "encoder-decoder": tiny_seq2seq}[kind_of(name)].frozen(name)  # type: ignore[attr-defined]


def prompt_of(name: str, method: str) -> VirtualTokens:
    """P virtual tokens that a shared tiny model reads."""
    kinds = {"causal": given, "encoder": given_encoders, "encoder-decoder": given_seq2seq}
    return kinds[kind_of(name)].tokens(name, method, P)  # type: ignore[attr-defined]


def row_of(name: str, read: VirtualTokens | None, length: int) -> Row:
    """A row of about so many tokens, its soft tokens between the first and the second."""
    kind = kind_of(name)
    if kind == "encoder":
        return given_encoders.placed(given_encoders.text(name, max(length, 4), length), read)
    soft = not isinstance(read, KVPrefix | None)
    if kind == "encoder-decoder":
        return given_seq2seq.row(length, 1 + length % 4, (0, *(1,) * (P - 1)) if soft else (), length)
    return given.row_for(read, given.words(length, length), (0, *(1,) * (P - 1)) if soft else None)


def batch_of(name: str, reads: list[VirtualTokens | None]) -> Batch:
    """A row for each prompt."""
    rows = [row_of(name, read, length) for read, length in zip(reads, LENGTHS, strict=True)]
    return collate(rows, pad=model_of(name).tokenizer.pad or 0)


@torch.no_grad()
def outputs(name: str, batch: Batch, tokens: Tokens, observers: list[AttentionObserver] | None = None) -> Tensor:
    """States of one stack or logits of two, at real tokens."""
    model = model_of(name)
    look = model.forward if kind_of(name) == "encoder-decoder" else model.hidden
    return look(batch, tokens, observers or [])[batch.mask]


@torch.no_grad()
def shifted(name: str, batch: Batch, tokens: Tokens, later: int) -> Tensor:
    """The same, where a causal model counts its text's positions from so many further on."""
    if kind_of(name) != "causal":
        return outputs(name, batch, tokens)
    model = model_of(name)
    inputs = model.prepare(batch, tokens).inputs
    inputs["position_ids"] = inputs["position_ids"] + later
    return model.network.base_model(**inputs, use_cache=False).last_hidden_state[batch.mask]
