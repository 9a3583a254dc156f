"""Scores of tagged sentences: entities by seqeval, and words. Standard errors by drawing whole sentences, whose words hang together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foreword.tasks.data.bio_tags import entities
from foreword.tasks.metrics.base import Score
from foreword.tasks.metrics.bootstrap import ratio

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


def _hits(predicted: Sequence[str], target: Sequence[str]) -> tuple[int, int, int]:
    said, real = set(entities(predicted)), set(entities(target))
    return len(said & real), len(said), len(real)
