"""Folders that real PEFT saved, with random adapters of every type that can be imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch
from peft import CartridgeConfig, PeftConfig, PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model

SHARED: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}


def peft_config(kind: str, name: str) -> PeftConfig:
    """A config of one type; PEFT guesses the width of OPT's embeddings wrongly, so it is told."""
    width = {"token_dim": tiny.frozen(name).shape.embedding}
    if kind == "prompt":
        return PromptTuningConfig(**SHARED, **width)
    if kind in ("MLP", "LSTM"):
        return PromptEncoderConfig(**SHARED, **width, encoder_reparameterization_type=kind, encoder_hidden_size=8)
    if kind == "cartridge":
        return CartridgeConfig(**SHARED, num_frozen_tokens=2)
    return PrefixTuningConfig(**SHARED, prefix_projection=kind == "projected prefix", encoder_hidden_size=8)


def saved(kind: str, name: str, folder: Path, adapter_name: str = "default") -> PeftModel:
    """A model under PEFT with a random adapter, saved to a folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = get_peft_model(tiny.network(name), peft_config(kind, name), adapter_name=adapter_name).eval()
    made.save_pretrained(folder)
    return made
