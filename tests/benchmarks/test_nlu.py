"""Which runs the benchmark of tasks with heads needs, in which order, and how rates are chosen."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import nlu
import pytest
import store

from foreword.learning_rates import FITTED


def result(job: nlu.Job, loss: float) -> dict[str, Any]:
    return {**asdict(job), "valid_loss": loss}


def test_every_recipe_comes_first_at_its_general_rate_on_the_small_model() -> None:
    order = list(nlu.jobs([], tuple(nlu.CASES)))
    assert all(job.factor == 1 and job.seed == 0 for job in order)
    assert [job.model for job in order] == sorted((job.model for job in order), reverse=True)
    assert {job.what for job in order if job.case == "pos"} == set(nlu.CASES["pos"].what)
    assert len(order) == len(set(order)) == sum((len(case.what) - len(case.rated_as)) * len(case.models) for case in nlu.CASES.values()), (
        "nothing else is known yet"
    )


@pytest.mark.parametrize(
    ("curve", "tried"),
    [
        ({1.0: 0.5, 3.0: 0.6, 0.3: 0.7}, [1.0, 3.0, 0.3]),
        ({1.0: 0.5, 3.0: 0.4, 10.0: 0.45}, [1.0, 3.0, 10.0]),
        ({1.0: 0.5, 3.0: 0.4, 10.0: 0.3, 30.0: float("inf")}, [1.0, 3.0, 10.0, 30.0]),
        ({1.0: 0.5, 3.0: 0.4, 10.0: 0.3, 30.0: 0.2}, [1.0, 3.0, 10.0, 30.0]),
        ({1.0: float("inf"), 3.0: float("inf"), 0.3: 0.7, 0.1: 0.8}, [1.0, 3.0, 0.3, 0.1]),
    ],
)
def test_the_search_goes_on_while_it_helps_and_ends_between_worse_rates(curve: dict[float, float], tried: list[float]) -> None:
    one = ("topic", "minilm", "lora")
    found: list[dict[str, Any]] = []
    while (factor := nlu.next_factor(found, one)) is not None:
        assert (nlu.chosen(found, one) is None) == (len(found) < 3)
        assert nlu.Job(*one, factor, 0) in list(nlu.jobs(found, tuple(nlu.CASES)))
        found.append(result(nlu.Job(*one, factor, 0), curve[factor]))
    assert [run["factor"] for run in found] == tried
    assert nlu.chosen(found, one) == min(curve, key=lambda factor: curve[factor])


def test_the_best_rate_is_run_on_all_seeds() -> None:
    one = ("topic", "minilm", "lora")
    found = [result(nlu.Job(*one, factor, 0), loss) for factor, loss in ((1.0, 0.5), (0.3, 0.6), (3.0, 0.4), (10.0, 0.5))]
    extra = [job for job in nlu.jobs(found, tuple(nlu.CASES)) if (job.case, job.model, job.what) == one and job.factor == 3.0]
    assert [job.seed for job in extra] == [0, 1, 2]


def test_a_recipe_without_a_search_of_its_own_takes_anothers_rate() -> None:
    case = nlu.CASES["pos-short"]
    assert case.rated_as == dict.fromkeys(("p-tuning-v2:1", "p-tuning-v2:2", "p-tuning-v2:20", "p-tuning-v2:100"), "p-tuning-v2:5")
    leader, other = ("pos-short", "gemma", "p-tuning-v2:5"), ("pos-short", "gemma", "p-tuning-v2:100")
    found = [result(nlu.Job(*leader, factor, 0), loss) for factor, loss in ((1.0, 0.5), (3.0, 0.4))]
    assert not [job for job in nlu.jobs(found, ["pos-short"]) if job.what == other[2]] and nlu.chosen(found, other) is None
    found.append(result(nlu.Job(*leader, 10.0, 0), 0.6))
    assert [job for job in nlu.jobs(found, ["pos-short"]) if job.what == other[2]] == [nlu.Job(*other, 3.0, seed) for seed in (0, 1, 2)]
    assert nlu.chosen(found, other) == 3.0 and nlu.next_factor(found, other) is None
    found.append(result(nlu.Job(*other, 3.0, 0), 0.1))
    assert nlu.fitted(found) == {("tag", "causal"): {"kv/direct": 0.09}}, "lengths that chose no rate decide nothing"


def test_defaults_are_the_rates_that_came_out_best() -> None:
    found = store.read(store.RESULTS / "nlu.json")["runs"]
    assert nlu.fitted(found) == {group: dict(parts) for group, parts in FITTED.items()}


def test_a_rate_is_the_default_only_where_it_is_best_over_all_data_of_a_task() -> None:
    def tried(case: str, losses: dict[float, float]) -> list[dict[str, Any]]:
        return [result(nlu.Job(case, "minilm", "lora", factor, 0), loss) for factor, loss in losses.items()]

    better = tried("sentiment", {1.0: 0.5, 3.0: 0.4, 10.0: 0.7})
    worse = tried("topic", {1.0: 0.2, 0.3: 0.3, 3.0: 0.3})
    assert nlu.fitted(better) == {}, "one of the data was not tried"
    assert nlu.fitted([*better, *worse]) == {}, "0.5 x 0.2 is less than 0.4 x 0.3"
    level = tried("topic", {1.0: 0.2, 3.0: 0.2, 0.3: 0.3})
    assert nlu.fitted([*better, *level]) == {("classify-head", "encoder"): {"lora": 0.0015}}
    assert nlu.fitted([*better[:2], *level]) == {}, "two rates are too few to call one the best"


@pytest.mark.parametrize("text", [what for case in nlu.CASES.values() for what in case.what])
def test_recipes_are_read(text: str) -> None:
    made = nlu.what_of(text)
    name, _, length = text.partition(":")
    assert made.method == name
    assert made.prompt is None if not length else made.prompt is not None and made.prompt.length == int(length)
