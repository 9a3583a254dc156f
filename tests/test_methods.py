"""Recipes: site × re-parameterisation, and the paper each cites."""

from __future__ import annotations

import inspect

import pytest

from foreword import methods
from foreword.errors import UsageError
from foreword.learning_rates import main_part
from foreword.methods import BASELINES, METHODS, named, recipe
from foreword.recipe import LoraSpec, Recipe
from foreword.specs import Init, Reparam

EXPECTED = {
    "prompt-tuning": ("input", "direct", "2104.08691"),
    "p-tuning": ("input", "mlp", "2103.10385"),
    "prefix-tuning": ("kv", "mlp", "2101.00190"),
    "p-tuning-v2": ("kv", "direct", "2110.07602"),
}


def test_the_four_methods() -> None:
    assert {name: (recipe().site, recipe().reparam.kind) for name, recipe in METHODS.items()} == {k: v[:2] for k, v in EXPECTED.items()}


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_knows_its_name_and_its_paper(name: str) -> None:
    assert METHODS[name]().method == name
    assert METHODS[name] is getattr(methods, name.replace("-", "_"))
    assert f"arXiv:{EXPECTED[name][2]}" in (inspect.getdoc(METHODS[name]) or "")
    assert METHODS[name](3).length == 3 and METHODS[name]().window == "pinned"


def test_options_of_one_method() -> None:
    assert methods.p_tuning(encoder="lstm", hidden=64).reparam == Reparam("lstm", 64)
    assert methods.p_tuning(hidden=64).reparam == Reparam("mlp", 64)
    assert methods.prefix_tuning(prefix_projection=False).reparam == Reparam("direct")
    assert methods.prefix_tuning(hidden=64, layers="last:2", dropout=0.1).layers == "last:2"
    assert methods.p_tuning_v2(init=Init("random")).init.kind == "random"


def test_options_that_all_methods_share() -> None:
    spec = recipe("prefix-tuning", length=9, init=Init("labels"), layers=(0, 1), dropout=0.2)
    assert (spec.length, spec.init, spec.layers, spec.dropout) == (9, Init("labels"), (0, 1), 0.2)
    assert recipe("prefix-tuning") == METHODS["prefix-tuning"]()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        recipe("prompt-tunning")
    assert str(caught.value) == ("method 'prompt-tunning' is not known; choose one of prompt-tuning, p-tuning, prefix-tuning, p-tuning-v2.")
    with pytest.raises(UsageError) as caught:
        recipe("p-tuning", layers="last:2")
    assert str(caught.value) == "layers 'last:2' do not apply to the input site; leave layers out, or use a method of the kv site."
    with pytest.raises(UsageError) as caught:
        methods.p_tuning(encoder="gru")
    assert str(caught.value) == "encoder 'gru' is not known; choose mlp or lstm."
    with pytest.raises(UsageError) as caught:
        recipe("p-tuning", length=0)
    assert str(caught.value) == "num_virtual_tokens is 0, but it must be a whole number of at least 1."


BASELINE_PAPERS = {
    "lora": "2106.09685",
    "qlora": "2305.14314",
    "full": "1801.06146",
    "head-only": "1610.01644",
    "zero-shot": "Radford et al. 2019",
    "few-shot": "2005.14165",
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_knows_its_name_and_its_paper_and_reads_back(name: str) -> None:
    made = BASELINES[name]()
    assert made.method == name and made.prompt is None
    assert BASELINES[name] is getattr(methods, name.replace("-", "_"))
    assert BASELINE_PAPERS[name] in (inspect.getdoc(BASELINES[name]) or "")
    assert Recipe.from_dict(made.to_dict()) == made == named(name)


def test_what_the_baselines_train() -> None:
    assert methods.lora() == Recipe("lora", lora=LoraSpec(8, 16.0, "attention"))
    assert methods.lora(4, 8.0, ("q_proj",), rslora=True).lora == LoraSpec(4, 8.0, ("q_proj",), True)
    assert methods.qlora() == Recipe("qlora", lora=LoraSpec(8, 16.0, "all-linear"), quantize="nf4")
    assert {name for name, make in BASELINES.items() if make().trains} == {"lora", "qlora", "full"}
    assert methods.full().full and methods.few_shot(2).shots == 2 and methods.zero_shot().shots == 0


def test_a_name_or_a_sum_of_names() -> None:
    assert named("p-tuning-v2") == Recipe("p-tuning-v2", prompt=methods.p_tuning_v2())
    both = named("prefix-tuning + lora")
    assert both == methods.prefix_tuning() + methods.lora() == Recipe("prefix-tuning+lora", methods.prefix_tuning(), LoraSpec())
    assert named("prompt-tuning+qlora").quantize == "nf4"
    assert named(both.method) == both


def test_parts_are_added_in_any_order() -> None:
    prompt, lora = methods.p_tuning_v2(3), LoraSpec(r=2)
    assert prompt + lora == prompt + Recipe.of(lora) == Recipe("p-tuning-v2+lora", prompt, lora)
    assert lora + prompt == Recipe.of(lora) + prompt == Recipe("lora+p-tuning-v2", prompt, lora)
    for second in (methods.prefix_tuning(2), Recipe.of(methods.prefix_tuning(2))):
        with pytest.raises(UsageError) as caught:
            prompt + second  # type: ignore[operator]  # refused when it runs
        assert str(caught.value) == (
            "p-tuning-v2 + prefix-tuning has two parts of one kind ('prompt'), but a recipe has one of each; drop one."
        )


def test_names_and_sums_that_cannot_be_are_refused() -> None:
    every = "prompt-tuning, p-tuning, prefix-tuning, p-tuning-v2, lora, qlora, full, head-only, zero-shot, few-shot"
    for text, unknown in (("lroa", "lroa"), ("prefix-tuning+dora", "dora"), ("lora+", ""), ("", "")):
        with pytest.raises(UsageError) as caught:
            named(text)
        assert str(caught.value) == f"method '{unknown}' is not known; choose one of {every}, or a sum like prefix-tuning+lora."
    with pytest.raises(UsageError) as caught:
        named("lora+qlora")
    assert str(caught.value) == "lora + qlora has two parts of one kind ('lora'), but a recipe has one of each; drop one."
    with pytest.raises(UsageError) as caught:
        named("prefix-tuning+zero-shot")
    assert str(caught.value) == "prefix-tuning + zero-shot cannot be trained together; add a soft prompt and LoRA."
    with pytest.raises(UsageError) as caught:
        named("full+lora")
    assert str(caught.value) == "method 'full+lora' trains all weights and something else, which cannot be combined; choose one."
    with pytest.raises(UsageError) as caught:
        methods.few_shot(0)
    assert str(caught.value) == "few-shot came with 0 shots, but it needs a whole number of at least 1; use zero-shot for none."


def test_a_plans_rate_means_what_is_trained() -> None:
    frozen = Recipe("lora", lora=LoraSpec(path="saved", frozen=True))
    assert [main_part(named(name)) for name in ("prefix-tuning", "lora", "full", "head-only")] == [
        "kv/network",
        "lora",
        "full",
        "head-only",
    ]
    assert main_part(frozen) == "head-only", "a LoRA that stays as it is takes no rate"
    assert main_part(frozen + named("p-tuning-v2")) == "kv/direct"
