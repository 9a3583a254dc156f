"""Metrics, always with their standard error and n."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from foreword.errors import DataError


@dataclass(frozen=True)
class Score:
    """A metric over n examples; `stderr` is one standard error of the mean."""

    value: float
    stderr: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


def mean(values: Sequence[float]) -> Score:
    """Mean and standard error s/√n; raises DataError for no values."""
    n = len(values)
    if not n:
        raise DataError("a metric needs at least one example, but none came; give data that is not empty.")
    average = sum(values) / n
    variance = sum((v - average) ** 2 for v in values) / (n - 1) if n > 1 else 0.0
    return Score(average, math.sqrt(variance / n), n)


def accuracy(predicted: Sequence[str], targets: Sequence[str]) -> Score:
    """Share of exact matches."""
    return mean([float(p == t) for p, t in zip(predicted, targets, strict=True)])


def rouge_l(predicted: Sequence[str], targets: Sequence[str]) -> Score:
    """Mean ROUGE-L F1 with stemming (rouge-score, Google's implementation)."""
    from rouge_score.rouge_scorer import RougeScorer  # pulls in nltk; only generation needs it

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return mean([float(scorer.score(t, p)["rougeL"].fmeasure) for p, t in zip(predicted, targets, strict=True)])


def exact_match(predicted: Sequence[str], targets: Sequence[str]) -> Score:
    """Share of answers equal to the target after trimming white space."""
    return mean([float(p.strip() == t.strip()) for p, t in zip(predicted, targets, strict=True)])
