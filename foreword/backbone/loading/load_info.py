"""From a model id or folder to its `ModelInfo`: config and tokenizer are read, and of the weights only what the fingerprint hashes, when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from foreword.backbone.encoder_decoder import decoder_opening
from foreword.backbone.loading.load_model import load, load_config, load_tokenizer, shape_of
from foreword.backbone.loading.precision import stored_name
from foreword.backbone.model_info import ModelInfo
from foreword.backbone.quantization import quantised_loading, stored_quantization
from foreword.backbone.tokenizer import TextTokenizer


def load_info(name: str | Path, *, revision: str | None = None, quantize: str | None = None, fingerprint: str | None = None) -> ModelInfo:
    """What `load(name, …).info` says, for an engine whose weights are elsewhere.

    The fingerprint is the loaded model's own: the checkpoint is mapped into memory in the precision it is stored in, so no more than the
    hashed numbers are read from the disk. Weights that must be converted first (quantised weights, fused experts) are converted as in `load`, then freed.
    `fingerprint` gives it where it is known, from an engine that has hashed the same checkpoint.
    Raises ModelError as `load` does, for weights that are missing or broken when the fingerprint is asked for.
    """
    config = load_config(name, revision)
    if quantize is not None:
        quantised_loading(str(name), config, quantize, torch.float32, "cpu")  # refuses what cannot be
    shape = shape_of(config.to_dict())
    tokenizer = TextTokenizer(load_tokenizer(name, revision), closing=shape.kind != "causal")

    def read_fingerprint() -> str:
        if fingerprint is not None:
            return fingerprint
        if quantize is not None:
            return load(name, revision=revision, quantize=quantize).fingerprint
        return load(name, dtype=stored_name(config), device="cpu", revision=revision).fingerprint

    opening = decoder_opening(_generation_config(name, revision)) if shape.kind == "encoder-decoder" else ()
    return ModelInfo(str(name), shape, tokenizer, read_fingerprint, quantize or stored_quantization(config), opening)


def _generation_config(name: str | Path, revision: str | None) -> Any:
    """The generation config as transformers loads it: older checkpoints have it in config.json."""
    try:
        return GenerationConfig.from_pretrained(name, revision=revision or "main")
    except OSError:
        return GenerationConfig.from_pretrained(name, config_file_name="config.json", _from_model_config=True, revision=revision or "main")
