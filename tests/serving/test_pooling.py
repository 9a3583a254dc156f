"""Answers given whole: tasks with heads share passes of an encoder, and a fault in one of them is nobody else's."""

from __future__ import annotations

from functools import cache

import pytest
import tiny_encoders
import torch
from contract.given import prompt, spec

from foreword.adapters.adapter import Adapter
from foreword.adapters.safetensors_file import KEY
from foreword.evaluation.evaluate import Reader
from foreword.prompts.head import Head
from foreword.recipe import Recipe
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.request import Answer, Done, Event, Failed, Request
from foreword.tasks.base import Example, Task
from foreword.tasks.head_classify import HeadClassify
from foreword.tasks.qa import QA
from foreword.tasks.tag import Tag

TASKS: dict[str, tuple[str, Task, Example]] = {
    "mood": ("p-tuning-v2", HeadClassify(("good", "bad")), {"text": "a joy"}),
    "topic": ("prompt-tuning", HeadClassify(("war", "art", "sport")), {"text": "a long story of paint"}),
    "words": ("p-tuning-v2", Tag(("A", "B")), {"tokens": "a joy to watch"}),
    "where": ("p-tuning-v2", QA(), {"question": "who came?", "context": "It was Bob, they say, who came."}),
}


@cache
def adapter(name: str) -> Adapter:
    method, task, _ = TASKS[name]
    model, made = tiny_encoders.frozen("bert"), spec(method, 3)
    fitted = task.for_model(model.info, made)
    assert fitted.head is not None
    head = Head(fitted.head, model.shape.hidden, seed=len(name)).bake()
    tensors = {KEY: prompt(model, made, len(name)).bake(), **{f"head.{key}": value for key, value in head.items()}}
    return Adapter(Recipe.of(made), model.shape, tensors, fitted.to_dict(), model.name, model.fingerprint, model.tokenizer_fingerprint)


def serve(core: EngineCore, asked: list[tuple[str, Example]]) -> list[list[Event]]:
    events: list[list[Event]] = [[] for _ in asked]
    for index, (name, example) in enumerate(asked):
        core.install(LoadedTask.of(core.model, adapter(name), AdapterKey(name, "1")))
        core.add(Request(str(index), name, example), AdapterKey(name, "1"), events[index].append)
    while core.has_work:
        core.step()
        core.check()
    return events


def test_tasks_share_one_pass_and_answer_as_predicted() -> None:
    core, passes = EngineCore(tiny_encoders.frozen("bert")), list[int]()
    for name in TASKS:
        adapter(name)
    hook = core.model.network.register_forward_hook(lambda *_: passes.append(1))
    try:
        found = serve(core, [(name, TASKS[name][2]) for name in TASKS for _ in range(3)])
    finally:
        hook.remove()
    assert len(passes) == 1
    for index, name in enumerate(name for name in TASKS for _ in range(3)):
        answer, done = found[index]
        expected = Reader.of(core.model, adapter(name)).predict([TASKS[name][2]])[0]
        assert isinstance(answer, Answer) and isinstance(done, Done)
        assert answer.text == expected.text
        assert torch.allclose(torch.tensor(list(answer.scores.values())), torch.tensor(list(expected.scores.values())), atol=1e-5)


def test_a_fault_in_one_task_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tag, "head_predictions", lambda *_: 1 / 0)
    found = serve(EngineCore(tiny_encoders.frozen("bert")), [(name, TASKS[name][2]) for name in ("mood", "words", "topic")])
    assert [type(events[0]) for events in found] == [Answer, Failed, Answer]
    assert found[1] == [Failed("engine", "the step failed (ZeroDivisionError: division by zero).")]


def test_an_encoder_goes_on_from_no_text() -> None:
    core, events = EngineCore(tiny_encoders.frozen("bert")), list[Event]()
    core.add(Request("1", None, {"text": "a joy"}), None, events.append)
    core.step()
    assert events == [Failed("request", "tiny-bert is not a causal model, so it cannot continue a text; use one of its tasks.")]
