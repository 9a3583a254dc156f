"""Observers of attention: record it, measure its share on a prompt, and mask single virtual tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import final

from jaxtyping import Float
from torch import Tensor

from foreword.backbone.attention.attention_observer import AttentionCall, AttentionObserver
from foreword.errors import UsageError


@final
class Recorder(AttentionObserver):
    """Keeps the last pass: `calls` holds by slot what each attention saw, in the order of the layers."""

    def __init__(self) -> None:
        self.calls: dict[int, list[AttentionCall]] = {}

    def begin(self, virtual_tokens: int, attentions: int) -> None:
        self.calls = {}

    def observe(self, call: AttentionCall) -> None:
        self.calls.setdefault(call.slot, []).append(call)


@final
class AttentionToPrompt(AttentionObserver):
    """The share of attention that each of the caller's tokens gives to each virtual token in the last pass.

    `shares` holds by slot one tensor for each time the pass meets this attention: [B, T, P], the mean over heads, or [B, A, T, P] with
    `per_head`. 0 at pads, at tokens that this part of the model does not read, and where a row has fewer virtual tokens.
    """

    def __init__(self, *, per_head: bool = False) -> None:
        self.per_head = per_head
        self.shares: dict[int, list[Float[Tensor, "B *A T P"]]] = {}

    def begin(self, virtual_tokens: int, attentions: int) -> None:
        self.shares = {}

    def observe(self, call: AttentionCall) -> None:
        queries, keys = call.tokens[:, None, :, None], call.virtual[:, None, None, :]
        heads, length = call.query.shape[1], call.weights.shape[3]
        rows = call.weights.gather(2, queries.clamp_min(0).expand(-1, heads, -1, length))
        shares = rows.gather(3, keys.clamp_min(0).expand(-1, heads, rows.shape[2], -1)).where((queries >= 0) & (keys >= 0), 0.0)
        self.shares.setdefault(call.slot, []).append(shares if self.per_head else shares.mean(1))


@final
class MaskVirtualTokens(AttentionObserver):
    """Switches virtual tokens off: no query sees them, in the attentions with these indices in `ModelShape.kv`, or in all.

    Raises UsageError for an index below 0, and when a pass begins that has no such virtual token or attention.
    """

    def __init__(self, indices: Iterable[int], layers: Iterable[int] | None = None) -> None:
        self.indices = tuple(sorted(set(indices)))
        self.layers = None if layers is None else frozenset(layers)
        if lowest := [index for index in (*self.indices, *(self.layers or ())) if index < 0]:
            raise UsageError(f"the mask names index {min(lowest)}, but virtual tokens and layers are counted from 0; give 0 or more.")

    def begin(self, virtual_tokens: int, attentions: int) -> None:
        for name, highest, count in (
            ("virtual token", max(self.indices, default=-1), virtual_tokens),
            ("layer", max(self.layers or (), default=-1), attentions),
        ):
            if highest >= count:
                raise UsageError(f"the mask names {name} {highest}, but there are {count}, counted from 0; choose one of them.")

    def masked(self, slot: int) -> Collection[int]:
        return self.indices if self.layers is None or slot in self.layers else ()
