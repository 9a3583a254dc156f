"""Recipes: site × re-parameterisation, and the paper each cites."""

from __future__ import annotations

import inspect

import pytest

from foreword import methods
from foreword.errors import UsageError
from foreword.methods import METHODS, recipe
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
    assert str(caught.value) == "layers 'last:2' came for the input site, which has no layers; drop it or use a method of the kv site."
    with pytest.raises(UsageError) as caught:
        methods.p_tuning(encoder="gru")
    assert str(caught.value) == "encoder 'gru' is not known; choose mlp or lstm."
    with pytest.raises(UsageError) as caught:
        recipe("p-tuning", length=0)
    assert str(caught.value) == "num_virtual_tokens is 0, but it must be a whole number of at least 1."
