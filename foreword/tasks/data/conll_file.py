"""CoNLL and CoNLL-U files: a word a line, its tags in further columns, an empty line after each sentence.

The `conllu` package was tried for CoNLL-U: it also takes lines of other than ten columns, splits columns at two spaces inside a word, does not
check the numbers of the words, refuses a head that is never used, and does not say which line is wrong; 2,000 sentences took it twice as long.
Other CoNLL files have no standard and no library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.errors import DataError

SUFFIXES = (".conll", ".conllu", ".iob", ".iob2", ".bio")
FIELDS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_NUMBER = re.compile(r"[1-9][0-9]*")
_RANGE_OR_EMPTY = re.compile(r"[0-9]+-[0-9]+|[0-9]+\.[0-9]+")


@dataclass(frozen=True)
class Line:
    """A line of columns and its number in the file."""

    number: int
    cells: list[str]


def parse(text: str, source: str, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Sentences as rows of `tokens` and `tags`; `columns` names the file's column for either.

    CoNLL-U (by the ending .conllu) has ten named columns: form and upos are read, or for example tags=xpos. Lines of several words (1-2)
    and of empty nodes (1.1) carry no word of their own and are passed over. Columns of other files are numbered from 1: the first and the
    last are read; -DOCSTART- lines are passed over. A file whose tags are all absent gives `tokens` alone. Raises DataError.
    """
    for ours in columns:
        if ours not in ("tokens", "tags"):
            raise DataError(f"'{source}' is read as tokens and tags, but --columns names '{ours}'; name one of these, or leave it out.")
    universal = source.endswith(".conllu")
    sentences = list(_universal(text, source) if universal else _plain(text, source))
    if not sentences:
        return []
    width = len(sentences[0][0].cells)
    names = FIELDS if universal else [str(number) for number in range(1, width + 1)]
    words = _column(columns, "tokens", names, "form" if universal else "1", source)
    tags = _column(columns, "tags", names, "upos" if universal else names[-1], source)
    if not universal and "tokens" not in columns and all(_counts(sentence) for sentence in sentences) and width > 1:
        raise DataError(
            f"the first column of '{source}' counts the words; give the file's name the ending .conllu, or choose columns with --columns tokens=2,tags={width}."
        )
    tagged = tags != words and any(line.cells[tags] != "_" for sentence in sentences for line in sentence)
    return [_row(sentence, words, tags if tagged else None, universal, names, source) for sentence in sentences]


def _row(sentence: list[Line], words: int, tags: int | None, universal: bool, names: Sequence[str], source: str) -> dict[str, Any]:
    row = {"tokens": [line.cells[words] for line in sentence]}
    if tags is None:
        return row
    for line in sentence:
        if not line.cells[tags] or (universal and line.cells[tags] == "_"):
            raise DataError(
                f"line {line.number} of '{source}' has no {names[tags]} though others have; fill it, or choose another column with --columns tags=NAME."
            )
    return {**row, "tags": [line.cells[tags] for line in sentence]}


def _column(columns: Mapping[str, str], ours: str, names: Sequence[str], default: str, source: str) -> int:
    theirs = columns.get(ours, default)
    if theirs not in names:
        raise DataError(f"'{source}' has no column '{theirs}' to read as '{ours}' (found: {', '.join(names)}); correct --columns.")
    return names.index(theirs)


def _counts(sentence: list[Line]) -> bool:
    return [line.cells[0] for line in sentence] == [str(number) for number in range(1, len(sentence) + 1)]


def _universal(text: str, source: str) -> Iterator[list[Line]]:
    """Sentences of a CoNLL-U file (universaldependencies.org/format.html): tabs between ten columns, words numbered from 1."""
    for block in _blocks(text):
        sentence: list[Line] = []
        for line in block:
            if line.cells[0].startswith("#"):
                continue
            cells = line.cells[0].split("\t")
            if len(cells) != len(FIELDS):
                raise DataError(
                    f"line {line.number} of '{source}' lacks the {len(FIELDS)} columns of CoNLL-U with tabs between (found: {len(cells)}); mend it, or name the file .conll."
                )
            if _RANGE_OR_EMPTY.fullmatch(cells[0]):
                continue
            if not _NUMBER.fullmatch(cells[0]) or int(cells[0]) != len(sentence) + 1:
                raise DataError(
                    f"line {line.number} of '{source}' has the word number '{cells[0]}' where {len(sentence) + 1} is due; number words from 1, with empty lines between sentences."
                )
            sentence.append(Line(line.number, cells))
        if sentence:
            yield sentence


def _plain(text: str, source: str) -> Iterator[list[Line]]:
    """Sentences of other CoNLL files: as many columns everywhere, parted by tabs where there are any, else by spaces.

    A line that begins with # at the start of a sentence is a comment unless it has the columns of a word.
    """
    first: Line | None = None
    for block in _blocks(text):
        sentence: list[Line] = []
        comments: list[Line] = []
        for line in block:
            found = Line(line.number, _cells(line.cells[0]))
            if found.cells[0] == "-DOCSTART-":
                continue
            if found.cells[0].startswith("#") and not sentence and (first is None or len(found.cells) != len(first.cells)):
                comments.append(found)
                continue
            first = first or found
            if len(found.cells) != len(first.cells):
                raise DataError(
                    f"line {line.number} of '{source}' has {len(found.cells)} columns, but line {first.number} has {len(first.cells)}; give each word as many."
                )
            sentence.append(found)
        if sentence:  # words before the first known width may begin with #
            yield [c for c in comments if first and len(c.cells) == len(first.cells)] + sentence


def _cells(line: str) -> list[str]:
    """Columns of a line; a word may hold other white space, such as a no-break space."""
    line = line.strip(" \t")
    return line.split("\t") if "\t" in line else re.split(" +", line)


def _blocks(text: str) -> Iterator[list[Line]]:
    """Runs of lines without an empty one, whole lines in their only cell."""
    block: list[Line] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if line.strip():
            block.append(Line(number, [line]))
        elif block:
            yield block
            block = []
    if block:
        yield block
