"""Stop strings: where an answer is cut, and what of its end must wait because a stop string may begin there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final


@final
class StopStrings:
    """The strings before which one answer ends; without any, nothing is cut and nothing waits."""

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = tuple(strings)

    def find(self, text: str) -> int | None:
        """Where the first stop string of a text begins, None where there is none."""
        return min((index for string in self.strings if (index := text.find(string)) >= 0), default=None)

    def without_partial(self, text: str) -> str:
        """A text without an end that is the beginning of a stop string."""
        for string in self.strings:
            longest = min(len(string) - 1, len(text))
            held = next((size for size in range(longest, 0, -1) if text.endswith(string[:size])), 0)
            text = text[: len(text) - held]
        return text
