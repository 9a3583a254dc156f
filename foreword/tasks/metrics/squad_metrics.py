"""Scores of short answers, as SQuAD's official script gives them (Rajpurkar et al. 2018, arXiv:1806.03822): exact match and word F1."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from foreword.tasks.metrics.base import Score, mean

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def answer_scores(predicted: Sequence[str], targets: Sequence[Sequence[str]]) -> dict[str, Score]:
    """`exact_match` and `f1`, each the best over an example's answers; no answers means that an empty prediction is right."""
    pairs = [(p, list(t) or [""]) for p, t in zip(predicted, targets, strict=True)]
    return {
        "exact_match": mean([max(float(normalised(p) == normalised(answer)) for answer in t) for p, t in pairs]),
        "f1": mean([max(word_f1(p, answer) for answer in t) for p, t in pairs]),
    }


def normalised(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def word_f1(predicted: str, target: str) -> float:
    """F1 of the words two answers share; where one has none, 1 if both have none."""
    said, real = normalised(predicted).split(), normalised(target).split()
    if not said or not real:
        return float(said == real)
    shared = sum((Counter(said) & Counter(real)).values())
    return 2 * shared / (len(said) + len(real))
