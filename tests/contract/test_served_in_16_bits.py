"""What "served is predicted" means in bfloat16 and float16, where the order of sums changes the last bits: docs/serve.md states it, this holds it.

Each served token is the likeliest one of `predict`'s own logits after the same tokens, or closer to it than the precision can tell; log-probabilities
agree within the same tolerance. Answers of tasks that generate nothing agree in their labels and numbers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from contract.devices import on
from serving.given import TASKS, TEXTS, adapter, example

from foreword.adapters.adapter import Adapter
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.evaluation.evaluate import Reader
from foreword.prompts.template import Row
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.request import Answer, Done, Event, Request, Token
from foreword.serving.sampling import SamplingParams
from foreword.tasks.streaming_task import StreamingTask

# In shares of the largest logit. Measured on these models: at most 1.1 roundings in 16 bits for logits, 3.5 for log-probabilities.
TOLERANCE = {torch.float32: 32 * torch.finfo(torch.float32).eps} | {
    dtype: 4 * torch.finfo(dtype).eps for dtype in (torch.bfloat16, torch.float16)
}
GENERATING = [name for name, (_, _, task) in TASKS.items() if isinstance(task, StreamingTask)]
FAMILIES = ["llama", "llama-grouped", "gemma3_text", "gpt2", "gemma2"]


@cache
def model_in(family: str, dtype: torch.dtype) -> FrozenModel:
    return on(family, dtype=dtype)


def adapter_for(model: FrozenModel, family: str, name: str) -> Adapter:
    """The adapter as if it were trained on the model in this precision."""
    return replace(adapter(family, name), base_fingerprint=model.fingerprint)


def served(model: FrozenModel, family: str, asked: list[tuple[str, str]]) -> list[list[Event]]:
    core = EngineCore(model, max_sequences=4)
    for name in {name for name, _ in asked}:
        core.install(LoadedTask.of(model, adapter_for(model, family, name), AdapterKey(name, "1")))
    events: list[list[Event]] = [[] for _ in asked]
    for index, (name, text) in enumerate(asked):
        sampling = SamplingParams(logprobs=0) if name in GENERATING else SamplingParams()
        core.add(Request(f"r{index}", name, example(name, text), sampling=sampling), AdapterKey(name, "1"), events[index].append)
    while core.has_work:
        core.step()
    assert all(isinstance(each[-1], Done) for each in events), [each[-1] for each in events]
    return events


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_served_token_is_the_likeliest_within_rounding(family: str, dtype: torch.dtype) -> None:
    model = model_in(family, dtype)
    asked = [(name, text) for name in GENERATING for text in TEXTS[:4]]
    for (name, text), events in zip(asked, served(model, family, asked), strict=True):
        reader = Reader.of(model, adapter_for(model, family, name))
        feature, _ = reader.task.eval_feature(example(name, text), reader.model.info, reader.length_budget, truncate=False)
        row, tokens = feature.rows[0], [event for event in events if isinstance(event, Token) and event.logprob is not None]
        if not tokens:
            continue  # the end came at once
        whole = Row((*row.ids, *(event.token for event in tokens)), row.at)
        with torch.no_grad():
            logits = reader.model.forward(collate([whole]), reader.adapter_state.tokens)[0, len(row.ids) - 1 : -1].float()
        allowed = TOLERANCE[dtype] * max(1.0, logits.abs().max().item())
        for event, after in zip(tokens, logits, strict=True):
            assert after.max() - after[event.token] <= allowed, (name, text)
            assert event.logprob == pytest.approx(after.log_softmax(0)[event.token].item(), abs=2 * allowed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_that_are_not_generated_have_the_same_numbers(family: str, dtype: torch.dtype) -> None:
    model = model_in(family, dtype)
    asked = [(name, text) for name in TASKS if name not in GENERATING for text in TEXTS[:4]]
    for (name, text), events in zip(asked, served(model, family, asked), strict=True):
        (answer,) = [event for event in events if isinstance(event, Answer)]
        (alone,) = Reader.of(model, adapter_for(model, family, name)).predict([example(name, text)])
        assert answer.scores == pytest.approx(alone.scores, abs=TOLERANCE[dtype])
        first, second = sorted(alone.scores.values())[-1:-3:-1]
        assert answer.text == alone.text or first - second <= 2 * TOLERANCE[dtype]
