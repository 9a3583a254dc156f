"""The result of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from foreword.adapters.adapter import Adapter
from foreword.tasks.metrics.base import Score


@dataclass(frozen=True)
class FitResult:
    """The adapter (saved when `out` was given) with its validation scores, and how the run went.

    `num_trained` counts the trained parameters, with those of a re-parameterisation, which the adapter does not keep.
    """

    adapter: Adapter
    scores: dict[str, Score]
    steps: int
    seconds: float
    peak_memory: int
    cut: int
    notices: list[str] = field(default_factory=list)
    history: list[dict[str, float | int]] = field(default_factory=list)
    num_trained: int = 0
