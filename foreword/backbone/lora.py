"""LoRA by PEFT, in a module tree of its own over the frozen weights.

PEFT keeps which LoRA is active as state of the layers, which two threads would share and which gradient checkpointing could find changed. Here each
LoRA gets its own tree of modules over the same tensors: the frozen model never holds a LoRA, and any number of them read at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foreword.backbone.frozen import FrozenModel
from foreword.backbone.quantize import has_experts
from foreword.backbone.sharing import share
from foreword.errors import ModelError, UsageError
from foreword.recipe import LoraSpec

LORA = "lora."  # before PEFT's own names in an adapter's tensors
_PEFT = "base_model.model."  # what PEFT puts before a module's name
_ADAPTER = "default"

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


@final
class LoraLayers:
    """One LoRA inside a network: A [r, n] and B [m, r] of each chosen layer, in fp32, under PEFT's names."""

    def __init__(self, network: PreTrainedModel, spec: LoraSpec, model: str) -> None:
        self.spec, self._model = spec, model
        self._layers = [module for module in network.modules() if isinstance(module, LoraLayer)]
        named = {name: parameter for name, parameter in network.named_parameters() if ".lora_" in name}
        self._named = {f"{LORA}{_PEFT}{name.replace(f'.{_ADAPTER}.', '.')}": parameter for name, parameter in named.items()}
        for parameter in self._named.values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(not spec.frozen)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained: nothing of a frozen LoRA."""
        return [] if self.spec.frozen else list(self._named.values())

    def state(self) -> dict[str, Tensor]:
        """A copy of the numbers, by PEFT's names behind `lora.`."""
        return {name: parameter.detach().clone() for name, parameter in self._named.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the numbers of a state; names that are not LoRA's are left alone. Raises ModelError for a LoRA of another base."""
        given = {name: tensor for name, tensor in state.items() if name.startswith(LORA)}
        for name in sorted(given.keys() ^ self._named.keys()):
            short = name.removeprefix(LORA + _PEFT)
            has = f"no {short}, where" if name in self._named else f"{short}, but"
            need = "reads one" if name in self._named else "has no place for it"
            raise ModelError(f"the LoRA has {has} '{self._model}' {need}; load it on its own base model, with its own targets.")
        for name, parameter in self._named.items():
            if given[name].shape != parameter.shape:
                raise ModelError(
                    f"the LoRA's {name.removeprefix(LORA + _PEFT)} has shape {list(given[name].shape)}, but '{self._model}' needs "
                    f"{list(parameter.shape)} for r {self.spec.r}; load it on its own base model."
                )
            parameter.copy_(given[name])

    def train(self, mode: bool = True) -> None:
        """Switch LoRA's own dropout, the only one there is."""
        for layer in self._layers:
            layer.lora_dropout.train(mode)

    def close(self) -> None:
        """Nothing to undo: the frozen model has modules of its own."""


def attach(
    model: FrozenModel, spec: LoraSpec, *, tensors: Mapping[str, Tensor] | None = None, seed: int = 0
) -> tuple[FrozenModel, LoraLayers]:
    """The model that reads with a LoRA, and the LoRA: fresh (B = 0, so at first it is the frozen model) or with the numbers of a state.

    The weights are shared, never copied, and `model` itself goes on without LoRA. Raises UsageError for targets that match nothing,
    ModelError for numbers that do not fit.
    """
    network = share(model.network)
    chosen = target_layers(network, spec, model.name)
    config = LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]
        target_modules=sorted(chosen),
        use_rslora=spec.rslora,
        lora_dropout=spec.dropout,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in chosen.values()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, network, _ADAPTER)
    view = model.over(network)
    layers = LoraLayers(network, spec, model.name)
    if tensors is not None:
        layers.load(tensors)
    return view, layers


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
        and not name.startswith("pooler.")
    }


def target_names(spec: LoraSpec, family: str) -> tuple[str, ...]:
    """A spec's targets as ends of module names."""
    if spec.targets == "attention":
        return ATTENTION.get(family, ())
    return (spec.targets,) if isinstance(spec.targets, str) else spec.targets
