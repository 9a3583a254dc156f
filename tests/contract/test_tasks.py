"""Laws of whole tasks before any training: heads read the tokens they should, rows do not see their neighbours, checkpointing changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contract import given_encoders
from contract.given import TOLERANCE, distance, prompt, spec, stock, text_columns
from contract.laws import kind_of
from contract.triples import HEADED, JOBS, NAMES, frozen, near, supported, why_not
from torch import Tensor
from transformers import DynamicCache

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.evaluation.evaluate import Reader
from foreword.methods import METHODS
from foreword.prompts.head import Head
from foreword.prompts.soft_prompt import SoftPrompt
from foreword.prompts.template import Row
from foreword.prompts.tokens import KVPrefix, VirtualTokens
from foreword.tasks.base import LengthBudget, Task, budget_for

PROMPTS = [triple for triple in supported() if triple[0] in METHODS]


def everywhere() -> list[tuple[str, str, str]]:
    """Every task with a head on every family that can do it, each time with the next method."""
    found = []
    for number, name in enumerate(NAMES):
        for kind in HEADED:
            methods = [method for method in METHODS if why_not(method, kind, name) is None]
            found += [(methods[(number + len(found)) % len(methods)], kind, name)] if methods else []
    return found


def ready(method: str, kind: str, name: str) -> tuple[FrozenModel, Task, LengthBudget, SoftPrompt, Head | None]:
    """A task with a prompt that looks trained and a random head."""
    model, made = frozen(name), spec(method, 3)
    task = JOBS[kind].task.for_model(model.info, made)
    return (
        model,
        task,
        budget_for(made, model.info),
        prompt(model, made),
        Head(task.head, model.shape.states, seed=3).to(model.device) if task.head else None,
    )


@pytest.mark.parametrize(("method", "kind", "name"), everywhere())
def test_an_example_does_not_see_its_neighbours(method: str, kind: str, name: str) -> None:
    model, task, length_budget, soft, head = ready(method, kind, name)
    with torch.no_grad():
        reader, examples = Reader(model, task, AdapterState(soft(), head), length_budget), JOBS[kind].examples
    near(reader.predict(examples, batch_size=1), reader.predict(examples))


@pytest.mark.parametrize(("method", "kind", "name"), PROMPTS)
def test_gradients_with_checkpointing_equal_those_without(method: str, kind: str, name: str) -> None:
    model, task, length_budget, soft, head = ready(method, kind, name)
    train_features = [
        train_feature for example in JOBS[kind].examples for train_feature in task.train_features(example, model.info, length_budget)[0]
    ]
    trained = [*soft.parameters(), *(head.parameters() if head else ())]
    found = []
    for on in (False, True):
        with model.gradient_checkpointing(on):
            costs = task.losses(model, AdapterState(soft(), head), train_features)
            found.append(torch.autograd.grad((costs.losses * costs.weights).sum(), trained))
    for off, on in zip(*found, strict=True):
        torch.testing.assert_close(on, off, rtol=1e-4, atol=1e-6)
    assert any(bool(gradient.any()) for gradient in found[0])


@torch.no_grad()
def by_hand(name: str, row: Row, read: VirtualTokens | None) -> Tensor:
    """The last states [T, H] of stock transformers at a row's own tokens, with virtual tokens put in by hand."""
    if kind_of(name) == "encoder":
        states = given_encoders.reference(name, row, read)
        return states[text_columns(row)]
    network = stock(name)
    if isinstance(read, KVPrefix):
        cache = DynamicCache([(read.keys[i][None], read.values[i][None]) for i in sorted(read.keys)], config=network.config)
        return network.base_model(torch.tensor([row.ids]), past_key_values=cache).last_hidden_state[0]
    embeds = network.get_input_embeddings()(torch.tensor(row.ids))
    line = embeds if read is None else torch.cat([embeds[: row.at[0]], read.vectors, embeds[row.at[0] :]])
    return network.base_model(inputs_embeds=line[None], use_cache=False).last_hidden_state[0][text_columns(row)]


def wanted(kind: str, name: str, row: Row, states: Tensor, text: str) -> Tensor:
    """Which of a row's states the head is to read, found with the tokenizer alone."""
    causal = kind_of(name) == "causal"
    if kind == "qa":
        return states
    if kind != "tag":
        return states[-1:] if causal else states.mean(0, keepdim=True)
    made = frozen(name).tokenizer.inner(text, return_offsets_mapping=True)
    assert tuple(made["input_ids"]) == row.ids
    edges = [(len(" ".join(text.split()[:i])), len(" ".join(text.split()[: i + 1]))) for i in range(len(text.split()))]
    places = []
    for begin, end in edges:
        inside = [i for i, (first, last) in enumerate(made["offset_mapping"]) if last > first and first < end and last > begin]
        places.append(inside[-1] if causal else inside[0])
    return states[places]


@pytest.mark.parametrize(("method", "kind", "name"), [triple for triple in PROMPTS if triple[1] in HEADED])
def test_a_head_reads_the_states_of_the_texts_own_tokens(method: str, kind: str, name: str) -> None:
    model, task, length_budget, soft, head = ready(method, kind, name)
    assert head is not None
    with torch.no_grad():
        read = soft()
    given_states: list[Tensor] = []
    head.register_forward_pre_hook(lambda _, states: given_states.append(states[0]))
    examples = JOBS[kind].examples
    eval_features = [task.eval_feature(example, model.info, length_budget, truncate=False)[0] for example in examples]
    list(task.predict(model, AdapterState(read, head), eval_features, 99))
    truth = [
        wanted(kind, name, row, by_hand(name, row, read), example.get("tokens", ""))
        for example, eval_feature in zip(examples, eval_features, strict=True)
        for row in eval_feature.rows
    ]
    (ours,) = given_states
    if kind == "qa":
        ours = torch.cat([states[len(states) - len(rows) :] for states, rows in zip(ours, truth, strict=True)])
    assert distance(ours, torch.cat(truth)) < TOLERANCE
    assert distance(by_hand(name, row := eval_features[0].rows[0], read), by_hand(name, replace(row, at=()), None)) > 0.01, (
        "a prompt moves them"
    )
