"""Export of LoRA with a head to PEFT, where transformers has a model with the same head: one linear layer on the same states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreword.adapters.adapter import HEAD, Adapter
from foreword.adapters.folder import write_folder
from foreword.adapters.peft_lora import LORA, PEFT, lora_files
from foreword.adapters.peft_prompt import Exported
from foreword.backbone.fingerprint import quantization_in
from foreword.backbone.hf_heads import HeadPlace, head_place
from foreword.errors import AdapterError
from foreword.families.registry import family_of
from foreword.task_kinds import PeftHead, TaskKind, find_kind


def export_headed(adapter: Adapter, target: str | Path, *, overwrite: bool = False) -> Exported:
    """Write an adapter's LoRA and head as a folder that PEFT reads; raises AdapterError where transformers' own model would read other states."""
    kind, outputs = find_kind(adapter.task["kind"]), len(adapter.tensors[HEAD + "weight"])
    why = _why_not(kind, adapter.task, adapter.shape.kind == "causal")
    place = None
    if kind.peft is not None and why is None:
        place = head_place(adapter.shape.family, kind.peft.task_type, outputs, HEAD + "bias" in adapter.tensors)
    if kind.peft is None or place is None:
        title = family_of(adapter.shape.family).title
        why = why or f"transformers has no model of {title} for task '{kind.name}' whose head is one linear layer on the last states"
        raise AdapterError(f"the adapter cannot be exported to PEFT, because {why}; use it with Foreword.")
    head = {f"{PEFT}{place.module}.{name.removeprefix(HEAD)}": tensor for name, tensor in adapter.tensors.items() if name.startswith(HEAD)}
    extra = {"task_type": kind.peft.task_type, "modules_to_save": [place.module]}
    files = lora_files(adapter, extra, head, base=place.base)
    return Exported(write_folder(target, files, overwrite=overwrite), LORA, _note(adapter, kind.peft, place, outputs))


def _why_not(kind: TaskKind, task: Mapping[str, Any], causal: bool) -> str | None:
    if kind.peft is None:
        return f"PEFT has no counterpart of task '{kind.name}'"
    if kind.peft.not_causal and causal:
        return kind.peft.not_causal
    if kind.peft.task_type != "SEQ_CLS":
        return None
    if not causal:
        return "transformers' classifiers of encoders have one more layer before the head"
    if task["pooling"] != "last":
        return f"its head uses pooling '{task['pooling']}', but transformers' head reads the last token; train with pooling 'last'"
    return "transformers' head reads one text, but this task has two" if task["pair"] else None


def _note(adapter: Adapter, kind: PeftHead, place: HeadPlace, outputs: int) -> str:
    """How to load PEFT's base model, and its inputs and outputs."""
    task, quantization = adapter.task, quantization_in(adapter.base_fingerprint)
    how = f"num_labels={outputs}" + (f" in {quantization}" if quantization else "")
    classes = f" The classes are {', '.join(task['labels'])}." if "labels" in task else ""
    return f"Load the base as {place.loader} with {how}. {kind.usage.format(**task)}.{classes}"
