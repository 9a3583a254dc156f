"""One or two texts as a tokenizer's own sequence, and where each of its tokens comes from: what a head's answers are traced back by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.errors import DataError

NOWHERE = (-1, -1)
Span = tuple[int, int]


@dataclass(frozen=True)
class Encoded:
    """Ids with special tokens and, for each token, its token type, the text it is of (0 or 1; -1 for a special token) and its `spans`.

    A span is the token's characters (begin, end) in its text, or, of a list of words, (the word's index, the piece's index in the word);
    special tokens have (-1, -1). `cut` says whether the budget left something out.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...]
    text: tuple[int, ...]
    spans: tuple[Span, ...]
    cut: bool = False


@dataclass(frozen=True)
class Frame:
    """The special tokens before a text, between two texts and after them, with their token types, and the types of the texts themselves."""

    opening: tuple[tuple[int, int], ...]
    between: tuple[tuple[int, int], ...]
    closing: tuple[tuple[int, int], ...]
    kinds: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.opening) + len(self.between) + len(self.closing)


@dataclass(frozen=True)
class Pieces:
    """The tokens of one text and their spans, without special tokens."""

    ids: Sequence[int]
    spans: Sequence[Span]

    def first(self, count: int) -> Pieces:
        """The first `count` tokens at most; never part of a character that is several tokens."""
        if count >= len(self.ids):
            return self
        while count and self.spans[count][0] < self.spans[count - 1][1]:
            count -= 1
        return Pieces(self.ids[:count], self.spans[:count])


def shares(lengths: Sequence[int], room: int, *, only_second: bool) -> list[int]:
    """How many tokens of each text are kept: the longer one is cut first, or only the second. Raises DataError where none would be left."""
    if sum(lengths) <= room:
        return list(lengths)
    if only_second and len(lengths) == 2:
        if lengths[0] >= room:
            raise DataError(
                f"the first of two texts has {lengths[0]} tokens, but {room} fit with the second, which alone may be cut; shorten the first or the prompt."
            )
        return [lengths[0], room - lengths[0]]
    if room < len(lengths):
        raise DataError(
            f"{max(room, 0)} tokens of text fit between the special tokens, but {len(lengths)} at least are needed; shorten the prompt."
        )
    if len(lengths) == 1:
        return [room]
    shorter = min(*lengths, room // 2)
    return [room - shorter, shorter] if lengths[0] >= lengths[1] else [shorter, room - shorter]


def assemble(frame: Frame, texts: Sequence[Pieces], budget: int, *, only_second: bool = False) -> Encoded:
    """Put one or two texts into their frame, within `budget` tokens, special ones included."""
    kept = shares([len(text.ids) for text in texts], budget - frame.size, only_second=only_second)
    line: list[tuple[int, int, int, Span]] = [(index, kind, -1, NOWHERE) for index, kind in frame.opening]
    for place, (text, count) in enumerate(zip(texts, kept, strict=True)):
        if place:
            line += [(index, kind, -1, NOWHERE) for index, kind in frame.between]
        part = text.first(count)
        line += [(index, frame.kinds[place], place, span) for index, span in zip(part.ids, part.spans, strict=True)]
    line += [(index, kind, -1, NOWHERE) for index, kind in frame.closing]
    ids, types, text_of, spans = ([entry[column] for entry in line] for column in range(4))
    return Encoded(tuple(ids), tuple(types), tuple(text_of), tuple(spans), sum(kept) < sum(len(text.ids) for text in texts))  # type: ignore[arg-type]  # spans are pairs


def in_words(spans: Sequence[Span], words: Sequence[str]) -> list[Span]:
    """Characters of words joined by single spaces → (word, piece in the word). A space belongs to the word behind it, as its tokens do."""
    owner = [index for index, word in enumerate(words) for _ in range(len(word) + (index > 0))]
    joined = " ".join(words)
    found: list[Span] = []
    for begin, end in spans:
        inside = next((place for place in range(begin, end) if joined[place] != " "), min(begin, len(joined) - 1))
        word = owner[inside]
        piece = found[-1][1] + 1 if found and found[-1][0] == word else 0
        found.append((word, piece))
    return found
