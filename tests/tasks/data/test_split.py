"""The validation share: the same on every machine, never nothing, at most half."""

from __future__ import annotations

import pytest

from foreword.errors import DataError
from foreword.tasks.data.split import split


def test_splits_never_change_and_share_nothing() -> None:
    rows = [{"text": str(i)} for i in range(50)]
    train, valid = split(rows, valid=0.2, seed=3)
    assert (train, valid) == split(rows, valid=0.2, seed=3)
    assert len(valid) == 10 and sorted(int(r["text"]) for r in train + valid) == list(range(50))
    assert split(rows[:2])[1] and len(split(rows[:3], valid=0.9)[1]) == 1
    with pytest.raises(DataError) as caught:
        split(rows[:1])
    assert str(caught.value) == "1 example came, but training needs at least 2, one of them held out; add examples."
