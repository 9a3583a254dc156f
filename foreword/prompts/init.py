"""Initialisers: the first values of a prompt [P, W], each with its source, and the RMS of the model's own values.

Every kind first makes input embeddings [P, E]; at the kv site the frozen model turns them into keys and values by one forward pass behind
its beginning-of-sequence token, so `text` there is keys and values of real text (Li & Liang 2021, §7.4; Cartridges, arXiv:2506.06266),
beginning with that token's own, on which attention rests when nothing else matters (Xiao et al. 2024, arXiv:2309.17453); it takes one of the P
places, so the last piece of a text, or the last label, gives way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.errors import UsageError
from foreword.prompts.template import Tokenizer
from foreword.shape import ModelShape
from foreword.specs import PromptSpec

NUM_FREQUENT = 5000


@runtime_checkable
class Source(Protocol):
    """What an initialiser needs of a frozen model."""

    @property
    def shape(self) -> ModelShape: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    def embed(self, ids: Sequence[int]) -> Float[Tensor, "N E"]: ...
    def frequent_tokens(self, count: int) -> list[int]: ...
    def keys_values(self, embeddings: Float[Tensor, "N E"], *, opening: bool = False) -> Float[Tensor, "M W"]: ...


@dataclass(frozen=True)
class Material:
    """What the task gives an initialiser: its description, its labels and some training texts."""

    text: str = ""
    labels: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class InitialValues:
    """Initial values [P, W] and the RMS [W] of the model's own values there."""

    origin: Float[Tensor, "P W"]
    scale: Float[Tensor, " W"]


def initial_values(spec: PromptSpec, source: Source, material: Material, *, seed: int = 0, given: Tensor | None = None) -> InitialValues:
    """Initial values and scale for a spec. `given` holds the values of the kinds `adapter` and `file`. Raises UsageError for a kind that does not apply."""
    generator = torch.Generator().manual_seed(seed)
    frequent = source.frequent_tokens(NUM_FREQUENT)
    table = source.embed(frequent).float()
    probe = _probe(source, material, table, generator)
    layers = _columns(spec, source)
    scale = _rms(table).expand(spec.width(source.shape)) if spec.site == "input" else _kv_rms(source, probe, layers, spec)
    if given is not None:
        return InitialValues(_check_given(given, spec, source), scale.clone())
    kind = _resolve(spec, material)
    maker = _MAKERS[kind]
    if kind in ("random", "uniform") and spec.site == "kv":
        return InitialValues(_noise(kind, (spec.length, len(scale)), generator).to(scale.device) * spec.init.scale * scale, scale)
    rows = maker(_Context(spec, source, material, table, generator)) * spec.init.scale
    if spec.site == "input":
        return InitialValues(rows, scale.clone())
    opening = spec.length > 1  # a lone virtual token is a word's
    return InitialValues(source.keys_values(rows, opening=opening).float()[: spec.length, layers], scale)


@dataclass(frozen=True)
class _Context:
    spec: PromptSpec
    source: Source
    material: Material
    table: Tensor
    generator: torch.Generator


def _resolve(spec: PromptSpec, material: Material) -> str:
    """The kind that "default" means: the task's words, else its labels, else sampled vocabulary."""
    kind = spec.init.kind
    if kind == "kv_of_text":
        if spec.site != "kv":
            raise UsageError("initialiser 'kv_of_text' gives keys and values, but the input site needs embeddings; use 'text'.")
        return "text"
    if kind != "default":
        return kind
    return "text" if spec.init.text or material.text else "labels" if material.labels else "vocabulary"


