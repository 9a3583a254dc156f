"""Answers as server-sent events: `data: {…}` for each piece, `data: [DONE]` at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, final

from foreword.server.collected_answers import note
from foreword.server.http_errors import error_of_failed
from foreword.server.inflight_requests import InflightRequests, RequestOutput
from foreword.server.preprocessing import EngineRequest
from foreword.server.responses import Json, ResponseBuilder, json_text, usage
from foreword.server.server_state import RequestContext, ServerState
from foreword.serving.request import Answer, Done, Event, Failed, Token

DONE = b"data: [DONE]\n\n"
ALIVE = b": alive\n\n"  # a comment, which clients ignore


@final
class Stream:
    """The events of running requests as bytes. `opened` waits for the first event, so that a request that fails at once fails with its status."""

    def __init__(
        self,
        state: ServerState,
        context: RequestContext,
        engine_requests: Sequence[EngineRequest],
        shape: ResponseBuilder,
        head: Json,
        *,
        with_usage: bool,
    ) -> None:
        self._state, self._context, self._shape, self._head, self._with_usage = state, context, shape, head, with_usage
        self._found = [RequestOutput(ask) for ask in engine_requests]
        self._requests = InflightRequests(state, engine_requests)
        self._events = self._requests.events(state.keep_alive)
        self._begun: set[int] = set()
        self._first: tuple[int, Event] | None = None

    async def opened(self) -> None:
        """Wait until the first answer begins; raises HTTPError if it fails instead."""
        async for item in self._events:
            if item is not None:
                self._first = item
                if isinstance(item[1], Failed):
                    raise error_of_failed(item[1])
                return

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body of the response."""
        assert self._first is not None, "opened() comes first"
        try:
            for chunk in self._of(*self._first):
                yield chunk
            async for item in self._events:
                if item is None:
                    yield ALIVE
                    continue
                for chunk in self._of(*item):
                    yield chunk
                if isinstance(item[1], Failed):
                    yield _data(error_of_failed(item[1]).document)
                    break
            else:
                if self._with_usage:
                    yield _data({**self._head, "choices": [], "usage": usage(self._found)})
            yield DONE
        finally:
            await self.close()

    async def close(self) -> None:
        """Log what was sent, and cancel what is still running."""
        note(self._context, self._found)
        await self._requests.close()

    def _of(self, index: int, event: Event) -> list[bytes]:
        """The chunks of one event."""
        found, choices = self._found[index], list[Json | None]()
        if not isinstance(event, Failed) and index not in self._begun:
            self._begun.add(index)
            choices.append(self._shape.first(index))
        if isinstance(event, Token | Answer):
            tokens = [event] if isinstance(event, Token) else []
            choices.append(self._shape.piece(index, event.text, tokens, len(found.text)))
        elif isinstance(event, Done):
            choices.append(self._shape.last(index, event.reason))
        found.take(event)
        usage_field = {"usage": None} if self._with_usage else {}
        return [_data({**self._head, "choices": [choice], **usage_field}) for choice in choices if choice is not None]


def _data(document: Any) -> bytes:
    return f"data: {json_text(document)}\n\n".encode()
