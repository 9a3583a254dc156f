"""`adapter_config.json`, PEFT's config of an adapter: which of its types holds a prompt with the same answers, and that type's keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foreword.prompts.template import Bos, Soft, Template
from foreword.recipe import Recipe
from foreword.shape import ModelShape
from foreword.specs import PromptSpec

PROMPT, ENCODER, PREFIX, CARTRIDGE = "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE"
FOREIGN = "FOREWORD"  # a type that PEFT does not know, so that it raises an error: any type of its own would give other answers


def config_of(recipe: Recipe, shape: ModelShape, task: Mapping[str, Any], base: str) -> dict[str, Any]:
    """`adapter_config.json` of an adapter folder: PEFT's own type if PEFT gives the same answers, else one that makes it raise an error."""
    spec = recipe.prompt
    if spec is None or recipe.lora or shape.kind != "causal" or "template" not in task:
        return {"peft_type": FOREIGN, "base_model_name_or_path": base, "inference_mode": True}
    template = Template.parse(task["template"], bos=task["bos"])
    exact = why_not(spec, shape, template) is None and (spec.site == "kv" or stands_first(template, emits_bos=True))
    return prompt_config(type_of(spec) if exact else FOREIGN, spec, shape, base)


def prompt_config(kind: str, spec: PromptSpec, shape: ModelShape, base: str) -> dict[str, Any]:
    """PEFT's keys; those it fills in by itself are left out."""
    common = {
        "peft_type": kind,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "num_virtual_tokens": spec.length,
        "num_transformer_submodules": 1,
        "num_layers": shape.num_layers,
    }
    if kind == FOREIGN:
        return common
    if spec.site == "input":
        encoder = {"encoder_reparameterization_type": spec.reparam.kind.upper(), "encoder_hidden_size": spec.reparam.hidden}
        return {**common, "token_dim": shape.embedding, **(encoder if kind == ENCODER else {})}
    heads, dim = shape.kv[0].heads, shape.kv[0].dim
    extra = {"num_frozen_tokens": 0} if kind == CARTRIDGE else {"prefix_projection": False, "encoder_hidden_size": heads * dim}
    return {**common, "token_dim": heads * dim, "num_attention_heads": heads, **extra}


def type_of(spec: PromptSpec) -> str:
    if spec.site == "kv":
        return PREFIX
    return PROMPT if spec.reparam.kind == "direct" else ENCODER


def why_not(spec: PromptSpec, shape: ModelShape, template: Template) -> str | None:
    """Why no type of PEFT can hold this prompt, or None; ends with what to do."""
    if shape.kind == "encoder-decoder":
        return "PEFT's prompts of encoder–decoders have other positions and attention masks; use it with Foreword"
    if spec.site == "input":
        if template.has_soft and template.leading:
            return None
        return f"its template '{template.source}' has soft tokens inside the text, where PEFT cannot put them; train with {{soft}} first"
    layers = spec.chosen_layers(shape)
    if len(layers) != shape.num_layers:
        return f"it has a prefix in layers {list(layers)} of {shape.num_layers}, but PEFT has one in every layer; train with layers 'all'"
    if len({(kv.heads, kv.dim) for kv in shape.kv}) != 1:
        return "the layers of its base model have keys and values of different shapes, but PEFT has one shape; use it with Foreword"
    if spec.window == "pinned" and shape.windowed:
        return f"its prefix stays visible in the sliding windows of {shape.family}, but PEFT's does not; train with window 'model'"
    return None


def stands_first(template: Template, emits_bos: bool) -> bool:
    """Whether all soft tokens come before everything else, where PEFT puts them."""
    parts = [part for part in template.parts if emits_bos or not isinstance(part, Bos)]
    count = sum(isinstance(part, Soft) for part in parts)
    return count > 0 and all(isinstance(part, Soft) for part in parts[:count])
