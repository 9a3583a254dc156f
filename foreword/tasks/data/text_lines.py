"""Lines of a text file, which must be UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from foreword.errors import DataError


def text_lines(file: Iterable[bytes], source: str) -> Iterator[str]:
    """The lines of an open file, without a byte order mark; raises DataError for bytes that are not UTF-8."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"'{source}' is not UTF-8 text: byte 0x{line[error.start]:02x} in line {number}; save the file as UTF-8."
            ) from None
