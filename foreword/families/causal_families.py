"""Causal models, one record each."""

from __future__ import annotations

from dataclasses import replace

from foreword.families.base import Family
from foreword.families.weight_layout import ALL_BIASED, Layout, latent_norms, sinks_and_biases

_QUERY_VALUE = ("q_proj", "v_proj")
_LLAMA = Family("Llama", lora_targets=_QUERY_VALUE)
_GPT = Layout(gated=False, fused=("qkv",), biased=ALL_BIASED, norm=2, positions=0, tied=True)
_DEEPSEEK_V3 = Family(
    "DeepSeek-V3",
    sites=("input",),
    why_not="its latent attention keeps no keys and values per head",
    lora_targets=("q_proj", "q_b_proj", "kv_b_proj"),
    layout=Layout(extra=latent_norms),
)

CAUSAL_FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, title="Mistral"),
    "qwen2": replace(_LLAMA, title="Qwen2", layout=Layout(biased=("q", "k", "v"))),
    "qwen3": replace(_LLAMA, title="Qwen3", layout=Layout(query_norms="head")),
    "qwen3_moe": replace(_LLAMA, title="Qwen3-MoE", layout=Layout(query_norms="head")),
    "gemma2": replace(_LLAMA, title="Gemma 2", layout=Layout(layer_norms=4, tied=True)),
    "gemma3_text": replace(_LLAMA, title="Gemma 3", layout=Layout(layer_norms=4, query_norms="head", tied=True)),
    "gpt2": Family("GPT-2", lora_targets=("c_attn",), transposed=True, layout=_GPT),
    "gpt_bigcode": Family("GPT-BigCode (multi-query)", lora_targets=("c_attn",), layout=_GPT),
    "gpt_neox": Family(
        "GPT-NeoX", lora_targets=("query_key_value",), layout=Layout(gated=False, fused=("qkv",), biased=ALL_BIASED, norm=2)
    ),
    "opt": Family(
        "OPT",
        lora_targets=_QUERY_VALUE,
        layout=Layout(gated=False, biased=ALL_BIASED, norm=2, positions=2, tied=True, end_norm_switch="do_layer_norm_before"),
    ),
    "phi3": Family("Phi-3", lora_targets=("qkv_proj",), layout=Layout(fused=("qkv", "gate_up"))),
    "olmo2": replace(_LLAMA, title="OLMo2", layout=Layout(query_norms="width")),
    "granite": replace(_LLAMA, title="Granite"),
    "smollm3": replace(_LLAMA, title="SmolLM3", layout=Layout(tied=True)),
    "gpt_oss": replace(_LLAMA, title="GPT-OSS", layout=Layout(biased=("q", "k", "v", "o"), extra=sinks_and_biases)),
    "deepseek_v3": _DEEPSEEK_V3,
}
