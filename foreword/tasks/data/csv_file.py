"""CSV and TSV: a header line, then one row a record."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Any

from foreword.errors import DataError


def read_csv(lines: Iterable[str], source: str) -> Iterator[dict[str, Any]]:
    """Rows by the names in the header, parted by tabs in a .tsv file; raises DataError naming a line with more or fewer fields."""
    csv.field_size_limit(1 << 27)  # the default refuses long documents
    reader = csv.DictReader(lines, delimiter="\t" if source.endswith(".tsv") else ",")
    for row in reader:
        if None in row or None in row.values():
            have = len(row) - (None in row)
            raise DataError(
                f"line {reader.line_num} of '{source}' has more or fewer fields than the {have} of the header; quote fields that hold separators."
            )
        yield row
