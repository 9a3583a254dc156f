"""The hook of a forward pass for families whose layers do not pass keywords on: a context variable for the duration of the call.

A context belongs to one thread, so threads do not interfere. Gradient checkpointing computes layers again outside the call:
`checkpoint_contexts` takes the hook along.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

from torch import nn

from foreword.backbone.attention.hooks import AttentionHook

_HOOK: ContextVar[AttentionHook | None] = ContextVar("foreword_attention_hook", default=None)


def current_hook() -> AttentionHook | None:
    """The hook of the forward pass that runs in this context."""
    return _HOOK.get()


def keep_hook(model: nn.Module) -> None:
    """Have a model put its keyword `foreword` into the context while it runs."""

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        _HOOK.set(kwargs.get("foreword"))

    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        _HOOK.set(None)

    model.register_forward_pre_hook(begin, with_kwargs=True)
    model.register_forward_hook(end, always_call=True)


class _SameHook(AbstractContextManager[None]):
    """The context of a forward pass, which can be entered repeatedly, because a retained graph is recomputed each time."""

    def __init__(self) -> None:
        self._hook = current_hook()

    def __enter__(self) -> None:
        self._outer = current_hook()
        _HOOK.set(self._hook)

    def __exit__(self, *exception: object) -> None:
        _HOOK.set(self._outer)


def checkpoint_contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For torch's checkpoint: the contexts of a layer's first run and of its recomputation."""
    return nullcontext(), _SameHook()
