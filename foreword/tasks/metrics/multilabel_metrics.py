"""Scores of sets of labels, with standard errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foreword.tasks.metrics.base import Score, mean
from foreword.tasks.metrics.bootstrap import bootstrap, ratio

Sets = Sequence[frozenset[str]]


def set_scores(predicted: Sets, targets: Sets, labels: Sequence[str]) -> dict[str, Score]:
    """`micro_f1` over all (example, label) pairs, `macro_f1` over the labels that occur, and `subset_accuracy`: all of an example's labels right."""
    hits = np.array([[(x in p) and (x in t) for x in labels] for p, t in zip(predicted, targets, strict=True)], dtype=float)
    sums = np.array([[(x in p) + (x in t) for x in labels] for p, t in zip(predicted, targets, strict=True)], dtype=float)
    exact = mean([float(p == t) for p, t in zip(predicted, targets, strict=True)])
    micro = ratio(np.stack([hits.sum(1), sums.sum(1)], axis=1), lambda hit, both: (2 * hit, both))
    return {"micro_f1": micro, "macro_f1": _macro(hits, sums), "subset_accuracy": exact}


def _macro(hits: np.ndarray, sums: np.ndarray) -> Score:
    """Mean F1 of the labels that were predicted or meant; standard error by bootstrap."""

    def value(index: np.ndarray) -> float:
        hit, both = hits[index].sum(0), sums[index].sum(0)
        return float((2 * hit[both > 0] / both[both > 0]).mean()) if (both > 0).any() else 0.0

    return bootstrap(value, len(hits))
