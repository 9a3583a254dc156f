"""Chats as clients send them: a second turn with the answer to the first, default values, the messages of frameworks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from server.given import BASE, Served, adapter, ask, predicted, serve

from foreword.server.unsupported_fields import is_empty

CHAT = "/v1/chat/completions"
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "a film"}
# What servers and clients hang on an answer.
LEFTOVERS = {
    "refusal": None,
    "annotations": [],
    "tool_calls": [],
    "function_call": None,
    "audio": None,
    "provider_specific_fields": {"refusal": None, "reasoning_content": None},
    "reasoning_content": None,
    "reasoning": "",
    "parsed": {"good": True},
    "name": None,
}


@pytest.mark.parametrize("name", [BASE, "writer", "sentiment"])
def test_a_second_turn_takes_the_answer_to_the_first(client: OpenAI, name: str) -> None:
    def said(messages: list[Any]) -> Any:
        return (
            client.chat.completions.create(model=name, messages=messages, **({"max_tokens": 8} if name == BASE else {})).choices[0].message
        )

    first, last = said([USER]), {"role": "user", "content": "and now"}
    plain = said([USER, {"role": "assistant", "content": first.content}, last]).content
    assert name == BASE or plain == predicted(name, "and now").text
    for sent in (first, first.to_dict(), first.model_dump(), {**first.model_dump(), **LEFTOVERS}):
        assert said([USER, sent, last]).content == plain
    assert said([USER, {"role": "assistant", "content": None}, last]).content


def test_default_values_are_taken(served: Served) -> None:
    defaults = {
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "functions": None,
        "function_call": "none",
        "modalities": ["text"],
        "logprobs": False,
        "top_logprobs": 0,
        "max_tokens": 4,
        "max_completion_tokens": 4,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "reasoning_effort": "none",
        "verbosity": "medium",
        "n": None,
        "stream": False,
        "user": None,
        "response_format": {"type": "text"},
        "stop": [],
        "seed": None,
    }
    plain = ask(served.url, CHAT, {"model": "writer", "messages": [USER], "max_tokens": 4})
    found = ask(served.url, CHAT, {"model": "writer", "messages": [USER], **defaults})
    assert found.status == plain.status == 200 and found.json["choices"] == plain.json["choices"]
    for field in ("modalities", "reasoning_effort", "audio"):
        refused = ask(served.url, CHAT, {"model": "writer", "messages": [USER], field: "high"})
        assert refused.message == f"`{field}` is not supported; leave it out, or see /docs."


def test_what_is_empty() -> None:
    assert all(map(is_empty, (None, False, "", [], {}, {"a": None, "b": {"c": []}})))
    assert not any(map(is_empty, (0, True, "x", [1], [{}], {"a": {"b": 0}})))


def test_a_system_message_is_not_read_by_default_and_the_log_says_so_once(folder: Path) -> None:
    served = serve(folder)
    try:
        for messages in ([USER], [SYSTEM, USER], [SYSTEM, USER], [{"role": "user", "content": "x"}, {"role": "assistant"}, USER]):
            found = ask(served.url, CHAT, {"model": "writer", "messages": messages}).json
            assert found["choices"][0]["message"]["content"] == predicted("writer", "a film").text
        notes = [line for line in served.lines() if line["event"] == "note"]
        assert [(line["task"], line["message"]) for line in notes] == [
            ("writer", "The task reads a conversation as 'last-user'; other messages, such as the system's, have no effect.")
        ]
    finally:
        served.stop()
        served.join()


def test_a_task_says_how_it_reads_a_conversation(tmp_path: Path) -> None:
    made = adapter("writer")
    for how in ("system-in-front", "whole"):
        replace(made, task={**made.task, "conversation": how}).save(tmp_path / how)
    served = serve(tmp_path)
    messages = [SYSTEM, {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, USER]
    try:
        for how, text in {
            "system-in-front": "Be brief.\n\na film",
            "whole": "system: Be brief.\nuser: x\nassistant: y\nuser: a film",
        }.items():
            found = ask(served.url, CHAT, {"model": how, "messages": messages}).json
            assert found["choices"][0]["message"]["content"] == predicted("writer", text).text
            alone = ask(served.url, CHAT, {"model": how, "messages": [USER]}).json
            assert alone["choices"][0]["message"]["content"] == predicted("writer", "a film").text
            assert ask(served.url, f"/v1/tasks/{how}").json["conversation"] == how
    finally:
        served.stop()
        served.join()
