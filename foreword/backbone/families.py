"""Model families: which keep the laws at which site, and one sentence for those that do not. A new family is one row here."""

from __future__ import annotations

from dataclasses import dataclass

from foreword.errors import ModelError
from foreword.shape import ModelShape
from foreword.specs import PromptSpec, Site

_BOTH: tuple[Site, ...] = ("input", "kv")
_INSTEAD = "use a method of the input site (prompt-like tables and encoders before the text), or LoRA"


@dataclass(frozen=True)
class Family:
    """One supported `model_type`: its name in tables, the sites that keep the laws, and why a site is missing."""

    title: str
    sites: tuple[Site, ...] = _BOTH
    why_not: str = ""


FAMILIES: dict[str, Family] = {
    "llama": Family("Llama"),
    "mistral": Family("Mistral"),
    "qwen2": Family("Qwen2"),
    "qwen3": Family("Qwen3"),
    "qwen3_moe": Family("Qwen3-MoE"),
    "gemma2": Family("Gemma 2"),
    "gemma3_text": Family("Gemma 3"),
    "gpt2": Family("GPT-2"),
    "gpt_bigcode": Family("GPT-BigCode (multi-query)"),
    "gpt_neox": Family("GPT-NeoX"),
    "opt": Family("OPT"),
    "phi3": Family("Phi-3"),
    "olmo2": Family("OLMo2"),
    "granite": Family("Granite"),
    "smollm3": Family("SmolLM3"),
    "gpt_oss": Family("GPT-OSS"),
    "deepseek_v3": Family("DeepSeek-V3", ("input",), "its latent attention keeps no keys and values per head"),
}

REFUSED: dict[str, str] = {
    "mamba": "it has no attention, so pads leak into its state and there are no keys and values to prefix; use a transformer of the same size, or LoRA",
    "mamba2": "it has no attention, so pads leak into its state and there are no keys and values to prefix; use a transformer of the same size, or LoRA",
    "qwen3_next": "its linear-attention layers keep a state instead of keys and values; use Qwen3, or LoRA",
    "lfm2": "its convolution layers keep a state instead of keys and values; use Llama or Qwen3, or LoRA",
    "jamba": "its state-space layers keep a state instead of keys and values; use Llama or Qwen3, or LoRA",
    "bloom": "its ALiBi attention is outside transformers' attention interface; use GPT-NeoX or Llama, or LoRA",
    "falcon": "its attention is outside transformers' attention interface; use Llama or Mistral, or LoRA",
    "mpt": "its ALiBi attention is outside transformers' attention interface; use GPT-NeoX or Llama, or LoRA",
}


def family_of(model_type: str) -> Family:
    """The row of a model type; raises ModelError with what works instead."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type in REFUSED:
        raise ModelError(f"model type '{model_type}' is refused: {REFUSED[model_type]}.")
    raise ModelError(f"model type '{model_type}' is not among the families proved so far ({', '.join(FAMILIES)}); use one of these.")


def check_site(spec: PromptSpec, shape: ModelShape) -> None:
    """Raise ModelError when a family does not keep the laws at a spec's site."""
    family = family_of(shape.family)
    if spec.site not in family.sites:
        raise ModelError(
            f"method '{spec.method}' puts keys and values before every layer, but {family.title} is refused there: {family.why_not}; {_INSTEAD}."
        )
