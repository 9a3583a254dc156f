"""The standard error of a score that is no mean over examples: the same score of other examples, drawn with replacement (Efron 1979).

`scipy.stats.bootstrap` draws the same examples, but importing scipy.stats takes longer than the draws, and of the tasks only regression
needs it; it also holds the counts of all draws at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from foreword.errors import DataError
from foreword.tasks.metrics.base import Score

DRAWS = 200


def bootstrap(value: Callable[[np.ndarray], float], n: int) -> Score:
    """`value` of all n examples; its standard error is the standard deviation over 200 draws of n examples (seed 0), 0 for one example.

    Args:
        value: gives the score of the examples with the indices that it gets, int [n].

    Raises DataError for no examples.
    """
    if not n:
        raise DataError("a metric needs at least one example, but none came; give data that is not empty.")
    random = np.random.default_rng(0)
    drawn = [value(random.integers(0, n, n)) for _ in range(DRAWS)] if n > 1 else []
    return Score(float(value(np.arange(n))), float(np.std(drawn, ddof=1)) if drawn else 0.0, n)


def ratio(counts: np.ndarray, parts: Callable[..., tuple[float, float]]) -> Score:
    """A ratio of sums over rows of counts [n, ·], 0 where nothing is divided; standard error by bootstrap.

    Args:
        parts: gives the two sides of the ratio from the sum of each column.

    Raises DataError for no rows.
    """

    def value(index: np.ndarray) -> float:
        above, below = parts(*counts[index].sum(0).tolist())
        return above / below if below > 0 else 0.0

    return bootstrap(value, len(counts))
