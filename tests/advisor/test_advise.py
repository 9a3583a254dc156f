"""The decision guide: what it recommends in the situations it is asked about, and that its data is honest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from advisor.bases import base

from foreword.advisor import learning_rate_advice, rules
from foreword.advisor.advise import Advice, advise, candidates, kind_of
from foreword.advisor.inputs import KNOWLEDGE, SERVING, Inputs
from foreword.errors import UsageError
from foreword.methods import METHODS
from foreword.recipe import Recipe
from foreword.task_kinds import TASK_KINDS

LOG = Path(__file__).resolve().parents[2] / "LOG.md"


def advice(name: str = "Llama-3-8B", **situation: Any) -> Advice:
    return advise(base(name), Inputs(**situation))


def first(name: str = "Llama-3-8B", **situation: Any) -> str:
    """The recommended method's kind."""
    found = advice(name, **situation)
    assert found.recommended is not None
    return next(size.kind for size in found.sizing if size.method == found.recommended.method)


@pytest.mark.parametrize(
    ("kind", "situation"),
    [
        ("kv/network", {"examples": 1000, "tasks": 1000}),
        ("kv/direct", {"examples": 1000, "tasks": 1000, "task": "tag"}),
        ("kv/direct", {"examples": 1000, "tasks": 1000, "task": "qa"}),
        ("kv/network", {"examples": 1000, "tasks": 1000, "task": "generate"}),
        ("input/network", {"examples": 1000, "tasks": 1000, "task": "probe"}),
        ("lora", {"examples": 499, "tasks": 1000}),
        ("lora", {"examples": 100_000, "tasks": 2}),
        ("lora", {"examples": 1000, "tasks": 1000, "knowledge": "far"}),
        ("full", {"examples": 100_000, "tasks": 1, "knowledge": "far"}),
        ("lora", {"examples": 1000, "tasks": 1000, "serving": "bare"}),
        ("kv/network", {"examples": 1000, "tasks": 1000, "serving": "shared"}),
    ],
)
def test_the_first_choice(kind: str, situation: dict[str, Any]) -> None:
    assert first(**situation) == kind


def test_the_size_of_the_model_decides_too() -> None:
    assert first("Qwen3-30B-A3B", tasks=100) == "input/direct"
    assert first("BERT-base", tasks=100) == "kv/direct"


def test_lora_or_full_fine_tuning_is_said_plainly() -> None:
    plain = "a soft prompt is not the better choice here: {} is, for the reasons given."
    assert plain.format("lora") in advice(tasks=1).warnings
    assert plain.format("full") in advice(examples=100_000, knowledge="far").warnings
    assert not [warning for warning in advice(tasks=1000).warnings if "better choice" in warning]


def test_reasons_speak_for_the_choice_and_others_against_it() -> None:
    found = advice(examples=400, tasks=1000)
    assert found.recommended is not None
    assert [rule.name for rule in found.recommended.reasons] == ["few examples"]
    assert [rule.name for rule in found.recommended.against] == ["few examples, real text", "many tasks"]
    assert [pick.method for pick in found.alternatives] == [
        *(m for m, make in METHODS.items() if kind_of(Recipe.of(make())) in rules.DEEP),
        *_third(),
    ]


def _third() -> list[str]:
    return [method for method, make in METHODS.items() if kind_of(Recipe.of(make())) == "input/direct"]


def test_settings_come_with_their_reasons() -> None:
    found = advice(examples=8000, tasks=1000).recommended
    assert found is not None
    assert found.settings == {"length": 20, "learning_rate": 0.005, "steps": 1000, "warmup": 0.06}
    assert [choice.about for choice in found.choices] == list(found.settings)
    asked = advice(tasks=1000, length=7).recommended
    assert asked is not None and asked.settings["length"] == 7 and asked.choices[0].reason == "as asked"


@pytest.mark.parametrize(("examples", "steps"), [(1, 300), (2400, 300), (2401, 301), (24_000, 3000), (10**6, 3000)])
def test_steps(examples: int, steps: int) -> None:
    assert rules.steps_for(examples).value == steps


def test_too_little_memory_is_met_by_checkpointing_then_by_nf4() -> None:
    roomy = advice(tasks=1000)
    assert [size.checkpointing for size in roomy.sizing] == [False] * len(roomy.sizing)
    tight = advice(tasks=1000, memory=20)
    assert tight.recommended is not None and tight.recommended.settings["gradient_checkpointing"] is True
    assert tight.recommended.method == roomy.recommended.method  # type: ignore[union-attr]
    small = advice(tasks=1000, memory=10)
    assert small.recommended is not None and small.recommended.method == "qlora"
    assert "the frozen model alone takes 16.06 GB, more than the 10 GB there are; take a smaller one, or NF4." in small.warnings


