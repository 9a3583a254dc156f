"""The incremental detokenizer: the new text of an answer, and the part of it that can be sent. A token costs the decoding of a few tokens, however long the answer is.

Text is final up to the last token behind which no character is incomplete. What follows is decoded together with the few tokens before it, because tokenizers
treat the first token of a text in their own way, and the text of those few is taken off again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import final

from foreword.serving.stop_strings import StopStrings

_INCOMPLETE = "\ufffd"
_MAX_INCOMPLETE = 16  # tokens; a character has at most four bytes, so more of them hold bytes that are wrong, not incomplete
_CONTEXT = 8  # tokens whose text is final before those whose text is not


@final
class Detokenizer:
    """Turns the tokens of one answer into text. With `strip`, white space around the answer is left out.

    `byte_tokens` stand for one byte each and become text together with their neighbours; `skipped` have no text at all.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: StopStrings,
        *,
        strip: bool,
        byte_tokens: Collection[int] = (),
        skipped: Collection[int] = (),
    ) -> None:
        self._decode, self._stop, self._strip = decode, stop, strip
        self._byte_tokens, self._skipped = byte_tokens, skipped
        self._window: list[int] = []  # tokens that are decoded: some whose text is final, then those whose text is not
        self._num_final, self._final = 0, ""  # of the window
        self._unsent = ""
        self._begun = not strip  # whether white space belongs to the answer
        self._stopped = False

    def update(self, token: int, *, searched: bool = True) -> bool:
        """Read the next token; True if there is a stop string, before which the text now ends. Only text that is `searched` can have one."""
        if token in self._skipped:
            return False
        self._window.append(token)
        if token in self._byte_tokens:
            return False
        text = self._decode(self._window)
        if not text.endswith(_INCOMPLETE):
            return self._accept(text, len(self._window), searched)
        for end in range(len(self._window) - _MAX_INCOMPLETE, self._num_final + _MAX_INCOMPLETE, -1):
            if text.startswith(begin := self._decode(self._window[:end])):  # no character across the end
                return self._accept(begin, end, searched)
        return False

    def _accept(self, text: str, end: int, searched: bool) -> bool:
        """Take the text of the window's tokens up to an end as final."""
        self._append(text[len(self._final) :])
        self._num_final, self._final = end, text
        if end >= 2 * _CONTEXT and (rest := self._decode(self._window[end - _CONTEXT : end])):
            self._window, self._num_final, self._final = self._window[end - _CONTEXT :], _CONTEXT, rest
        return searched and self._cut()

    def _append(self, text: str) -> None:
        self._unsent += text if self._begun else text.lstrip()
        self._begun = self._begun or bool(self._unsent)

    def _cut(self) -> bool:
        """End the text before a stop string, if there is one. It is among what was not sent, as its beginning was held back."""
        found = self._stop.find(self._unsent)
        if found is not None:
            self._unsent, self._stopped = self._unsent[:found], True
        return found is not None

    def new_text(self, *, finished: bool = False) -> str:
        """The new text that can be sent. While tokens may follow, text that they may change is held back: part of a
        character, the beginning of a stop string, white space at the end of a stripped answer.
        """
        if finished and not self._stopped:
            self._append(self._decode(self._window)[len(self._final) :])
            self._window, self._num_final, self._final = [], 0, ""
            self._cut()
        text = self._unsent.rstrip() if self._strip else self._unsent
        if not finished:
            text = self._stop.without_partial(text)
        self._unsent = self._unsent[len(text) :]
        return text
