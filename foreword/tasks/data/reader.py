"""Examples from JSONL, CSV, Parquet, CoNLL or a `datasets` id: read whole or sampled on the way, checked, split in a way that never changes."""

from __future__ import annotations

import csv
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
from foreword.tasks.data import conll
from foreword.tasks.data.row_origin import LocatedRow

Rows = list[dict[str, str]]
_BUFFER = 10_000  # rows that `sample` chooses from at a time
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", *conll.SUFFIXES)


def read(source: str | Path, *, columns: Mapping[str, str] | None = None) -> Rows:
    """Read examples as rows of text; `columns` maps a column we need to the one the file has.

    Raises DataError for a missing or empty source, bytes that are not UTF-8, lines that cannot be read and columns that are not there.
    """
    source = str(source)
    return _some(_placed(_raw(source, columns or {}), f"'{source}'", _to_map(source, columns)), source)


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
        return list(islice(_shuffled(_placed(_worded(source), "the stream", columns or {}), seed), count))
    source = str(source)
    if source.endswith(conll.SUFFIXES):
        raise DataError(f"'{source}' is a CoNLL file, which is always read whole; leave --stream out.")
    with closing(_raw(source, {}, stream=True)) as rows:
        return _some(islice(_shuffled(_placed(rows, f"'{source}'", columns or {}), seed), count), source)


def _some(rows: Iterable[dict[str, str]], source: str) -> Rows:
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
    return {} if source.endswith(conll.SUFFIXES) else columns or {}


def _placed(raw: Iterator[Mapping[str, Any]], name: str, columns: Mapping[str, str]) -> Iterator[LocatedRow]:
    """Rows of text that know where they stand, their columns renamed."""
    for number, row in enumerate(raw, 1):
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


def split(rows: Rows, *, valid: float = 0.1, seed: int = 0) -> tuple[Rows, Rows]:
    """Shuffle and split off a validation share, at least one row and at most half; the same for the same rows and seed on every machine."""
    if len(rows) < 2:
        raise DataError(f"{len(rows)} example came, but training needs at least 2, one of them held out; add examples.")
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    held = min(max(1, round(valid * len(rows))), len(rows) // 2)
    return [rows[i] for i in order[held:]], [rows[i] for i in order[:held]]


def digest(rows: Sequence[Mapping[str, str]]) -> str:
    """A short name for these examples in this order."""
    text = json.dumps([dict(sorted(row.items())) for row in rows], ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _raw(source: str, columns: Mapping[str, str], *, stream: bool = False) -> Generator[dict[str, Any]]:
    """Rows as the source has them, one after the other."""
    if not source.endswith(_SUFFIXES):
        yield from _hub(source, stream)
        return
    try:
        with fsspec.open(source, "rb") as file:
            yield from _parsed(file, source, columns)
    except FileNotFoundError:
        raise DataError(f"'{source}' does not exist; give a JSONL, CSV or Parquet file, or a datasets id.") from None
    except OSError as error:
        raise DataError(f"'{source}' cannot be read ({error.strerror or error}); check the path and its permissions.") from error


def _parsed(file: Any, source: str, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    if source.endswith(".parquet"):
        return _parquet(file, source)
    lines = _lines(file, source)
    if source.endswith((".csv", ".tsv")):
        return _csv(lines, source)
    if source.endswith(conll.SUFFIXES):
        return iter(conll.parse("".join(lines), source, columns))
    return _jsonl(lines, source)


def _lines(file: Iterable[bytes], source: str) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"'{source}' is not UTF-8 text: byte 0x{line[error.start]:02x} in line {number}; save the file as UTF-8."
            ) from None


def _jsonl(lines: Iterable[str], source: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"line {number} of '{source}' is not JSON ({error.msg}); write one JSON object a line.") from None
        if not isinstance(row, dict):
            raise DataError(
                f"line {number} of '{source}' is a JSON {type(row).__name__}, but each line must be one object; write {{\"text\": …}}."
            )
        yield row


def _csv(lines: Iterable[str], source: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(1 << 27)  # the default refuses long documents
    reader = csv.DictReader(lines, delimiter="\t" if source.endswith(".tsv") else ",")
    for row in reader:
        if None in row or None in row.values():
            have = len(row) - (None in row)
            raise DataError(
                f"line {reader.line_num} of '{source}' has more or fewer fields than the {have} of the header; quote fields that hold separators."
            )
        yield row


def _parquet(file: Any, source: str) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(
            f"'{source}' is not a Parquet file ({str(error).splitlines()[0].rstrip('.')}); write it again, or use JSONL."
        ) from None


def _hub(source: str, stream: bool) -> Iterator[dict[str, Any]]:
    """Rows of a `datasets` id, as `id` or `id:split`."""
    if Path(source).exists() or source.endswith(("/", ".txt", ".xlsx", ".bin")):
        raise DataError(f"'{source}' is not a JSONL, CSV or Parquet file; convert it, or give its name the right ending.")
    import datasets

    name, _, part = source.partition(":")
    try:
        rows = datasets.load_dataset(name, split=part or "train", streaming=stream)
    except (OSError, ValueError) as error:  # datasets raises many kinds; all of its own derive from these two
        line = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise DataError(
            f"'{source}' is neither a file nor a datasets id that can be read ({line}); give a path, or an id such as imdb:train."
        ) from error
    yield from _worded(rows)


def _worded(rows: Any) -> Iterator[dict[str, Any]]:
    """Rows of a dataset with its labels in words; any other rows as they are."""
    import datasets

    names = getattr(rows, "features", {}) or {}
    labels = {key: inner for key, feature in names.items() if isinstance(inner := _inner(feature), datasets.ClassLabel)}
    for row in rows:
        yield {key: labels[key].int2str(value) if key in labels else value for key, value in row.items()}


def _inner(feature: Any) -> Any:
    """A feature, or that of a list's items (tags of words)."""
    import datasets

    return feature.feature if isinstance(feature, datasets.List) else feature


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
