"""A model family as one record: everything about it that its config does not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from foreword.families.weight_layout import Layout
from foreword.shape import Kind
from foreword.specs import Site

BOTH: tuple[Site, ...] = ("input", "kv")


@dataclass(frozen=True)
class Family:
    """One `model_type` of transformers. A new family is one record in the tables next to this file (docs/adding.md).

    Args:
        title: Its name in tables and messages.
        kind: Which laws there are for it: those of causal models, encoders or encoder–decoders.
        sites: Where virtual tokens keep the laws; `why_not` says why one is missing.
        lora_targets: Ends of the names of the linear layers that make queries and values, as PEFT names them. All that exist are taken.
        transposed: Whether these layers keep their weights as [in, out] (GPT-2's Conv1D).
        after_pad: Whether positions count from behind the pad token, as RoBERTa's do.
        num_attentions: How many attentions of a config have weights of their own, where that is not its number of layers (ALBERT).
        layout: What counting its weights needs (`foreword advise`).
        overrides: "package.module:NAME" of the `ModuleOverrides` for attention outside transformers' attention interface, or layers outside its
            gradient checkpointing. Named, so that this table needs no torch.
    """

    title: str
    kind: Kind = "causal"
    sites: tuple[Site, ...] = BOTH
    why_not: str = ""
    lora_targets: tuple[str, ...] = ()
    transposed: bool = False
    after_pad: bool = False
    num_attentions: Callable[[Mapping[str, Any]], int] | None = None
    layout: Layout = Layout()
    overrides: str = ""
