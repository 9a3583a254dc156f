"""JSON schemas made to be expensive: each is answered or refused in time, and a neighbour's stream goes on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from server.given import Served, ask, serve

GAP = 3.0  # seconds without a token, in a process that also runs the test; the longest was 0.05 on a quiet machine
ANSWERED = 20.0
NEIGHBOUR = {"model": "long", "prompt": "a film", "temperature": 2.0, "logit_bias": {"2": -100}, "max_tokens": 90, "stream": True}


def nested(depth: int) -> dict[str, Any]:
    """Objects in objects, each with three ways on."""
    found: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        found = {"type": "object", "properties": {"a": found, "b": {"type": "null"}, "c": {"type": "integer"}}}
    return found


def text(pattern: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}, "required": ["a"]}


SCHEMAS: dict[str, dict[str, Any]] = {
    "a remote reference": {"$ref": "http://192.0.2.1/schema.json"},
    "a file": {"$ref": "file:///etc/passwd"},
    "a reference to itself": {"$ref": "#"},
    "references in a circle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "references that double": {
        "$ref": "#/$defs/d0",
        "$defs": {f"d{n}": {"type": "object", "properties": {side: {"$ref": f"#/$defs/d{n + 1}"} for side in "ab"}} for n in range(40)}
        | {"d40": {"type": "null"}},
    },
    "a look-ahead": text("^(?=.*a)(?=.*b).{8,}$"),
    "a look-behind": text("(?<=a)b"),
    "a reference to a group": text("^(a+)\\1$"),
    "repetitions of repetitions": text("^((a{0,1000}){0,1000}){0,1000}$"),
    "a giant repetition": text("^[a-z]{1000000}$"),
    "choices of repetitions": text("^(a|a?)+$|^(a*)*b$|^(.*)(.*)(.*)(.*)c$"),
    "a long text": {"type": "object", "properties": {"a": {"type": "string", "minLength": 10_000_000}}},
    "many items": {"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000},
    "many choices": {"enum": [f"choice {index}" for index in range(3000)]},
    "one of many": {"oneOf": [{"type": "object", "properties": {f"a{index}": {"type": "string"}}} for index in range(300)]},
    "all of many": {"allOf": [{"type": "object", "properties": {f"a{index}": {"minLength": index}}} for index in range(200)]},
    "deep": nested(18),
    "deeper than the limit": nested(400),
    "wide": {"type": "object", "properties": {f"field {index}": {"type": "number"} for index in range(900)}},
}


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    found = serve(folder)
    yield found
    found.stop()
    found.join()


class Neighbour(threading.Thread):
    """Somebody who reads one stream after another, and notes the longest time without a token."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.longest, self.tokens, self.done = url, 0.0, 0, threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            with requests.post(self.url + "/v1/completions", json=NEIGHBOUR, stream=True, timeout=60) as response:
                last = time.monotonic()
                for line in response.iter_lines():
                    if line.startswith(b"data: {"):
                        now = time.monotonic()
                        self.longest, self.tokens, last = max(self.longest, now - last), self.tokens + 1, now


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_neighbours_stream_goes_on(server: Served, name: str) -> None:
    neighbour = Neighbour(server.url)
    neighbour.start()
    try:
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMAS[name]}}
        body = {"model": "writer", "prompt": "x", "max_tokens": 8, "response_format": schema}
        began = time.monotonic()
        found = ask(server.url, "/v1/completions", body)
        seconds = time.monotonic() - began
    finally:
        neighbour.done.set()
        neighbour.join(60)
    assert found.status == 200 or (found.status == 400 and found.message.endswith(".")), found.text
    assert found.status == 200 or not any(word in json.dumps(found.message) for word in ("Traceback", "root:", "panicked"))
    assert seconds < ANSWERED and neighbour.tokens > 0 and neighbour.longest < GAP
