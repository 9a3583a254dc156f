"""Numbers trained and kept, against the modules that are trained."""

from __future__ import annotations

import pytest
from advisor.bases import base, every_tiny, plain

from foreword.advisor.architecture import read_architecture
from foreword.advisor.parameters import Head, Numbers, count_numbers, lora_parameters, reparam_parameters
from foreword.errors import UsageError
from foreword.methods import METHODS, p_tuning, prefix_tuning
from foreword.recipe import LoraSpec, Recipe
from foreword.specs import Reparam


@pytest.mark.parametrize("length", [1, 20])
@pytest.mark.parametrize(
    "reparam",
    [
        Reparam(),
        Reparam("mlp", 512),
        Reparam("mlp", 7),
        Reparam("lstm", 512),
        Reparam("lstm", 7),
        Reparam("lstm", 6, layers=1),
        Reparam("lstm", 9, layers=3),
    ],
    ids=str,
)
def test_a_reparameterisation_trains_what_its_module_trains(reparam: Reparam, length: int) -> None:
    from foreword.prompts.reparam import build

    module = build(reparam, length, 36)
    assert reparam_parameters(reparam, length, 36) == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_and_keeps_what_a_run_does(method: str) -> None:
    import tiny

    from foreword.prompts.soft_prompt import SoftPrompt

    spec, network = Recipe.of(METHODS[method]()).prompt, read_architecture(tiny.config("llama-grouped").to_dict())
    if spec is None:
        pytest.skip("no soft prompt")
    width = spec.width(network.shape)
    import torch

    prompt = SoftPrompt(spec, network.shape, torch.zeros(spec.length, width), torch.ones(width))
    found = count_numbers(Recipe.of(spec), network)
    assert found.trained == sum(parameter.numel() for parameter in prompt.reparam.parameters())
    assert found.stored == prompt.bake().numel()


def test_the_documented_sizes() -> None:
    gemma, llama = base("Gemma-3-270M"), base("Llama-3-8B")
    assert count_numbers(Recipe.of(prefix_tuning(20)), gemma) == Numbers(5_000_704, 184_320)
    assert count_numbers(Recipe.of(prefix_tuning(20)), llama) == Numbers(33_892_864, 1_310_720)
    assert count_numbers(Recipe.of(p_tuning(20)), gemma).stored == 12_800


@pytest.mark.parametrize(("bias", "numbers"), [(True, 1_538), (False, 1_536)])
def test_a_head_is_what_its_module_has(bias: bool, numbers: int) -> None:
    from foreword.prompts.head import Head as Module
    from foreword.prompts.head import HeadSpec

    assert Head(2, bias).parameters(768) == numbers == sum(p.numel() for p in Module(HeadSpec(2, bias), 768).parameters())


def test_a_head_alone_and_all_weights() -> None:
    network = base("BERT-base")
    assert count_numbers(Recipe("head"), network, Head(3)) == Numbers(2_307, 2_307, 2_307)
    assert count_numbers(Recipe("full", full=True), network, Head(3)).trained == 109_482_240 + 2_307


def test_a_frozen_lora_is_kept_and_not_trained() -> None:
    frozen = Recipe("lora", lora=LoraSpec(8, path="domain", frozen=True))
    assert count_numbers(frozen, plain(4096, 32)) == Numbers(0, 4_194_304)


def test_lora_by_targets() -> None:
    network = base("Llama-3-8B")
    one = {
        "q": 4096 + 4096,
        "k": 4096 + 1024,
        "v": 4096 + 1024,
        "o": 4096 + 4096,
        "gate": 4096 + 14336,
        "up": 4096 + 14336,
        "down": 14336 + 4096,
    }
    for role, sides in one.items():
        assert lora_parameters(LoraSpec(4, targets=(role,)), network) == 4 * 32 * sides
        assert lora_parameters(LoraSpec(4, targets=f"{role}_proj"), network) == 4 * 32 * sides
    assert lora_parameters(LoraSpec(4, targets="all-linear"), network) == 4 * 32 * sum(one.values())


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(UsageError) as caught:
        lora_parameters(LoraSpec(4, targets=("q", "gate")), base("BERT-base"))
    assert (
        str(caught.value)
        == "LoRA's target 'gate' is not a matrix of this model; choose attention, all-linear, or some of q, k, v, o, up, down."
    )


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_lora_has_the_numbers_that_a_run_trains(targets: str) -> None:
    """On every family: against the layers that LoRA really stands on."""
    from foreword.backbone.weights.lora import target_layers

    wrong = {}
    for model in every_tiny():
        spec = LoraSpec(4, targets=targets)
        real = sum(4 * sum(layer.weight.shape) for layer in target_layers(model.network, spec, model.name).values())  # type: ignore[union-attr,misc,arg-type]
        counted = lora_parameters(spec, read_architecture(model.network.config.to_dict()))
        if counted != real:
            wrong[model.name] = (counted, real)
    assert wrong == {}
