"""Every weight of a model from its config: against the models themselves, and against sizes that everyone knows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from advisor.bases import CONFIGS, base, every_tiny

from foreword.advisor.architecture import read_architecture
from foreword.errors import ModelError

# Published counts; that of a mixture of experts is of all of them.
KNOWN = {
    "Llama-2-7B": 6_738_415_616,
    "Llama-3-8B": 8_030_261_248,
    "Llama-3.2-1B": 1_235_814_400,
    "Gemma-3-270M": 268_098_176,
    "GPT-2": 124_439_808,
    "BERT-base": 109_482_240,
    "RoBERTa-base": 124_645_632,
    "T5-small": 60_506_624,
    "BART-base": 139_420_416,
    "Qwen3-30B-A3B": 30_532_122_624,
}

# What real configs vary beyond the tiny models.
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("opt", {"hidden_size": 48, "word_embed_proj_dim": 32, "do_layer_norm_before": False, "num_hidden_layers": 2}),
    ("smollm3", {"num_hidden_layers": 2}),
    ("qwen2", {"num_hidden_layers": 2, "tie_word_embeddings": True}),
    ("llama", {"num_hidden_layers": 2, "attention_bias": True, "mlp_bias": True}),
    ("gpt_neox", {"num_hidden_layers": 2, "attention_bias": False}),
    ("bert", {"num_hidden_layers": 2}),
    ("electra", {"num_hidden_layers": 2}),
    ("albert", {"num_hidden_layers": 3, "num_hidden_groups": 1}),
    ("deberta-v2", {"num_hidden_layers": 2, "relative_attention": True, "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3}),
    (
        "deberta-v2",
        {
            **{"num_hidden_layers": 2, "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm"},
            **{"position_biased_input": False, "type_vocab_size": 0, "share_att_key": True, "pos_att_type": ["p2c", "c2p"]},
        },
    ),
    ("modernbert", {"num_hidden_layers": 3}),
    ("t5", {"num_layers": 2, "num_decoder_layers": 3, "d_kv": 48, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ("bart", {"encoder_layers": 2, "decoder_layers": 3, "decoder_ffn_dim": 128}),
    ("pegasus", {"encoder_layers": 2, "decoder_layers": 2}),
    ("marian", {"encoder_layers": 2, "decoder_layers": 2}),
    ("mbart", {"encoder_layers": 2, "decoder_layers": 2}),
    ("deepseek_v3", {"num_hidden_layers": 2, "q_lora_rank": None, "n_routed_experts": 8, "first_k_dense_replace": 1}),
)


def real(config: Any, kind: str) -> int:
    """Numbers of the model that transformers builds, without memory for them."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    classes = {"causal": AutoModelForCausalLM, "encoder": AutoModel, "encoder-decoder": AutoModelForSeq2SeqLM}
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in classes[kind].from_config(config).parameters())


@pytest.mark.parametrize("name", KNOWN)
def test_known_sizes(name: str) -> None:
    assert base(name).parameters == KNOWN[name]
    assert set(KNOWN) == set(CONFIGS)


def test_every_family_that_can_be_trained_is_counted_exactly() -> None:
    wrong = {}
    for model in every_tiny():
        name, config = model.name, model.network.config
        network = read_architecture(json.loads(config.to_json_string()))
        found = real(config, network.shape.kind)
        if (network.parameters, network.known) != (found, True):
            wrong[name] = (network.parameters, found)
    assert wrong == {}


@pytest.mark.parametrize(("family", "changes"), VARIANTS, ids=[f"{family}-{n}" for n, (family, _) in enumerate(VARIANTS)])
def test_variants_are_counted_exactly(family: str, changes: dict[str, Any]) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(family, **changes)
    network = read_architecture(json.loads(config.to_json_string()))
    assert network.parameters == real(config, network.shape.kind)


def test_a_token_meets_a_part_of_a_mixture() -> None:
    assert base("Qwen3-30B-A3B").active == 3_353_032_704
    assert base("Llama-3-8B").active == base("Llama-3-8B").parameters


def test_layers_that_share_weights_are_run_each() -> None:
    config = {**CONFIGS["BERT-base"], "model_type": "albert", "embedding_size": 128, "num_hidden_groups": 1}
    network = read_architecture(config)
    assert (network.depth, network.shape.num_layers) == (12, 1)


def test_an_unknown_family_is_reckoned_as_llama_and_says_so() -> None:
    other = read_architecture({**CONFIGS["Llama-2-7B"], "model_type": "newcomer"})
    assert (other.known, other.parameters) == (False, KNOWN["Llama-2-7B"])


def test_a_config_of_something_else() -> None:
    with pytest.raises(ModelError) as caught:
        read_architecture({"model_type": "vit", "hidden_size": 64})
    assert str(caught.value) == "the config of model type 'vit' has no vocab_size; give the config of a single text transformer."
