"""LoRA in PEFT's folders, read and written (format measured on 0.21.2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreword import methods
from foreword.adapters.adapter import Adapter
from foreword.adapters.folder import CONFIG, MANIFEST, TENSORS, write_folder
from foreword.adapters.peft_files import KEPT, PeftFolder, read_folder
from foreword.adapters.peft_prompt import Exported, imported_task, note_for
from foreword.adapters.safetensors_file import TensorShape, write_tensors
from foreword.backbone.fingerprint import quantization_in
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.weights import weight_adapters
from foreword.backbone.weights.lora_layers import target_layers, target_names
from foreword.errors import AdapterError, ModelError
from foreword.families.registry import family_of
from foreword.prompts.template import Template
from foreword.recipe import LoraSpec, Recipe

LORA = "LORA"
_OURS, PEFT = "lora.", "base_model.model."
_TASKS = {"causal": "CAUSAL_LM", "encoder": "FEATURE_EXTRACTION", "encoder-decoder": "SEQ_2_SEQ_LM"}

# Keys without an effect on the tensors, and initialisations that do not change the base model's weights; any other key must have its default.
_HARMLESS = {*KEPT, "auto_mapping", "inference_mode", "exclude_modules", "fan_in_fan_out", "layers_to_transform", "layers_pattern"}
_HARMLESS |= {"loftq_config", "eva_config", "megatron_config", "megatron_core", "qalora_group_size", "runtime_config"}
_READ = {"r", "lora_alpha", "target_modules", "lora_dropout", "use_rslora", "init_lora_weights"}
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


def export_lora(adapter: Adapter, target: str | Path, *, overwrite: bool = False) -> Exported:
    """Write an adapter's LoRA as a folder that PEFT reads; anything else in the adapter is left out."""
    files = lora_files(adapter, {"task_type": _TASKS[adapter.shape.kind]})
    template = Template.parse(adapter.task["template"], bos=adapter.task["bos"])
    note, quantization = note_for(template, "kv"), quantization_in(adapter.base_fingerprint)
    if quantization:
        note = f"Load the base in {quantization}. {note}"
    return Exported(write_folder(target, files, overwrite=overwrite), LORA, note)


def lora_files(
    adapter: Adapter, extra: Mapping[str, Any], others: Mapping[str, Tensor] | None = None, *, base: str | None = None
) -> dict[str, bytes]:
    """PEFT's two files, with more keys and numbers perhaps; `base` is the base model's name in a model of another class."""
    spec, paths = adapter.recipe.lora, _paths(adapter.tensors)
    assert spec is not None, "the caller knows that there is a LoRA"

    def named(path: str) -> str:
        """A layer's path in PEFT's base: causal models hold theirs under a name already, encoders are loaded bare."""
        inside = path.partition(".")[2] if adapter.shape.kind == "causal" else path
        return path if base is None else f"{base}.{inside}"

    config = {
        "peft_type": LORA,
        "base_model_name_or_path": adapter.base,
        "inference_mode": True,
        "r": spec.r,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        "use_rslora": spec.rslora,
        "target_modules": [named(name) if name in paths else name for name in _short_targets(spec, adapter.shape.family, paths)],
        "fan_in_fan_out": family_of(adapter.shape.family).transposed,
        **extra,
    }
    kept = {name.removeprefix(_OURS + PEFT): tensor for name, tensor in adapter.tensors.items() if name.startswith(_OURS)}
    numbers = {PEFT + named(name): tensor.float() for name, tensor in kept.items()} | dict(others or {})
    parts = {name: (TensorShape("F32", tuple(tensor.shape)), tensor.numpy().astype("<f4").tobytes()) for name, tensor in numbers.items()}
    return {TENSORS: write_tensors(parts), CONFIG: json.dumps(config, indent=2, sort_keys=True).encode()}


def import_lora(folder: str | Path, model: FrozenModel, *, task: Mapping[str, Any] | None = None) -> Adapter:
    """Read a LoRA that PEFT saved as an adapter for `model`, checked by names and shapes: PEFT records no fingerprint.

    `task` is a task's `to_dict`; without one the adapter generates from the bare column `input`. Raises AdapterError for variants of LoRA
    and trained weights besides it, ModelError where the LoRA belongs to another base.
    """
    found = read_folder(Path(folder))
    spec, tensors = _read(found, model)
    recipe = Recipe.of(methods.lora()) if spec == LoraSpec() else Recipe(methods.lora().method, lora=spec)
    weight_adapters.apply(model, recipe, tensors=tensors)  # refuses what does not fit
    return Adapter(
        recipe=recipe,
        shape=model.shape,
        tensors=tensors,
        task=imported_task(task, soft=False),
        base=model.name,
        base_fingerprint=model.fingerprint,
        tokenizer_fingerprint=model.tokenizer_fingerprint,
        provenance={"imported": {key: found.config[key] for key in KEPT if key in found.config}},
    )


