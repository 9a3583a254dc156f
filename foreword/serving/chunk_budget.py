"""The chunk budget: how many tokens of prompts a step may compute beside the running sequences (chunked prefill; Sarathi-Serve, arXiv:2403.02310)."""

from __future__ import annotations

from typing import final

SLOWDOWN = 1.7  # a step with a chunk may take so many times a step without
IDLE_SECONDS = 1.5  # of a step while no running sequence waits for its next token
LEAST, MOST, FIRST = 16, 768, 64  # tokens of a chunk; the first ones beside running sequences, before anything was measured
FAST, SLOW = (
    0.3,
    0.1,
)  # weights of new measurements: steps without a chunk are taken at their faster times, and a chunk's tokens at their slower ones


@final
class ChunkBudget:
    """Measures steps: how long one takes without a chunk, by the number of running sequences, and each token of a chunk. Memory bounds chunks at `most` tokens."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._decode_seconds: dict[int, float] = {}  # by the bits of the number of running sequences
        self._token_seconds: float | None = None
        self._pooling_seconds: float | None = None

    def tokens(self, num_decoding: int) -> int:
        """Tokens of the next chunk beside so many running sequences."""
        allowed = self._spare_seconds(num_decoding) if num_decoding else IDLE_SECONDS
        if self._token_seconds is None or allowed is None:
            return min(self.most, FIRST) if num_decoding else self.most
        return max(LEAST, min(self.most, int(allowed / self._token_seconds)))

    def pooled(self, most: int, num_decoding: int) -> int:
        """How many requests without a generated text a step may answer beside so many running sequences."""
        allowed = self._spare_seconds(num_decoding) if num_decoding else None
        if allowed is None or self._pooling_seconds is None:
            return most
        return max(1, min(most, int(allowed / self._pooling_seconds)))

    def observe(self, num_decoding: int, num_prompt_tokens: int, seconds: float) -> None:
        """Note what a step did, and how long it took."""
        if not num_prompt_tokens:
            bits = num_decoding.bit_length()
            self._decode_seconds[bits] = _average(self._decode_seconds.get(bits), seconds, up=SLOW, down=FAST)
        elif num_prompt_tokens >= LEAST:
            rest = seconds - (self._usual_seconds(num_decoding) or 0.0) if num_decoding else seconds
            self._token_seconds = _average(self._token_seconds, max(rest, 0.1 * seconds) / num_prompt_tokens, up=FAST, down=SLOW)

    def observe_pooling(self, count: int, seconds: float) -> None:
        """Note how long so many answers without a generated text took."""
        self._pooling_seconds = _average(self._pooling_seconds, seconds / count, up=FAST, down=SLOW)

    def _spare_seconds(self, num_decoding: int) -> float | None:
        """What a step may take more than without a chunk."""
        usual = self._usual_seconds(num_decoding)
        return None if usual is None else (SLOWDOWN - 1) * usual

    def _usual_seconds(self, num_decoding: int) -> float | None:
        """What a step without a chunk takes, or took with the most similar number of sequences."""
        nearest = min(self._decode_seconds, key=lambda bits: abs(bits - num_decoding.bit_length()), default=None)
        return None if nearest is None else self._decode_seconds[nearest]


def _average(old: float | None, new: float, *, up: float, down: float) -> float:
    if old is None:
        return new
    return old + (up if new > old else down) * (min(new, 4 * old) - old)  # one slow step says little
