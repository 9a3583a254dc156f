"""The engine on a GPU answers as `predict` on the CPU: every kind of task, prefill and decode steps, shared texts, sampled tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from contract.devices import DEVICES, entered, on
from serving.given import TASKS, TEXTS, adapter, example, predicted

from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.request import Answer, Done, Event, Request, Token
from foreword.serving.sampling import SamplingParams


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    yield from entered(request.param)


def served(place: torch.device | str, asked: list[tuple[str | None, str, SamplingParams]]) -> list[str]:
    """Texts of the engine, which reads its tasks from adapters."""
    model = on("llama", place)
    core = EngineCore(model, max_sequences=4, memory_bytes=1 << 24)
    events: list[list[Event]] = [[] for _ in asked]
    for name in {name for name, _, _ in asked if name}:
        core.install(LoadedTask.of(model, adapter("llama", name), AdapterKey(name, "1")))
    for index, (name, text, sampling) in enumerate(asked):
        given = {"text": text} if name is None else example(name, text)
        key = None if name is None else AdapterKey(name, "1")
        core.add(Request(f"r{index}", name, given, sampling=sampling), key, events[index].append)
    while core.has_work:
        core.step()
    core.check()
    assert all(isinstance(each[-1], Done) for each in events), [each[-1] for each in events]
    return ["".join(event.text for event in each if isinstance(event, Token | Answer)) for each in events]


def test_served_there_is_predicted_here(device: torch.device) -> None:
    long = "one two three four five six seven " * 3  # several requests begin with it, so that its keys and values are kept
    asked = [(name, text) for name in TASKS for text in (*TEXTS[:3], long, long + "eight")]
    found = served(device, [(name, text, SamplingParams()) for name, text in asked])
    assert found == [predicted("llama", name, text) for name, text in asked]


def test_sampled_tokens_and_the_base_model(device: torch.device) -> None:
    sampling = SamplingParams(temperature=0.8, top_p=0.9, top_k=20, seed=3, max_tokens=6, repetition_penalty=1.2, logprobs=2)
    asked = [(name, text, sampling) for name in ("prefix", "suffix", "lora", None) for text in TEXTS[:2]]
    asked.append(("prefix", "x", SamplingParams(max_tokens=5, json_schema='{"type": "integer"}')))
    assert served(device, asked) == served("cpu", asked)
