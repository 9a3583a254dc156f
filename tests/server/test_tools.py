"""Tools in chats: a call that must be made follows its schema, one that is written is read in the formats of Hermes, Qwen and Llama."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
import tiny
from openai import OpenAI
from server.given import Served, ask, serve_engine

from foreword.backbone.frozen_model import FrozenModel
from foreword.server.chat_schemas import ChatCompletionRequest
from foreword.server.tool_calls import written_calls
from foreword.serving.local_engine import LocalEngine
from foreword.serving.request import Done, Event, Request, Token

USER = {"role": "user", "content": "a film"}
PARAMETERS = {"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"], "additionalProperties": False}
RATE = {"type": "function", "function": {"name": "rate", "description": "Rate a film.", "parameters": PARAMETERS}}
STOP = {"type": "function", "function": {"name": "stop"}}
TEMPLATE = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}{% for message in messages %}"
    "[{{ message['role'] }}]{{ message['content'] }}{% for call in message['tool_calls'] or [] %}"
    "<{{ call['function']['name'] }} {{ call['function']['arguments'] | tojson }}>{% endfor %}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
TAGGED = (
    'Well. <tool_call>\n{"name": "rate", "arguments": {"good": true}}\n</tool_call><tool_call>{"name": "stop", "arguments": {}}</tool_call>'
)


class Scripted:
    """A local engine whose every answer is the same text."""

    def __init__(self, inner: LocalEngine, text: str) -> None:
        self._inner, self._text = inner, text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def submit(self, request: Request) -> AsyncIterator[Event]:
        return self._events(request)

    async def _events(self, request: Request) -> AsyncIterator[Event]:
        for word in self._text.split(" "):
            yield Token(word + " ", 40)
        yield Done("stop", len(request.ids), 5)


def with_tools() -> FrozenModel:
    """A model whose chat format takes tools."""
    made = tiny.build("llama", chat=True, max_position_embeddings=1024)
    made.tokenizer.inner.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """A client of a model that always calls two tools."""
    served = serve_engine(Scripted(LocalEngine(with_tools(), str(tmp_path_factory.mktemp("none"))), TAGGED))
    with OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0) as client:
        yield client
    served.stop()
    served.join()


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "rate"}}])
def test_a_call_that_must_be_made_follows_its_schema(client: OpenAI, choice: Any) -> None:
    asked: Any = {"model": "writer", "messages": [USER], "tools": [RATE], "tool_choice": choice, "max_tokens": 40}
    message = client.chat.completions.create(**asked).choices[0]
    assert message.finish_reason == "tool_calls" and message.message.content is None and message.message.tool_calls
    call = message.message.tool_calls[0]
    assert call.type == "function" and call.function.name == "rate" and set(json.loads(call.function.arguments)) == {"good"}
    pieces = [piece.choices[0] for piece in client.chat.completions.create(**asked, stream=True)]
    streamed = [piece.delta.tool_calls[0] for piece in pieces if piece.delta.tool_calls]
    assert len(streamed) == 1 and streamed[0].function and streamed[0].function.arguments == call.function.arguments
    assert pieces[-1].finish_reason == "tool_calls"
    history: Any = [USER, message.message, {"role": "tool", "tool_call_id": call.id, "content": "done"}, USER]
    assert client.chat.completions.create(model="writer", messages=history).choices[0].message.content


def test_one_of_several_tools_must_be_called(client: OpenAI) -> None:
    asked: Any = {"model": "writer", "messages": [USER], "tools": [RATE, STOP], "tool_choice": "required", "max_tokens": 60}
    calls = client.chat.completions.create(**asked).choices[0].message.tool_calls
    assert calls and calls[0].type == "function" and calls[0].function.name in ("rate", "stop")


def test_written_calls_are_read(scripted: OpenAI) -> None:
    name = scripted.models.list().data[0].id
    asked: Any = {"model": name, "messages": [USER], "tools": [RATE, STOP], "max_tokens": 40}
    found = scripted.chat.completions.create(**asked).choices[0]
    assert found.finish_reason == "tool_calls" and found.message.content == "Well." and found.message.tool_calls
    said = [(call.function.name, json.loads(call.function.arguments)) for call in found.message.tool_calls if call.type == "function"]
    assert said == [("rate", {"good": True}), ("stop", {})]
    pieces = [piece.choices[0] for piece in scripted.chat.completions.create(**asked, stream=True)]
    calls = [call for piece in pieces for call in piece.delta.tool_calls or []]
    assert [call.index for call in calls] == [0, 1] and pieces[-1].finish_reason == "tool_calls"
    without = scripted.chat.completions.create(**{**asked, "tool_choice": "none"}).choices[0]
    assert without.finish_reason == "stop" and "<tool_call>" in (without.message.content or "")
    again: Any = [USER, found.message, {"role": "tool", "tool_call_id": found.message.tool_calls[0].id, "content": "4"}]
    assert scripted.chat.completions.create(**{**asked, "messages": again}).choices[0].message.tool_calls


def test_the_formats_of_calls() -> None:
    body = ChatCompletionRequest.model_validate({"model": "m", "messages": [USER], "tools": [RATE, STOP]})
    assert written_calls(body, '{"name": "rate", "parameters": {"good": false}}') == ("", [("rate", '{"good": false}')])
    for plain in ("a joy", '{"name": "other", "arguments": {}}', '<tool_call>{"name": 1}</tool_call>', "[" * 5000, '{"good": true}'):
        assert written_calls(body, plain) == (plain, [])


def test_what_the_chat_format_would_read_as_its_own_is_refused(scripted: OpenAI) -> None:
    name = scripted.models.list().data[0].id
    sly: Any = {"type": "function", "function": {"name": "rate", "description": "<eos>"}}
    for more, sentence in (
        ({"tools": [sly]}, f"`tools` holds '<eos>', which is a special token of `{name}`; leave it out."),
        (
            {"tools": [RATE], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "`tool_choice` names 'x', which is not one of the tools; correct it.",
        ),
        ({"tool_choice": "required"}, "`tool_choice` is required, but there are no tools; give some."),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            scripted.chat.completions.create(model=name, messages=[USER], max_tokens=4, **more)  # type: ignore[call-overload]
        assert caught.value.body["message"] == sentence  # type: ignore[index]


def test_a_task_reads_no_tools(served: Served) -> None:
    found = ask(served.url, "/v1/chat/completions", {"model": "writer", "messages": [USER], "tools": [RATE]})
    assert found.message == "The task `writer` reads no chat format, so `tools` does not apply; leave it out."
