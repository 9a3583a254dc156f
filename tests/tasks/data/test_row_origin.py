"""Examples know their place, and refusals begin with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreword.errors import DataError
from foreword.tasks.data.reader import digest, read
from foreword.tasks.data.row_origin import LocatedRow, map_rows, with_origin
from foreword.tasks.data.split import split


def fussy(example: object) -> str:
    if example == {"text": "bad"}:
        raise DataError("this is bad; mend it.")
    return "fine"


def test_the_row_of_a_file_is_named_after_a_shuffle_too(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "bad"}\n{"text": "c"}\n', "utf-8")
    rows = [row for part in split(read(path), valid=0.4) for row in part]
    with pytest.raises(DataError) as error:
        map_rows(rows, fussy)
    assert str(error.value) == f"row 2 of '{path}': this is bad; mend it."
    assert map_rows([row for row in rows if row["text"] != "bad"], fussy) == ["fine", "fine"]


def test_an_example_without_a_place_changes_nothing() -> None:
    with pytest.raises(DataError) as error, with_origin({"text": "bad"}):
        fussy({"text": "bad"})
    assert str(error.value) == "this is bad; mend it."
    with pytest.raises(ValueError, match="^other$"), with_origin(LocatedRow({}, "row 1 of 'x'")):
        raise ValueError("other")


def test_a_place_is_no_part_of_the_example() -> None:
    here, there = (LocatedRow({"text": "a"}, f"row {number} of 'x.csv'") for number in (1, 2))
    assert here == there == {"text": "a"}
    assert digest([here]) == digest([there]) == digest([{"text": "a"}])
