"""Soft prompts in PEFT's folders, read and written (format measured on 0.21.2). PEFT itself is not imported."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from foreword import methods
from foreword.adapters.adapter import Adapter
from foreword.adapters.folder import CONFIG, MANIFEST, TENSORS, write_folder
from foreword.adapters.peft_config import CARTRIDGE, ENCODER, PREFIX, PROMPT, prompt_config, stands_first, type_of, why_not
from foreword.adapters.peft_files import KEPT, read_folder
from foreword.adapters.safetensors_file import KEY, write_prompt
from foreword.adapters.tensor_files import as_matrix, read_file
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.backbone.prompt_to_kv import compile_prompt
from foreword.errors import AdapterError
from foreword.families.registry import check_site
from foreword.prompts.template import Bos, Soft, Template
from foreword.prompts.tokens import EmbeddingPrefix, flatten_kv
from foreword.recipe import Recipe
from foreword.specs import PromptSpec
from foreword.tasks.generate import Generate

_LEADING = re.compile(r"(\{bos\}|\{soft(:\d+)?\})*")
_SOFT = re.compile(r"(?<!\{)\{soft(:\d+)?\}")


@dataclass(frozen=True)
class Exported:
    """The result of an export: `note` says how to use it with PEFT to get the same answers."""

    path: Path
    peft_type: str
    note: str


@dataclass(frozen=True)
class PeftPrompt:
    """A PEFT folder: its config and its prompt [P, W]."""

    where: str
    config: dict[str, Any]
    flat: Float[Tensor, "P W"]

    @property
    def peft_type(self) -> str:
        return self.config["peft_type"]


def import_peft(folder: str | Path, model: FrozenModel, *, task: Mapping[str, Any] | None = None) -> Adapter:
    """Read a PEFT folder as an adapter for `model`, which is checked by shape only: PEFT records no fingerprint.

    PEFT's order is kept (an input-level prompt stands before BOS) and the model's window (a prefix fades with it). `task` is a task's
    `to_dict`; without one the adapter generates from the bare column `input`. Raises AdapterError for what is no soft prompt of PEFT.
    """
    found = read_peft(Path(folder))
    spec = _spec_of(found)
    check_site(spec, model.shape)
    width = spec.width(model.shape)
    if found.flat.shape[1] != width:
        raise AdapterError(
            f"'{found.where}' has virtual tokens of width {found.flat.shape[1]}, but '{model.name}' needs {width}; "
            f"use its own base model, '{found.config.get('base_model_name_or_path')}'."
        )
    return Adapter(
        recipe=Recipe.of(spec),
        shape=model.shape,
        tensors={KEY: found.flat},
        task=imported_task(task, soft=spec.site == "input"),
        base=model.name,
        base_fingerprint=model.fingerprint,
        tokenizer_fingerprint=model.tokenizer_fingerprint,
        provenance={"imported": {key: found.config[key] for key in KEPT if key in found.config}},
    )


def export_peft(
    adapter: Adapter, target: str | Path, model: FrozenModel | None = None, *, peft_type: str | None = None, overwrite: bool = False
) -> Exported:
    """Write a folder that PEFT reads with the same answers; raises AdapterError where PEFT cannot give them.

    A prompt that stands behind BOS is compiled to keys and values, BOS included, which needs the model. `peft_type` may ask for CARTRIDGE
    in place of PREFIX_TUNING.
    """
    if adapter.recipe.lora or adapter.recipe.full or "template" not in adapter.task:
        raise AdapterError(
            f"the adapter cannot be exported to PEFT, because it holds more than a soft prompt (method '{adapter.method}', task '{adapter.task['kind']}'); "
            "use it with Foreword."
        )
    template = Template.parse(adapter.task["template"], bos=adapter.task["bos"])
    why = why_not(adapter.spec, adapter.shape, template)
    if why is not None:
        raise AdapterError(f"the adapter cannot be exported to PEFT, because {why}.")
    if model is not None:
        adapter.check(model.info)
    emits_bos = model is None or model.tokenizer.bos is not None
    spec, flat = adapter.spec, adapter.flat
    if spec.site == "input" and not stands_first(template, emits_bos):
        spec, flat = _compiled(adapter, template, model)
    kind = type_of(spec)
    if peft_type not in (None, kind, CARTRIDGE if kind == PREFIX else kind):
        raise AdapterError(f"the adapter cannot be exported as {peft_type}, because it is a {kind}; leave the type out.")
    config = prompt_config(peft_type or kind, spec, adapter.shape, adapter.base)
    tensors = write_prompt(flat.numpy().astype("<f4", copy=False).tobytes(), (flat.shape[0], flat.shape[1]))
    path = write_folder(target, {TENSORS: tensors, CONFIG: json.dumps(config, indent=2, sort_keys=True).encode()}, overwrite=overwrite)
    return Exported(path, peft_type or kind, note_for(template, adapter.spec.site))


def read_peft(folder: Path) -> PeftPrompt:
    """The soft prompt in a folder that PEFT saved; raises AdapterError for other methods, heads, pickles and broken files."""
    found = read_folder(folder)
    where, config, kind = found.where, found.config, found.peft_type
    if kind not in (PROMPT, ENCODER, PREFIX, CARTRIDGE):
        raise AdapterError(
            f"'{where}' is a {kind} adapter, but {PROMPT}, {ENCODER}, {PREFIX} and {CARTRIDGE} can be imported; load it with PEFT."
        )
    only = {"task_type": "CAUSAL_LM", "num_transformer_submodules": 1}
    for key, value in only.items():
        if config.get(key) not in (None, value):
            raise AdapterError(f"'{where}' has {key} {config[key]}, but prompts with {value} can be imported; load it with PEFT.")
    tensors = found.tensors
    heads = sorted(name for name in tensors if name.startswith("base_model."))
    if heads:
        raise AdapterError(
            f"'{where}' has trained weights of the model itself, {heads[0]}, which a soft prompt cannot hold; load it with PEFT."
        )
    if set(tensors) != {KEY}:
        raise AdapterError(
            f"'{where}' has tensors {', '.join(sorted(tensors)) or 'none'}, but a soft prompt is one, '{KEY}'; save it again with PEFT."
        )
    flat = as_matrix(tensors[KEY], where)
    if config.get("num_virtual_tokens") != len(flat):
        raise AdapterError(
            f"'{where}' has {len(flat)} virtual tokens, but its config says {config.get('num_virtual_tokens')}; save it again with PEFT."
        )
    return PeftPrompt(where, config, flat)


def read_numbers(path: str | Path, info: ModelInfo | None = None) -> Float[Tensor, "P W"]:
    """Numbers to start from: an adapter folder (checked against `model` if given), a PEFT folder, a .npy or .safetensors file."""
    path = Path(path)
    if (path / MANIFEST).is_file():
        adapter = Adapter.load(path)
        if info is not None:
            adapter.check(info)
        return adapter.flat
    return read_peft(path).flat if path.is_dir() else read_file(path)


def _compiled(adapter: Adapter, template: Template, model: FrozenModel | None) -> tuple[PromptSpec, Tensor]:
    """A leading prompt and the constants around it as keys and values."""
    if model is None:
        raise AdapterError(
            "the adapter's prompt comes after the beginning-of-sequence token or other text, "
            "so its export to PEFT needs a forward pass of the base model; give --model."
        )
    row = template.render(dict.fromkeys(template.fields, ""), model.tokenizer, adapter.spec.length)
    prefix, swallowed = compile_prompt(model, EmbeddingPrefix(adapter.flat), row)
    spec = methods.prefix_tuning(adapter.spec.length + swallowed, prefix_projection=False)
    return replace(spec, window="model"), flatten_kv(prefix).float().cpu()


def note_for(template: Template, site: str) -> str:
    """What of the template is left to the user, who feeds PEFT."""
    softs = [i for i, part in enumerate(template.parts) if isinstance(part, Soft)] if site == "input" else []
    marks = list(_SOFT.finditer(template.source)) if softs else []
    rest = template.source[marks[-1].end() if marks else 0 :].removesuffix("{answer}").rstrip(" ").replace("{bos}", "")
    special = Bos() in template.parts[softs[-1] + 1 if softs else 0 :]
    return f"Give PEFT the text {rest!r}, tokenised with add_special_tokens={special}."


def _spec_of(found: PeftPrompt) -> PromptSpec:
    """The recipe a type of PEFT belongs to; its encoder, if any, is already baked into the numbers."""
    length, config = len(found.flat), found.config
    if found.peft_type == PROMPT:
        spec = methods.prompt_tuning(length)
    elif found.peft_type == ENCODER:
        encoder = config.get("encoder_reparameterization_type", "MLP")
        if encoder not in ("MLP", "LSTM"):
            raise AdapterError(
                f"'{found.where}' has encoder_reparameterization_type {encoder}, but PEFT knows MLP and LSTM; save it again with PEFT."
            )
        spec = methods.p_tuning(length, encoder=encoder.lower())
    else:
        spec = methods.prefix_tuning(length, prefix_projection=bool(config.get("prefix_projection", False)))
    return replace(spec, window="model")


def imported_task(task: Mapping[str, Any] | None, *, soft: bool) -> dict[str, Any]:
    """A task whose template keeps PEFT's order: soft tokens, BOS, text."""
    task = dict(Generate(template=Template.parse("{input}{answer}")).to_dict() if task is None else task)
    rest = _LEADING.sub("", task["template"], count=1)
    if Template.parse(rest, bos=task["bos"]).has_soft:
        raise AdapterError(
            f"template '{task['template']}' has soft tokens inside the text, but PEFT's prompts come first; remove {{soft}} from it."
        )
    first = "{soft}" if soft else ""
    return {**task, "template": first + ("{bos}" if task["bos"] else "") + rest}
