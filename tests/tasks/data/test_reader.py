"""Reading examples: every format, and every bad file in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from foreword.errors import DataError
from foreword.tasks.data import reader

ROWS = [{"text": "a joy, truly", "label": "1"}, {"text": "ein Käse", "label": "0"}]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({**row, "label": int(row["label"])}) for row in ROWS) + "\n\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text('text,label\n"a joy, truly",1\nein Käse,0\n', encoding="utf-8-sig")
    (tmp_path / "a.tsv").write_text("text\tlabel\na joy, truly\t1\nein Käse\t0\n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"text": [r["text"] for r in ROWS], "label": [1.0, 0.0]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.tsv", "a.parquet"):
        assert reader.read(tmp_path / name) == ROWS, name


def test_columns_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"sentence": "x", "y": 1, "text": "old"}\n')
    assert reader.read(path, columns={"text": "sentence", "label": "y"}) == [{"text": "x", "label": "1"}]
    with pytest.raises(DataError) as caught:
        reader.read(path, columns={"text": "missing"})
    assert str(caught.value) == f"'{path}' has no column 'missing' to read as 'text' (found: sentence, y, text); correct --columns."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "'{path}' has no examples; give a file with at least one row."),
        ("a.csv", b"text,label\n", "'{path}' has no examples; give a file with at least one row."),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "line 2 of '{path}' is not JSON (Expecting value); write one JSON object a line."),
        ("a.jsonl", b"[1, 2]\n", "line 1 of '{path}' is a JSON list, but each line must be one object; write {{\"text\": …}}."),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "'{path}' is not UTF-8 text: byte 0xff in line 2; save the file as UTF-8."),
        (
            "a.csv",
            b"text,label\nx\n",
            "line 2 of '{path}' has more or fewer fields than the 2 of the header; quote fields that hold separators.",
        ),
        (
            "a.csv",
            b"text,label\nx,1,2\n",
            "line 2 of '{path}' has more or fewer fields than the 2 of the header; quote fields that hold separators.",
        ),
    ],
)
def test_bad_files_get_one_sentence(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        reader.read(path)
    assert str(caught.value) == message.format(path=path)


def test_missing_files_and_foreign_endings(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        reader.read(tmp_path / "no.jsonl")
    assert str(caught.value) == f"'{tmp_path / 'no.jsonl'}' does not exist; give a JSONL, CSV or Parquet file, or a datasets id."
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        reader.read(tmp_path / "a.txt")
    assert (
        str(caught.value) == f"'{tmp_path / 'a.txt'}' is not a JSONL, CSV or Parquet file; convert it, or give its name the right ending."
    )
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match="is not a Parquet file"):
        reader.read(tmp_path / "a.parquet")


def test_a_column_that_is_missing_names_those_found() -> None:
    with pytest.raises(DataError) as caught:
        reader.need([{"text": "x", "label": "1"}, {"txt": "x", "label": "1"}], ("text", "label"), "a.jsonl")
    assert (
        str(caught.value) == "row 2 of 'a.jsonl' has no column 'text' (found: txt, label); rename it, or map it with --columns text=NAME."
    )


def test_digest_tells_rows_and_their_order_apart() -> None:
    rows = [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert reader.digest(rows) == reader.digest([dict(reversed(row.items())) for row in rows])
    assert reader.digest(rows) != reader.digest(rows[::-1])
