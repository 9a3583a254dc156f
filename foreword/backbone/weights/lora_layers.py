"""Which linear layers LoRA adapts, by model family. PEFT is not imported here."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foreword.backbone.quantization import has_experts
from foreword.errors import UsageError
from foreword.families.registry import FAMILIES
from foreword.recipe import LoraSpec


def target_layers(network: PreTrainedModel, spec: LoraSpec, name: str) -> dict[str, nn.Module]:
    """The linear layers a spec means, by name; never the output matrix or other layers after the last states.

    `name` is for messages. Raises UsageError naming the first target that matches none.
    """
    linear = _linear_layers(network)
    if spec.targets == "all-linear":
        return linear
    found: dict[str, nn.Module] = {}
    optional = spec.targets == "attention"  # a family's record may name the layers of two variants
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
    """Every linear layer that LoRA may adapt, by name: not an encoder's pooler, which no task reads.

    In models of experts PEFT takes three names for the experts' own tensors, in every layer, so they are left out.
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
        return FAMILIES[family].lora_targets if family in FAMILIES else ()
    return (spec.targets,) if isinstance(spec.targets, str) else spec.targets
