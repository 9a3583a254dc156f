"""Quantised bases by bitsandbytes: 4-bit NF4 (Dettmers et al. 2023, arXiv:2305.14314) and 8-bit integers (Dettmers et al. 2022, arXiv:2208.07339).

Linear layers are quantised while they are read; embeddings, norms and the output matrix keep their precision.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from foreword.errors import ModelError

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_DEVICES = ("cpu", "cuda")


def quantised_loading(name: str, config: PreTrainedConfig, quantize: str, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """The arguments for `from_pretrained`. Raises ModelError for combinations that do not work."""
    if quantize not in ("nf4", "int8"):
        raise ModelError(f"quantize '{quantize}' is not known; choose nf4 or int8.")
    if find_spec("bitsandbytes") is None:
        raise ModelError(f"quantize '{quantize}' needs bitsandbytes, which is not installed; run pip install 'foreword[quantize]'.")
    already = config.to_dict().get("quantization_config")
    if already:
        raise ModelError(
            f"model '{name}' is already stored in {already.get('quant_method')}, so it cannot be quantised again; leave quantize out."
        )
    if has_experts(config):
        raise ModelError(
            f"model type '{config.model_type}' keeps its experts in tensors that bitsandbytes leaves as they are; load it without quantize."
        )
    if torch.device(device).type not in _DEVICES:
        raise ModelError(f"quantize '{quantize}' runs on {' and '.join(_DEVICES)}, but the device is '{device}'; give one of these.")
    if quantize == "int8":
        how = BitsAndBytesConfig(load_in_8bit=True)
    else:
        how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": how, "device_map": {"": device}}


def has_experts(config: PreTrainedConfig) -> bool:
    """Whether a model has mixtures of experts, whose weights are not linear layers in transformers."""
    plain = config.to_dict()
    return any(plain.get(key) for key in _EXPERTS)


def quantization_of(network: PreTrainedModel) -> str | None:
    """How a network's weights are stored: nf4, int8, another method's name, or None for plain numbers."""
    how = getattr(network.config, "quantization_config", None)
    if not isinstance(how, BitsAndBytesConfig):
        return None if how is None else str(getattr(how, "quant_method", how))
    return "int8" if how.load_in_8bit else str(how.bnb_4bit_quant_type)


def stored_quantization(config: PreTrainedConfig) -> str | None:
    """How a checkpoint's weights are stored by its config: as `quantization_of` says of the loaded model."""
    stored = config.to_dict().get("quantization_config")
    if not isinstance(stored, dict) or stored.get("quant_method") != "bitsandbytes":
        return str(stored["quant_method"]) if isinstance(stored, dict) and "quant_method" in stored else None
    return "int8" if stored.get("load_in_8bit") else str(stored.get("bnb_4bit_quant_type", "fp4"))


def prepare_bitsandbytes(network: PreTrainedModel) -> None:
    """Keep bitsandbytes' layers from changing their weights or their arithmetic between calls; other networks are left as they are."""
    if not isinstance(getattr(network.config, "quantization_config", None), BitsAndBytesConfig):
        return
    from bitsandbytes.nn.modules import Int8Params, Linear4bit, Linear8bitLt  # an optional dependency

    for module in network.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False  # else the first forward without gradients repacks the weights in place
        elif isinstance(module, Linear8bitLt):
            if isinstance(module.weight, Int8Params) and module.weight.CB is not None:
                module.init_8bit_state()  # else the first forward pass does it, possibly in two threads at once
            # On a CPU this flag chooses plain products with the dequantised weights: activations stay exact (the other way rounds them to
            # fp16 and 8 bits, by outliers of the whole batch), and gradients are those of the computed function.
            module.training = module.weight.device.type == "cpu"
