"""Bytes: the formula piece by piece, and activations against what torch really keeps for the backward pass."""

from __future__ import annotations

from typing import Any

import pytest
from advisor.bases import base, plain

from foreword.advisor.architecture import Architecture, read_architecture
from foreword.advisor.memory_estimate import added_compute, base_bytes, cache_bytes_per_token, context_left, training_memory
from foreword.advisor.parameters import Head, count_numbers
from foreword.advisor.workload import Load
from foreword.methods import p_tuning_v2, prompt_tuning
from foreword.recipe import LoraSpec, Recipe

PROMPT, LORA, FULL = Recipe.of(prompt_tuning(20)), Recipe("lora", lora=LoraSpec(8)), Recipe("full", full=True)
DEEP = Recipe.of(p_tuning_v2(20))
QLORA = Recipe("qlora", lora=LoraSpec(8), quantize="nf4")


def memory(recipe: Recipe, network: Architecture, load: Load, head: Head | None = None) -> Any:
    return training_memory(recipe, network, count_numbers(recipe, network, head), load)


def test_weights_gradients_and_moments() -> None:
    network = base("Llama-3-8B")
    prompt, full = memory(PROMPT, network, Load()), memory(FULL, network, Load())
    assert (prompt.weights, prompt.gradients, prompt.optimiser) == (2 * 8_030_261_248, 4 * 81_920, 8 * 81_920)
    assert full.weights + full.gradients + full.optimiser == (2 + 16) * 8_030_261_248, "the frozen model, and 16 bytes a trained weight"


def test_a_quantised_base_keeps_tables_and_norms() -> None:
    network = base("Llama-3-8B")
    linear = sum(matrix.numbers for matrix in network.matrices)
    rest = 2 * (network.parameters - linear)
    assert base_bytes(network, "bfloat16", "nf4") == round(linear * (0.5 + 0.127 / 8)) + rest
    assert base_bytes(network, "bfloat16", "int8") == linear + rest
    assert memory(QLORA, network, Load()).weights == base_bytes(network, "bfloat16", "nf4")


def test_logits_are_those_of_predicted_tokens() -> None:
    network, load = base("Gemma-3-270M"), Load(batch_size=4, answer_tokens=3)
    assert memory(PROMPT, network, load).logits == 4 * 3 * 262_144 * (2 + 8)
    assert memory(PROMPT, network, load, Head(5)).logits == 0, "a head reads states"


def test_a_head_alone_keeps_no_layer() -> None:
    assert memory(Recipe("head"), base("BERT-base"), Load(), Head(2)).activations == 0


def test_checkpointing_saves_and_a_cpu_costs() -> None:
    network, usual = base("Llama-3-8B"), Load()
    found = [memory(PROMPT, network, load).activations for load in (Load(checkpointing=True), usual, Load(fused=False))]
    assert found == sorted(found) and found[0] < found[1] / 10


def test_tokens_of_the_input_site_pass_every_layer() -> None:
    network, load = plain(1024, 8), Load(text_tokens=60, answer_tokens=20)
    deep = memory(DEEP, network, load).activations
    assert memory(PROMPT, network, load).activations == deep * 100 // 80


def kept(network: Any, columns: int) -> int:
    """Bytes that torch saves for the backward pass of one row, parameters and buffers aside."""
    import torch

    known = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            saved[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no storage is used again
        return tensor

    embeddings = torch.randn(1, columns, network.config.hidden_size, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network.base_model(inputs_embeds=embeddings * 1.0)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("recipe", [DEEP, FULL], ids=lambda recipe: recipe.method)
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bert"])
def test_activations_are_what_torch_keeps(family: str, recipe: Recipe) -> None:
    """The estimate of a layer with fused attention is within 15 % of the measurement; two depths are compared, so that embeddings cancel."""
    import tiny
    import tiny_encoders

    maker = tiny_encoders if family == "bert" else tiny
    wide = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
    real, estimated = [], []
    for depth in (2, 4):
        layers = {"layer_types": ["full_attention"] * depth} if family == "gemma3_text" else {}
        network = maker.network(family, **wide, **layers, num_hidden_layers=depth)
        network.set_attn_implementation("sdpa")
        network.requires_grad_(recipe.full)
        real.append(kept(network, 48))
        load = Load(batch_size=1, text_tokens=47, answer_tokens=1, dtype="float32")
        estimated.append(memory(recipe, read_architecture(network.config.to_dict()), load).activations)
    assert estimated[1] - estimated[0] == pytest.approx(real[1] - real[0], rel=0.15)


def test_what_a_virtual_token_holds_in_the_cache() -> None:
    deep, shallow = p_tuning_v2(20), prompt_tuning(20)
    assert cache_bytes_per_token(deep, base("Llama-3-8B"), "bfloat16") == 2 * 32 * 1024 * 2
    assert cache_bytes_per_token(shallow, base("BERT-base"), "float32") == 0, "an encoder keeps no cache"
    assert cache_bytes_per_token(shallow, base("T5-small"), "float32") == 6 * 2 * 512 * 4, "the decoder looks across at it"
    assert cache_bytes_per_token(deep, base("T5-small"), "float32") == 18 * 2 * 512 * 4
    assert cache_bytes_per_token(None, base("Llama-3-8B"), "bfloat16") == 0


def test_context_left() -> None:
    deep, shallow = p_tuning_v2(20), prompt_tuning(20)
    assert [context_left(spec, base("Llama-2-7B")) for spec in (deep, shallow, None)] == [4076, 4076, 4096]
    assert [context_left(spec, base("RoBERTa-base")) for spec in (deep, shallow)] == [512, 492]
    assert context_left(shallow, base("T5-small")) is None


def test_arithmetic_added_to_a_text() -> None:
    network, load = plain(4096, 32), Load(text_tokens=100)
    assert added_compute(PROMPT, network, load, 0) == 0.2
    assert added_compute(DEEP, network, load, 0) == 4 * 20 * 4096 * 32 / (2 * network.parameters)
    assert added_compute(LORA, network, load, 4_194_304) == 4_194_304 / network.parameters
    assert added_compute(FULL, network, load, network.parameters) == 0
