"""A store of small tasks on a tiny model, and what each should answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import tiny
import torch
from contract.given import prompt, spec
from torch import Tensor

from foreword.adapters.adapter import Adapter
from foreword.adapters.safetensors_file import KEY
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.weights import weight_adapters
from foreword.evaluation.evaluate import Reader
from foreword.prompts.head import Head
from foreword.recipe import LoraSpec, Recipe
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.loaded_task import LoadedTask
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify

LORA = LoraSpec(2)
TASKS: dict[str, tuple[str, int, Task]] = {
    "prefix": ("p-tuning-v2", 3, Generate(max_new_tokens=9)),
    "longer": ("prefix-tuning", 6, Generate(max_new_tokens=5)),
    "leading": ("prompt-tuning", 4, Generate(max_new_tokens=9)),
    "suffix": ("prompt-tuning", 2, Generate("{input}\n{soft}:{answer}", max_new_tokens=7)),
    "label": ("p-tuning-v2", 3, Classify(("good", "bad"), "{input} is {answer}")),
    "lora": ("prefix-tuning", 2, Generate(max_new_tokens=6)),
    "lora-too": ("prompt-tuning", 2, Generate(max_new_tokens=8)),
    "head": ("p-tuning-v2", 4, HeadClassify(("good", "bad"))),
    "head-too": ("prompt-tuning", 3, HeadClassify(("good", "bad", "neither"))),
}
TEXTS = ["a film", "x", "one two three four five six seven", "a long story about nothing at all", ""]


@cache
def adapter(family: str, name: str, seed: int | None = None) -> Adapter:
    """An adapter of one of the tasks; other seeds are other versions of it."""
    method, length, task = TASKS[name]
    model, made = tiny.frozen(family), spec(method, length)
    recipe = made + LORA if name.startswith("lora") else Recipe.of(made)
    fitted = task.for_model(model.info, made)
    number = len(name) if seed is None else seed
    numbers = {KEY: prompt(model, made, number).bake(), **_weights(model, recipe, number)}
    if fitted.head is not None:
        numbers |= {f"head.{key}": tensor for key, tensor in Head(fitted.head, model.shape.states, seed=number).bake().items()}
    return Adapter(recipe, model.shape, numbers, fitted.to_dict(), model.name, model.fingerprint, model.tokenizer_fingerprint)


def _weights(model: FrozenModel, recipe: Recipe, seed: int) -> dict[str, Tensor]:
    """LoRA as if it were trained."""
    made = weight_adapters.apply(model, recipe)[1]
    generator = torch.Generator().manual_seed(seed)
    return {} if made is None else {key: 0.3 * torch.randn(value.shape, generator=generator) for key, value in made.state().items()}


def example(name: str, text: str) -> dict[str, str]:
    """A text as a task reads it."""
    return {TASKS[name][2].columns[0]: text}


@cache
def loaded(family: str, name: str) -> LoadedTask:
    return LoadedTask.of(tiny.frozen(family), adapter(family, name), AdapterKey(name, "1"))


@cache
def predicted(family: str, name: str, text: str, seed: int | None = None) -> str:
    return Reader.of(tiny.frozen(family), adapter(family, name, seed)).predict([example(name, text)])[0].text


def store(folder: Path, family: str = "llama") -> Path:
    """All tasks as adapters on disk."""
    for name in TASKS:
        adapter(family, name).save(folder / name)
    return folder
