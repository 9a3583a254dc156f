"""From rows to lines: what ± means, how lines are sorted, what becomes of runs that came to nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from foreword.errors import UsageError
from foreword.evaluation.report import check_metric, estimate, lines


def row(method: str, seed: int, value: float | None, *, stderr: float = 0.03, metric: str = "accuracy", **more: Any) -> dict[str, Any]:
    cost = {"num_parameters": 10, "num_trained": 30, "bytes": 40 + seed, "seconds": 2.0 + seed, "peak_memory": 100 + seed}
    latency = {"ratio": 1.0 + seed / 10, "low": 0.9, "high": 1.2 + seed}
    scores = {metric: {"value": value, "stderr": stderr, "n": 50}}
    return {"method": method, "seed": seed, "rate": None, "status": "done", "scores": scores, "latency": latency, **cost, **more}


def test_an_error_holds_test_examples_and_seeds() -> None:
    found = estimate([{"value": value, "stderr": stderr, "n": 50} for value, stderr in ((0.8, 0.03), (0.9, 0.04), (0.7, 0.05))])
    assert found is not None
    assert found.value == pytest.approx(0.8)
    assert found.spread == pytest.approx(0.1)
    assert found.test_stderr == pytest.approx(math.sqrt((0.03**2 + 0.04**2 + 0.05**2) / 3)), "more seeds see no more test examples"
    assert found.stderr == pytest.approx(math.sqrt(found.test_stderr**2 + 0.1**2 / 3))
    assert (found.n, found.seeds) == (50, 3)


def test_one_seed_has_no_spread() -> None:
    found = estimate([{"value": 0.8, "stderr": 0.03, "n": 50}])
    assert found is not None
    assert (found.stderr, found.spread) == (0.03, None)


def test_a_number_that_is_none_gives_no_estimate() -> None:
    assert estimate([]) is None
    assert estimate([{"value": 0.8, "stderr": 0.03, "n": 50}, {"value": None, "stderr": None, "n": 50}]) is None


def test_the_best_stands_first_and_what_has_no_score_last() -> None:
    gone = {"method": "gone", "seed": 0, "rate": None, "status": "refused", "scores": {}, "reason": "no."}
    rows = [gone, row("a", 0, 0.7), row("b", 0, 0.9), row("a", 1, 0.9)]
    assert [line.method for line in lines(rows, "accuracy")] == ["b", "a", "gone"]
    losses = [row("a", 0, 0.7, metric="loss"), row("b", 0, 0.9, metric="loss")]
    assert [line.method for line in lines(losses, "loss")] == ["a", "b"]


def test_costs_are_means_and_memory_and_latency_the_widest() -> None:
    (line,) = lines([row("a", 0, 0.7), row("a", 1, 0.9), row("a", 2, 0.8)], "accuracy")
    assert (line.num_parameters, line.num_trained, line.bytes, line.seconds, line.peak_memory) == (10, 30, 41, 3.0, 102)
    assert line.latency == {"ratio": 1.1, "low": 0.9, "high": 3.2}


def test_a_diverged_run_is_counted_and_its_method_keeps_the_other_seeds() -> None:
    bad = {"method": "a", "seed": 1, "rate": None, "status": "diverged", "scores": {}, "reason": "the loss became nan."}
    (line,) = lines([row("a", 0, 0.7), bad], "accuracy")
    assert (line.runs, line.diverged, line.reason) == (1, 1, "the loss became nan.")
    assert line.scores["accuracy"].value == 0.7
    (alone,) = lines([bad], "accuracy")
    assert (alone.runs, alone.scores, alone.bytes) == (0, {}, None)


def test_a_metric_that_no_run_has() -> None:
    check_metric([], "bleu")
    with pytest.raises(UsageError) as refused:
        check_metric([row("a", 0, 0.7)], "bleu")
    assert str(refused.value) == "metric 'bleu' is not among accuracy; choose one of them."
