"""Lists in a table of texts: a cell is a JSON list, or plain text where that says the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from foreword.errors import DataError


def words(example: Mapping[str, str], column: str) -> list[str]:
    """The words of a cell: a JSON list, or a text with spaces between. Raises DataError for a missing, empty or broken one."""
    text = cell(example, column).strip()
    found = parse_list(text, column) if text.startswith("[") else text.split()
    if not found or not all(word.strip() for word in found):
        raise DataError(f"an example has {'an empty word' if found else 'no words'} in '{column}'; fill it or remove the row.")
    return found


def parse_texts(example: Mapping[str, str], column: str, between: str = "|") -> list[str]:
    """The texts of a cell that may be empty: a JSON list, or texts with `between` between."""
    text = cell(example, column).strip()
    if text.startswith("["):
        return parse_list(text, column)
    return [part.strip() for part in text.split(between)] if text else []


def cell(example: Mapping[str, str], column: str) -> str:
    """A cell; raises DataError naming the columns found."""
    if column not in example:
        raise DataError(
            f"the task needs the column '{column}', but the example has {', '.join(example) or 'none'}; rename a column, or map it with --columns."
        )
    return example[column]


def check_texts(example: Mapping[str, str], columns: Sequence[str]) -> None:
    """Raise DataError for a second text where only the first would be read."""
    if example.get("text_b", "").strip() and "text" in columns and "text_b" not in columns:
        raise DataError("an example has two texts, text and text_b, but the task reads only text; leave text_b out, or train with both.")


def parse_list(text: str, column: str) -> list[str]:
    """A JSON list of texts or numbers; raises DataError for anything else."""
    found = read_json(text)
    if not isinstance(found, list) or not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in found):
        raise DataError(f"'{column}' is {excerpt(text)}, which is no JSON list of texts; write {json.dumps(['like', 'this'])}.")
    return [item if isinstance(item, str) else str(item) for item in found]


def read_json(text: str) -> Any:
    """What a JSON text holds, None for any other text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def excerpt(text: str, size: int = 40) -> str:
    """The beginning of a text, to name a row by."""
    line = " ".join(text.split())
    return line if len(line) <= size else line[: size - 1] + "…"