def read_lora(path: str | Path, model: FrozenModel) -> tuple[LoraSpec, dict[str, Tensor]]:
    """A saved LoRA to start from, in a folder of Foreword's (checked against the model) or PEFT's: its spec and its numbers."""
    if not (Path(path) / MANIFEST).is_file():
        return _read(read_folder(Path(path)), model)
    adapter = Adapter.load(path)
    adapter.check(model.info)
    if adapter.recipe.lora is None:
        raise AdapterError(f"adapter '{path}' holds no LoRA (method '{adapter.method}'); give one that does.")
    return adapter.recipe.lora, {name: tensor for name, tensor in adapter.tensors.items() if name.startswith(_OURS)}


def _read(found: PeftFolder, model: FrozenModel) -> tuple[LoraSpec, dict[str, Tensor]]:
    """Spec and numbers of a plain LoRA."""
    config = found.config
    if found.peft_type != LORA:
        raise AdapterError(f"'{found.where}' is a {found.peft_type} adapter, but a {LORA} is needed; give the folder of one.")
    for key, value in sorted(config.items()):
        resting = value in (None, False, "none", {}, [])
        if key == "init_lora_weights" and value not in _STARTS or key not in _HARMLESS | _READ and not resting:
            raise AdapterError(f"'{found.where}' has {key} {value}, but only LoRA without it can be imported; load it with PEFT.")
    missing = sorted({"r", "lora_alpha"} - config.keys())
    if missing:
        raise AdapterError(f"'{found.where}' has an {CONFIG} without {missing[0]}; save it again with PEFT.")
    for name, tensor in sorted(found.tensors.items()):
        if not name.startswith(PEFT) or not name.endswith((".lora_A.weight", ".lora_B.weight")):
            raise AdapterError(
                f"'{found.where}' has trained weights that do not belong to a linear layer's LoRA, {name}; load it with PEFT."
            )
        bad = int((~tensor.isfinite()).sum()) if tensor.is_floating_point() else tensor.numel()
        if bad:
            raise AdapterError(
                f"'{found.where}' has {bad} of {tensor.numel()} numbers in {name} that are NaN or infinite; "
                "give the LoRA of a run that did not diverge."
            )
    tensors = {_OURS + name: tensor.to(torch.float32).contiguous() for name, tensor in found.tensors.items()}
    spec = LoraSpec(
        r=config["r"],
        alpha=float(config["lora_alpha"]),
        rslora=bool(config.get("use_rslora", False)),
        dropout=float(config.get("lora_dropout", 0.0)),
        targets=_targets(config.get("target_modules"), _paths(tensors), model),
    )
    return spec, tensors


def _paths(tensors: Mapping[str, Tensor]) -> list[str]:
    """The layers that a LoRA adapts, by full name."""
    return sorted({name.removeprefix(_OURS + PEFT).partition(".lora_")[0] for name in tensors if name.startswith(_OURS)})


def _short_targets(spec: LoraSpec, family: str, paths: list[str]) -> list[str]:
    """`target_modules` for PEFT: ends of names where the spec has them, else full names."""
    if spec.targets == "all-linear":
        return paths
    return [name for name in target_names(spec, family) if any(f".{path}".endswith(f".{name}") for path in paths)]


def _targets(given: Any, paths: list[str], model: FrozenModel) -> str | tuple[str, ...]:
    """Targets that mean exactly these layers: PEFT's own list where it does (some transform chosen layers only), else full names.

    Raises ModelError for layers that the model does not have.
    """
    known = {path for path, _ in target_layers(model.network, LoraSpec(targets="all-linear"), model.name).items()}
    absent = sorted(set(paths) - known)
    if absent:
        raise ModelError(f"the LoRA adapts {absent[0]}, but '{model.name}' has no such layer; load it on its own base model.")
    names = tuple(sorted(given)) if isinstance(given, list) else ()
    meant = {path for path in known if any(f".{path}".endswith(f".{name}") for name in names)}
    return names if meant == set(paths) else tuple(paths)
