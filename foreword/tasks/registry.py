"""Tasks by kind: from the JSON in an adapter, and from the columns of a user's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from foreword.errors import AdapterError, UsageError
from foreword.prompts.template import Template
from foreword.shape import Kind
from foreword.tasks.base import Task
from foreword.tasks.choice import Choice
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify
from foreword.tasks.knowledge_probe import Probe
from foreword.tasks.multilabel import MultiLabel
from foreword.tasks.qa import QA
from foreword.tasks.regress import Regress
from foreword.tasks.seq2seq import Seq2Seq
from foreword.tasks.tag import Tag

_ALL: tuple[type[Any], ...] = (Classify, HeadClassify, MultiLabel, Regress, Tag, QA, Choice, Probe, Generate, Seq2Seq)
KINDS: dict[str, type[Any]] = {task.kind: task for task in _ALL}

# What tells kinds apart by their columns alone; the others are asked for by name.
COLUMNS: dict[str, tuple[str, ...]] = {
    "classify": ("text", "label"),
    "generate": ("input", "output"),
    "tag": ("tokens", "tags"),
    "qa": ("question", "context", "answers"),
    "choice": ("question", "choices", "label"),
    "probe": ("subject", "answer"),
}


def task_from_dict(data: Mapping[str, Any]) -> Task:
    """The inverse of `Task.to_dict`; raises AdapterError naming an unknown kind or key."""
    data = dict(data)
    kind = str(data.pop("kind", None))
    if kind not in KINDS:
        raise AdapterError(f"task kind '{kind}' is not known; this version has {', '.join(KINDS)}.")
    if "template" in data:
        data["template"] = Template.parse(str(data["template"]), bos=bool(data.pop("bos", True)))
    known = {f.name for f in fields(KINDS[kind])}
    unknown = sorted(set(data) - known)
    if unknown:
        raise AdapterError(f"task '{kind}' has no key '{unknown[0]}'; it was written by another version or by hand.")
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return KINDS[kind](**plain)


def kind_of(columns: Sequence[str], stacks: Kind = "causal") -> str:
    """The kind whose columns these are; texts go to `seq2seq` on an encoder–decoder. Raises UsageError naming the columns found."""
    for kind, needed in COLUMNS.items():
        if set(needed) <= set(columns):
            return "seq2seq" if kind == "generate" and stacks == "encoder-decoder" else kind
    wanted = " or ".join(f"{','.join(needed)} ({kind})" for kind, needed in COLUMNS.items())
    raise UsageError(
        f"the data has columns {', '.join(columns) or 'none'}, but a task needs {wanted}; rename them, or map them with --columns text=NAME."
    )
