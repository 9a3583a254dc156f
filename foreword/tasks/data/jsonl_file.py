"""JSONL: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from foreword.errors import DataError


def read_jsonl(lines: Iterable[str], source: str) -> Iterator[dict[str, Any]]:
    """One row a line, empty lines passed over; raises DataError naming the line that is no JSON object."""
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
