"""From a model id or folder to a `FrozenModel`: the family checked, dropout off, precision chosen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from foreword.backbone import fsdp
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.precision import check_dtype, computing, precision
from foreword.backbone.quantization import quantised_loading
from foreword.errors import ModelError
from foreword.families.registry import family_of
from foreword.families.shape_reader import read_shape
from foreword.shape import Kind, ModelShape

_NETWORKS: dict[Kind, Any] = {"causal": AutoModelForCausalLM, "encoder": AutoModel, "encoder-decoder": AutoModelForSeq2SeqLM}


def load(
    name: str | Path,
    *,
    dtype: str = "auto",
    device: str | None = None,
    revision: str | None = None,
    quantize: str | None = None,
) -> FrozenModel:
    """Load a model, frozen: causal, encoder (hidden states only) or encoder–decoder.

    `dtype` "auto" keeps the checkpoint's precision, but on a CPU that has no instructions for it (`precision`); `quantize` stores linear
    layers as nf4 or int8.
    Raises ModelError for an unknown or refused family, an unknown dtype or device, a name that cannot be found, a broken checkpoint,
    or what cannot be quantised.
    """
    check_dtype(dtype)
    config = load_config(name, revision)
    shape = shape_of(config.to_dict())
    _no_dropout(config)
    device = usable(own_device(device))
    read = precision(str(name), dtype, config, _worker(device))
    more = {} if quantize is None else quantised_loading(str(name), config, quantize, computing(read, config), device)
    tokenizer = load_tokenizer(name, revision)
    with _readable(name):
        network = _complete(str(name), config, shape, read, revision, more)
    return FrozenModel(network if quantize else network.to(torch.device(device)), tokenizer, shape, str(name))  # type: ignore[arg-type]  # `to` is typed as any module


def wrap(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str | None = None) -> FrozenModel:
    """Freeze a model that is already in memory; its weights are shared, never copied. The head of an encoder is left out.

    Raises ModelError for an unknown or refused family, and for a model that `device_map` spread over several devices.
    """
    shape = shape_of(network.config.to_dict())
    name = name or network.name_or_path or type(network).__name__
    devices = sorted({str(parameter.device) for parameter in network.parameters()})
    if len(devices) > 1:
        raise ModelError(
            f"model '{name}' is spread over {', '.join(devices)}, but Foreword reads a model on one device; load it without device_map, "
            "or with quantize='nf4' where it does not fit."
        )
    return FrozenModel(network.base_model if shape.kind == "encoder" else network, tokenizer, shape, name)  # type: ignore[arg-type]  # base_model is typed as any module


def kind_of_model(name: str | Path, *, revision: str | None = None) -> Kind:
    """Which stacks a model has, from its config alone; raises ModelError as `load` does."""
    return shape_of(load_config(name, revision).to_dict()).kind


def load_config(name: str | Path, revision: str | None = None) -> Any:
    """A model's config; raises ModelError where there is none."""
    try:
        return AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelError(f"model '{name}' cannot be read ({_first_line(error)}); give a hub id or a folder with config.json.") from error


def load_tokenizer(name: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A model's tokenizer; raises ModelError where it is missing, broken, or needs a package."""
    with _readable(name):
        return AutoTokenizer.from_pretrained(name, revision=revision)


@contextmanager
def _readable(name: str | Path) -> Iterator[None]:
    """Errors of reading a checkpoint, as ModelError."""
    try:
        yield
    except ImportError as error:  # Marian's tokenizer
        raise ModelError(f"model '{name}' needs a package that is not installed ({_first_line(error)}); install it.") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"model '{name}' cannot be loaded ({_first_line(error)}); check that the folder is complete.") from error


def shape_of(config: dict[str, Any]) -> ModelShape:
    """The shape of a supported family's config."""
    family_of(str(config.get("model_type")))
    return read_shape(config)


def _complete(name: str, config: Any, shape: ModelShape, dtype: Any, revision: str | None, more: dict[str, Any]) -> PreTrainedModel:
    """The network with every weight read from the checkpoint: transformers would fill missing ones with random numbers.

    An encoder's pooler, which no task reads, is left out where the checkpoint has none.
    """
    network, report = _NETWORKS[shape.kind].from_pretrained(
        name, config=config, dtype=dtype, revision=revision, output_loading_info=True, ignore_mismatched_sizes=True, **more
    )  # type: ignore[misc]  # a pair, because of output_loading_info
    wrong = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if shape.kind == "encoder" and wrong and all(key.startswith("pooler.") for key in wrong):
        network.pooler = None
    elif wrong:
        raise ModelError(
            f"model '{name}' has no weights that fit '{wrong[0]}' ({len(wrong)} in all) of its config; download the checkpoint and config.json again."
        )
    return network


def usable(device: str) -> str:
    """The device's name; raises ModelError where this machine cannot use it."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises the second if it was built without this device
        raise ModelError(
            f"device '{device}' cannot be used ({_first_line(error)}); give cpu, or a device that this machine has."
        ) from error
    return device


def own_device(device: str | None) -> str:
    """The device asked for, else a GPU if there is one; each process of a launcher gets its own, or the CPU if the model is sharded later."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() and not fsdp.asked() else "cpu"
    if device != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    return f"cuda:{int(os.environ['LOCAL_RANK']) % max(1, torch.cuda.device_count())}"


def _worker(device: str) -> torch.device:
    """Where the model will run: a model that is sharded later moves to the GPU then, if there is one."""
    return torch.device("cuda" if fsdp.asked() and torch.cuda.is_available() else device)


def _no_dropout(config: Any) -> None:
    """A frozen model is deterministic: dropout in it would break resuming and gradient checkpointing, and would not regularise trained values."""
    for key, value in config.to_dict().items():
        if isinstance(value, float) and key.endswith(("dropout", "dropout_prob", "_pdrop")):
            setattr(config, key, 0.0)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
