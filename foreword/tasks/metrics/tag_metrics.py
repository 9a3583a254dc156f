"""Scores of tagged sentences: entities by seqeval, and words. Standard errors by drawing whole sentences, whose words hang together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from foreword.errors import DataError
from foreword.tasks.data.bio_tags import entities
from foreword.tasks.metrics.base import Score

Sentences = Sequence[Sequence[str]]


def entity_scores(predicted: Sentences, targets: Sentences) -> dict[str, Score]:
    """`entity_f1`, `precision` and `recall` over all entities (micro): right are those whose type and both ends are right; n counts sentences."""
    counts = np.array([_hits(p, t) for p, t in zip(predicted, targets, strict=True)], dtype=float).reshape(-1, 3)
    return {
        "entity_f1": ratio(counts, lambda hit, said, real: (2 * hit, said + real)),
        "precision": ratio(counts, lambda hit, said, real: (hit, said)),
        "recall": ratio(counts, lambda hit, said, real: (hit, real)),
    }


def token_accuracy(predicted: Sentences, targets: Sentences) -> Score:
    """Share of words with the right tag; n counts sentences."""
    counts = np.array([(sum(map(str.__eq__, p, t)), len(t)) for p, t in zip(predicted, targets, strict=True)], dtype=float).reshape(-1, 2)
    return ratio(counts, lambda right, words: (right, words))


def ratio(counts: np.ndarray, parts: Callable[..., tuple[np.ndarray, np.ndarray]], draws: int = 200) -> Score:
    """A ratio of sums over rows of counts [n, ·], 0 where nothing is divided; standard error by `draws` bootstrap draws of rows (seed 0).

    Raises DataError for no rows.
    """
    n = len(counts)
    if not n:
        raise DataError("a metric needs at least one example, but none came; give data that is not empty.")
    random = np.random.default_rng(0)
    sums = np.stack([counts.sum(0), *(counts[random.integers(0, n, n)].sum(0) for _ in range(draws))])
    above, below = parts(*sums.T)
    values = np.divide(above, below, out=np.zeros(len(sums)), where=below > 0)
    return Score(float(values[0]), float(values[1:].std(ddof=1)) if n > 1 else 0.0, n)


def _hits(predicted: Sequence[str], target: Sequence[str]) -> tuple[int, int, int]:
    said, real = set(entities(predicted)), set(entities(target))
    return len(said & real), len(said), len(real)
