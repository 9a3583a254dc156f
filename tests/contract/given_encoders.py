"""What the laws of encoders are told of: prompts, rows, and stock encoders with virtual tokens put in by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import tiny_encoders
import torch
from contract.given import prompt, spec
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention

from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix, VirtualTokens
from foreword.specs import Layers

# The projections to keys and to values of every family; ModernBERT's one projection also makes queries.
KEYS = ("key", "k_lin", "k", "key_proj")
VALUES = ("value", "v_lin", "v", "value_proj")
BOTH = "Wqkv"


@cache
def tokens(name: str, method: str, length: int = 4, *, layers: Layers = "all", seed: int = 0) -> VirtualTokens:
    """Virtual tokens for a shared tiny encoder."""
    with torch.no_grad():
        return prompt(tiny_encoders.frozen(name), spec(method, length, layers=layers), seed)()


def words(count: int, seed: int = 0) -> tuple[int, ...]:
    """Ids of ordinary tokens."""
    return tuple(torch.randint(5, 320, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def text(name: str, count: int, seed: int = 0) -> Row:
    """A row of `count` tokens, special ones included, the second half of another type where the model has types."""
    model = tiny_encoders.frozen(name)
    opening, closing = model.tokenizer.opening, model.tokenizer.closing
    ids = (*opening, *words(count - len(opening) - len(closing), seed), *closing)
    return Row(ids, types=(0,) * (count - count // 2) + (int(model.typed),) * (count // 2))


def placed(row: Row, read: VirtualTokens | None, at: tuple[int, ...] | None = None) -> Row:
    """The row with places for its prompt: behind [CLS], unless `at` says otherwise."""
    if not isinstance(read, EmbeddingPrefix):
        return row
    return Row(row.ids, (1,) * read.length if at is None else at, types=row.types)


@cache
def stock(name: str) -> PreTrainedModel:
    """The same random weights in an encoder that Foreword never touched, with plain attention."""
    return tiny_encoders.network(name, attn_implementation="eager")


@torch.no_grad()
def reference(name: str, row: Row, read: VirtualTokens | None) -> Tensor:
    """States [T + soft tokens, H] of stock transformers, with virtual tokens put in by hand."""
    network, model = stock(name), tiny_encoders.frozen(name)
    types = torch.tensor([row.types]) if model.typed else None
    ids = torch.tensor([row.ids])
    if isinstance(read, KVPrefix):
        return _prefixed(network, ids, types, read, model.first_position)
    if read is None:
        return network(ids, **({} if types is None else {"token_type_ids": types})).last_hidden_state[0]
    embeds = network.get_input_embeddings()(ids[0])
    line: list[Tensor] = []
    kinds: list[int] = []
    for index in range(len(row.ids) + 1):
        soft = [vector for vector, place in zip(read.vectors, row.at, strict=True) if place == index]
        own = [embeds[index]] if index < len(row.ids) else []
        line += [*soft, *own]
        kinds += [0] * len(soft) + list(row.types[index : index + 1])
    more = {"token_type_ids": torch.tensor([kinds])} if model.typed else {}
    return network(inputs_embeds=torch.stack(line)[None], **more).last_hidden_state[0]


def _prefixed(network: PreTrainedModel, ids: Tensor, types: Tensor | None, read: KVPrefix, first: int) -> Tensor:
    """P columns stand before the text whose keys and values are overwritten in every layer, at no distance from it, and unseen otherwise."""
    length, count = read.length, ids.shape[1]
    blank = [ids.new_zeros(1, length), torch.arange(first, first + count)[None]]
    inputs: dict[str, Any] = {
        "input_ids": torch.cat([blank[0], ids], 1),
        "position_ids": torch.cat(blank, 1),  # position 0 also means: not rotated
        "attention_mask": torch.ones(1, length + count),
    }
    if types is not None:
        inputs["token_type_ids"] = torch.cat([blank[0], types], 1)
    if network.config.model_type == "modernbert":
        inputs["attention_mask"] = _bands(count, length, network.config.sliding_window)
    with by_hand(network, read, length + count):
        return network(**inputs).last_hidden_state[0, length:]


def _bands(count: int, length: int, reach: int) -> dict[str, Tensor]:
    """Additive masks [1, 1, P+T, P+T]: a window reaches so far to both sides, and everyone sees the whole prefix."""
    column = torch.arange(length + count)
    near = (column[:, None] - column).abs() <= reach
    near[:, :length] = True
    full = torch.zeros(1, 1, length + count, length + count)
    return {"full_attention": full, "sliding_attention": full.masked_fill(~near, torch.finfo(torch.float32).min)}


def projections(network: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    """The projections to keys and values of each attention, in the order of the layers; the same one twice where they are one."""
    found = []
    for module in network.modules():
        named = dict(module.named_children())
        keys = [named[name] for name in (*KEYS, BOTH) if name in named]
        values = [named[name] for name in (*VALUES, BOTH) if name in named]
        found += list(zip(keys, values, strict=True))
    return found  # type: ignore[return-value]


@contextmanager
def by_hand(network: nn.Module, read: KVPrefix, columns: int) -> Iterator[None]:
    """Keys and values of the first P of so many columns are the prefix's, and no position bias speaks of them."""
    length = read.length
    with ExitStack() as stack:
        for layer, (key, value) in enumerate(projections(network)):
            for part, (side, linear) in enumerate(((read.keys, key), (read.values, value)), 1):
                span = slice(part * linear.out_features // 3, (part + 1) * linear.out_features // 3) if key is value else slice(None)
                numbers = side[layer].transpose(0, 1).flatten(1)  # [P, K·D]
                stack.callback(linear.register_forward_hook(_overwriting(numbers, span, columns)).remove)
        for module in network.modules():
            if type(module).__name__.endswith("Embeddings"):  # what a convolution would see of the columns
                stack.callback(module.register_forward_hook(lambda _, __, out: _zeroed(out, 1, length)).remove)
            if isinstance(module, MPNetSelfAttention):
                stack.callback(module.register_forward_pre_hook(lambda _, args: (*args[:2], _zeroed(args[2], 3, length))).remove)
            if isinstance(module, DisentangledSelfAttention):
                original = module.disentangled_attention_bias
                module.disentangled_attention_bias = _without(original, length)  # type: ignore[method-assign]
                stack.callback(module.__dict__.pop, "disentangled_attention_bias")
        yield


def _overwriting(numbers: Tensor, span: slice, columns: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def overwrite(module: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
        if args[0].shape[1] != columns:  # DeBERTa-v3 projects its distances with the same weights
            return out
        out = out.clone()
        out[:, : len(numbers), span] = numbers
        return out

    return overwrite


def _zeroed(side: Tensor, dim: int, length: int) -> Tensor:
    side = side.clone()
    side.narrow(dim, 0, length).zero_()
    return side


def _without(bias: Callable[..., Tensor], length: int) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: _zeroed(bias(*args, **kwargs), 2, length)
