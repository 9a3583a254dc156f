"""The answers of one running HTTP request: their events are merged, and all are cancelled when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, final

from foreword.errors import CapacityError, ForewordError
from foreword.server.http_errors import RETRY_AFTER, HTTPError, error_of_failed
from foreword.server.metrics import RequestTimer
from foreword.server.preprocessing import EngineRequest
from foreword.server.server_state import ServerState
from foreword.serving.request import END, Answer, Done, Event, Failed, PromptLogprobs, Token

Result = TypeVar("Result")
STOPPING = Failed("capacity", "The server is stopping; use another one, or try again later.")


class ClientDisconnected(Exception):
    """The client has disconnected."""


@final
class InflightRequests:
    """Starts at construction; `close` cancels what is still running and may be called repeatedly at any time."""

    def __init__(self, state: ServerState, engine_requests: Sequence[EngineRequest]) -> None:
        state.admission.admit(len(engine_requests), sum(ask.tokens for ask in engine_requests))
        self._state, self._queue = state, asyncio.Queue[tuple[int, Event]]()
        self._open, self._asks = len(engine_requests), list(engine_requests)
        self._began, self._released = set[int](), set[int]()
        self._forwarders = [asyncio.create_task(self._forward(index, ask)) for index, ask in enumerate(engine_requests)]

    async def events(self, quiet: float | None = None) -> AsyncIterator[tuple[int, Event] | None]:
        """The index of an engine request with each event; None after `quiet` seconds without any."""
        while self._open:
            try:
                async with asyncio.timeout(quiet):
                    index, event = await self._queue.get()
            except TimeoutError:
                yield None
                continue
            self._open -= isinstance(event, END)
            yield index, event

    async def close(self) -> None:
        for forwarder in self._forwarders:
            forwarder.cancel()
        for index in range(len(self._asks)):
            self._release(index)  # at once: a forwarder that never ran would release nothing
        await asyncio.gather(*self._forwarders, return_exceptions=True)

    def _release(self, index: int) -> None:
        if index not in self._released:
            self._released.add(index)
            self._state.admission.end(self._asks[index].tokens, began=index in self._began)

    async def _forward(self, index: int, ask: EngineRequest) -> None:
        """One answer from the engine to the queue, with its times and its count in admission."""
        state, engine = self._state, self._state.engine
        timer = RequestTimer(state.metrics, ask.model)
        end = None
        try:
            async for event in engine.submit(ask.request):
                if index not in self._began and not isinstance(event, Failed):
                    self._began.add(index)
                    state.admission.begin(ask.tokens)
                if isinstance(event, Done) and event.reason == "cancelled":
                    event = STOPPING  # not cancelled by this server, else this task would be cancelled too
                end = event if isinstance(event, END) else None
                timer.observe(event)
                self._queue.put_nowait((index, event))
            if end is None:
                raise RuntimeError("the engine ended an answer without a result")
        except Exception as error:  # an error of the engine fails only this request, and every request gets a last event
            end = _failed(error)
            timer.observe(end)
            self._queue.put_nowait((index, end))
        finally:
            if end is None:
                engine.cancel(ask.request.id)
                timer.observe(Done("cancelled", 0, 0))
            self._release(index)


@dataclass
class RequestOutput:
    """All events of one answer."""

    ask: EngineRequest
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    prompt: PromptLogprobs | None = None
    answer: Answer | None = None
    done: Done | None = None
    failed: Failed | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, Token):
            self.text += event.text
            self.tokens.append(event)
        elif isinstance(event, Answer):
            self.text, self.answer = event.text, event
        elif isinstance(event, PromptLogprobs):
            self.prompt = event
        elif isinstance(event, Done):
            self.done = event
        else:
            self.failed = event


async def collect(state: ServerState, engine_requests: Sequence[EngineRequest], *, apart: bool = False) -> list[RequestOutput]:
    """Whole answers, in order; raises HTTPError with the first failure unless each may fail for itself (`apart`)."""
    found = [RequestOutput(ask) for ask in engine_requests]
    inflight = InflightRequests(state, engine_requests)
    try:
        async for item in inflight.events():
            assert item is not None
            index, event = item
            found[index].take(event)
            if isinstance(event, Failed) and not apart:
                raise error_of_failed(event)
    finally:
        await inflight.close()
    return found


async def with_cancellation(receive: Callable[[], Awaitable[Any]], work: Awaitable[Result]) -> Result:
    """The result of work, which is cancelled when the client disconnects; raises ClientDisconnected then."""
    job, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientDisconnected
        return job.result()
    finally:
        job.cancel()
        gone.cancel()
        await asyncio.gather(job, gone, return_exceptions=True)


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _failed(error: Exception) -> Failed:
    """The event of an error that was raised before the engine sent one."""
    if isinstance(error, CapacityError):
        return Failed("capacity", error.request_message)
    if isinstance(error, ForewordError):
        return Failed("request", error.request_message)
    return Failed("engine", f"The engine failed ({type(error).__name__}: {error}).")


def stopping() -> HTTPError:
    """The error for new requests while the server stops."""
    return HTTPError(503, STOPPING.message, retry_after=RETRY_AFTER)
