"""The input processor: a request that cannot be read is refused in a sentence, whatever it holds."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import tiny
from serving.given import loaded

from foreword.errors import DataError, ForewordError
from foreword.serving.input_processor import InputProcessor
from foreword.serving.request import Event, PromptLogprobs, Request
from foreword.serving.sampling import SamplingParams
from foreword.serving.sequence import Sequence


def opened(request: Request, task: str | None = None) -> Sequence:
    return InputProcessor(tiny.frozen("llama")).sequence(request, None if task is None else loaded("llama", task), list[Event]().append)


@pytest.mark.parametrize(
    ("request_", "error", "sentence"),
    [
        (
            Request("r", None, {}, ids=(1, 999_999)),
            DataError,
            "the text has the token 999999, but the tokens of tiny-llama are from 0 to 319; give those.",
        ),
        (
            Request("r", None, {}, ids=(-1,)),
            DataError,
            "the text has the token -1, but the tokens of tiny-llama are from 0 to 319; give those.",
        ),
        (
            Request("r", None, {"text": "x"}, SamplingParams(logit_bias={320: 1.0})),
            DataError,
            "logit_bias has the token 320, but the tokens of tiny-llama are from 0 to 319; give those.",
        ),
        (
            Request("r", None, {"text": "x"}, SamplingParams(stop_token_ids=(1, 320))),
            DataError,
            "stop_token_ids has the token 320, but the tokens of tiny-llama are from 0 to 319; give those.",
        ),
        (
            Request("r", None, {"text": "a \ud800"}),
            DataError,
            "the column 'text' has half of a character (a lone surrogate) at position 2, which no tokenizer reads; give whole characters.",
        ),
        (
            Request("r", None, {"text": "x"}, SamplingParams(regex="\ud800")),
            DataError,
            "the request cannot be read (UnicodeEncodeError: 'utf-8' codec can't encode character '\\ud800' in position 0: surrogates not allowed); "
            "give plain texts and whole numbers.",
        ),
        (
            Request("r", None, {"text": "x" * 200}),
            DataError,
            "a text needs 265 tokens with its answer, but 128 fit in tiny-llama; shorten it, or ask for fewer tokens.",
        ),
    ],
    ids=["no such id", "negative id", "bias", "stop token", "lone surrogate", "surrogate in a regex", "too long"],
)
def test_what_cannot_be_read_is_refused(request_: Request, error: type[ForewordError], sentence: str) -> None:
    with pytest.raises(error) as caught:
        opened(request_)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("example", [{"input": "a \ud800"}, {"input": "\udfff" * 50}, {"wrong": "x"}, {"input": "x" * 5000}, {}])
def test_an_example_that_a_task_cannot_read_is_refused(example: dict[str, str]) -> None:
    with pytest.raises(ForewordError):
        opened(Request("r", "prefix", example), "prefix")


def test_odd_texts_are_read() -> None:
    for text in ("[" * 2000, "\x00\x01", "\ufffd" * 50, "<bos><eos>{input}{{"):
        assert opened(Request("r", "prefix", {"input": text}, truncate=True), "prefix").num_prompt_tokens > 1


@pytest.mark.parametrize(
    ("max_tokens", "task", "wanted"), [(None, "prefix", 9), (3, "prefix", 3), (0, "prefix", 0), (None, None, 64), (0, None, 0)]
)
def test_the_length_of_an_answer(max_tokens: int | None, task: str | None, wanted: int) -> None:
    params = SamplingParams(max_tokens=max_tokens, prompt_logprobs=None if max_tokens else 0)
    assert opened(Request("r", task, {"text": "x", "input": "x"} if task is None else {"input": "x"}, params), task).max_tokens == wanted


def test_tokens_of_a_compiled_prompt_are_reported_without_a_log_probability() -> None:
    one = opened(Request("r", "leading", {"input": "a film"}, SamplingParams(prompt_logprobs=1)), "leading")
    assert one.prompt_scores is not None
    compiled = loaded("llama", "leading").num_compiled
    found = one.prompt_scores.take()
    assert compiled and isinstance(found, PromptLogprobs)
    assert found.tokens[compiled:] == one.prompt.ids and len(found.tokens) == one.num_prompt_tokens
    assert one.prompt_scores.take() is None and not one.reads_cache


def test_sequences_are_made_in_many_threads_at_once() -> None:
    processor, made, task = InputProcessor(tiny.frozen("llama")), list[Any](), loaded("llama", "prefix")

    def make(number: int) -> None:
        params = SamplingParams(regex="[ab]+") if number % 2 else SamplingParams(temperature=1.0)
        made.append(processor.sequence(Request(str(number), "prefix", {"input": f"text {number}"}, params), task, list[Event]().append))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.request.id for each in made) == [str(number) for number in range(8)]
