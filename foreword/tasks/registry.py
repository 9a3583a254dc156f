"""Tasks by kind: the class of a row of `TASK_KINDS`, a task from the JSON in an adapter, and a kind from the columns of a user's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

from foreword.errors import AdapterError, UsageError
from foreword.prompts.template import Template
from foreword.shape import Kind
from foreword.task_kinds import TASK_KINDS
from foreword.tasks.base import Task


def task_class(kind: str) -> type[Any]:
    """The class of a kind of the table, a `Task` whose constructor takes its own settings."""
    module, _, name = TASK_KINDS[kind].task.partition(":")
    return getattr(import_module(module), name)


def task_from_dict(data: Mapping[str, Any]) -> Task:
    """The inverse of `Task.to_dict`; raises AdapterError naming an unknown kind or key."""
    data = dict(data)
    kind = str(data.pop("kind", None))
    if kind not in TASK_KINDS:
        raise AdapterError(f"task kind '{kind}' is not known; this version has {', '.join(TASK_KINDS)}.")
    if "template" in data:
        data["template"] = Template.parse(str(data["template"]), bos=bool(data.pop("bos", True)))
    cls = task_class(kind)
    unknown = sorted(set(data) - {f.name for f in fields(cls) if f.init})
    if unknown:
        raise AdapterError(f"task '{kind}' has no key '{unknown[0]}'; it was written by another version or by hand.")
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return cls(**plain)


def kind_of(columns: Sequence[str], model: Kind = "causal") -> str:
    """The kind whose columns these are; texts go to `seq2seq` on an encoder–decoder. Raises UsageError naming the columns found."""
    guessed = [kind for kind in TASK_KINDS.values() if kind.guessed]
    for kind in guessed:
        if set(kind.columns) <= set(columns):
            return (model == "encoder-decoder" and kind.on_encoder_decoder) or kind.name
    wanted = " or ".join(f"{','.join(kind.columns)} ({kind.name})" for kind in guessed)
    raise UsageError(
        f"the data has columns {', '.join(columns) or 'none'}, but a task needs {wanted}; rename them, or map them with --columns text=NAME."
    )
