"""The table of task kinds says of each what its class does, and docs/tasks/kinds.md says what the table says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from foreword import task_kinds
from foreword.task_kinds import BASE_MODEL, BATCH, TASK_KINDS, TaskKind, find_kind, kind_on

PAGE = Path(__file__).resolve().parents[1] / "docs/tasks/kinds.md"


def test_the_table_on_the_page_is_the_table() -> None:
    block = PAGE.read_text("utf-8").split("<!-- kinds:start -->\n")[1].split("\n<!-- kinds:end -->")[0]
    assert block == task_kinds.as_markdown(), "run scripts/docs"
    assert len(block.splitlines()) == 2 + len(TASK_KINDS)


@pytest.mark.parametrize("name", TASK_KINDS)
def test_a_row_says_what_its_class_does(name: str) -> None:
    from foreword.cli.support.options import TaskOptions
    from foreword.tasks.base import Task
    from foreword.tasks.head_task import HeadTask
    from foreword.tasks.registry import task_class
    from foreword.tasks.template_task import TemplateTask

    kind, cls = TASK_KINDS[name], task_class(name)
    assert issubclass(cls, Task) and (kind.name, cls.kind, cls.target) == (name, name, kind.target)
    assert kind.target in kind.columns and set(kind.options) <= {field.name for field in fields(TaskOptions)}
    assert issubclass(cls, HeadTask) == (kind.answers == "head") == bool(kind.head_outputs)
    assert issubclass(cls, TemplateTask) == kind.has_template and ("chat" in kind.options) == kind.has_template
    arguments = {field.name for field in fields(cls) if field.init}
    assert {"description", *kind.options} - {"chat"} <= arguments
    if kind.has_template:
        assert {*cls.template.fields, kind.target} == set(kind.columns)


def test_every_kind_is_found_by_name_and_by_its_columns() -> None:
    from foreword.tasks.registry import kind_of

    assert [find_kind(name) for name in TASK_KINDS] == list(TASK_KINDS.values()) and find_kind("text") is BASE_MODEL
    assert find_kind("dance") == TaskKind("dance", "", ("text", "label"), "label") and find_kind("dance").endpoint == BATCH
    for kind in TASK_KINDS.values():
        assert (kind_of(kind.columns) == kind.name) == kind.guessed


def test_the_kind_that_does_the_work_on_another_model() -> None:
    expected = {"classify": ("classify-head", "classify"), "generate": ("generate", "seq2seq")}
    for name in TASK_KINDS:
        assert kind_on(name, "causal").name == name
        assert (kind_on(name, "encoder").name, kind_on(name, "encoder-decoder").name) == expected.get(name, (name, name))
