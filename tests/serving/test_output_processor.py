"""The output processor: each sequence ends once and for its own reason, whatever the others do."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from serving.given import loaded

from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.input_processor import InputProcessor
from foreword.serving.output_processor import process_logits, process_prompt_logits
from foreword.serving.request import END, Done, Event, Failed, PromptLogprobs, Request, Token
from foreword.serving.sampling import SamplingParams
from foreword.serving.sequence import Sequence

V = 320


def sequence(events: list[Event], text: str = "a film", **params: Any) -> Sequence:
    return InputProcessor(tiny.frozen("llama")).sequence(Request("r", None, {"text": text}, SamplingParams(**params)), None, events.append)


def scores(*likely: int) -> torch.Tensor:
    """Logits [B, V] whose likeliest tokens are given."""
    made = torch.zeros(len(likely), V)
    made[range(len(likely)), list(likely)] = 9.0
    return made


def test_a_fault_in_one_sequence_ends_it_alone_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[list[Event]] = [[] for _ in range(5)]
    good, broken, grammar, lost, drawn = (
        sequence(events[0]),
        sequence(events[1]),
        sequence(events[2], regex="a+"),
        sequence(events[3]),
        sequence(events[4], temperature=1.0, seed=1),
    )
    monkeypatch.setattr(broken.detokenizer, "update", lambda *_, **__: 1 / 0)
    assert grammar.sampling.grammar is not None
    monkeypatch.setattr(grammar.sampling.grammar, "allowed_tokens", lambda: 1 / 0)
    logits = scores(40, 41, 42, 43, 44)
    logits[3] = torch.nan
    assert process_logits([good, broken, grammar, lost, drawn], logits) == [broken, grammar, lost]
    assert [type(event) for event in events[0]] == [Token] and [type(event) for event in events[4]] == [Token]
    fault = Failed("engine", "the step failed (ZeroDivisionError: division by zero).")
    assert events[1] == [fault] and events[2] == [fault]
    assert events[3] == [
        Failed("engine", "the model's logits are not finite numbers, so no token can be chosen; look at its adapter and its precision.")
    ]
    assert process_logits([good], scores(tiny.EOS)) == [good]
    assert events[0][-1] == Done("stop", good.num_prompt_tokens, 1) and sum(isinstance(event, END) for event in events[0]) == 1


def test_a_fault_of_the_device_ends_all() -> None:
    events: list[Event] = []
    both = [sequence(events), sequence(events)]
    assert process_logits(both, torch.zeros(2, 0)) == both
    assert [type(event) for event in events] == [Failed, Failed]


def tokens_of(events: list[Event]) -> list[int]:
    return [event.token for event in events if isinstance(event, Token) and event.text]


def test_the_end_of_sequence_token_and_stop_tokens() -> None:
    cases: list[tuple[dict[str, Any], list[int], list[int], str]] = [
        ({}, [40, tiny.EOS], [40], "stop"),
        ({"stop_token_ids": (41,)}, [40, 41], [40], "stop"),
        ({"ignore_eos": True, "max_tokens": 3}, [40, tiny.EOS, 41], [40, 41], "length"),
        ({"min_tokens": 2}, [40, tiny.EOS, tiny.EOS], [40], "stop"),
    ]
    for params, likely, wanted, reason in cases:
        events: list[Event] = []
        one = sequence(events, **params)
        ended = [bool(process_logits([one], scores(token))) for token in likely]
        assert ended == [False] * (len(likely) - 1) + [True]
        assert tokens_of(events)[: len(wanted)] == wanted
        assert isinstance(events[-1], Done) and events[-1].reason == reason


def test_special_tokens_are_text_only_where_they_are_asked_for() -> None:
    for skip, text in ((True, ""), (False, "<eos>")):
        events: list[Event] = []
        one = sequence(events, ignore_eos=True, max_tokens=1, skip_special_tokens=skip)
        assert process_logits([one], scores(tiny.EOS)) == [one]
        assert "".join(event.text for event in events if isinstance(event, Token)) == text


def test_log_probabilities_of_a_text_come_first_and_once() -> None:
    events: list[Event] = []
    one = sequence(events, "a joy to watch", prompt_logprobs=2, max_tokens=2)
    ids = one.prompt.ids
    logits = 3 * torch.randn(len(ids), V, generator=torch.Generator().manual_seed(0))
    process_prompt_logits(one, logits[:2], 0)  # after the first two tokens
    process_prompt_logits(one, logits[2:], 2)
    assert events == [] and process_logits([one], scores(40)) == []
    process_prompt_logits(one, logits + 1, 0)  # again, after a preemption
    assert process_logits([one], scores(41)) == [one]
    assert [type(event) for event in events] == [PromptLogprobs, Token, Token, Done]
    found = events[0]
    assert isinstance(found, PromptLogprobs) and found.tokens == ids
    assert found.logprobs[0] is None and found.top[0] == {}
    wanted = logits.log_softmax(-1)
    for place in range(1, len(ids)):
        assert found.logprobs[place] == pytest.approx(float(wanted[place - 1, ids[place]]), abs=1e-5)
        best = wanted[place - 1].topk(2)
        assert list(found.top[place]) == best.indices.tolist()
        assert list(found.top[place].values()) == pytest.approx(best.values.tolist(), abs=1e-5)


def test_no_token_at_all_can_be_asked_for() -> None:
    events: list[Event] = []
    one = sequence(events, prompt_logprobs=0, max_tokens=0)
    assert process_logits([one], scores(40)) == [one]
    assert [type(event) for event in events] == [PromptLogprobs, Done]
    assert events[-1] == Done("length", one.num_prompt_tokens, 0)


def test_soft_tokens_inside_a_text_have_no_log_probability() -> None:
    events: list[Event] = []
    asked = Request("r", "suffix", {"input": "a"}, SamplingParams(prompt_logprobs=0))
    one = InputProcessor(tiny.frozen("llama")).sequence(asked, loaded("llama", "suffix"), events.append)
    ids, at = one.prompt.ids, one.prompt.at
    assert at and len(set(at)) == 1 and 1 < at[0] < len(ids)
    logits = 3 * torch.randn(len(ids) + len(at), V, generator=torch.Generator().manual_seed(0))
    process_prompt_logits(one, logits, 0)
    process_logits([one], scores(40))
    before = [place - 1 if place < at[0] else place - 1 + len(at) for place in range(len(ids))]  # the input before each token
    found = events[0]
    assert isinstance(found, PromptLogprobs) and found.tokens == ids and found.logprobs[0] is None
    wanted = logits.log_softmax(-1)
    assert found.logprobs[1:] == pytest.approx([float(wanted[before[place], ids[place]]) for place in range(1, len(ids))], abs=1e-5)


@pytest.mark.parametrize("task", [None, "prefix", "suffix", "leading"])
def test_an_engine_scores_texts_as_the_model_does(task: str | None) -> None:
    model = tiny.frozen("llama")
    core, events = EngineCore(model), list[list[Event]]()
    if task is not None:
        core.install(loaded("llama", task))
    texts = ["a joy to watch", "a film that goes on and on", "a joy to watch"]  # the last would be known from the first
    for number, text in enumerate(texts):
        for asked in (SamplingParams(prompt_logprobs=1, max_tokens=0), SamplingParams(max_tokens=3)):
            events.append([])
            given = {"text": text} if task is None else {"input": text}
            core.add(Request(f"{number} {asked.max_tokens}", task, given, asked), task and AdapterKey(task, "1"), events[-1].append)
    while core.has_work:
        core.step()
    core.check()
    for text, found, other in zip(texts, events[::2], events[1::2], strict=True):
        assert [type(event) for event in found] == [PromptLogprobs, Done] and not any(isinstance(event, PromptLogprobs) for event in other)
        scores = found[0]
        assert isinstance(scores, PromptLogprobs)
        if task is not None:  # behind a prompt
            assert scores.tokens[-1:] and None not in scores.logprobs[-3:]
            continue
        with torch.inference_mode():
            wanted = model.network(input_ids=torch.tensor([scores.tokens])).logits[0].log_softmax(-1)
        assert scores.tokens == (tiny.BOS, *model.tokenizer.encode(text))
        assert scores.logprobs[1:] == pytest.approx([float(wanted[i, token]) for i, token in enumerate(scores.tokens[1:])], abs=1e-4)
        assert [max(top.values()) for top in scores.top[1:]] == pytest.approx(wanted[:-1].amax(-1).tolist(), abs=1e-4)
