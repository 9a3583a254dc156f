"""Admission control: limits of one request, and how many requests may wait at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from foreword.server.http_errors import RETRY_AFTER, HTTPError


@dataclass(frozen=True)
class Limits:
    """Bytes, values and seconds of a body, characters of a text, answers of one request, and answers and tokens that may wait."""

    body_bytes: int = 4 << 20
    values: int = 200_000
    body_seconds: float = 30.0
    text_chars: int = 200_000
    answers: int = 1024
    queued: int = 4096
    queued_tokens: int = 1_000_000


@final
class Admission:
    """Counts of what waits and what runs. An answer waits until its first event; tokens are those of its text."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting = self.waiting_tokens = self.running = 0

    @property
    def active(self) -> int:
        """Answers that somebody waits for."""
        return self.waiting + self.running

    def admit(self, answers: int, tokens: int) -> None:
        """Admit answers, all or none; raises HTTPError (503) while too many wait."""
        limits = self.limits
        if self.waiting and self.waiting + answers > limits.queued:
            raise HTTPError(
                503,
                f"{self.waiting} answers are waiting, but at most {limits.queued} are allowed; try again soon.",
                retry_after=RETRY_AFTER,
            )
        if self.waiting and self.waiting_tokens + tokens > limits.queued_tokens:
            raise HTTPError(
                503,
                f"texts of {self.waiting_tokens} tokens are waiting, but at most {limits.queued_tokens} are allowed; try again soon.",
                retry_after=RETRY_AFTER,
            )
        self.waiting += answers
        self.waiting_tokens += tokens

    def begin(self, tokens: int) -> None:
        """One answer has begun."""
        self.waiting -= 1
        self.waiting_tokens -= tokens
        self.running += 1

    def end(self, tokens: int, *, began: bool) -> None:
        """One answer is over."""
        if began:
            self.running -= 1
        else:
            self.waiting -= 1
            self.waiting_tokens -= tokens
