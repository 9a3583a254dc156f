"""vLLM's fields of a request do here what they do there."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from server.given import BASE, Served, ask, model

LETTERS = "[ab]{3}"


def complete(served: Served, **fields: Any) -> Any:
    return ask(served.url, "/v1/completions", {"model": "writer", "prompt": "a film", **fields})


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": LETTERS}, LETTERS),
        ({"structured_outputs": {"regex": LETTERS}}, LETTERS),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
        ({"guided_grammar": 'start: "x" "y"'}, "xy"),
        ({"guided_json": {"const": 7}}, "7"),
        ({"guided_json": '{"const": 7}'}, "7"),
        ({"structured_outputs": {"json": {"const": 7}}}, "7"),
    ],
)
def test_an_answer_follows_a_structure(served: Served, fields: dict[str, Any], pattern: str) -> None:
    found = complete(served, max_tokens=20, **fields)
    assert found.status == 200 and re.fullmatch(pattern, found.json["choices"][0]["text"])


def test_an_answer_is_any_object(served: Served) -> None:
    found = complete(served, max_tokens=60, structured_outputs={"json_object": True}, logit_bias={})
    text = found.json["choices"][0]["text"]
    assert text.startswith("{") and (found.json["choices"][0]["finish_reason"] == "length" or isinstance(json.loads(text), dict))


def test_what_ends_an_answer(served: Served) -> None:
    eos, whole = model().tokenizer.eos, complete(served, max_tokens=6, logprobs=0).json["choices"][0]
    first = model().tokenizer.encode(whole["logprobs"]["tokens"][0])[0]
    always = {"logit_bias": {str(eos): 100}}
    assert complete(served, max_tokens=6, **always).json["usage"]["completion_tokens"] == 0
    assert complete(served, max_tokens=6, ignore_eos=True, **always).json["usage"]["completion_tokens"] == 6
    assert complete(served, max_tokens=6, min_tokens=3, **always).json["usage"]["completion_tokens"] >= 3
    stopped = complete(served, max_tokens=6, stop_token_ids=[first], logit_bias={str(first): 100}).json["choices"][0]
    assert stopped["finish_reason"] == "stop" and stopped["text"] == ""


def test_penalties_forbid_what_was_said(served: Served) -> None:
    token = {"logit_bias": {"40": 50}}
    said = complete(served, max_tokens=6, **token).json["choices"][0]["text"]
    penalised = complete(served, max_tokens=6, presence_penalty=2.0, frequency_penalty=2.0, **token).json["choices"][0]["text"]
    assert (
        len(set(said)) == 1
        and complete(served, max_tokens=6, presence_penalty=0, frequency_penalty=0.0, **token).json["choices"][0]["text"] == said
    )
    assert isinstance(penalised, str)


def test_the_chat_format_goes_on_with_the_last_message(served: Served) -> None:
    messages = [{"role": "user", "content": "a film"}, {"role": "assistant", "content": "It is "}]
    body = {"model": BASE, "messages": messages, "max_tokens": 6}
    found = ask(served.url, "/v1/chat/completions", {**body, "continue_final_message": True, "add_generation_prompt": False}).json
    ids = ask(served.url, "/tokenize", {"model": BASE, "messages": messages, "continue_final_message": True}).json["tokens"]
    same = ask(served.url, "/v1/completions", {"model": BASE, "prompt": ids, "max_tokens": 6}).json
    assert found["choices"][0]["message"]["content"] == same["choices"][0]["text"]
    both = ask(served.url, "/v1/chat/completions", {**body, "continue_final_message": True, "add_generation_prompt": True})
    assert both.message == "`add_generation_prompt` and `continue_final_message` are both true; give one of them."
    users = ask(served.url, "/v1/chat/completions", {**body, "messages": messages[:1], "continue_final_message": True})
    assert users.message == "`continue_final_message` needs a last message of role assistant, but its role is user; leave it out."
    assert ask(served.url, "/v1/chat/completions", {**body, "chat_template_kwargs": {"enable_thinking": False}}).status == 200
