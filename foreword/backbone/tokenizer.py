"""The tokenizer as templates see it: fields can never become special tokens, words can."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, final

from transformers import PreTrainedTokenizerBase

from foreword.backbone.family_overrides import marian_tokenizer
from foreword.backbone.token_alignment import NOWHERE, Encoded, SpecialTokens, TokenizedText, assemble, in_words
from foreword.errors import ModelError

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_HERE = "\ue000"  # stands for the user's message while a chat format is laid out: a character of no language, so no format rewrites it


@final
class TextTokenizer:
    """A thin view of a transformers tokenizer; `inner` is the real one."""

    def __init__(self, inner: PreTrainedTokenizerBase, *, closing: bool = False) -> None:
        self._marian = marian_tokenizer.is_marian(inner)
        if not inner.is_fast and not self._marian:
            raise ModelError(
                f"tokenizer {type(inner).__name__} is a slow one, but offsets need a fast tokenizer; load the model with its tokenizer.json."
            )
        self.inner = inner
        self._closes = closing
        self.opening = tuple(index for index, _ in self._single.opening)

    @property
    def bos(self) -> int | None:
        """The beginning-of-sequence token ([CLS] of encoders), if this tokenizer puts it before a text by default."""
        return self.opening[0] if len(self.opening) == 1 else None

    @property
    def eos(self) -> int | None:
        return self._id(self.inner.eos_token_id)

    @property
    def closing(self) -> tuple[int, ...]:
        """The tokens that end a text for an encoder ([SEP], </s>); causal models go on instead."""
        return tuple(index for index, _ in self._single.closing)

    @cached_property
    def _single(self) -> SpecialTokens:
        return self._special_tokens("a")

    @cached_property
    def _double(self) -> SpecialTokens:
        """The tokenizer's own way to put two texts in line; where no token ends a text, a line break parts them."""
        own = self._special_tokens("a", "a")
        if own.closing:
            return own
        return SpecialTokens(self._single.opening, tuple((index, 0) for index in self.encode("\n")), (), (0, 0))

    def _special_tokens(self, *texts: str) -> SpecialTokens:
        """Special tokens around one or two texts, as the tokenizer puts them by default."""
        if self._marian:
            return marian_tokenizer.special_tokens(self.inner)
        made = self.inner(texts[0], texts[1] if len(texts) == 2 else None, return_token_type_ids=True)
        line = list(zip(made["input_ids"], made["token_type_ids"], strict=True))
        of = made.sequence_ids(0)
        if any(place not in of for place in range(len(texts))):  # a vocabulary without the letter
            return SpecialTokens((), (), (), (0,) * len(texts))
        begins = [of.index(place) for place in range(len(texts))]
        ends = [len(of) - of[::-1].index(place) for place in range(len(texts))]
        types = tuple(line[begin][1] for begin in begins)
        return SpecialTokens(
            tuple(line[: begins[0]]), tuple(line[ends[0] : begins[-1]]), tuple(line[ends[-1] :]) if self._closes else (), types
        )

    @staticmethod
    def _id(index: Any) -> int | None:
        return None if index is None else int(index)

    @property
    def pad(self) -> int:
        """Any valid id: pads are masked out everywhere."""
        return self._id(self.inner.pad_token_id) or 0

    def encode(self, text: str) -> list[int]:
        """Tokens of a plain text: no special tokens are added, and none are read from it."""
        return list(self._tokenized(text).ids)

    def answer(self, text: str) -> list[int]:
        """Tokens of a text that is to be written, which Marian cuts otherwise than one that is read."""
        return self._plain(marian_tokenizer.answer(self.inner, text)) if self._marian else self.encode(text)

    def _tokenized(self, text: str) -> TokenizedText:
        if self._marian:
            line = marian_tokenizer.tokenized(self.inner, text)
        else:
            made = self.inner(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
            line = TokenizedText(made["input_ids"], made["offset_mapping"])
        return TokenizedText(self._plain(line.ids), line.spans)

    def _plain(self, ids: Sequence[int]) -> list[int]:
        """Ids of a text: never one of a special token."""
        if self._reserved.isdisjoint(ids) or (unknown := self._id(self.inner.unk_token_id)) is None:
            return list(ids)
        return [unknown if index in self._reserved else index for index in ids]

    @cached_property
    def _reserved(self) -> set[int]:
        """Ids that no text may become: Unigram vocabularies hold their special tokens as words."""
        return {*self._specials.values(), *map(int, self.inner.all_special_ids)} - {self._id(self.inner.unk_token_id)}

    @cached_property
    def _specials(self) -> dict[str, int]:
        return {token.content: index for index, token in self.inner.added_tokens_decoder.items() if token.special}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        names = sorted(self._specials, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else re.compile("(?!)")

    def split_specials(self, words: str) -> list[str | int]:
        """A template's words, cut where they name a special token."""
        return [self._specials.get(piece, piece) for piece in self._pattern.split(words) if piece]

    def cut(self, text: str, num_tokens: int) -> str:
        """The beginning of a text that has at most `num_tokens` tokens by itself; never part of a character that is several tokens."""
        while len(spans := self._spans(text)) > num_tokens:
            end = min(spans[num_tokens - 1][1], spans[num_tokens][0]) if num_tokens else 0
            text = text[: min(end, len(text) - 1)]  # always shorter, as a cut text may fall into other tokens
        return text

    def _spans(self, text: str) -> Sequence[tuple[int, int]]:
        return self._tokenized(text).spans

    def pair(self, a: str, b: str | None, budget: int, *, only_second: bool = False) -> Encoded:
        """One or two texts in the tokenizer's own format ([CLS] a [SEP] b [SEP]), in at most `budget` tokens; spans are characters.

        The longer text is cut at its end, or only the second. Raises DataError where nothing of a text would be left.
        """
        if b is None:
            return assemble(self._single, [self._tokenized(a)], budget)
        return assemble(self._double, [self._tokenized(a), self._tokenized(b)], budget, only_second=only_second)

    def words(self, words: Sequence[str], budget: int) -> Encoded:
        """Words joined by single spaces, in at most `budget` tokens; spans are (word, piece). A word the tokenizer drops has no token."""
        line = self._tokenized(" ".join(words))
        made = assemble(self._single, [line], budget)
        kept = made.text.count(0)
        spans = iter(in_words(line.spans[:kept], words))
        return replace(made, spans=tuple(next(spans) if of == 0 else NOWHERE for of in made.text))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return str(self.inner.decode(list(ids), skip_special_tokens=skip_special_tokens))

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Tokens that `decode` skips."""
        return frozenset(self._specials.values())

    @cached_property
    def byte_ids(self) -> frozenset[int]:
        """Tokens that stand for one byte each, for characters that have no token (byte fallback): a line of them is decoded as one."""
        return frozenset(index for name, index in self.inner.get_vocab().items() if _BYTE.fullmatch(name))

    def chat(self, template: str) -> str:
        """A template as the user's message of this model's chat format; the marker {bos} stands where the format puts that token."""
        if not self.inner.chat_template:
            raise ModelError(
                "the tokenizer has no chat template, but one was asked for; leave --chat out or use an instruction-tuned model."
            )
        body, _, answer = template.rpartition("{answer}")
        turn = [{"role": "user", "content": _HERE}]
        before, _, after = str(self.inner.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)).partition(_HERE)
        first = str(self.inner.bos_token) if self.bos is not None and before.startswith(str(self.inner.bos_token)) else ""
        marker = "{bos}" if first else ""
        return marker + _literal(before.removeprefix(first)) + body.strip() + _literal(after) + "{answer}" + answer


def _literal(text: str) -> str:
    """Braces of a chat format are words of a template, not markers."""
    return text.replace("{", "{{").replace("}", "}}")
