"""`echo`: a prompt in front of its answer, and the log-probabilities of its tokens, as evaluation harnesses read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.server.http_errors import HTTPError
from foreword.serving.request import PromptLogprobs, Token


@dataclass(frozen=True)
class Echo:
    """A prompt as the client sent it: its text, and its tokens without those that the server or a template adds."""

    text: str
    ids: tuple[int, ...]

    def tokens(self, scored: PromptLogprobs) -> list[Token]:
        """The prompt's tokens with their log-probabilities; raises HTTPError where a task's template has joined them with its own words."""
        start = _find(scored.tokens, self.ids)
        if start is None:
            raise HTTPError(
                400,
                "The task's template joins this text with its own words, so its tokens have no log-probabilities; leave out echo or logprobs.",
                param="echo",
            )
        places = range(start, start + len(self.ids))
        return [Token("", scored.tokens[place], scored.logprobs[place], scored.top[place]) for place in places]


def _find(tokens: Sequence[int], part: Sequence[int]) -> int | None:
    """Where a part begins; nothing that the server adds stands behind a prompt of the base model, and soft tokens are not among them."""
    size = len(part)
    return next((start for start in range(len(tokens) - size + 1) if tuple(tokens[start : start + size]) == tuple(part)), None)
