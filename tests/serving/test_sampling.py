"""How tokens are chosen: as transformers' processors allow them, as often as their share, and by a schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.given import loaded
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from foreword.errors import UsageError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.request import Done, Event, Failed, Request, Token
from foreword.serving.sampling import Sampler, SamplingParams

V = 12
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["mood", "stars"],
    "additionalProperties": False,
}


def logits(seed: int) -> torch.Tensor:
    return 2 * torch.randn(V, generator=torch.Generator().manual_seed(seed))


def allowed(processor: LogitsProcessor, scores: torch.Tensor, seen: list[int]) -> set[int]:
    """Tokens that transformers leaves possible."""
    found = processor(torch.tensor([seen]), scores[None].clone())  # type: ignore[arg-type]
    return set(found[0].isfinite().nonzero().flatten().tolist())


@pytest.mark.parametrize(
    ("settings_", "processor"),
    [({"top_k": 3}, TopKLogitsWarper(3)), ({"top_p": 0.7}, TopPLogitsWarper(0.7)), ({"min_p": 0.2}, MinPLogitsWarper(0.2))],
    ids=["top_k", "top_p", "min_p"],
)
def test_draws_are_among_those_that_transformers_allows(settings_: dict[str, Any], processor: LogitsProcessor) -> None:
    for seed in range(8):
        scores = logits(seed)
        drawn = {Sampler(SamplingParams(temperature=1.0, seed=i, **settings_), []).sample(scores)[0] for i in range(150)}
        possible = allowed(processor, scores, [0])
        assert drawn <= possible
        likely = {token for token in possible if scores.softmax(0)[token] / scores.softmax(0)[sorted(possible)].sum() > 0.08}
        assert likely <= drawn


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 10_000), seen=st.lists(st.integers(0, V - 1), min_size=1), penalty=st.floats(0.5, 3.0))
def test_the_penalty_is_that_of_transformers(seed: int, seen: list[int], penalty: float) -> None:
    scores = logits(seed)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), scores[None].clone())[0]  # type: ignore[arg-type]
    token, logprob, top = Sampler(SamplingParams(repetition_penalty=penalty, logprobs=V), seen).sample(scores)
    assert token == int(theirs.argmax()) and logprob == pytest.approx(float(theirs.log_softmax(0).max()), abs=1e-5)
    assert [top[i] for i in range(V)] == pytest.approx(theirs.log_softmax(0).tolist(), abs=1e-5)


def test_draws_come_as_often_as_their_share_and_again_with_the_same_seed() -> None:
    scores = torch.tensor([0.6, 0.3, 0.1]).log()
    sampler = Sampler(SamplingParams(temperature=1.0, seed=3), [])
    drawn = [sampler.sample(scores)[0] for _ in range(4000)]
    assert [drawn.count(i) / 4000 for i in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    again = Sampler(SamplingParams(temperature=1.0, seed=3), [])
    assert [again.sample(scores)[0] for _ in range(50)] == drawn[:50]
    cold = Sampler(SamplingParams(temperature=0.05, seed=3), [])
    assert {cold.sample(scores)[0] for _ in range(50)} == {0}


def test_biases_move_and_forbid() -> None:
    assert Sampler(SamplingParams(logit_bias={5: 100}), []).sample(logits(0))[0] == 5
    best = int(logits(0).argmax())
    assert Sampler(SamplingParams(logit_bias={best: -100}), []).sample(logits(0))[0] != best
    with pytest.raises(UsageError) as caught:
        Sampler(SamplingParams(logit_bias={V: 1}), []).sample(logits(0))
    assert str(caught.value) == "logit_bias names token 12, but the vocabulary has 12 tokens; give ids below that."


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"max_tokens": 0}, "max_tokens is 0, but it must be at least 1."),
        ({"temperature": -1.0}, "temperature is -1.0, but it must be from 0 (greedy) to 10."),
        ({"top_p": 0.0}, "top_p is 0.0, but it must be above 0 and at most 1."),
        ({"top_k": -1}, "top_k is -1, but it must be at least 0 (0 leaves it out)."),
        ({"min_p": 2.0}, "min_p is 2.0, but it must be from 0 to 1."),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0, but it must be above 0 and at most 10."),
        ({"logprobs": 21}, "logprobs is 21, but it must be from 0 to 20."),
        ({"stop": ("",)}, "stop is [''], but it must be at most 16 strings, none of them empty."),
        ({"logit_bias": {1: 101.0}}, "logit_bias is {1: 101.0}, but it must be numbers from -100 to 100."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        SamplingParams(**wrong)
    assert str(caught.value) == sentence


def submit(sampling: SamplingParams) -> list[Event]:
    core, events = EngineCore(tiny.frozen("llama")), list[Event]()
    core.install(loaded("llama", "prefix"))
    core.add(Request("r", "prefix", {"input": "a film"}, sampling), AdapterKey("prefix", "1"), events.append)
    while core.has_work:
        core.step()
    return events


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_answers_follow_a_schema(temperature: float) -> None:
    for seed in range(4):
        events = submit(SamplingParams(json_schema=json.dumps(SCHEMA), temperature=temperature, seed=seed, max_tokens=60))
        found = json.loads("".join(event.text for event in events if isinstance(event, Token)))
        assert set(found) == {"mood", "stars"} and found["mood"] in ("good", "bad") and 1 <= found["stars"] <= 5
        assert isinstance(events[-1], Done) and events[-1].reason == "stop"


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ('{"type": "blah"}', "json_schema is not supported (Invalid type: blah); simplify the schema."),
        ("{", "json_schema is not valid JSON (EOF while parsing an object at line 1 column 1); give a JSON schema."),
    ],
)
def test_what_is_no_schema_is_refused(schema: str, sentence: str) -> None:
    assert submit(SamplingParams(json_schema=schema)) == [Failed("request", sentence)]
