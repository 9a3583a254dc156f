"""The answers of one request: counted, merged, and cancelled together, whatever the engine does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from server.given import model

from foreword.backbone.model_info import ModelInfo
from foreword.errors import CapacityError, DataError
from foreword.server.http_errors import HTTPError
from foreword.server.inflight_requests import ClientDisconnected, InflightRequests, collect, with_cancellation
from foreword.server.preprocessing import EngineRequest
from foreword.server.served_model import Base
from foreword.server.server_state import ServerState
from foreword.serving.engine import Stats, TaskCard
from foreword.serving.request import Done, Event, Failed, Request, Token

Script = dict[str, list[Event | Exception | float]]


class ScriptedEngine:
    """An engine that answers as written: events, errors to raise, seconds to wait."""

    healthy = True

    def __init__(self, script: Script) -> None:
        self.script, self.cancelled = script, list[str]()

    @property
    def info(self) -> ModelInfo:
        return model().info

    async def start(self) -> None: ...
    async def close(self, drain_seconds: float = 0.0) -> None: ...

    async def submit(self, request: Request) -> AsyncIterator[Event]:
        for step in self.script[request.id]:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                yield step

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)

    async def load(self, name: str, *, pinned: bool = False) -> TaskCard:
        raise AssertionError

    async def unload(self, name: str) -> None: ...
    def tasks(self) -> list[TaskCard]:
        return []

    def card(self, name: str) -> TaskCard | None:
        return None

    def stats(self) -> Stats:
        raise AssertionError


def under(script: Script, work: Callable[[ServerState, list[EngineRequest]], Awaitable[Any]]) -> tuple[Any, ServerState, ScriptedEngine]:
    """The result of work on one request for each line of a script; every place is free again afterwards."""
    engine = ScriptedEngine(script)

    async def run() -> tuple[Any, ServerState]:
        state = ServerState(engine, Base.of(engine.info, "base"))
        requests = [EngineRequest(Request(name, None, {"text": "x"}), None, "base", index, 10) for index, name in enumerate(script)]
        result = await work(state, requests)
        assert (state.admission.active, state.admission.waiting_tokens) == (0, 0)
        return result, state

    result, state = asyncio.run(run())
    return result, state, engine


DONE = Done("stop", 1, 1)


def test_answers_are_collected_in_their_order() -> None:
    script: Script = {"a": [0.05, Token("a", 1), DONE], "b": [Token("b", 2), Token("c", 3), DONE]}
    found, _, engine = under(script, collect)
    assert [each.text for each in found] == ["a", "bc"] and engine.cancelled == []


@pytest.mark.parametrize(
    ("step", "status", "sentence"),
    [
        (Failed("request", "no."), 400, "no."),
        (Failed("capacity", "full."), 503, "full."),
        (DataError("too long.", option="truncate"), 400, "too long, or set `truncate` to true."),
        (CapacityError("full."), 503, "full."),
        (ValueError("x"), 500, "The engine failed (ValueError: x)."),
        (Done("cancelled", 0, 0), 503, "The server is stopping; use another one, or try again later."),
    ],
)
def test_one_failure_ends_the_request_and_cancels_the_rest(step: Event | Exception, status: int, sentence: str) -> None:
    async def work(state: ServerState, requests: list[EngineRequest]) -> HTTPError:
        with pytest.raises(HTTPError) as caught:
            await collect(state, requests)
        return caught.value

    found, _, engine = under({"bad": [step], "slow": [Token("x", 1), 30.0, DONE]}, work)
    assert (found.status, found.message) == (status, sentence) and engine.cancelled == ["slow"]


def test_answers_that_may_fail_apart_fail_alone() -> None:
    async def work(state: ServerState, requests: list[EngineRequest]) -> Any:
        return await collect(state, requests, apart=True)

    script: Script = {"bad": [ValueError("x")], "silent": [], "good": [Token("x", 1), DONE]}
    found, _, _ = under(script, work)
    assert [None if each.failed is None else each.failed.kind for each in found] == ["engine", "engine", None] and found[2].text == "x"


def test_closing_before_anything_ran_frees_every_place() -> None:
    async def work(state: ServerState, requests: list[EngineRequest]) -> None:
        inflight = InflightRequests(state, requests)
        assert (state.admission.waiting, state.admission.waiting_tokens) == (2, 20)
        await inflight.close()
        await inflight.close()

    under({"a": [30.0, DONE], "b": [30.0, DONE]}, work)


def test_a_client_that_leaves_cancels_its_work() -> None:
    async def main() -> None:
        async def gone() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def here() -> dict[str, str]:
            await asyncio.sleep(30)
            return {}

        with pytest.raises(ClientDisconnected):
            await with_cancellation(gone, asyncio.sleep(30))
        assert await with_cancellation(here, asyncio.sleep(0, "done")) == "done"

    asyncio.run(main())
