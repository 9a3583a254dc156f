"""The bootstrap behind every score that is no mean: against SciPy's, against the formula of a mean, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foreword.errors import DataError
from foreword.tasks.metrics.base import Score, mean
from foreword.tasks.metrics.bootstrap import DRAWS, bootstrap, ratio
from foreword.tasks.metrics.label_metrics import macro_f1

VALUES = np.random.default_rng(4).normal(3, 2, 150)
EMPTY = "a metric needs at least one example, but none came; give data that is not empty."


def test_the_draws_are_those_of_scipy() -> None:
    from scipy.stats import bootstrap as scipys

    theirs = scipys((VALUES,), np.median, n_resamples=DRAWS, rng=np.random.default_rng(0), method="percentile", vectorized=False)
    found = bootstrap(lambda index: float(np.median(VALUES[index])), len(VALUES))
    assert (found.value, found.stderr, found.n) == (float(np.median(VALUES)), pytest.approx(theirs.standard_error), 150)


def test_the_error_of_a_mean_is_near_its_formula() -> None:
    found = bootstrap(lambda index: float(VALUES[index].mean()), len(VALUES))
    assert found.stderr == pytest.approx(mean(VALUES.tolist()).stderr, rel=0.15)
    assert found == bootstrap(lambda index: float(VALUES[index].mean()), len(VALUES)), "the same draws every time"


def test_one_example_has_no_error_and_none_is_refused() -> None:
    assert bootstrap(lambda index: float(len(index)), 1) == Score(1.0, 0.0, 1)
    with pytest.raises(DataError) as caught:
        bootstrap(lambda index: 0.0, 0)
    assert str(caught.value) == EMPTY


def test_a_ratio_is_of_sums_and_nothing_divided_is_nothing() -> None:
    counts = np.array([[1.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    assert ratio(counts, lambda right, words: (right, words)).value == 0.5
    assert ratio(np.zeros((3, 2)), lambda right, words: (right, words)) == Score(0.0, 0.0, 3)


def test_macro_f1_is_scikit_learns_over_the_labels_of_the_targets() -> None:
    from sklearn.metrics import f1_score

    random = np.random.default_rng(5)
    targets = random.choice(list("abcd"), 60).tolist()
    predicted = [t if random.random() < 0.6 else str(random.choice(list("abcdx"))) for t in targets]
    found = macro_f1(predicted, targets)
    assert found.value == pytest.approx(f1_score(targets, predicted, average="macro", labels=list("abcd")))
    assert found.n == 60 and 0 < found.stderr < 0.1 and math.isfinite(found.stderr)
    with pytest.raises(DataError) as caught:
        macro_f1([], [])
    assert str(caught.value) == EMPTY
