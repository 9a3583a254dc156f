"""Texts to predict: words of the command line, a file, or standard input; each becomes an example with the template's fields."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from foreword.errors import DataError, UsageError
from foreword.tasks.data.row_origin import LocatedRow

Example = dict[str, str]


def examples(texts: Sequence[str], file: str | None, fields: Sequence[str]) -> Iterator[Example]:
    """The examples asked for, read as they come; raises UsageError for missing or conflicting options, DataError for input that cannot be read."""
    if texts and file is not None:
        raise UsageError("texts and --file were both given; give one of them.")
    if file is not None and file != "-":
        return _from_file(file, fields)
    if texts:
        return _from_texts(texts, fields)
    if file is None and sys.stdin.isatty():
        raise UsageError("no text came; give one in quotes, a --file, or lines on standard input.")
    return _from_lines(sys.stdin.buffer, fields)


def chunks(rows: Iterable[Example], size: int) -> Iterator[list[Example]]:
    """Lists of up to `size` examples."""
    source = iter(rows)
    while part := list(islice(source, size)):
        yield part


def _from_texts(texts: Sequence[str], fields: Sequence[str]) -> Iterator[Example]:
    for text in texts:
        if any("\udc80" <= c <= "\udcff" for c in text):  # how Python represents bytes that it cannot decode
            raise DataError("a text of the command line is not UTF-8; save it in a file as UTF-8 and pass --file.")
        yield {_only(fields): text}


def _from_file(file: str, fields: Sequence[str]) -> Iterator[Example]:
    """Rows of a data file, or the lines of a .txt file."""
    from foreword.tasks.data.reader import need, read

    if not file.endswith(".txt"):
        yield from need(read(file), fields, file)
        return
    try:
        with open(file, "rb") as lines:
            yield from _from_lines(lines, fields, f"'{file}'")
    except OSError as error:
        raise DataError(f"'{file}' cannot be read ({error.strerror}); check the path and its permissions.") from error


def _from_lines(lines: Iterable[bytes], fields: Sequence[str], where: str = "standard input") -> Iterator[Example]:
    """One example per line: a JSON object, or the text of the only field. Empty lines are left out."""
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"line {number} of {where} is not UTF-8 text: byte 0x{line[error.start]:02x}; convert it to UTF-8.") from None
        if text.strip():
            place = f"line {number} of {where}"
            yield LocatedRow(_from_line(text, fields, place), place)
    if not number:
        raise DataError(f"{where} is empty; give one text or JSON object a line.")


def _from_line(text: str, fields: Sequence[str], where: str) -> Example:
    found = _object(text)
    if found is None and len(fields) == 1:
        return {fields[0]: text}
    if found is None:
        raise DataError(f"{where} is not a JSON object, but the adapter reads {', '.join(fields)}; give an object with these keys.")
    for field in fields:
        if not isinstance(found.get(field), str | list | dict):
            raise DataError(
                f"{where} has no text '{field}' (found: {', '.join(found) or 'none'}); give an object with the keys {', '.join(fields)}."
            )
    second = {"text_b"} & found.keys() - set(fields)  # kept, so that a task with one text refuses it
    return {field: _text(found[field]) for field in (*fields, *second)}


def words_in(text: str) -> str:
    """A cell for display: the words of a JSON list joined by spaces, any other text unchanged."""
    found = listed(text)
    return text if found is None else " ".join(map(str, found))


def listed(text: str) -> list[Any] | None:
    """The JSON list a cell is, or None for any other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, list) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _object(text: str) -> dict[str, object] | None:
    """The JSON object a line is, or None for any other text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _only(fields: Sequence[str]) -> str:
    if len(fields) != 1:
        raise UsageError(
            f"a text came, but the adapter reads {', '.join(fields) or 'no field'}; give JSON objects with these keys in a --file or on standard input."
        )
    return fields[0]
