"""Scores of predicted numbers, with standard errors by bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from foreword.tasks.metrics.base import Score, mean
from foreword.tasks.metrics.bootstrap import bootstrap


def number_scores(predicted: Sequence[float], targets: Sequence[float]) -> dict[str, Score]:
    """`pearson` and `spearman` correlation (0 where one side is constant) and `mse`, the mean squared error."""
    p, t = np.asarray(predicted, dtype=float), np.asarray(targets, dtype=float)
    error = mean(((p - t) ** 2).tolist())
    return {"pearson": _correlation(_pearson, p, t), "spearman": _correlation(_spearman, p, t), "mse": error}


def _correlation(value: Callable[[np.ndarray, np.ndarray], float], p: np.ndarray, t: np.ndarray) -> Score:
    return bootstrap(lambda index: value(p[index], t[index]), len(p))


# scipy.stats.pearsonr and spearmanr give the same numbers with a p-value each, which takes most of their time: 4 times as long for 200 draws.
def _pearson(p: np.ndarray, t: np.ndarray) -> float:
    if np.ptp(p) == 0 or np.ptp(t) == 0:
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore"):  # differences too small to be squared
        found = float(np.corrcoef(p, t)[0, 1])
    return found if math.isfinite(found) else 0.0


def _spearman(p: np.ndarray, t: np.ndarray) -> float:
    from scipy.stats import rankdata  # a large import, and only regression needs it

    return _pearson(rankdata(p), rankdata(t))
