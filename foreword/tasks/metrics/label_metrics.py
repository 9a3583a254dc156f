"""Scores of one label per example, with standard errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foreword.tasks.metrics.base import Score
from foreword.tasks.metrics.bootstrap import bootstrap


def macro_f1(predicted: Sequence[str], targets: Sequence[str]) -> Score:
    """Mean of the labels' F1 over the labels that occur in the targets; standard error by bootstrap."""
    names = sorted(set(targets))
    code = {name: index for index, name in enumerate(names)}
    other = len(names)  # what is predicted, but no target
    p = np.array([code.get(name, other) for name in predicted], dtype=int)
    t = np.array([code[name] for name in targets], dtype=int)

    def value(index: np.ndarray) -> float:
        p_drawn, t_drawn = p[index], t[index]
        hits = np.bincount(t_drawn[p_drawn == t_drawn], minlength=other)
        both = (np.bincount(p_drawn, minlength=other + 1) + np.bincount(t_drawn, minlength=other + 1))[:other]
        return sum((2 * hits[both > 0] / both[both > 0]).tolist()) / np.count_nonzero(both)

    return bootstrap(value, len(t))
