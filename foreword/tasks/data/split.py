"""Examples split into a training and a validation share, in a way that never changes."""

from __future__ import annotations

import random

from foreword.errors import DataError
from foreword.tasks.data.reader import Rows


def split(rows: Rows, *, valid: float = 0.1, seed: int = 0) -> tuple[Rows, Rows]:
    """Shuffle and split off a validation share, at least one row and at most half; the same for the same rows and seed on every machine."""
    if len(rows) < 2:
        raise DataError(f"{len(rows)} example came, but training needs at least 2, one of them held out; add examples.")
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    held = min(max(1, round(valid * len(rows))), len(rows) // 2)
    return [rows[i] for i in order[held:]], [rows[i] for i in order[:held]]
