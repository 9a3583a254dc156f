"""What cannot keep the laws is refused by name, in one sentence, before any weight is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from contract.given import spec
from contract.laws import MODELS, family, kind_of
from transformers import AutoConfig

from foreword.backbone.loading.load_model import load, wrap
from foreword.errors import ModelError
from foreword.families.registry import FAMILIES, REFUSED, check_site, family_of
from foreword.families.shape_reader import read_shape
from foreword.methods import METHODS

BECAUSE = {
    "mamba": "it has no attention, so pads leak into its state and there are no keys and values to prefix; "
    "use a transformer of the same size, or LoRA",
    "mamba2": "it has no attention, so pads leak into its state and there are no keys and values to prefix; "
    "use a transformer of the same size, or LoRA",
    "qwen3_next": "its linear-attention layers keep a state instead of keys and values; use Qwen3, or LoRA",
    "lfm2": "its convolution layers keep a state instead of keys and values; use Llama or Qwen3, or LoRA",
    "jamba": "its state-space layers keep a state instead of keys and values; use Llama or Qwen3, or LoRA",
    "bloom": "its ALiBi attention is outside transformers' attention interface; use GPT-NeoX or Llama, or LoRA",
    "falcon": "its attention is outside transformers' attention interface; use Llama or Mistral, or LoRA",
    "mpt": "its ALiBi attention is outside transformers' attention interface; use GPT-NeoX or Llama, or LoRA",
}


def test_every_refused_family_is_tested() -> None:
    assert set(BECAUSE) == set(REFUSED)


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_refused_family(model_type: str, tmp_path: Path) -> None:
    AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == model_type
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"model type '{model_type}' is not supported: {BECAUSE[model_type]}."


def test_a_family_nobody_proved(tmp_path: Path) -> None:
    AutoConfig.for_model("gptj").save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        "model type 'gptj' is not supported; use one of: llama, mistral, qwen2, qwen3, qwen3_moe, gemma2, gemma3_text, gpt2, "
        "gpt_bigcode, gpt_neox, opt, phi3, olmo2, granite, smollm3, gpt_oss, deepseek_v3, t5, mt5, bart, mbart, marian, pegasus, bert, roberta, "
        "xlm-roberta, electra, distilbert, albert, mpnet, deberta-v2, modernbert."
    )


def test_another_encoder_in_memory_is_refused() -> None:
    from transformers import MobileBertConfig, MobileBertModel

    sizes = {"hidden_size": 16, "embedding_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    network = MobileBertModel(MobileBertConfig(vocab_size=320, **sizes))
    with pytest.raises(ModelError) as caught:
        wrap(network, tiny.tokenizer())
    assert str(caught.value).startswith("model type 'mobilebert' is not supported; use one of: llama, ")


@pytest.mark.parametrize("method", [method for method, recipe in METHODS.items() if recipe().site == "kv"])
def test_keys_and_values_of_latent_attention(method: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_site(spec(method), tiny.frozen("deepseek_v3").shape)
    assert str(caught.value) == (
        f"method '{method}' puts keys and values before every layer, but DeepSeek-V3 does not support them: its latent attention keeps no keys "
        "and values per head; use a method of the input site (prompt-like tables and encoders before the text), or LoRA."
    )


@pytest.mark.parametrize("name", [name for models in MODELS.values() for name in models])
@pytest.mark.parametrize("method", METHODS)
def test_every_other_site_is_accepted(method: str, name: str) -> None:
    made, (model_type, settings) = spec(method), MODELS[kind_of(name)][name]
    if made.site in family(name).sites:
        assert check_site(made, read_shape(AutoConfig.for_model(model_type, **settings).to_dict())) is None


def test_a_row_of_the_table_for_every_family() -> None:
    assert {model_type for models in MODELS.values() for model_type, _ in models.values()} == set(FAMILIES)
    assert not set(FAMILIES) & set(REFUSED)
    assert all(bool(row.why_not) == (row.sites != ("input", "kv")) for row in FAMILIES.values())
    assert family_of("gpt2").title == "GPT-2"
