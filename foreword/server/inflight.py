"""The answers of one HTTP request under way: their events merged as they come, and everything ended when the client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, final

from foreword.errors import CapacityError, ForewordError
from foreword.server.http_errors import LATER, Refusal, refusal_for
from foreword.server.metrics import Watch
from foreword.server.preprocessing import PreparedRequest
from foreword.server.state import ServerState
from foreword.serving.request import END, Answer, Done, Event, Failed, Token

Result = TypeVar("Result")
STOPPING = Failed("capacity", "The server is stopping; ask another one, or try again later.")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


@final
class Inflight:
    """Begins when it is made; `close` ends whatever has not ended and may be called at any time, again too."""

    def __init__(self, state: ServerState, prepare_requests: Sequence[PreparedRequest]) -> None:
        state.admission.admit(len(prepare_requests), sum(ask.tokens for ask in prepare_requests))
        self._state, self._queue = state, asyncio.Queue[tuple[int, Event]]()
        self._open, self._asks = len(prepare_requests), list(prepare_requests)
        self._began, self._settled = set[int](), set[int]()
        self._pumps = [asyncio.create_task(self._pump(index, ask)) for index, ask in enumerate(prepare_requests)]

    async def events(self, quiet: float | None = None) -> AsyncIterator[tuple[int, Event] | None]:
        """The index of an Ask with each event; None after `quiet` seconds without any."""
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
        for pump in self._pumps:
            pump.cancel()
        for index in range(len(self._asks)):
            self._settle(index)  # at once: a pump that never ran would settle nothing
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def _settle(self, index: int) -> None:
        if index not in self._settled:
            self._settled.add(index)
            self._state.admission.end(self._asks[index].tokens, began=index in self._began)

    async def _pump(self, index: int, ask: PreparedRequest) -> None:
        """One answer from the engine to the queue, with its times and its place in the books."""
        state, engine = self._state, self._state.engine
        watch = Watch(state.metrics, ask.model)
        end = None
        try:
            async for event in engine.submit(ask.request):
                if index not in self._began and not isinstance(event, Failed):
                    self._began.add(index)
                    state.admission.begin(ask.tokens)
                if isinstance(event, Done) and event.reason == "cancelled":
                    event = STOPPING  # nobody here cancelled it, or this task would be cancelled too
                end = event if isinstance(event, END) else None
                watch.see(event)
                self._queue.put_nowait((index, event))
            if end is None:
                raise RuntimeError("the engine ended an answer without a word")
        except Exception as error:  # a fault of the engine is this request's alone, and every request gets an end
            end = _failed(error)
            watch.see(end)
            self._queue.put_nowait((index, end))
        finally:
            if end is None:
                engine.cancel(ask.request.id)
                watch.see(Done("cancelled", 0, 0))
            self._settle(index)


@dataclass
class Collected:
    """All events of one answer."""

    ask: PreparedRequest
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    answer: Answer | None = None
    done: Done | None = None
    failed: Failed | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, Token):
            self.text += event.text
            self.tokens.append(event)
        elif isinstance(event, Answer):
            self.text, self.answer = event.text, event
        elif isinstance(event, Done):
            self.done = event
        else:
            self.failed = event


async def collect(state: ServerState, prepare_requests: Sequence[PreparedRequest], *, apart: bool = False) -> list[Collected]:
    """Whole answers, in order; raises Refusal with the first failure unless each may fail for itself (`apart`)."""
    found = [Collected(ask) for ask in prepare_requests]
    flow = Inflight(state, prepare_requests)
    try:
        async for item in flow.events():
            assert item is not None
            index, event = item
            found[index].take(event)
            if isinstance(event, Failed) and not apart:
                raise refusal_for(event)
    finally:
        await flow.close()
    return found


async def unless_gone(receive: Callable[[], Awaitable[Any]], work: Awaitable[Result]) -> Result:
    """The result of work that is given up when the client leaves; raises ClientGone then."""
    job, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientGone
        return job.result()
    finally:
        job.cancel()
        gone.cancel()
        await asyncio.gather(job, gone, return_exceptions=True)


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _failed(error: Exception) -> Failed:
    """What went wrong before the engine could say it in an event."""
    if isinstance(error, CapacityError):
        return Failed("capacity", str(error))
    if isinstance(error, ForewordError):
        return Failed("request", str(error))
    return Failed("engine", f"The engine failed ({type(error).__name__}: {error}).")


def stopping() -> Refusal:
    """What new requests hear while the server stops."""
    return Refusal(503, STOPPING.message, retry_after=LATER)
