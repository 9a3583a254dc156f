"""Examples from JSONL, CSV, Parquet, CoNLL or a `datasets` id: read whole, checked, split in a way that never changes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec

from foreword.errors import DataError
from foreword.tasks import conll
from foreword.tasks.placed import Placed

Rows = list[dict[str, str]]
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", *conll.SUFFIXES)


def read(source: str | Path, *, columns: Mapping[str, str] | None = None) -> Rows:
    """Read examples as rows of text; `columns` maps a column we need to the one the file has.

    Raises DataError for a missing or empty source, bytes that are not UTF-8, lines that cannot be read and columns that are not there.
    """
    source = str(source)
    raw = _read_file(source, columns or {}) if source.endswith(_SUFFIXES) else _read_hub(source)
    if not raw:
        raise DataError(f"'{source}' has no examples; give a file with at least one row.")
    if columns and not source.endswith(conll.SUFFIXES):
        raw = [_renamed(row, columns, source) for row in raw]
    return [Placed({key: _text(value) for key, value in row.items()}, f"row {number} of '{source}'") for number, row in enumerate(raw, 1)]


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


def _read_file(source: str, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    try:
        with fsspec.open(source, "rb") as file:
            data: bytes = file.read()  # type: ignore[union-attr]
    except FileNotFoundError:
        raise DataError(f"'{source}' does not exist; give a JSONL, CSV or Parquet file, or a datasets id.") from None
    except OSError as error:
        raise DataError(f"'{source}' cannot be read ({error.strerror or error}); check the path and its permissions.") from error
    if source.endswith(".parquet"):
        return _parquet(data, source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"'{source}' is not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}; save the file as UTF-8.") from None
    if source.endswith((".csv", ".tsv")):
        return _csv(text, source)
    if source.endswith(conll.SUFFIXES):
        return conll.parse(text, source, columns)
    return _jsonl(text, source)


def _jsonl(text: str, source: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
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
        rows.append(row)
    return rows


def _csv(text: str, source: str) -> list[dict[str, Any]]:
    csv.field_size_limit(1 << 27)  # the default refuses long documents
    reader = csv.DictReader(io.StringIO(text), delimiter="\t" if source.endswith(".tsv") else ",")
    rows = []
    for row in reader:
        if None in row or None in row.values():
            have = len(row) - (None in row)
            raise DataError(
                f"line {reader.line_num} of '{source}' has more or fewer fields than the {have} of the header; quote fields that hold separators."
            )
        rows.append(row)
    return rows


def _parquet(data: bytes, source: str) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(
            f"'{source}' is not a Parquet file ({str(error).splitlines()[0].rstrip('.')}); write it again, or use JSONL."
        ) from None


def _read_hub(source: str) -> list[dict[str, Any]]:
    """A `datasets` id, as `id` or `id:split`."""
    if Path(source).exists() or source.endswith(("/", ".txt", ".xlsx", ".bin")):
        raise DataError(f"'{source}' is not a JSONL, CSV or Parquet file; convert it, or give its name the right ending.")
    import datasets

    name, _, part = source.partition(":")
    try:
        rows = datasets.load_dataset(name, split=part or "train")
    except (OSError, ValueError) as error:  # datasets raises many kinds; all of its own derive from these two
        line = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise DataError(
            f"'{source}' is neither a file nor a datasets id that can be read ({line}); give a path, or an id such as imdb:train."
        ) from error
    names = getattr(rows, "features", {}) or {}
    labels = {key: inner for key, feature in names.items() if isinstance(inner := _inner(feature), datasets.ClassLabel)}
    return [{key: labels[key].int2str(value) if key in labels else value for key, value in row.items()} for row in rows]  # type: ignore[union-attr]


def _inner(feature: Any) -> Any:
    """A feature, or that of a list's items (tags of words)."""
    import datasets

    return feature.feature if isinstance(feature, datasets.List) else feature


def _renamed(row: dict[str, Any], columns: Mapping[str, str], source: str) -> dict[str, Any]:
    for ours, theirs in columns.items():
        if theirs not in row:
            raise DataError(f"'{source}' has no column '{theirs}' to read as '{ours}' (found: {', '.join(row)}); correct --columns.")
    back = {theirs: ours for ours, theirs in columns.items()}
    return {back.get(key, key): value for key, value in row.items() if key in back or key not in columns}


def _text(value: Any) -> str:
    """A cell as text: whole numbers lose a float's '.0', nothing stays empty."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)
