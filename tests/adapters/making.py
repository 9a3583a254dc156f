"""Adapters with random numbers for tiny models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tiny
from contract.given import prompt, spec

from foreword.adapters.adapter import Adapter
from foreword.adapters.safetensors_file import KEY
from foreword.backbone.frozen_model import FrozenModel
from foreword.prompts.template import Template
from foreword.recipe import Recipe
from foreword.specs import Layers, Window
from foreword.tasks.classify import Classify
from foreword.tasks.template_task import for_site

SCORES = {"accuracy": {"value": 0.75, "stderr": 0.05, "n": 80}}


def adapter(
    name: str = "llama",
    method: str = "prompt-tuning",
    *,
    template: str = "{soft}{text}\nLabel: {answer}",
    bos: bool = True,
    length: int = 4,
    window: Window = "pinned",
    layers: Layers = "all",
    seed: int = 0,
    model: FrozenModel | None = None,
    **changes: Any,
) -> Adapter:
    """An adapter for a shared tiny model, or for `model`."""
    model = model or tiny.frozen(name)
    made = spec(method, length, window=window, layers=layers)
    task = for_site(Classify(("good", "bad")).with_template(Template.parse(template, bos=bos)), made)
    plain = Adapter(
        recipe=Recipe.of(made),
        shape=model.shape,
        tensors={KEY: prompt(model, made, seed).bake()},
        task=task.to_dict(),
        base=model.name,
        base_fingerprint=model.fingerprint,
        tokenizer_fingerprint=model.tokenizer_fingerprint,
        scores=SCORES,
        provenance={"seed": seed, "data": "0123456789abcdef"},
    )
    return replace(plain, **changes)
