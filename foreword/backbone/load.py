"""From a model id or folder to a `FrozenModel`: the family checked, dropout off, precision chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from foreword.backbone.families import family_of
from foreword.backbone.frozen import FrozenModel
from foreword.errors import ModelError
from foreword.shape import ModelShape, read_shape

DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(name: str | Path, *, dtype: str = "auto", device: str | None = None, revision: str | None = None) -> FrozenModel:
    """Load a causal language model, frozen. `dtype` "auto" keeps the checkpoint's precision.

    Raises ModelError for an unknown or refused family, an unknown dtype or device, a name that cannot be found, or a broken checkpoint.
    """
    if dtype not in DTYPES:
        raise ModelError(f"dtype '{dtype}' is not known; choose one of {', '.join(DTYPES)}.")
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelError(f"model '{name}' cannot be read ({_first_line(error)}); give a hub id or a folder with config.json.") from error
    shape = read_causal_shape(config.to_dict())
    _no_dropout(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        network = _complete(str(name), config, DTYPES[dtype], revision)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"model '{name}' cannot be loaded ({_first_line(error)}); check that the folder is complete.") from error
    return FrozenModel(_move(network, device or default_device()), tokenizer, shape, str(name))


def wrap(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str | None = None) -> FrozenModel:
    """Freeze a model that is already in memory; its weights are shared, never copied."""
    shape = read_causal_shape(network.config.to_dict())
    return FrozenModel(network, tokenizer, shape, name or network.name_or_path or type(network).__name__)


def read_causal_shape(config: dict[str, Any]) -> ModelShape:
    """The shape of a supported family's config."""
    family_of(str(config.get("model_type")))
    return read_shape(config)


def _complete(name: str, config: Any, dtype: Any, revision: str | None) -> PreTrainedModel:
    """The network with every weight read from the checkpoint: transformers would fill gaps with random numbers and go on."""
    network, report = AutoModelForCausalLM.from_pretrained(
        name, config=config, dtype=dtype, revision=revision, output_loading_info=True, ignore_mismatched_sizes=True
    )  # type: ignore[misc]
    wrong = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if wrong:
        raise ModelError(
            f"model '{name}' has no weights that fit '{wrong[0]}' ({len(wrong)} in all) of its config; get the checkpoint and config.json again."
        )
    return network


def _move(network: PreTrainedModel, device: str) -> PreTrainedModel:
    try:
        return network.to(torch.device(device))  # type: ignore[arg-type]
    except (RuntimeError, AssertionError) as error:  # torch raises the second where it was built without the device
        raise ModelError(
            f"device '{device}' cannot be used ({_first_line(error)}); give cpu, or a device that this machine has."
        ) from error


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _no_dropout(config: Any) -> None:
    """A frozen model is a function: dropout in it would break resuming and gradient checkpointing, and regularises nothing that is trained."""
    for key, value in config.to_dict().items():
        if isinstance(value, float) and (key.endswith("dropout") or key.endswith("_pdrop")):
            setattr(config, key, 0.0)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
