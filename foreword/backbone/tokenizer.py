"""The tokenizer as templates see it: fields can never become special tokens, words can."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, final

from transformers import PreTrainedTokenizerBase

from foreword.errors import ModelError

_HERE = "\ue000"  # stands for the user's message while a chat format is laid out: a character of no language, so no format rewrites it


@final
class TextTokenizer:
    """A thin view of a transformers tokenizer; `inner` is the real one."""

    def __init__(self, inner: PreTrainedTokenizerBase) -> None:
        if not inner.is_fast:
            raise ModelError(
                f"tokenizer {type(inner).__name__} is a slow one, but offsets need a fast tokenizer; load the model with its tokenizer.json."
            )
        self.inner = inner
        self._bos = self._id(inner.bos_token_id) if inner("a")["input_ids"][:1] == [inner.bos_token_id] else None

    @property
    def bos(self) -> int | None:
        """The beginning-of-sequence token, if this tokenizer puts it before a text by default."""
        return self._bos

    @property
    def eos(self) -> int | None:
        return self._id(self.inner.eos_token_id)

    @staticmethod
    def _id(index: Any) -> int | None:
        return None if index is None else int(index)

    @property
    def pad(self) -> int:
        """Any valid id: pads are masked out everywhere."""
        return self._id(self.inner.pad_token_id) or 0

    def encode(self, text: str) -> list[int]:
        """Tokens of a plain text: no special tokens are added, and none are read from it."""
        return self.inner(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

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

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return self.inner(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)["offset_mapping"]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.inner.decode(list(ids), skip_special_tokens=True))

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
