"""What the laws are told of: prompts that are not trivial, rows, and stock transformers models to compare with."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import tiny
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from foreword import methods
from foreword.backbone.frozen_model import FrozenModel
from foreword.prompts.init import Material, initial_values
from foreword.prompts.soft_prompt import SoftPrompt
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix, VirtualTokens
from foreword.specs import Layers, PromptSpec, Window

TOLERANCE = 1e-4


def spec(method: str, length: int = 4, *, window: Window = "pinned", layers: Layers = "all") -> PromptSpec:
    """A recipe with a small re-parameterisation, so that thousands of cases stay quick."""
    made = methods.recipe(method, length=length, layers=layers)
    return replace(made, reparam=replace(made.reparam, hidden=8), window=window)


def prompt(model: FrozenModel, made: PromptSpec, seed: int = 0) -> SoftPrompt:
    """A trained-looking prompt: every number of the re-parameterisation is moved, or it would add nothing yet."""
    first = initial_values(made, model, Material(), seed=seed)
    soft = SoftPrompt(made, model.shape, first.origin.cpu(), first.scale.cpu(), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in soft.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return soft


@cache
def tokens(name: str, method: str, length: int = 4, *, window: Window = "pinned", layers: Layers = "all", seed: int = 0) -> VirtualTokens:
    """Virtual tokens for a shared tiny model."""
    model = tiny.frozen(name)
    with torch.no_grad():
        return prompt(model, spec(method, length, window=window, layers=layers), seed)()


def words(count: int, seed: int = 0) -> tuple[int, ...]:
    """Ids of ordinary tokens."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(len(tiny.SPECIALS), 320, (count,), generator=generator).tolist())


def row_for(read: VirtualTokens | None, ids: tuple[int, ...], at: tuple[int, ...] | None = None) -> Row:
    """A row of text with the places its prompt needs; leading unless `at` says otherwise."""
    if not isinstance(read, EmbeddingPrefix):
        return Row(ids)
    return Row(ids, (0,) * read.length if at is None else at)


def labelled(ids: tuple[int, ...], at: tuple[int, ...], labels: tuple[int, ...]) -> Row:
    """A row with labels that weigh the same."""
    return Row(ids, at, labels, tuple(float(label >= 0) for label in labels))


@cache
def stock(name: str) -> PreTrainedModel:
    """The same random weights in a model that Foreword never touched, with the family's plainest attention."""
    network = tiny.network(name)
    network.set_attn_implementation("eager")
    return network


@torch.no_grad()
def reference(name: str, row: Row, read: VirtualTokens | None) -> Tensor:
    """Logits [T + soft tokens, V] of stock transformers, with virtual tokens put in by hand: embeddings in line, or a filled cache."""
    network = stock(name)
    if isinstance(read, KVPrefix):
        pairs = [(read.keys[i][None], read.values[i][None]) for i in sorted(read.keys)]
        return network(torch.tensor([row.ids]), past_key_values=DynamicCache(pairs, config=network.config)).logits[0]
    if read is None:
        return network(torch.tensor([row.ids]), use_cache=False).logits[0]
    embeds = network.get_input_embeddings()(torch.tensor(row.ids))
    line: list[Tensor] = []
    for index in range(len(row.ids) + 1):
        line += [vector for vector, place in zip(read.vectors, row.at, strict=True) if place == index]
        line += [embeds[index]] if index < len(row.ids) else []
    return network(inputs_embeds=torch.stack(line)[None], use_cache=False).logits[0]


def text_columns(row: Row) -> list[int]:
    """Where the row's own tokens stand once its soft tokens are in line."""
    return [index + sum(place <= index for place in row.at) for index in range(len(row.ids))]


def distance(left: Tensor, right: Tensor) -> float:
    """Largest difference; shapes must agree."""
    assert left.shape == right.shape
    return (left.cpu() - right.cpu()).abs().max().item()
