"""The time of single texts: both sides in turn, the same work on both."""

from __future__ import annotations

import time

import pytest
import tiny
import torch

from foreword.evaluation import latency
from foreword.evaluation.evaluate import Reader
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.seq2seq import Seq2Seq

CPU = torch.device("cpu")


def test_a_ratio_is_taken_text_by_text_in_changing_order(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = 0.0, []

    def side(name: str, seconds: float) -> latency.Answer:
        def answer(text: object) -> None:
            nonlocal now
            asked.append(name)
            now += seconds

        return answer

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    found = latency.added(side("ours", 3.0), side("theirs", 2.0), [{"text": str(i)} for i in range(6)], CPU)
    assert found == {"ratio": 1.5, "low": 1.5, "high": 1.5, "seconds": 3.0, "base_seconds": 2.0, "n": 6}
    assert asked[2 * latency.WARM :] == ["ours", "theirs", "theirs", "ours"] * 3


def test_few_texts_are_answered_several_times_and_many_are_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for texts, pairs in ((1, 4), (100, latency.TEXTS)):
        found = latency.added(lambda text: sum(range(1000)), lambda text: sum(range(1000)), [{"text": "a"}] * texts, CPU)
        assert found["n"] == pairs


def test_a_text_is_written_to_its_first_token_only() -> None:
    assert latency.first_token(Generate(max_new_tokens=64)).to_dict()["max_new_tokens"] == 1
    assert latency.first_token(Seq2Seq()).to_dict()["max_new_tokens"] == 1
    task = Classify(("a", "b"))
    assert latency.first_token(task) is task


def test_the_frozen_model_reads_the_written_prompt() -> None:
    found = latency.bare(tiny.frozen("llama"), None, Generate("{input} {answer}"), 16)
    assert isinstance(found, Reader)
    assert (found.adapter_state.tokens, found.adapter_state.head, found.length_budget.max_tokens) == (None, None, 16)
    assert found.predict([{"input": "a joy"}])[0].text is not None
