"""Import from PEFT and export to PEFT, for every kind of adapter: soft prompts (`peft_prompt.py`), LoRA (`peft_lora.py`), LoRA with a head (`peft_heads.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from foreword.adapters.adapter import Adapter
from foreword.adapters.peft_files import read_folder
from foreword.adapters.peft_heads import export_headed
from foreword.adapters.peft_lora import LORA, export_lora, import_lora
from foreword.adapters.peft_prompt import Exported, export_peft, import_peft
from foreword.adapters.safetensors_file import KEY
from foreword.backbone.frozen_model import FrozenModel
from foreword.recipe import Recipe

TOGETHER = "Call load_adapter with the lora folder on the base model, then PeftModel.from_pretrained with the prompt folder."


def import_folder(folder: str | Path, model: FrozenModel, *, task: Mapping[str, Any] | None = None) -> Adapter:
    """A PEFT folder as an adapter for `model`: a soft prompt or a LoRA. Raises AdapterError for anything else."""
    read = import_lora if read_folder(Path(folder)).peft_type == LORA else import_peft
    return read(folder, model, task=task)


def export_folders(
    adapter: Adapter, target: str | Path, model: FrozenModel | None = None, *, peft_type: str | None = None, overwrite: bool = False
) -> tuple[Exported, ...]:
    """Write what PEFT reads with the same answers: one folder, or for a prompt with LoRA two inside it, `prompt` and `lora`.

    Raises AdapterError where PEFT cannot give them.
    """
    recipe = adapter.recipe
    if recipe.lora is not None and recipe.prompt is None and "template" not in adapter.task:
        if model is not None:
            adapter.check(model.info)
        return (export_headed(adapter, target, overwrite=overwrite),)
    if recipe.lora is None or "template" not in adapter.task:
        return (export_peft(adapter, target, model, peft_type=peft_type, overwrite=overwrite),)
    if recipe.prompt is None:
        if model is not None:
            adapter.check(model.info)
        return (export_lora(adapter, target, overwrite=overwrite),)
    reader = None
    if model is not None:
        adapter.check(model.info)
        reader = adapter.model(model)  # constants around the prompt become keys and values as the LoRA makes them
    alone = replace(adapter, recipe=Recipe.of(recipe.prompt), tensors={KEY: adapter.flat})
    prompt = export_peft(alone, Path(target) / "prompt", reader, peft_type=peft_type, overwrite=overwrite)
    lora = export_lora(adapter, Path(target) / "lora", overwrite=overwrite)
    return replace(prompt, note=f"{TOGETHER} {prompt.note}"), replace(lora, note=TOGETHER)
