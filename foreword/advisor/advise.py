"""Advice for a base model and a situation: which method first and why, alternatives, and the costs of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from foreword.advisor import learning_rate_advice, rules
from foreword.advisor.architecture import Architecture
from foreword.advisor.inputs import Inputs
from foreword.advisor.memory_estimate import (
    TrainingMemory,
    added_compute,
    base_bytes,
    cache_bytes_per_token,
    context_left,
    training_memory,
)
from foreword.advisor.parameters import FLOAT32, Numbers, count_numbers
from foreword.errors import UsageError
from foreword.learning_rates import prompt_part
from foreword.methods import BASELINES, METHODS, head_only, named
from foreword.recipe import Recipe
from foreword.shape import Kind
from foreword.task_kinds import TASK_KINDS


@dataclass(frozen=True)
class Sizing:
    """What one method costs. `bytes_per_task` is the file's numbers in fp32; memory is that of a training step; cache is one sequence's copy."""

    method: str
    kind: str
    length: int
    numbers: Numbers
    bytes_per_task: int
    bytes_all_tasks: int
    memory: TrainingMemory
    checkpointing: bool
    cache_bytes_per_token: int
    cache_bytes_per_sequence: int
    context_left: int | None
    added_compute: float
    excluded: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "method": self.method,
            "num_virtual_tokens": self.length,
            "num_trained": self.numbers.trained,
            "num_parameters": self.numbers.stored,
            "num_head": self.numbers.head,
            "bytes": self.bytes_per_task,
            "bytes_all_tasks": self.bytes_all_tasks,
            "training_memory": {**asdict(self.memory), "total": self.memory.total},
            "gradient_checkpointing": self.checkpointing,
            "kv_bytes_per_virtual_token": self.cache_bytes_per_token,
            "kv_bytes_per_sequence": self.cache_bytes_per_sequence,
            "context_left": self.context_left,
            "added_compute": self.added_compute,
            "excluded": self.excluded,
        }


@dataclass(frozen=True)
class Pick:
    """A method, the rules for and against it, and its settings, each with its reason."""

    method: str
    reasons: tuple[rules.Rule, ...]
    against: tuple[rules.Rule, ...]
    choices: tuple[rules.Choice, ...]

    @property
    def settings(self) -> dict[str, int | float]:
        """What to train with, by name."""
        return {choice.about: choice.value for choice in self.choices}


@dataclass(frozen=True)
class Advice:
    """The whole answer."""

    recommended: Pick | None
    alternatives: tuple[Pick, ...]
    sizing: tuple[Sizing, ...]
    warnings: tuple[str, ...] = ()

    @property
    def picks(self) -> tuple[Pick, ...]:
        """The recommendation and the alternatives."""
        return (self.recommended, *self.alternatives) if self.recommended else ()


def advise(network: Architecture, situation: Inputs, *, refused: Mapping[str, str] | None = None) -> Advice:
    """The advice. `refused` names sites that the family does not support, with the reason. Raises UsageError for a task the model cannot do."""
    _check_task(network, situation)
    facts = {**situation.facts(), "parameters": network.parameters, "kind": network.shape.kind}
    recipes = candidates(situation, facts)
    sizes = {kind: _size(kind, recipe, network, situation, refused or {}) for kind, recipe in recipes.items()}
    chosen = [rule for rule in rules.RULES if rules.holds(rule.when, facts)]
    order = dict.fromkeys(kind for rule in chosen for kind in (*rule.prefer, *rule.then) if sizes[kind].excluded is None)
    if "lora" in order:
        order.pop("qlora", None)  # only for bases that do not fit otherwise
    picks = [_pick(kind, sizes[kind], chosen, facts) for kind in order]
    return Advice(picks[0] if picks else None, tuple(picks[1:4]), tuple(sizes.values()), tuple(_warnings(network, situation, sizes, picks)))


def candidates(situation: Inputs, facts: Mapping[str, rules.Fact]) -> dict[str, Recipe]:
    """Every candidate recipe by its kind: the named methods and the baselines that train; then those that are only sized.

    Rules name kinds, so of several methods of one kind the first is weighed; the others are sized, by their own names.
    """
    length = situation.length or int(rules.first(rules.LENGTHS, facts).value)
    head = situation.head(cast(Kind, facts["kind"])) is not None
    recipes = [Recipe.of(make()) for make in (METHODS | BASELINES).values()]
    recipes += [named(name.strip()) for name in situation.also.split(",")] if situation.also else []
    found: dict[str, Recipe] = {}
    for recipe in (_asked(each, length, situation) for each in recipes if each.trains or (head and each == head_only())):
        if recipe not in found.values():
            found[recipe.method if kind_of(recipe) in found else kind_of(recipe)] = recipe
    return found


def _asked(recipe: Recipe, length: int, situation: Inputs) -> Recipe:
    """With the given length and LoRA targets."""
    prompt = replace(recipe.prompt, length=length) if recipe.prompt else None
    lora = recipe.lora and replace(recipe.lora, r=situation.lora_r, targets=situation.targets() or recipe.lora.targets)
    return replace(recipe, prompt=prompt, lora=lora)


def kind_of(recipe: Recipe) -> str:
    """The name that rules know a recipe by: of a soft prompt its site and whether a network makes it, else the recipe's own."""
    if recipe.prompt is None or recipe.lora:
        return recipe.method
    return prompt_part(recipe.prompt)


