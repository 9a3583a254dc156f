"""Structured output: answers follow what is asked for, and what is no structure, or too expensive a one, is refused in a bounded time."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from typing import Any

import pytest
import tiny
from serving.given import loaded

from foreword.errors import UsageError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.request import Done, Event, Failed, Request, Token
from foreword.serving.sampling import SamplingParams
from foreword.serving.structured_output import Grammar, StructuredOutputManager

SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["mood", "stars"],
    "additionalProperties": False,
}


def submit(sampling: SamplingParams) -> list[Event]:
    core, events = EngineCore(tiny.frozen("llama")), list[Event]()
    core.install(loaded("llama", "prefix"))
    core.add(Request("r", "prefix", {"input": "a film"}, sampling), AdapterKey("prefix", "1"), events.append)
    while core.has_work:
        core.step()
    return events


def text_of(events: list[Event]) -> str:
    assert isinstance(events[-1], Done) and events[-1].reason == "stop", events[-1]
    return "".join(event.text for event in events if isinstance(event, Token))


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_answers_follow_a_schema(temperature: float) -> None:
    for seed in range(4):
        found = json.loads(
            text_of(submit(SamplingParams(json_schema=json.dumps(SCHEMA), temperature=temperature, seed=seed, max_tokens=60)))
        )
        assert set(found) == {"mood", "stars"} and found["mood"] in ("good", "bad") and 1 <= found["stars"] <= 5


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_answers_follow_an_expression_a_choice_and_a_grammar(temperature: float) -> None:
    for seed in range(3):
        given: dict[str, Any] = {"temperature": temperature, "seed": seed, "max_tokens": 60}
        assert re.fullmatch(r"\d{4}-\d\d", text_of(submit(SamplingParams(regex=r"[0-9]{4}-[0-9]{2}", **given))))
        choice = ("a (b|c)*", "x\\y", "é 😀")
        assert text_of(submit(SamplingParams(choice=choice, **given))) in choice
        assert re.fullmatch(
            "<[ab]{3}>", text_of(submit(SamplingParams(grammar='start: "<" letter letter letter ">"\nletter: "a" | "b"', **given)))
        )


def manager() -> StructuredOutputManager:
    return StructuredOutputManager(tiny.frozen("llama").info)


def test_any_answer_may_follow_where_nothing_is_asked() -> None:
    assert manager().grammar(SamplingParams()) is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"json_schema": '{"type": "blah"}'}, "json_schema cannot be followed (Invalid type: blah); simplify the schema."),
        ({"json_schema": "{"}, "json_schema is not valid JSON (EOF while parsing an object at line 1 column 1); give a JSON schema."),
        (
            {"json_schema": '{"$ref": "file:///etc/passwd"}'},
            "json_schema cannot be followed (Resource 'file:///etc/passwd' is not present in a registry and retrieving it failed: "
            "Default retriever does not fetch resources); simplify the schema.",
        ),
        (
            {"json_schema": '{"$ref": "http://127.0.0.1:9/x.json"}'},
            "json_schema cannot be followed (Resource 'http://127.0.0.1:9/x.json' is not present in a registry and retrieving it failed: "
            "Default retriever does not fetch resources); simplify the schema.",
        ),
        (
            {"json_schema": '{"type": "string", "pattern": "(?=a)b"}'},
            "json_schema cannot be followed (regex parse error: (?=a)b ^^^ error: look-around, including look-ahead and look-behind, is not supported); "
            "simplify the schema.",
        ),
        (
            {"json_schema": '{"type": "integer", "multipleOf": 99999999}'},
            "json_schema takes too long to compile; simplify the schema.",
        ),
        ({"grammar": "start: A\nA: ~/.*(a.{30}).*/ & /(.*b.{20}){3}/"}, "grammar takes too long to compile; simplify the grammar."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_followed_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        manager().grammar(SamplingParams(**given))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "given",
    [
        {"regex": "("},
        {"regex": "(?<=a)b"},
        {"regex": "(" * 20_000 + ")" * 20_000},
        {"grammar": "start"},
        {"grammar": '%import "/etc/passwd"\nstart: "a"'},
        {"grammar": 'start: %json {"$ref": "file:///etc/passwd"}'},
        {"grammar": "start: " + "(" * 20_000 + '"a"' + ")" * 20_000},
        {"json_schema": '{"not":' * 5000 + "{}" + "}" * 5000},
    ],
    ids=lambda given: str(given)[:40],
)
def test_more_that_cannot_be_followed_is_refused_in_a_short_sentence(given: dict[str, Any]) -> None:
    (failed,) = submit(SamplingParams(**given))
    assert isinstance(failed, Failed) and failed.kind == "request" and len(failed.message) < 450


@pytest.mark.parametrize(
    "given",
    [
        {"regex": "a{100000}"},
        {"regex": "(a{1000}){1000}"},
        {"regex": "(a|b)*a(a|b){200}"},
        {"grammar": 'start: "a"{1000000}'},
        {"grammar": 'start: a a a a a a a a a a\na: "a" | "aa" | a a | '},
        {"json_schema": '{"type": "string", "pattern": "(a{1,100000}){1,100000}"}'},
        {"json_schema": '{"type": "array", "minItems": 1000000, "items": {"type": "integer"}}'},
        {"json_schema": json.dumps({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1000)}})},
    ],
    ids=lambda given: str(given)[:50],
)
def test_what_grows_without_bounds_fails_or_is_followed_step_by_step(given: dict[str, Any]) -> None:
    grammar = manager().grammar(SamplingParams(**given))
    assert grammar is not None
    try:
        for _ in range(20):
            if grammar.terminated:
                break
            begin = time.perf_counter()
            token = int(grammar.allowed_tokens().nonzero()[0])
            assert time.perf_counter() - begin < 5
            grammar.accept_token(token)
    except UsageError as error:
        assert str(error).startswith("the answer cannot follow its structure any longer (")


def test_a_token_that_is_not_allowed_is_an_error() -> None:
    grammar = manager().grammar(SamplingParams(regex="a"))
    assert grammar is not None
    with pytest.raises(UsageError):
        grammar.accept_token(int((~grammar.allowed_tokens()).nonzero()[0]))


def test_grammars_are_made_in_many_threads_at_once() -> None:
    shared, made = manager(), list[Grammar | None]()
    threads = [
        threading.Thread(target=lambda number=number: made.append(shared.grammar(SamplingParams(regex=f"a{number}"))))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and all(made)


def test_a_grammar_is_compiled_once_and_each_answer_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, params = manager(), SamplingParams(regex="ab")
    shared.prepare(params).result()
    shared.prepare(SamplingParams()).result()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: 1 / 0)
    for _ in range(2):
        grammar = shared.grammar(params)
        assert grammar is not None
        while not grammar.terminated:
            grammar.accept_token(int(grammar.allowed_tokens().nonzero()[0]))


def test_a_mistake_is_remembered_too() -> None:
    shared, params = manager(), SamplingParams(json_schema='{"type": "integer", "multipleOf": 99999999}')
    shared.prepare(params).result()
    begin = time.perf_counter()
    for _ in range(2):
        with pytest.raises(UsageError, match="takes too long to compile"):
            shared.grammar(params)
    assert time.perf_counter() - begin < 1
