"""Model families: which keep the laws at which site, and one sentence for those that do not. A new family is one row here."""

from __future__ import annotations

from dataclasses import dataclass

from foreword.errors import ModelError
from foreword.shape import Kind, ModelShape
from foreword.specs import PromptSpec, Site, Window

_BOTH: tuple[Site, ...] = ("input", "kv")
_INSTEAD = "use a method of the input site (prompt-like tables and encoders before the text), or LoRA"


@dataclass(frozen=True)
class Family:
    """One supported `model_type`: its name in tables, the sites that keep the laws, and why a site is missing.

    `after_pad` marks encoders whose positions count from behind the pad token; `kind` says which laws there are.
    """

    title: str
    sites: tuple[Site, ...] = _BOTH
    why_not: str = ""
    after_pad: bool = False
    kind: Kind = "causal"


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
    "t5": Family("T5", kind="encoder-decoder"),
    "mt5": Family("mT5", kind="encoder-decoder"),
    "bart": Family("BART", kind="encoder-decoder"),
    "mbart": Family("mBART", kind="encoder-decoder"),
    "marian": Family("Marian", kind="encoder-decoder"),
    "pegasus": Family("Pegasus", kind="encoder-decoder"),
    "deepseek_v3": Family("DeepSeek-V3", ("input",), "its latent attention keeps no keys and values per head"),
    "bert": Family("BERT", kind="encoder"),
    "roberta": Family("RoBERTa", after_pad=True, kind="encoder"),
    "xlm-roberta": Family("XLM-R", after_pad=True, kind="encoder"),
    "electra": Family("ELECTRA", kind="encoder"),
    "distilbert": Family("DistilBERT", kind="encoder"),
    "albert": Family("ALBERT", kind="encoder"),
    "mpnet": Family("MPNet", after_pad=True, kind="encoder"),
    "deberta-v2": Family("DeBERTa-v2 and v3", kind="encoder"),
    "modernbert": Family("ModernBERT", kind="encoder"),
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


def check_site(spec: PromptSpec | None, shape: ModelShape) -> None:
    """Raise ModelError when a family does not keep the laws at a spec's site, or with its window."""
    family = family_of(shape.family)
    if spec is not None and spec.site not in family.sites:
        raise ModelError(
            f"method '{spec.method}' puts keys and values before every layer, but {family.title} is refused there: {family.why_not}; {_INSTEAD}."
        )
    if spec is not None and spec.site == "kv":
        check_window(spec.window, shape)


def check_window(window: Window, shape: ModelShape) -> None:
    """Raise ModelError when a prefix is to fade with the sliding window of a model whose text does not begin behind it."""
    if window == "model" and shape.kind != "causal" and shape.windowed:
        raise ModelError(
            f"window 'model' came for {family_of(shape.family).title}, but its text begins at its first position, so a prefix stands at no "
            "distance that a sliding window could end; use window 'pinned'."
        )