def test_nothing_fits() -> None:
    found = advice(tasks=1000, memory=1)
    assert (found.recommended, found.alternatives, found.picks) == (None, (), ())
    assert "no method fits these constraints; allow more memory, shorter texts, or another way of serving." in found.warnings
    full = next(size for size in found.sizing if size.kind == "full")
    needed = full.memory.total / 1e9
    assert full.excluded == f"training needs about {needed:.2f} GB even with gradient checkpointing, more than the 1 GB there are"


def test_texts_that_leave_no_room() -> None:
    sizes = {size.kind: size.excluded for size in advice("RoBERTa-base", tasks=1000, text_tokens=500).sizing}
    assert sizes["kv/direct"] is None, "an encoder keeps all its positions"
    assert sizes["input/direct"] == "492 positions are left, too few for texts of 500 tokens and answers of 1"


def test_a_site_that_the_family_does_not_keep() -> None:
    found = advise(base("Llama-3-8B"), Inputs(tasks=1000), refused={"kv": "its attention keeps no keys and values per head"})
    assert {size.kind for size in found.sizing if size.excluded} == {"kv/network", "kv/direct"}
    excluded = [
        f"{m} is left out: its attention keeps no keys and values per head."
        for m, make in METHODS.items()
        if Recipe.of(make()).prompt.site == "kv"
    ]  # type: ignore[union-attr]
    assert [warning for warning in found.warnings if "left out" in warning] == excluded


def test_all_weights_are_not_shared_and_experts_are_not_quantised() -> None:
    shared = {size.kind: size.excluded for size in advice(tasks=5, serving="shared").sizing}
    assert shared["full"] == "all weights are a model of their own for each task, which nothing can share"
    mixture = {size.kind: size.excluded for size in advice("Qwen3-30B-A3B").sizing}
    assert mixture["qlora"] == "experts stay as they are, so NF4 saves little on a mixture"
    bare = {size.kind: size.excluded for size in advice(serving="bare").sizing}
    assert bare["kv/network"] == "a soft prompt costs a request time or context"


def test_few_examples_are_few() -> None:
    sentence = "99 examples are too few to tell methods apart; write a prompt with examples in it as well, and compare."
    assert sentence in advice(examples=99).warnings
    assert sentence not in advice(examples=100).warnings


