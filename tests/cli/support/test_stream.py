"""`foreword train --stream N`: a large file, of which only as much is read as is needed."""

from __future__ import annotations

from pathlib import Path

from cli.given import QUICK, ROWS, Foreword, write

from foreword.adapters.adapter import Adapter
from foreword.tasks.data.reader import digest, sample
from foreword.tasks.data.split import split


def test_train_on_a_stream(tmp_path: Path, foreword: Foreword, model: Path) -> None:
    data = write(tmp_path / "large.jsonl", ROWS * 3)
    found = foreword("train", data, "--model", model, "--out", tmp_path / "adapter", "--stream", 24, *QUICK)
    assert found.exit_code == 0, found.output
    rows, held = split(sample(data, 24))
    assert Adapter.load(tmp_path / "adapter").provenance["data"] == f"{digest(rows)} {digest(held)}"
    assert (len(rows), len(held)) == (22, 2)


def test_a_stream_of_too_little(tmp_path: Path, foreword: Foreword, model: Path, reviews: Path) -> None:
    found = foreword("train", reviews, "--model", model, "--out", tmp_path / "adapter", "--stream", 1, *QUICK)
    assert found.exit_code == 2
    assert (
        found.stderr == "foreword: error: a sample of 1 came, but training needs at least 2 examples, one of them held out; ask for more.\n"
    )
