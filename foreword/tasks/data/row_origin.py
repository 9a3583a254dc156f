"""Examples that know where they stand, so that a refusal names the row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar, final

from foreword.errors import DataError

T = TypeVar("T")


@final
class LocatedRow(dict[str, str]):
    """An example and its place in words, such as "row 7 of 'reviews.jsonl'"; equal to the plain example."""

    def __init__(self, row: Mapping[str, str], place: str) -> None:
        super().__init__(row)
        self.place = place


@contextmanager
def with_origin(example: Mapping[str, str]) -> Iterator[None]:
    """A DataError from inside begins with the example's place, if it knows one."""
    try:
        yield
    except DataError as error:
        if isinstance(example, LocatedRow):
            raise DataError(f"{example.place}: {error}") from error
        raise


def map_rows(examples: Sequence[Mapping[str, str]], make: Callable[[Mapping[str, str]], T]) -> list[T]:
    """What is made of every example; a DataError names the one it is about."""
    found: list[T] = []
    for example in examples:
        with with_origin(example):
            found.append(make(example))
    return found
