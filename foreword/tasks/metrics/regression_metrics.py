"""Scores of predicted numbers, with standard errors by bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from foreword.tasks.metrics.base import Score, mean

_Pairs = tuple[np.ndarray, np.ndarray]


def number_scores(predicted: Sequence[float], targets: Sequence[float]) -> dict[str, Score]:
    """`pearson` and `spearman` correlation (0 where one side is constant) and `mse`, the mean squared error."""
    p, t = np.asarray(predicted, dtype=float), np.asarray(targets, dtype=float)
    error = mean(((p - t) ** 2).tolist())
    return {"pearson": _drawn(_pearson, p, t), "spearman": _drawn(_spearman, p, t), "mse": error}


def _drawn(value: Callable[[np.ndarray, np.ndarray], float], p: np.ndarray, t: np.ndarray, draws: int = 200) -> Score:
    """A score of pairs; standard error by `draws` draws of pairs (seed 0)."""
    random = np.random.default_rng(0)
    picks = [random.integers(0, len(p), len(p)) for _ in range(draws)]
    spread = float(np.std([value(p[pick], t[pick]) for pick in picks], ddof=1)) if len(p) > 1 else 0.0
    return Score(value(p, t), spread, len(p))


def _pearson(p: np.ndarray, t: np.ndarray) -> float:
    p, t = p - p.mean(), t - t.mean()
    size = float(np.sqrt((p**2).sum() * (t**2).sum()))
    return float((p * t).sum()) / size if size > 0 else 0.0


def _spearman(p: np.ndarray, t: np.ndarray) -> float:
    from scipy.stats import rankdata  # a large import, and only regression needs it

    return _pearson(rankdata(p), rankdata(t))
