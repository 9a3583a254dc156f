"""`foreword show`: what is in an adapter's folder, without loading its model."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from typing import Any

from foreword.adapters.manifest import Manifest
from foreword.cli.support import output
from foreword.cli.support.loaders import open_manifest
from foreword.cli.support.options import AdapterPath, AsJson
from foreword.prompts.template import ANSWER, Bos, Field, Soft, Template
from foreword.specs import PromptSpec
from foreword.training.plan import TrainPlan

_DEFAULTS = TrainPlan().to_dict()


def show(adapter: AdapterPath, json: AsJson = False) -> None:
    """Show an adapter's task, method, base model, scores and training run.

    [bold]Example:[/bold] foreword show prompts/sentiment
    """
    manifest = open_manifest(adapter)
    if json:
        output.document(_document(adapter, manifest))
        return
    screen = output.screen()
    screen.print(adapter)
    output.facts(_facts(manifest))


def _document(adapter: str, manifest: Manifest) -> dict[str, Any]:
    shared = {
        "adapter": adapter,
        "method": manifest.recipe.method,
        "task": manifest.task["kind"],
        "model": manifest.base,
        "num_parameters": manifest.num_parameters,
        "bytes": manifest.size,
        "scores": manifest.scores,
    }
    rest = jsonlib.loads(manifest.to_json())
    return {**shared, "manifest": rest}


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    task, spec = manifest.task, manifest.recipe.prompt
    yield "task", task["kind"] + (f": {', '.join(task['labels'])}" if task.get("labels") else "")
    yield "method", ", ".join([manifest.recipe.method, *_trained(manifest)])
    if "template" in task:
        yield "template", template_text(Template.parse(task["template"], bos=task["bos"]), spec)
    if task.get("description"):
        yield "description", task["description"]
    if task.get("conversation"):
        yield "conversation", task["conversation"]
    yield "base", f"{manifest.base} ({manifest.shape.family})"
    yield "fingerprints", f"base {manifest.base_fingerprint}, tokenizer {manifest.tokenizer_fingerprint}"
    yield "numbers", f"{manifest.num_parameters:,} in {output.size(manifest.size)}, sha256 {manifest.sha256[:16]}"
    for name, score in manifest.scores.items():
        yield name, output.score_text(score)
    yield from _provenance(manifest.provenance)


def _trained(manifest: Manifest) -> Iterator[str]:
    """The parts that were trained, in words."""
    recipe = manifest.recipe
    if recipe.prompt:
        yield _place(recipe.prompt)
    if recipe.lora:
        yield f"LoRA of rank {recipe.lora.r}{' (frozen)' if recipe.lora.frozen else ''}"
    if recipe.full:
        yield "all weights"
    if any(name.startswith("head.") for name in manifest.tensors):
        yield "a head"


def _place(spec: PromptSpec) -> str:
    """Where the virtual tokens are and how they were made, in words."""
    tokens = output.count(spec.length, "virtual token")
    made = "" if spec.reparam.kind == "direct" else f", made by {'an MLP' if spec.reparam.kind == 'mlp' else 'an LSTM and an MLP'}"
    if spec.site == "input":
        return f"{tokens} in the text{made}"
    layers = (
        "every layer"
        if spec.layers == "all"
        else f"layers {spec.layers if isinstance(spec.layers, str) else ', '.join(map(str, spec.layers))}"
    )
    return f"{tokens} as keys and values of {layers}{made}"


def template_text(template: Template, spec: PromptSpec | None) -> str:
    """A template for display: soft tokens in ⟨⟩, fields in {}, line ends as ↵."""
    counts = iter(template.soft_counts(spec.length) if spec and template.has_soft else [])
    pieces = []
    for part in template.parts:
        if isinstance(part, Soft):
            pieces.append(f"⟨{next(counts)} soft⟩")
        elif isinstance(part, Field):
            pieces.append("{" + part.name + "}")
        else:
            pieces.append("⟨bos⟩" if isinstance(part, Bos) else part.text)
    return "".join([*pieces, template.space, "{" + ANSWER + "}"]).replace("\n", "↵")


def _provenance(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The provenance of the adapter."""
    for name, value in facts.items():
        if name == "plan":
            value = {key: inner for key, inner in value.items() if inner != _DEFAULTS.get(key)} or "all defaults"
        if isinstance(value, dict):
            value = ", ".join(f"{key} {inner}" for key, inner in value.items())
        yield name, str(value)
