"""The middleware by itself, around an application of a few lines: bodies, ids, faults, callers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from server.given import model
from starlette.types import Message, Receive, Scope, Send

from foreword.server.admission import Limits
from foreword.server.auth import Caller, Keys, hash_key
from foreword.server.middleware import CONTEXT, RequestMiddleware, path_of
from foreword.server.request_log import Log
from foreword.server.served_model import Base
from foreword.server.server_state import ServerState
from foreword.serving.local_engine import LocalEngine

KEYS = Keys({hash_key("all"): Caller("a"), hash_key("one"): Caller("b", frozenset({"writer"}))})


class App:
    """An application that notes what it got, or raises."""

    def __init__(self, error: Exception | None = None, *, begins: bool = False) -> None:
        self.error, self.begins, self.bodies, self.scopes = error, begins, list[bytes](), list[Scope]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.bodies.append((await receive())["body"])
        if self.error is None or self.begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"whole"})
        if self.error is not None:
            raise self.error


def asked(
    app: App, parts: Sequence[bytes], *, limits: Limits | None = None, keys: Keys | None = None, **scope: Any
) -> tuple[list[Any], list[Any]]:
    """What a request leads to: the messages of its response, and the lines of the log."""
    lines, sent = list[str](), list[Message]()
    state = ServerState(
        LocalEngine(model(), str(Path(__file__).parent)), Base.of(model().info), keys=keys, limits=limits, log=Log(lines.append)
    )
    messages = [{"type": "http.request", "body": part, "more_body": index + 1 < len(parts)} for index, part in enumerate(parts)]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], **scope}
    asyncio.run(RequestMiddleware(app, state)(whole, receive, send))
    return sent, [json.loads(line) for line in lines]


def said(sent: list[Any]) -> tuple[int, str]:
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]["message"]


def test_a_body_in_parts_comes_whole() -> None:
    app = App()
    sent, lines = asked(app, [b"ab", b"", b"c"], headers=[(b"x-request-id", b"mine-1")])
    assert app.bodies == [b"abc"] and app.scopes[0][CONTEXT].num_bytes == 3
    assert sent[0]["headers"] == [(b"x-request-id", b"mine-1")] and sent[1]["body"] == b"whole"
    assert [(line["event"], line["id"], line["status"]) for line in lines] == [("request", "mine-1", 200)]


def test_a_body_that_ends_early_or_is_too_large_never_reaches_the_application() -> None:
    app = App()
    assert said(asked(app, [])[0]) == (400, "The body ended early; send all of it.")
    limits = Limits(body_bytes=3)
    large = (413, "The body has more than the 3 bytes that are allowed; send less.")
    assert said(asked(app, [b"ab", b"cd"], limits=limits)[0]) == large
    assert said(asked(app, [b"abcd"], limits=limits, headers=[(b"content-length", b"4")])[0]) == large
    assert said(asked(app, [], limits=limits, headers=[(b"content-length", b"4"), (b"expect", b"100-continue")])[0]) == large
    assert app.bodies == []


def test_a_fault_is_one_response_and_a_line_in_the_log() -> None:
    sent, lines = asked(App(KeyError("x")), [b""], headers=[(b"x-request-id", b"mine-2")])
    assert said(sent) == (500, "The server failed (KeyError); see the id mine-2 in its log.")
    assert [line["event"] for line in lines] == ["fault", "request"] and lines[0]["error"] == "KeyError: 'x'"
    begun, _ = asked(App(KeyError("x"), begins=True), [b""])
    assert [message["type"] for message in begun] == ["http.response.start", "http.response.body"]


def test_head_is_handled_as_get_and_has_no_body() -> None:
    app = App()
    sent, lines = asked(app, [b""], method="HEAD", path="/v1/models")
    assert app.scopes[0]["method"] == "GET" and [message.get("body") for message in sent] == [None, b""] and lines[0]["method"] == "HEAD"


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [("/v1/models", "all", 200), ("/v1/models", "no", 401), ("/health", "no", 200), ("/metrics", "one", 401), ("/metrics", "all", 200)],
)
@pytest.mark.parametrize("prefix", ["", "/llm"])
def test_who_may_ask_for_what(path: str, key: str, status: int, prefix: str) -> None:
    headers = [(b"authorization", f"Bearer {key}".encode())]
    sent, _ = asked(App(), [b""], keys=KEYS, method="GET", path=prefix + path, root_path=prefix, headers=headers)
    assert sent[0]["status"] == status


def test_paths_without_their_prefix() -> None:
    found = {path: path_of({"path": path, "root_path": "/llm"}) for path in ("/llm/v1", "/v1", "/llmv1", "/llm")}
    assert found == {"/llm/v1": "/v1", "/v1": "/v1", "/llmv1": "/llmv1", "/llm": "/llm"} and path_of({"path": "/v1"}) == "/v1"
