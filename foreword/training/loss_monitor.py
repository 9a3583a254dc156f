"""Monitors the loss: divergence, plateau and oscillation are reported, with what to change."""

from __future__ import annotations

import math
from collections import deque

from foreword.errors import DivergedError


class LossMonitor:
    """Feed it every step's loss; it gives back at most one notice of each kind."""

    def __init__(self, steps: int, rate: float) -> None:
        self.window = max(10, steps // 10)
        self.rate = rate
        self.first: float | None = None
        self.best = math.inf
        self.recent: deque[float] = deque(maxlen=self.window)
        self.means: list[float] = []
        self.count = 0
        self.reported: set[str] = set()

    def update(self, loss: float, step: int) -> str | None:
        """A notice, or None; raises DivergedError for a loss that is not finite."""
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss} at step {step}; the best prompt so far is kept: train again with a lower --learning-rate "
                f"(this run: {self.rate:g}), more --warmup, or --dtype float32."
            )
        self.recent.append(loss)
        self.count += 1
        if self.count % self.window:
            return None
        self.means.append(sum(self.recent) / len(self.recent))
        return self._diverging(step) or self._oscillating(step) or self._flat(step)

    def _say(self, kind: str, text: str) -> str | None:
        if kind in self.reported:
            return None
        self.reported.add(kind)
        return text

    def _diverging(self, step: int) -> str | None:
        best = min(self.means)
        if len(self.means) < 2 or self.means[-1] < 1.5 * best + 0.1:
            return None
        return self._say(
            "diverging",
            f"step {step}: the loss rose from {best:.3f} to {self.means[-1]:.3f}; lower --learning-rate (now {self.rate:g}) or raise --warmup.",
        )

    def _oscillating(self, step: int) -> str | None:
        turns = [b - a for a, b in zip(self.means, self.means[1:], strict=False)][-4:]
        swings = all(a * b < 0 for a, b in zip(turns, turns[1:], strict=False))
        if len(turns) < 4 or not swings or min(map(abs, turns)) < 0.1 * self.means[-1]:
            return None
        return self._say(
            "oscillating",
            f"step {step}: the loss swings without falling; lower --learning-rate (now {self.rate:g}) or use a larger --batch-size.",
        )

    def _flat(self, step: int) -> str | None:
        last = self.means[-4:]
        if len(last) < 4 or min(last) < 0.98 * last[0] or max(last) > 1.1 * min(last):
            return None
        if self.means[-1] < 0.5 * self.means[0]:
            return None  # flat near the floor is the end of training, not a fault
        return self._say(
            "plateau",
            f"step {step}: the loss has stayed near {self.means[-1]:.3f} for {3 * self.window} steps; raise --learning-rate (now {self.rate:g}), "
            "use more virtual tokens, or another initialiser.",
        )