def test_a_task_that_the_model_cannot_do() -> None:
    with pytest.raises(UsageError) as caught:
        advice("BERT-base", task="generate")
    assert str(caught.value) == "task 'generate' needs a model that generates text, but 'bert' is an encoder; use a causal model."
    with pytest.raises(UsageError) as caught:
        advice("T5-small", task="tag")
    assert str(caught.value) == "task 'tag' needs a head, but 't5' is an encoder-decoder; use an encoder or a causal model."


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"task": "dance"}, f"task 'dance' is not known; choose one of {', '.join(TASK_KINDS)}."),
        ({"knowledge": "deep"}, "knowledge 'deep' is not known; choose one of near, far."),
        ({"serving": "cloud"}, "serving 'cloud' is not known; choose one of any, shared, bare."),
        ({"dtype": "int4"}, "dtype 'int4' is not known; choose one of float32, bfloat16, float16."),
        ({"examples": 0}, "examples is 0, but it must be a whole number of at least 1."),
        ({"labels": 1}, "labels is 1, but it must be a whole number of at least 2."),
        ({"lora_r": -2}, "lora_r is -2, but it must be a whole number of at least 1."),
        ({"memory": 0.0}, "memory is 0, but it must be above 0, in GB."),
    ],
)
def test_a_situation_that_cannot_be(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Inputs(**wrong)
    assert str(caught.value) == sentence


def test_rules_are_data_that_can_be_read() -> None:
    facts = {**Inputs().facts(), "parameters": 1, "kind": "causal"}
    assert set(facts) == set(rules.FACTS)
    kinds = set(candidates(Inputs(), facts))
    for rule in rules.RULES:
        assert {*rule.prefer, *rule.then} <= kinds, rule.name
        assert not set(rule.prefer) & set(rule.then), rule.name
        assert {fact for fact, _, _ in rule.when} <= set(facts), rule.name
    assert len({rule.name for rule in rules.RULES}) == len(rules.RULES)


@pytest.mark.parametrize("task", TASK_KINDS)
@pytest.mark.parametrize("knowledge", KNOWLEDGE)
@pytest.mark.parametrize("serving", SERVING)
def test_every_situation_has_an_answer(task: str, knowledge: str, serving: str) -> None:
    for examples in (10, 1000, 100_000):
        for tasks in (1, 3, 1000):
            found = advice(task=task, knowledge=knowledge, serving=serving, examples=examples, tasks=tasks)
            assert found.recommended is not None and found.recommended.reasons, "a choice has a reason"
            assert found.recommended.method not in [pick.method for pick in found.alternatives]


def test_every_source_is_a_paper_or_a_run_in_the_log() -> None:
    entries = [*rules.RULES, *rules.LENGTHS, *learning_rate_advice.RATES.values(), rules.SCHEDULE, rules.CHECKPOINTING, rules.steps_for(1)]
    for entry in entries:
        assert (
            re.search(r"arXiv:\d{4}\.\d{5}", entry.source)
            or entry.source in (rules.OWN_RUNS, rules.OWN_RESULTS, rules.PEFT_TABLE)
            or "Foreword's default" in entry.source
        )
    log = LOG.read_text("utf-8")
    date = re.search(r"\d{4}-\d\d-\d\d", rules.OWN_RUNS)
    assert date and f"## {date.group()} · Learning rates" in log
    results = LOG.with_name("docs").joinpath("results.md").read_text("utf-8")
    assert "## Tasks with a head" in results
    for source, page in ((rules.OWN_RUNS, log), (rules.OWN_RESULTS, results)):
        reasons = " ".join(entry.reason for entry in (*rules.RULES, *rules.LENGTHS) if entry.source == source)
        scores = re.findall(r"0\.\d{3} ± 0\.\d{3}", reasons)
        assert scores and all(score in page for score in scores)


def test_settings_are_those_that_a_run_takes() -> None:
    from foreword.learning_rates import main_part, rate_of
    from foreword.training.plan import TrainPlan

    plan = TrainPlan()
    assert (plan.batch_size, plan.warmup, plan.steps) == (rules.BATCH_SIZE, rules.WARMUP, rules.STEPS)
    for recipe in candidates(Inputs(), {**Inputs().facts(), "parameters": 1, "kind": "causal"}).values():
        for task, kind in (("classify", "causal"), ("tag", "causal"), ("tag", "encoder"), ("classify-head", "encoder")):
            found = learning_rate_advice.rate(kind_of(recipe), {"task": task, "kind": kind})
            assert found.value == rate_of(main_part(recipe), task, kind), recipe.method
            fitted = found.value != learning_rate_advice.RATES[kind_of(recipe)].value
            assert (learning_rate_advice.FITTED_REASON in found.reason) == fitted, "a rate of its own says why"
    assert learning_rate_advice.rate("lora", {"task": "classify", "kind": "encoder"}).value == rate_of("lora", "classify-head", "encoder")
    assert rules.LENGTHS[-1].value == next(iter(METHODS.values()))().length


def test_tasks_and_heads_are_those_that_exist() -> None:
    import tiny
    import tiny_encoders

    from foreword.tasks.choice import Choice
    from foreword.tasks.head_classify import HeadClassify
    from foreword.tasks.multilabel import MultiLabel
    from foreword.tasks.qa import QA
    from foreword.tasks.regress import Regress
    from foreword.tasks.tag import Tag

    labels = ("a", "b", "c")
    tasks = [HeadClassify(labels), MultiLabel(labels), Regress(), Tag(labels), QA(), Choice()]
    for model in (tiny.frozen("llama"), tiny_encoders.frozen("bert")):
        for task in tasks:
            real, counted = task.for_model(model.info, None).head, Inputs(task=task.kind, labels=3).head(model.shape.kind)
            assert real is not None and counted is not None
            assert (counted.outputs, counted.bias) == (real.outputs, real.bias), task.kind
    assert Inputs(labels=3).head("causal") is None, "label words need no head"


def test_more_can_be_sized_and_lora_told() -> None:
    sums = [f"{method}+lora" for method in METHODS]
    found = {size.method: size.numbers for size in advice(also=", ".join(sums), lora_r=4, lora_targets="q,v").sizing}
    for method in METHODS:
        assert found[f"{method}+lora"].stored == found[method].stored + found["lora"].stored
    assert found["lora"].stored == found["qlora"].stored == 4 * 32 * (2 * 4096 + 4096 + 1024)
    with pytest.raises(UsageError):
        advice(also="dance")


def test_a_head_alone_is_sized_where_there_is_one() -> None:
    found = {size.method: size.numbers for size in advice("BERT-base", labels=3).sizing}
    assert found["head-only"].stored == 3 * 769
    assert "head-only" not in {size.method for size in advice().sizing}
