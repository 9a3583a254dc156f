"""The incremental detokenizer: the text of an answer so far, and the part of it that can be sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from foreword.serving.stop_strings import StopStrings


@final
class Detokenizer:
    """Turns the tokens of one answer into text. With `strip`, white space around the answer is left out."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: StopStrings, *, strip: bool) -> None:
        self._decode, self._stop, self._strip = decode, stop, strip
        self._text = self._sent = ""

    def update(self, tokens: Sequence[int]) -> bool:
        """Read all tokens of the answer so far; True if there is a stop string, before which the text now ends."""
        text = self._decode(tokens)
        self._text = text.lstrip() if self._strip else text
        cut = self._stop.find(self._text)
        if cut is not None:
            self._text = self._text[:cut]
        return cut is not None

    def new_text(self, *, finished: bool = False) -> str:
        """The new text that can be sent. While tokens may follow, text that they may change is held back: part of a
        character, the beginning of a stop string, white space at the end of a stripped answer.
        """
        text = self._text.rstrip() if self._strip else self._text
        if not finished:
            text = self._stop.without_partial(text.rstrip("\ufffd"))
        new = text[len(self._sent) :]
        self._sent = max(self._sent, text, key=len)
        return new
