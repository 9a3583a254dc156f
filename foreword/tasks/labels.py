"""Labels of a classifier: those in its examples, and checks of them."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.errors import DataError
from foreword.tasks.base import Example
from foreword.tasks.data.list_cells import cell
from foreword.tasks.data.row_origin import map_rows


def labels_in(examples: Sequence[Example], column: str) -> tuple[str, ...]:
    """Every label of a column, sorted; raises DataError for a missing or an empty one."""
    return tuple(sorted(set(map_rows(examples, lambda example: _label(example, column)))))


def _label(example: Example, column: str) -> str:
    label = cell(example, column)
    if not label.strip():
        raise DataError(f"the column '{column}' is empty; fill it or remove the row.")
    return label


def check_labels(labels: Sequence[str]) -> None:
    """Raise DataError unless there are at least two, all different."""
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise DataError(
            f"labels {', '.join(labels) or 'none'} came, but a classifier needs at least two different ones; check the label column."
        )


def index_of(label: str | None, labels: Sequence[str]) -> int:
    """Which label an example has; raises DataError for an unknown one."""
    if label not in labels:
        raise DataError(f"label '{label}' is not one of {', '.join(labels)}; correct the data, or train with this label.")
    return labels.index(label)
