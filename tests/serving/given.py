"""A store of small tasks on a tiny model, and what each should answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import tiny
from contract.given import prompt, spec

from foreword.adapters.adapter import Adapter
from foreword.adapters.tensors import KEY
from foreword.evaluation.evaluate import Reader
from foreword.recipe import Recipe
from foreword.serving.prefixes import Key
from foreword.serving.resident import Resident
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.templated import TemplateTask, for_site

TASKS = {
    "prefix": ("p-tuning-v2", 3, Generate(max_new_tokens=9)),
    "longer": ("prefix-tuning", 6, Generate(max_new_tokens=5)),
    "leading": ("prompt-tuning", 4, Generate(max_new_tokens=9)),
    "suffix": ("prompt-tuning", 2, Generate("{input}\n{soft}:{answer}", max_new_tokens=7)),
    "label": ("p-tuning-v2", 3, Classify(("good", "bad"), "{input} is {answer}")),
}
TEXTS = ["a film", "x", "one two three four five six seven", "a long story about nothing at all", ""]


@cache
def adapter(family: str, name: str, seed: int | None = None) -> Adapter:
    """An adapter of one of the tasks; other seeds are other versions of it."""
    method, length, task = TASKS[name]
    model, made = tiny.frozen(family), spec(method, length)
    fitted: TemplateTask = for_site(task, made)
    numbers = {KEY: prompt(model, made, len(name) if seed is None else seed).bake()}
    return Adapter(Recipe.of(made), model.shape, numbers, fitted.to_dict(), model.name, model.fingerprint, model.tokenizer_fingerprint)


@cache
def resident(family: str, name: str) -> Resident:
    return Resident.of(tiny.frozen(family), adapter(family, name), Key(name, "1"))


@cache
def predicted(family: str, name: str, text: str, seed: int | None = None) -> str:
    return Reader.of(tiny.frozen(family), adapter(family, name, seed)).predict([{"input": text}])[0].text


def store(folder: Path, family: str = "llama") -> Path:
    """All tasks as adapters on disk."""
    for name in TASKS:
        adapter(family, name).save(folder / name)
    return folder
