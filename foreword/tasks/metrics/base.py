"""Metrics, always with their standard error and n."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

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


def macro_f1(predicted: Sequence[str], targets: Sequence[str]) -> Score:
    """Mean of the labels' F1 over the labels that occur in the targets; standard error by 200 bootstrap draws (seed 0)."""
    names = sorted(set(targets))
    code = {name: index for index, name in enumerate(names)}
    p = np.array([code.get(name, -1) for name in predicted])
    t = np.array([code[name] for name in targets])

    def value(index: np.ndarray) -> float:
        scores = []
        for label in range(len(names)):
            hit = float(((p[index] == label) & (t[index] == label)).sum())
            total = float((p[index] == label).sum() + (t[index] == label).sum())
            if total:
                scores.append(2 * hit / total)
        return sum(scores) / max(len(scores), 1)

    return Score(value(np.arange(len(t))), _bootstrap(value, len(t)), len(t))


def _bootstrap(value: Callable[[np.ndarray], float], n: int, draws: int = 200) -> float:
    random = np.random.default_rng(0)
    return float(np.std([value(random.integers(0, n, n)) for _ in range(draws)], ddof=1)) if n > 1 else 0.0


def rouge_l(predicted: Sequence[str], targets: Sequence[str]) -> Score:
    """Mean ROUGE-L F1 with stemming (rouge-score, Google's implementation)."""
    from rouge_score.rouge_scorer import RougeScorer  # pulls in nltk; only generation needs it

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return mean([float(scorer.score(t, p)["rougeL"].fmeasure) for p, t in zip(predicted, targets, strict=True)])


def exact_match(predicted: Sequence[str], targets: Sequence[str]) -> Score:
    """Share of answers equal to the target after trimming white space."""
    return mean([float(p.strip() == t.strip()) for p, t in zip(predicted, targets, strict=True)])
