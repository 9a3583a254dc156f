"""One or two texts as a tokenizer's own sequence, and where each of its tokens comes from: what a head's answers are traced back by.

Why not the tokenizer's own truncation and `word_ids()` (tried with WordPiece, byte-level BPE and Unigram, 400 texts each):
- Words given one by one (`is_split_into_words`) become other tokens than the same words in a text: byte-level BPE loses the spaces that a
  model was trained with (88 % of the texts differ).
- Unigram vocabularies hold special tokens as words, which `split_special_tokens` does not prevent: 35 % of the texts held one.
- Its truncation cuts inside a character that is several tokens (28 % of byte-level BPE's cut pairs differ), changes the state of a tokenizer
  that other threads read with, and does not know the line break between two texts of a causal model.
"""

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
class SpecialTokens:
    """The special tokens before a text, between two texts and after them, with their token types, and the types of the texts themselves."""

    opening: tuple[tuple[int, int], ...]
    between: tuple[tuple[int, int], ...]
    closing: tuple[tuple[int, int], ...]
    types: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.opening) + len(self.between) + len(self.closing)


@dataclass(frozen=True)
class TokenizedText:
    """The tokens of one text and their spans, without special tokens."""

    ids: Sequence[int]
    spans: Sequence[Span]

    def first(self, count: int) -> TokenizedText:
        """The first `count` tokens at most; never part of a character that is several tokens."""
        if count >= len(self.ids):
            return self
        while count and self.spans[count][0] < self.spans[count - 1][1]:
            count -= 1
        return TokenizedText(self.ids[:count], self.spans[:count])


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


def assemble(special: SpecialTokens, texts: Sequence[TokenizedText], budget: int, *, only_second: bool = False) -> Encoded:
    """Put one or two texts into their special tokens, within `budget` tokens, special ones included."""
    kept = shares([len(text.ids) for text in texts], budget - special.size, only_second=only_second)
    line: list[tuple[int, int, int, Span]] = [(index, kind, -1, NOWHERE) for index, kind in special.opening]
    for place, (text, count) in enumerate(zip(texts, kept, strict=True)):
        if place:
            line += [(index, kind, -1, NOWHERE) for index, kind in special.between]
        part = text.first(count)
        line += [(index, special.types[place], place, span) for index, span in zip(part.ids, part.spans, strict=True)]
    line += [(index, kind, -1, NOWHERE) for index, kind in special.closing]
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
