"""The configuration that all runs of a comparison share: model, task, plan and data. Plain data, to pass to other processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from foreword.tasks.data.reader import Rows, digest
from foreword.tasks.data.row_origin import LocatedRow
from foreword.training.plan import TrainPlan

_ROWS = ("train", "valid", "test")


@dataclass(frozen=True)
class RunConfig:
    """`task` is a task's `to_dict`; `chat` reads templates in the model's chat format; `written` is a template for the written prompts.

    `test` is never used to train or to choose anything.
    """

    model: str
    task: dict[str, Any]
    plan: TrainPlan
    train: Rows
    valid: Rows
    test: Rows
    dtype: str = "auto"
    device: str | None = None
    chat: bool = False
    written: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, every row with its location in the file, so that errors of other processes name it."""
        rows = {name: [[dict(row), row.place if isinstance(row, LocatedRow) else None] for row in getattr(self, name)] for name in _ROWS}
        return {field.name: getattr(self, field.name) for field in fields(self)} | rows | {"plan": self.plan.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """Read what `to_dict` wrote."""
        rows = {name: [row if place is None else LocatedRow(row, place) for row, place in data[name]] for name in _ROWS}
        return cls(**{**data, **rows, "plan": TrainPlan.from_dict(data["plan"])})

    def facts(self) -> dict[str, Any]:
        """Facts that all results in one file share, by the names used in messages."""
        parts = {"training data": self.train, "validation data": self.valid, "test data": self.test}
        plan = {name: value for name, value in self.plan.to_dict().items() if name not in ("seed", "learning_rate")}
        return {
            **{name: f"{len(rows)} examples, {digest(rows)}" for name, rows in parts.items()},
            **{f"task's {name}": value for name, value in self.task.items()},
            **plan,
            "chat": self.chat,
            "written prompt": self.written,
        }
