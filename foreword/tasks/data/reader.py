"""Examples from JSONL, CSV, Parquet, CoNLL or a `datasets` id: read whole, or sampled on the way.

Files are not read by `datasets`: it converts all rows to one schema, writes a copy of them to its cache, and does not say which line is wrong.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec

from foreword.errors import DataError
from foreword.tasks.data import conll_file
from foreword.tasks.data.csv_file import read_csv
from foreword.tasks.data.hub_dataset import labels_in_words, read_hub_dataset
from foreword.tasks.data.jsonl_file import read_jsonl
from foreword.tasks.data.parquet_file import read_parquet
from foreword.tasks.data.row_origin import LocatedRow
from foreword.tasks.data.text_lines import text_lines

Rows = list[dict[str, str]]
_BUFFER = 10_000  # rows that `sample` chooses from at a time
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", *conll_file.SUFFIXES)


def read(source: str | Path, *, columns: Mapping[str, str] | None = None) -> Rows:
    """Read examples as rows of text; `columns` maps a column we need to the one the file has.

    Raises DataError for a missing or empty source, bytes that are not UTF-8, lines that cannot be read and columns that are not there.
    """
    source = str(source)
    return _not_empty(_located(_rows_of(source, columns or {}), f"'{source}'", _to_map(source, columns)), source)


def sample(
    source: str | Path | Iterable[Mapping[str, Any]], count: int, *, columns: Mapping[str, str] | None = None, seed: int = 0
) -> Rows:
    """The first `count` examples behind a shuffle buffer of 10,000: what `read` gives, from a source that memory need not hold.

    A file, a `datasets` id or any iterable of rows (a streaming dataset) is read from its start, no further than needed: order it at random, or
    at least not by label. The same source, count and seed give the same examples. Raises DataError as `read` does, and for a CoNLL file.
    """
    if count < 2:
        raise DataError(f"a sample of {count} came, but training needs at least 2 examples, one of them held out; ask for more.")
    if not isinstance(source, str | Path):
        return list(islice(_shuffled(_located(labels_in_words(source), "the stream", columns or {}), seed), count))
    source = str(source)
    if source.endswith(conll_file.SUFFIXES):
        raise DataError(f"'{source}' is a CoNLL file, which is always read whole; leave --stream out.")
    with closing(_rows_of(source, {}, stream=True)) as rows:
        return _not_empty(islice(_shuffled(_located(rows, f"'{source}'", columns or {}), seed), count), source)


def _not_empty(rows: Iterable[dict[str, str]], source: str) -> Rows:
    found = list(rows)
    if not found:
        raise DataError(f"'{source}' has no examples; give a file with at least one row.")
    return found


def _shuffled(rows: Iterator[LocatedRow], seed: int) -> Iterator[LocatedRow]:
    """Rows in a random order, of which a buffer is seen at a time."""
    random_ = random.Random(seed)
    buffer = list(islice(rows, _BUFFER))
    for row in rows:
        index = random_.randrange(_BUFFER)
        yield buffer[index]
        buffer[index] = row
    random_.shuffle(buffer)
    yield from buffer


def _to_map(source: str, columns: Mapping[str, str] | None) -> Mapping[str, str]:
    """Columns to rename: those of a CoNLL file were chosen when it was parsed."""
    return {} if source.endswith(conll_file.SUFFIXES) else columns or {}


def _located(rows: Iterator[Mapping[str, Any]], name: str, columns: Mapping[str, str]) -> Iterator[LocatedRow]:
    """Rows of text that know where they stand, their columns renamed."""
    for number, row in enumerate(rows, 1):
        row = _renamed(row, columns, name) if columns else row
        yield LocatedRow({key: _text(value) for key, value in row.items()}, f"row {number} of {name}")


def need(rows: Rows, columns: Sequence[str], source: str) -> Rows:
    """The rows, once every row has every column; raises DataError naming the columns found."""
    for number, row in enumerate(rows, 1):
        for column in columns:
            if column not in row:
                raise DataError(
                    f"row {number} of '{source}' has no column '{column}' (found: {', '.join(row) or 'none'}); rename it, or map it with --columns {column}=NAME."
                )
    return rows


def digest(rows: Sequence[Mapping[str, str]]) -> str:
    """A short name for these examples in this order."""
    text = json.dumps([dict(sorted(row.items())) for row in rows], ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _rows_of(source: str, columns: Mapping[str, str], *, stream: bool = False) -> Generator[dict[str, Any]]:
    """Rows as the source has them, one after the other."""
    if not source.endswith(_SUFFIXES):
        yield from read_hub_dataset(source, stream)
        return
    try:
        with fsspec.open(source, "rb") as file:
            yield from _parse(file, source, columns)
    except FileNotFoundError:
        raise DataError(f"'{source}' does not exist; give a JSONL, CSV or Parquet file, or a datasets id.") from None
    except OSError as error:
        raise DataError(f"'{source}' cannot be read ({error.strerror or error}); check the path and its permissions.") from error


def _parse(file: Any, source: str, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of an open file, whose ending says which format it has."""
    if source.endswith(".parquet"):
        return read_parquet(file, source)
    lines = text_lines(file, source)
    if source.endswith((".csv", ".tsv")):
        return read_csv(lines, source)
    if source.endswith(conll_file.SUFFIXES):
        return iter(conll_file.parse("".join(lines), source, columns))
    return read_jsonl(lines, source)


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str], source: str) -> dict[str, Any]:
    for ours, theirs in columns.items():
        if theirs not in row:
            raise DataError(f"{source} has no column '{theirs}' to read as '{ours}' (found: {', '.join(row)}); correct --columns.")
    back = {theirs: ours for ours, theirs in columns.items()}
    return {back.get(key, key): value for key, value in row.items() if key in back or key not in columns}


def _text(value: Any) -> str:
    """A cell as text: whole numbers lose a float's '.0', nothing stays empty."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)
