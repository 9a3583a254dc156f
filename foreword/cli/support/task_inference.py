"""Which task a file of examples is for: its kind by columns, model and method, its labels and settings by the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.cli.support.options import TaskOptions
from foreword.shape import Kind
from foreword.task_kinds import TASK_KINDS

if TYPE_CHECKING:
    from foreword.tasks.base import Task
    from foreword.tasks.data.reader import Rows


def task_of(options: TaskOptions, rows: Rows, source: str, model: Kind = "causal", *, trains: bool = True) -> Task:
    """The task these rows are for, on a kind of model, by a method that trains something beside a head or not.

    Raises UsageError for options of another kind, DataError for rows that are not suitable for training.
    """
    from foreword.tasks.data.reader import need
    from foreword.tasks.registry import task_class

    kind = TASK_KINDS[kind_of_rows(options, tuple(rows[0]), model, trains=trains)]
    settings = options.settings(kind)
    need(rows, [kind.target] if kind.has_template else kind.columns, source)
    return task_class(kind.name).of(rows, **settings)


def kind_of_rows(options: TaskOptions, columns: tuple[str, ...], model: Kind, *, trains: bool) -> str:
    """The kind asked for or guessed: a head answers where there are no label words: on encoders, of two texts, and where nothing else is trained."""
    name = options.kind(columns)
    if options.task is not None:
        return name
    kind = TASK_KINDS[name]
    if model == "encoder-decoder":
        return kind.on_encoder_decoder or name
    worded = options.template is not None or options.words is not None or options.chat
    if kind.with_head is not None and not worded and (model == "encoder" or not trains or "text_b" in columns):
        return kind.with_head
    return name
