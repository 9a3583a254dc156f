"""Parquet: read batch by batch with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from foreword.errors import DataError


def read_parquet(file: Any, source: str) -> Iterator[dict[str, Any]]:
    """Rows of an open file, of which memory holds one batch; raises DataError for a file of another kind."""
    import pyarrow  # a large import
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(
            f"'{source}' is not a Parquet file ({str(error).splitlines()[0].rstrip('.')}); write it again, or use JSONL."
        ) from None
