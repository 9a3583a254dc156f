"""A sample of a source that memory need not hold: files, datasets and anything that gives rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from foreword.errors import DataError
from foreword.tasks.data.reader import _BUFFER, read, sample

ROWS = [{"text": f"text {i}", "label": str(i % 2)} for i in range(50)]


def written(folder: Path, name: str) -> Path:
    """The rows in a file of each kind."""
    path = folder / name
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=7)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    else:
        separator = "," if path.suffix == ".csv" else "\t"
        path.write_text("".join(separator.join(row) + "\n" for row in [("text", "label"), *(tuple(row.values()) for row in ROWS)]), "utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet"])
def test_a_sample_of_a_file(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, name)
    assert read(path) == ROWS
    found = sample(path, 20)
    assert len(found) == 20 and all(row in ROWS for row in found) and len({row["text"] for row in found}) == 20
    assert found == sample(path, 20) != sample(path, 20, seed=1)
    assert sample(path, 10) == found[:10]
    assert sorted(row["text"] for row in sample(path, 1000)) == sorted(row["text"] for row in ROWS)


def test_a_large_file_is_read_no_further_than_needed(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": f"text {i}", "label": "a"}) + "\n" for i in range(_BUFFER + 100))
        file.write("{broken\n")
    found = sample(path, 100)
    places = [int(row["text"].removeprefix("text ")) for row in found]
    assert len(set(places)) == 100 and max(places) > 5000 and min(places) < 2000
    for count in (101, _BUFFER + 100):
        with pytest.raises(DataError) as caught:
            sample(path, count)
        assert str(caught.value) == (
            f"line {_BUFFER + 101} of '{path}' is not JSON (Expecting property name enclosed in double quotes); write one JSON object a line."
        )


def test_datasets_of_all_kinds(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl")
    streaming = datasets.load_dataset("json", data_files=str(path), split="train", streaming=True)
    assert sample(streaming, 20) == sample(path, 20)
    folder = written(tmp_path, "a.parquet")
    assert sample(datasets.load_dataset("parquet", data_files=str(folder), split="train", streaming=True), 20) == sample(path, 20)
    labelled = datasets.Dataset.from_dict(
        {"text": ["a", "b"], "label": [1, 0]},
        features=datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])),
    )
    for rows in (labelled, labelled.to_iterable_dataset()):
        assert sorted(sample(rows, 5), key=str) == [{"text": "a", "label": "yes"}, {"text": "b", "label": "no"}]


def test_any_iterable_without_an_end() -> None:
    def forever() -> Iterator[dict[str, Any]]:
        number = 0
        while True:
            number += 1
            yield {"sentence": f"text {number}", "y": number % 3}

    found = sample(forever(), 5, columns={"text": "sentence", "label": "y"})
    assert [set(row) for row in found] == [{"text", "label"}] * 5
    assert found[0].place.endswith(" of the stream")  # type: ignore[attr-defined]


def test_what_cannot_be_sampled_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "tags.conllu").write_text("1\ta\t_\tNOUN\n")
    refused = {
        ("a.jsonl", 1): "a sample of 1 came, but training needs at least 2 examples, one of them held out; ask for more.",
        ("a.jsonl", 5): f"'{tmp_path}/a.jsonl' does not exist; give a JSONL, CSV or Parquet file, or a datasets id.",
        ("empty.jsonl", 5): f"'{tmp_path}/empty.jsonl' has no examples; give a file with at least one row.",
        ("tags.conllu", 5): f"'{tmp_path}/tags.conllu' is a CoNLL file, which is always read whole; leave --stream out.",
    }
    for (name, count), message in refused.items():
        with pytest.raises(DataError) as caught:
            sample(tmp_path / name, count)
        assert str(caught.value) == message
    with pytest.raises(DataError) as caught:
        sample([{"a": 1}, {"a": 2}], 2, columns={"text": "b"})
    assert str(caught.value) == "the stream has no column 'b' to read as 'text' (found: a); correct --columns."