def _noise(kind: str, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Numbers of RMS 1: N(0, 1), or uniform on [-√3, √3] (Lester et al. use [-0.5, 0.5], absolute, for T5)."""
    if kind == "random":
        return torch.randn(size, generator=generator)
    return (torch.rand(size, generator=generator) * 2 - 1) * 3**0.5


def _random(context: _Context) -> Tensor:
    """Noise with the RMS of the embedding table; PEFT's N(0, 1) is 20 to 50 times too large."""
    kind = context.spec.init.kind
    return _noise(kind, (context.spec.length, context.table.shape[1]), context.generator).to(context.table.device) * _rms(context.table)


def _vocabulary(context: _Context) -> Tensor:
    """Lester et al. 2021, §3.2: rows of the 5,000 most frequent tokens, without replacement where P allows."""
    return _sample(context, context.spec.length)


def _sample(context: _Context, count: int) -> Tensor:
    order = torch.randperm(len(context.table), generator=context.generator)
    return context.table[order.repeat(1 + count // len(order))[:count]]


def _text(context: _Context) -> Tensor:
    """The task's words, repeated or cut to P tokens; special tokens are left out (PEFT repeats them)."""
    text = context.spec.init.text or context.material.text
    ids = context.source.tokenizer.encode(text) if text else []
    if not ids:
        raise UsageError("initialiser 'text' needs a text; give one, for example --init-text 'Is this review positive or negative?'.")
    ids = (ids * (1 + context.spec.length // len(ids)))[: context.spec.length]
    return context.source.embed(ids).float()


def _labels(context: _Context) -> Tensor:
    """Lester et al. 2021, §3.2: one slot per label, the mean of its pieces; the other slots are sampled vocabulary."""
    pieces = [ids for label in context.material.labels if (ids := context.source.tokenizer.encode(label))]
    if not pieces:
        raise UsageError("initialiser 'labels' needs class labels, but this task has none; use 'text' or 'vocabulary'.")
    rows = torch.stack([context.source.embed(ids).float().mean(0) for ids in pieces])[: context.spec.length]
    return torch.cat([rows, _sample(context, context.spec.length - len(rows))])


def _mean(context: _Context) -> Tensor:
    """Mean embedding of the training texts: slot j averages texts j, j+P, …, so that slots differ."""
    length, encode = context.spec.length, context.source.tokenizer.encode
    texts = [ids for text in context.material.texts if (ids := encode(text)[:256])]
    if not texts:
        raise UsageError("initialiser 'mean' needs training texts; use 'text' or 'vocabulary'.")
    groups = [texts[j % len(texts) :: length] for j in range(length)]
    return torch.stack([context.source.embed([i for ids in group for i in ids]).float().mean(0) for group in groups])


_MAKERS: dict[str, Callable[[_Context], Tensor]] = {
    "random": _random,
    "uniform": _random,
    "vocabulary": _vocabulary,
    "text": _text,
    "labels": _labels,
    "mean": _mean,
}


def _rms(values: Tensor) -> Tensor:
    return values.float().square().mean().sqrt()


def _probe(source: Source, material: Material, table: Tensor, generator: torch.Generator) -> Tensor:
    """Embeddings of a few hundred real tokens, to measure keys and values on: training texts, else sampled vocabulary."""
    ids = [i for text in material.texts[:16] for i in source.tokenizer.encode(text)[:64]][:256]
    if ids:
        return source.embed(ids).float()
    return table[torch.randperm(len(table), generator=generator)[:128]]


def _columns(spec: PromptSpec, source: Source) -> Tensor:
    """Which columns of the all-layer flat form [·, W] belong to the chosen layers."""
    if spec.site == "input":
        return torch.arange(0)
    starts = torch.tensor([0, *[layer.width for layer in source.shape.kv]]).cumsum(0).tolist()
    return torch.cat([torch.arange(starts[i], starts[i + 1]) for i in spec.chosen_layers(source.shape)])


def _kv_rms(source: Source, probe: Tensor, columns: Tensor, spec: PromptSpec) -> Tensor:
    """RMS of the middle channel of real keys and of real values, per layer, spread over their columns [W].

    Not of all channels together, because a few channels of keys are so large that they would dominate.
    """
    flat = source.keys_values(probe).float()[:, columns]
    parts = []
    for part, layer in zip(
        flat.split([shape.width for shape in spec.kv_shapes(source.shape)], dim=1), spec.kv_shapes(source.shape), strict=True
    ):
        half = layer.width // 2
        parts.extend(side.square().mean(0).sqrt().median().clamp_min(1e-8).expand(half) for side in part.split(half, dim=1))
    return torch.cat(parts)


def _check_given(given: Tensor, spec: PromptSpec, source: Source) -> Tensor:
    expected = (spec.length, spec.width(source.shape))
    if tuple(given.shape) != expected:
        raise UsageError(
            f"initialiser '{spec.init.kind}' has shape {list(given.shape)}, but this prompt has {list(expected)}; "
            f"set num_virtual_tokens to {given.shape[0]}, or use a prompt for the same model, site and layers."
        )
    return given.detach().float()
