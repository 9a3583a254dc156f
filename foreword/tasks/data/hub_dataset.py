"""Data sets of the Hugging Face Hub, or of any other place that `datasets` knows, with their labels in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foreword.errors import DataError


def read_hub_dataset(source: str, stream: bool) -> Iterator[dict[str, Any]]:
    """Rows of a `datasets` id, as `id` or `id:split`; raises DataError for one that cannot be read."""
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
    yield from labels_in_words(rows)


def labels_in_words(rows: Any) -> Iterator[dict[str, Any]]:
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
