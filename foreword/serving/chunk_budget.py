"""The chunk budget: how many tokens of prompts a step may compute beside the running sequences (chunked prefill; Sarathi-Serve, arXiv:2403.02310)."""

from __future__ import annotations

from typing import final

SLOWDOWN = 2.2  # a step with a chunk may take so many times a step without
IDLE_SECONDS = 0.5  # of a step while no running sequence waits for its next token
LEAST, MOST, FIRST = 16, 2048, 128  # tokens of a chunk; the first ones, before anything was measured
_NEW = 0.2  # weight of a new measurement


@final
class ChunkBudget:
    """Measures steps: `decode_seconds` without a chunk, `token_seconds` for each token of one. Memory bounds chunks at `most` tokens."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.decode_seconds: float | None = None
        self.token_seconds: float | None = None
        self.pooling_seconds: float | None = None

    def tokens(self, num_decoding: int) -> int:
        """Tokens of the next chunk beside so many running sequences."""
        if self.token_seconds is None:
            return min(self.most, FIRST)
        if not num_decoding:
            allowed = IDLE_SECONDS
        elif self.decode_seconds is None:
            return min(self.most, FIRST)
        else:
            allowed = (SLOWDOWN - 1) * self.decode_seconds
        return max(LEAST, min(self.most, int(allowed / self.token_seconds)))

    def pooled(self, most: int, num_decoding: int) -> int:
        """How many requests without a generated text a step may answer beside so many running sequences."""
        if not num_decoding or self.decode_seconds is None or self.pooling_seconds is None:
            return most
        return max(1, min(most, int((SLOWDOWN - 1) * self.decode_seconds / self.pooling_seconds)))

    def observe_pooling(self, count: int, seconds: float) -> None:
        """Note how long so many answers without a generated text took."""
        self.pooling_seconds = _average(self.pooling_seconds, seconds / count)

    def observe(self, num_decoding: int, num_prompt_tokens: int, seconds: float) -> None:
        """Note what a step did, and how long it took."""
        if not num_prompt_tokens:
            self.decode_seconds = _average(self.decode_seconds, seconds)
        elif num_prompt_tokens >= LEAST:
            rest = seconds - (self.decode_seconds or 0.0) if num_decoding else seconds
            self.token_seconds = _average(self.token_seconds, max(rest, 0.1 * seconds) / num_prompt_tokens)


def _average(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW * (min(new, 4 * old) - old)  # one slow step says little
