"""OpenAI's Responses API, by its own client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import ResponseCompletedEvent, ResponseIncompleteEvent, ResponseTextDeltaEvent
from server.given import BASE, predicted

from foreword.server.responses import json_text

SCHEMA = {"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"], "additionalProperties": False}


def test_a_text_gets_an_answer(client: OpenAI) -> None:
    found = client.responses.create(model="writer", input="a film", instructions="Be brief.", store=False, truncation="disabled")
    assert found.output_text == predicted("writer", "a film").text and found.usage is not None and found.usage.output_tokens > 0
    assert (found.status == "incomplete") == (found.incomplete_details is not None)
    assert client.responses.create(model="sentiment", input="a film").output_text in ("good", "bad")


def test_a_second_turn_takes_the_answer_to_the_first(client: OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "a film"}]}]
    for name in ("writer", BASE):
        first = client.responses.create(model=name, input=asked, max_output_tokens=8)
        second = [*asked, *first.output, {"role": "user", "content": "and now"}]
        again = client.responses.create(model=name, input=second, max_output_tokens=8)
        chat = client.chat.completions.create(
            model=name,
            max_tokens=8,
            messages=[
                {"role": "user", "content": "a film"},
                {"role": "assistant", "content": first.output_text},
                {"role": "user", "content": "and now"},
            ],
        )
        assert again.output_text == chat.choices[0].message.content


def test_a_stream_is_what_the_client_reads(client: OpenAI) -> None:
    events = list(client.responses.create(model="writer", input="a film", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if isinstance(event, ResponseTextDeltaEvent))
    last = events[-1]
    assert isinstance(last, ResponseCompletedEvent | ResponseIncompleteEvent) and text == last.response.output_text
    assert text.strip() == predicted("writer", "a film").text
    with client.responses.stream(model="writer", input="a film") as stream:
        assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == text


def test_an_answer_follows_a_json_schema(client: OpenAI) -> None:
    wanted: Any = {"format": {"type": "json_schema", "name": "film", "schema": SCHEMA, "strict": True}}
    found = client.responses.create(model="writer", input="x", text=wanted, max_output_tokens=40)
    assert json.loads(found.output_text) in ({"good": True}, {"good": False})


def test_what_is_not_supported_is_refused_by_name(client: OpenAI) -> None:
    for field, value in {"previous_response_id": "resp_1", "tools": [{"type": "web_search"}], "background": True, "include": ["x"]}.items():
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="writer", input="x", extra_body={field: value})
        assert caught.value.body["message"] == f"`{field}` is not supported; leave it out, or see /docs."  # type: ignore[index]
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=BASE, input=[], max_output_tokens=3)


def test_numbers_that_json_does_not_have_become_null() -> None:
    assert json_text({"a": [1.5, float("-inf")], "b": {"c": float("nan")}}) == '{"a":[1.5,null],"b":{"c":null}}'
