"""Metrics of written answers against one reference each: ROUGE, BLEU, chrF and exact match, with their standard error and n."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from foreword.tasks.metrics.base import Score, exact_match, mean
from foreword.tasks.metrics.bootstrap import bootstrap


def rouge(predicted: Sequence[str], targets: Sequence[str]) -> dict[str, Score]:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L with stemming (Lin 2004; rouge-score, Google's implementation), 0 to 1."""
    from rouge_score.rouge_scorer import RougeScorer  # pulls in nltk

    names = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    scorer = RougeScorer(list(names.values()), use_stemmer=True)
    found = [scorer.score(target, text) for text, target in zip(predicted, targets, strict=True)]
    return {ours: mean([float(one[theirs].fmeasure) for one in found]) for ours, theirs in names.items()}


def bleu(predicted: Sequence[str], targets: Sequence[str]) -> Score:
    """Corpus BLEU as sacrebleu computes it (Post 2018, arXiv:1804.08771: 13a tokens, mixed case), 0 to 100."""
    from sacrebleu.metrics.bleu import BLEU

    return _corpus(BLEU(), predicted, targets)


def chrf(predicted: Sequence[str], targets: Sequence[str]) -> Score:
    """Corpus chrF2 (Popović 2015; sacrebleu): F-score of character 1- to 6-grams, fit for every language, 0 to 100."""
    from sacrebleu.metrics.chrf import CHRF

    return _corpus(CHRF(), predicted, targets)


def texts(predicted: Sequence[str], targets: Sequence[str]) -> dict[str, Score]:
    """All of them."""
    scores = {**rouge(predicted, targets), "bleu": bleu(predicted, targets), "chrf": chrf(predicted, targets)}
    return {**scores, "exact_match": exact_match(predicted, targets)}


def _corpus(metric: Any, predicted: Sequence[str], targets: Sequence[str]) -> Score:
    """A corpus score is no mean of sentences, so its standard error comes from bootstrap draws of sentences (Koehn 2004).

    The counts of each sentence are taken once: sacrebleu's own resampling gives a 95 % interval only, in a private field.
    """
    found = metric._extract_corpus_statistics(list(predicted), [list(targets)]) if predicted else []
    counts = np.array(found, dtype=np.float64)
    return bootstrap(lambda index: float(metric._compute_score_from_stats(counts[index].sum(0).tolist()).score), len(counts))
