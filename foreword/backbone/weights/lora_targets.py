"""Which linear layers a LoRA stands on, by model family. PEFT is not imported here."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foreword.backbone.quantization import has_experts
from foreword.errors import UsageError
from foreword.recipe import LoraSpec

# Where queries and values come from, by model type; fused projections as a whole, as PEFT has them.
_NAMES: dict[tuple[str, ...], str] = {
    ("q_proj", "v_proj"): (
        "llama mistral qwen2 qwen3 qwen3_moe gemma2 gemma3_text opt olmo2 granite smollm3 gpt_oss bart mbart marian pegasus"
    ),
    ("c_attn",): "gpt2 gpt_bigcode",
    ("query_key_value",): "gpt_neox",
    ("qkv_proj",): "phi3",
    ("q_proj", "q_b_proj", "kv_b_proj"): "deepseek_v3",
    ("query", "value"): "bert roberta xlm-roberta electra albert",
    ("q_lin", "v_lin"): "distilbert",
    ("attn.q", "attn.v"): "mpnet",
    ("query_proj", "value_proj"): "deberta-v2",
    ("Wqkv",): "modernbert",
    ("q", "v"): "t5 mt5",
}
ATTENTION: dict[str, tuple[str, ...]] = {family: names for names, families in _NAMES.items() for family in families.split()}


def target_layers(network: PreTrainedModel, spec: LoraSpec, name: str) -> dict[str, nn.Module]:
    """The linear layers a spec means, by name; the output matrix and whatever stands behind the last states is never among them.

    `name` is for messages. Raises UsageError naming the first target that matches none.
    """
    linear = _linear_layers(network)
    if spec.targets == "all-linear":
        return linear
    found: dict[str, nn.Module] = {}
    optional = spec.targets == "attention"  # a family's row may name the layers of two variants
    for target in target_names(spec, network.config.model_type):
        hits = {path: module for path, module in linear.items() if f".{path}".endswith(f".{target}")}
        if not hits and not optional:
            known = ", ".join(sorted({path.rpartition(".")[2] for path in linear}))
            raise UsageError(f"LoRA's target '{target}' matches no linear layer of '{name}'; its layers are {known}.")
        found |= hits
    if not found:
        raise UsageError(f"LoRA's attention layers of model type '{network.config.model_type}' are not known; name them as targets.")
    return found


def _linear_layers(network: PreTrainedModel) -> dict[str, nn.Module]:
    """Every linear layer that LoRA may stand on, by name: not an encoder's pooler, which no task reads.

    In models of experts PEFT takes three names for the experts' own tensors, wherever they stand, so they are left out.
    """
    inside, output = set(network.base_model.modules()), network.get_output_embeddings()
    ends = (".gate_proj", ".up_proj", ".down_proj") if has_experts(network.config) else ()
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module in inside
        and module is not output
        and not name.endswith(ends)
        and name.partition(".")[0] != "pooler"
    }


def target_names(spec: LoraSpec, family: str) -> tuple[str, ...]:
    """A spec's targets as ends of module names."""
    if spec.targets == "attention":
        return ATTENTION.get(family, ())
    return (spec.targets,) if isinstance(spec.targets, str) else spec.targets
