"""Which task a file of examples is for: its kind by columns, model and method, its labels and settings by the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foreword.cli.support.options import TaskOptions, labels_of
from foreword.errors import UsageError
from foreword.shape import Kind

if TYPE_CHECKING:
    from foreword.tasks.base import Task
    from foreword.tasks.data.reader import Rows

_WORDS = ("classify", "generate", "seq2seq", "probe")
_POOLED = ("classify-head", "multi-label", "regress", "choice")

# Which kinds an option is for, and what to say of the others.
_FOR = {
    "template": (_WORDS, "reads texts in the tokenizer's own format"),
    "chat": (_WORDS, "reads texts in the tokenizer's own format"),
    "words": (("classify",), "has no label words"),
    "max_new_tokens": (("generate", "seq2seq"), "writes no text"),
    "pooling": (_POOLED, "has no head on one state of a text"),
}


def task_of(options: TaskOptions, rows: Rows, source: str, stacks: Kind = "causal", *, trains: bool = True) -> Task:
    """The task these rows are for, on a model of a kind, by a method that trains something beside a head or not.

    Raises UsageError for options of another kind, DataError for rows that cannot be learned from.
    """
    kind = kind_of_rows(options, tuple(rows[0]), stacks, trains=trains)
    for name, (kinds, why) in _FOR.items():
        if getattr(options, name) not in (None, False) and kind not in kinds:
            raise UsageError(f"--{name.replace('_', '-')} came for a {kind} task, which {why}; leave it out.")
    if kind in ("generate", "seq2seq"):
        return options.build(kind, None)
    if kind == "classify":
        task = options.build(kind, labels_of(rows, source))
        if "text_b" in rows[0] and "text_b" not in task.columns:
            raise UsageError(
                f"'{source}' has two texts, text and text_b, but the template reads only one; put {{text_b}} into --template, or use --task classify-head."
            )
        return task
    return _of_rows(kind, options, rows, source)


def kind_of_rows(options: TaskOptions, columns: tuple[str, ...], stacks: Kind, *, trains: bool) -> str:
    """The kind asked for or guessed: a head classifies where there are no label words: on encoders, of two texts, and where nothing else is trained."""
    kind = options.kind(columns)
    if options.task is not None:
        return kind
    if kind == "generate" and stacks == "encoder-decoder":
        return "seq2seq"
    worded = options.template is not None or options.words is not None or options.chat
    if kind == "classify" and not worded and stacks != "encoder-decoder" and (stacks == "encoder" or not trains or "text_b" in columns):
        return "classify-head"
    return kind


def _of_rows(kind: str, options: TaskOptions, rows: Rows, source: str) -> Task:
    """A task that takes labels, candidates or units from the rows."""
    from foreword.tasks.data.reader import need
    from foreword.tasks.registry import COLUMNS, KINDS

    task = KINDS[kind]
    settings: dict[str, Any] = {name: getattr(options, name) for name in ("description", "pooling") if getattr(options, name) is not None}
    if kind == "probe":
        settings["template"] = options.source(kind)
        need(rows, [task.target], source)
    else:
        need(rows, COLUMNS.get(kind, COLUMNS["classify"]), source)
    if kind in ("classify-head", "multi-label", "regress"):
        settings["pair"] = "text_b" in rows[0]
    if kind == "classify-head":
        return task(labels_of(rows, source), **settings)
    return task(**settings) if kind == "choice" else task.of(rows, **settings)