def _check_task(network: Architecture, situation: Inputs) -> None:
    if network.shape.kind == "encoder" and TASK_KINDS[situation.task].answers == "text":
        raise UsageError(
            f"task '{situation.task}' needs a model that generates text, but '{network.shape.family}' is an encoder; use a causal model."
        )
    if network.shape.kind == "encoder-decoder" and situation.head("encoder-decoder"):
        raise UsageError(
            f"task '{situation.task}' needs a head, but '{network.shape.family}' is an encoder-decoder; use an encoder or a causal model."
        )


def _size(kind: str, recipe: Recipe, network: Architecture, situation: Inputs, refused: Mapping[str, str]) -> Sizing:
    numbers, load = count_numbers(recipe, network, situation.head(network.shape.kind)), situation.load()
    cache = cache_bytes_per_token(recipe.prompt, network, load.dtype)
    length = recipe.prompt.length if recipe.prompt else 0
    sizing = Sizing(
        method=recipe.method,
        kind=kind,
        length=length,
        numbers=numbers,
        bytes_per_task=FLOAT32 * numbers.stored,
        bytes_all_tasks=FLOAT32 * numbers.stored * situation.tasks,
        memory=training_memory(recipe, network, numbers, load),
        checkpointing=load.checkpointing,
        cache_bytes_per_token=cache,
        cache_bytes_per_sequence=cache * length,
        context_left=context_left(recipe.prompt, network),
        added_compute=added_compute(recipe, network, load, numbers.stored - numbers.head),
    )
    if not _fits(sizing, situation):
        sizing = replace(sizing, memory=training_memory(recipe, network, numbers, replace(load, checkpointing=True)), checkpointing=True)
    return replace(sizing, excluded=next(_against(sizing, recipe, network, situation, refused), None))


def _fits(sizing: Sizing, situation: Inputs) -> bool:
    return situation.memory is None or sizing.memory.total <= situation.memory * 1e9


def _against(sizing: Sizing, recipe: Recipe, network: Architecture, situation: Inputs, refused: Mapping[str, str]) -> Iterator[str]:
    """Why a method is not possible here; the first reason counts."""
    load = situation.load()
    if recipe.prompt and recipe.prompt.site in refused:
        yield refused[recipe.prompt.site]
    if recipe.prompt and situation.serving == "bare":
        yield "a soft prompt costs a request time or context"
    if recipe.full and situation.serving == "shared" and situation.tasks > 1:
        yield "all weights are a model of their own for each task, which nothing can share"
    if recipe.quantize and network.mixture:
        yield "experts stay as they are, so NF4 saves little on a mixture"
    if sizing.context_left is not None and sizing.context_left < load.text_tokens + load.answer_tokens:
        yield f"{sizing.context_left:,} positions are left, too few for texts of {load.text_tokens:,} tokens and answers of {load.answer_tokens:,}"
    if not _fits(sizing, situation):
        needed = f"about {sizing.memory.total / 1e9:.2f} GB even with gradient checkpointing"
        yield f"training needs {needed}, more than the {situation.memory:g} GB there are"


def _pick(kind: str, sizing: Sizing, chosen: list[rules.Rule], facts: Mapping[str, rules.Fact]) -> Pick:
    """A rule's fallback kinds count neither for nor against."""
    reasons = tuple(rule for rule in chosen if kind in rule.prefer)
    against = tuple(rule for rule in chosen if kind not in (*rule.prefer, *rule.then))
    length = rules.first(rules.LENGTHS, facts)
    if sizing.length != length.value:
        length = replace(length, value=sizing.length, reason="as asked", source="the command line")
    rest = (
        learning_rate_advice.rate(kind, facts),
        rules.steps_for(int(facts["examples"])),
        rules.SCHEDULE,
        *([rules.CHECKPOINTING] if sizing.checkpointing else []),
    )
    return Pick(sizing.method, reasons, against, (length, *rest) if sizing.length else rest)


def _warnings(network: Architecture, situation: Inputs, sizes: Mapping[str, Sizing], picks: list[Pick]) -> Iterator[str]:
    family, weights = network.shape.family, base_bytes(network, situation.load().dtype)
    if not network.known:
        yield f"the layers of '{family}' are not in Foreword's table, so its weights are estimated like Llama's; LoRA, memory and full fine-tuning may differ."
    if not picks:
        yield "no method fits these constraints; allow more memory, shorter texts, or another way of serving."
    if situation.memory is not None and weights > situation.memory * 1e9:
        yield f"the frozen model alone takes {weights / 1e9:.2f} GB, more than the {situation.memory:g} GB there are; take a smaller one, or NF4."
    if picks and picks[0].method in ("lora", "qlora", "full"):
        yield f"a soft prompt is not the better choice here: {picks[0].method} is, for the reasons given."
    if situation.examples < 100:
        yield f"{situation.examples} examples are too few to tell methods apart; write a prompt with examples in it as well, and compare."
    for size in sizes.values():
        if size.excluded:
            yield f"{size.method} is left out: {size.excluded}."
