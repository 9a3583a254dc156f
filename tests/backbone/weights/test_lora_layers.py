"""Which layers LoRA stands on: queries and values of every family, all linear layers, or layers by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, PreTrainedModel

from foreword.backbone.weights.lora import attach
from foreword.backbone.weights.lora_layers import target_layers
from foreword.errors import UsageError
from foreword.families.registry import FAMILIES
from foreword.recipe import LoraSpec

SPEC = LoraSpec(4)


@pytest.mark.parametrize("name", tiny.TINY)
def test_attention_reaches_every_attention(name: str) -> None:
    model = tiny.frozen(name)
    chosen = target_layers(model.network, SPEC, model.name)
    attentions = {path for path, module in model.network.named_modules() if module in model.slots}
    assert {path.rpartition(".")[0] for path in chosen} == attentions
    assert len(chosen) % len(model.slots) == 0


def test_every_family_has_its_row_and_it_is_pefts_where_peft_has_one() -> None:
    for family, record in FAMILIES.items():
        assert record.lora_targets, family
        if family in PEFT_TARGETS:
            assert list(record.lora_targets) == PEFT_TARGETS[family], family


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 64, "pad_token_id": 0}
STACKS = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
LONE = ("bert", "roberta", "xlm-roberta", "electra", "albert", "mpnet", "deberta-v2", "modernbert", "distilbert")
OTHERS: dict[str, tuple[dict[str, object], int]] = {
    **dict.fromkeys(LONE, (SMALL, 2)),
    "modernbert": (SMALL | {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}, 2),
    "albert": (SMALL | {"embedding_size": 16}, 1),
    "distilbert": ({"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 64}, 2),
    **{family: ({"d_model": 32, "d_kv": 4, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 64}, 6) for family in ("t5", "mt5")},
    **{
        family: (STACKS | {"vocab_size": 64, "pad_token_id": 0, "forced_eos_token_id": 2}, 6)
        for family in ("bart", "mbart", "marian", "pegasus")
    },
}


@pytest.mark.parametrize("family", OTHERS)
def test_attention_of_encoders_and_encoder_decoders(family: str) -> None:
    settings, attentions = OTHERS[family]
    config = AutoConfig.for_model(family, **settings)
    network: PreTrainedModel = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModel).from_config(config)
    chosen = target_layers(network, SPEC, family)
    assert len(chosen) == attentions * len(FAMILIES[family].lora_targets)
    assert len({path.rpartition(".")[0] for path in chosen}) == attentions
    every = target_layers(network, replace(SPEC, targets="all-linear"), family)
    assert chosen.items() <= every.items() and not {"lm_head", "pooler.dense"} & every.keys()


def test_targets_that_match_nothing_are_refused() -> None:
    model = tiny.build("llama")
    with pytest.raises(UsageError) as caught:
        attach(model, replace(SPEC, targets=("q_proj", "c_attn")))
    assert str(caught.value) == (
        "LoRA's target 'c_attn' matches no linear layer of 'tiny-llama'; "
        "its layers are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj."
    )
    with pytest.raises(UsageError) as caught:
        attach(tiny.build("qwen3_moe"), replace(SPEC, targets="lm_head"))
    assert str(caught.value) == (
        "LoRA's target 'lm_head' matches no linear layer of 'tiny-qwen3_moe'; its layers are k_proj, o_proj, q_proj, v_proj."
    )
    odd = tiny.build("llama")
    odd.network.config.model_type = "unheard-of"
    with pytest.raises(UsageError) as caught:
        attach(odd, SPEC)
    assert str(caught.value) == "LoRA's attention layers of model type 'unheard-of' are not known; name them as targets."
