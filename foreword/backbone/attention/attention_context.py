"""The visitor of a forward pass for families whose layers hand no keywords on: noted in the context of the call, for its duration.

A context belongs to one thread, so threads cannot meet. Gradient checkpointing computes layers again outside the call: `recalled` takes
the visitor along.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

from torch import nn

from foreword.backbone.attention.interface import AttentionHook

_VISITOR: ContextVar[AttentionHook | None] = ContextVar("foreword_visitor", default=None)


def current() -> AttentionHook | None:
    """The visitor of the forward pass that runs in this context."""
    return _VISITOR.get()


def announce(model: nn.Module) -> None:
    """Have a model note its keyword `foreword` while it runs."""

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        _VISITOR.set(kwargs.get("foreword"))

    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        _VISITOR.set(None)

    model.register_forward_pre_hook(begin, with_kwargs=True)
    model.register_forward_hook(end, always_call=True)


class _Recall(AbstractContextManager[None]):
    """The context of a forward pass once more; it may be entered again and again, as a graph that is kept is computed again."""

    def __init__(self) -> None:
        self._visitor = current()

    def __enter__(self) -> None:
        self._outer = current()
        _VISITOR.set(self._visitor)

    def __exit__(self, *exception: object) -> None:
        _VISITOR.set(self._outer)


def recalled() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What torch's checkpoint asks for: the contexts of a layer's first run and of its recomputation."""
    return nullcontext(), _Recall()
