"""Sampling parameters: what cannot give a distribution is refused before anything runs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from foreword.errors import UsageError
from foreword.serving.sampling import SamplingParams


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"max_tokens": 0}, "max_tokens is 0, but it must be at least 1."),
        ({"max_tokens": -1, "prompt_logprobs": 0}, "max_tokens is -1, but it must be at least 0."),
        ({"temperature": -1.0}, "temperature is -1.0, but it must be from 0 (greedy) to 10."),
        ({"temperature": math.nan}, "temperature is nan, but it must be from 0 (greedy) to 10."),
        ({"temperature": 1e-40}, "temperature is 1e-40, but it must be 0 (greedy), or from 1e-10 to 10."),
        ({"temperature": 1e-39}, "temperature is 1e-39, but it must be 0 (greedy), or from 1e-10 to 10."),
        ({"top_p": 0.0}, "top_p is 0.0, but it must be above 0 and at most 1."),
        ({"top_k": -1}, "top_k is -1, but it must be at least 0 (0 leaves it out)."),
        ({"min_p": 2.0}, "min_p is 2.0, but it must be from 0 to 1."),
        ({"min_p": math.nan}, "min_p is nan, but it must be from 0 to 1."),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0, but it must be from 0.01 to 10."),
        ({"repetition_penalty": 1e-300}, "repetition_penalty is 1e-300, but it must be from 0.01 to 10."),
        ({"repetition_penalty": math.inf}, "repetition_penalty is inf, but it must be from 0.01 to 10."),
        ({"frequency_penalty": 2.5}, "frequency_penalty is 2.5, but it must be from -2 to 2."),
        ({"presence_penalty": math.nan}, "presence_penalty is nan, but it must be from -2 to 2."),
        ({"logprobs": 21}, "logprobs is 21, but it must be from 0 to 20."),
        ({"prompt_logprobs": 21}, "prompt_logprobs is 21, but it must be from 0 to 20."),
        ({"min_tokens": -1}, "min_tokens is -1, but it must be at least 0."),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens is 5, but it must be from 0 to max_tokens, which is 4."),
        ({"stop_token_ids": (-1,)}, "stop_token_ids is [-1], but it must be at most 128 token ids."),
        ({"stop": ("",)}, "stop is [''], but it must be at most 16 strings, none of them empty."),
        ({"logit_bias": {1: 101.0}}, "logit_bias is {1: 101.0}, but it must be numbers from -100 to 100."),
        ({"logit_bias": {1: math.nan}}, "logit_bias is {1: nan}, but it must be numbers from -100 to 100."),
        ({"logit_bias": {-1: 1.0}}, "logit_bias is {-1: 1.0}, but it must be a number for each of some token ids."),
        ({"regex": "a", "choice": ("a",)}, "regex and choice came together, but an answer follows only one of them; leave out the others."),
        ({"regex": "a", "min_tokens": 2}, "min_tokens is 2, but an answer by a regex is as long as it says; leave out min_tokens."),
        ({"choice": ()}, "choice is [], but it must be a list of texts, none of them empty."),
        ({"grammar": "a" * 65537}, "grammar has 65537 characters, but at most 65536 are allowed; simplify it."),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        SamplingParams(**wrong)
    assert str(caught.value) == sentence


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(UsageError) as caught:
        SamplingParams(stop=("a" * 10_000,) * 20)
    assert len(str(caught.value)) < 300


def test_only_what_needs_more_than_the_likeliest_token_is_processed() -> None:
    assert all(each.greedy for each in (SamplingParams(), SamplingParams(seed=1, ignore_eos=True, prompt_logprobs=1, stop_token_ids=(1,))))
    asked = [{"temperature": 1.0}, {"logprobs": 0}, {"min_tokens": 1}, {"regex": "a"}, {"presence_penalty": 0.1}, {"logit_bias": {1: 1.0}}]
    assert not any(SamplingParams(**given).greedy for given in asked)
