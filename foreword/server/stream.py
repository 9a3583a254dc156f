"""Answers as server-sent events: `data: {…}` for each piece, `data: [DONE]` at the end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, final

from foreword.server.http_errors import refusal_for
from foreword.server.inflight import Collected, Inflight
from foreword.server.preprocessing import PreparedRequest
from foreword.server.responses import Json, Shape, usage
from foreword.server.state import RequestLog, ServerState
from foreword.serving.request import Answer, Done, Event, Failed, Token

DONE = b"data: [DONE]\n\n"
ALIVE = b": alive\n\n"  # a comment, which clients pass over


@final
class Stream:
    """The events of a Flow as bytes. `opened` waits for the first event, so that a request that fails at once fails with its status."""

    def __init__(
        self,
        state: ServerState,
        request_log: RequestLog,
        prepare_requests: Sequence[PreparedRequest],
        shape: Shape,
        head: Json,
        *,
        with_usage: bool,
    ) -> None:
        self._state, self._visit, self._shape, self._head, self._with_usage = state, request_log, shape, head, with_usage
        self._found = [Collected(ask) for ask in prepare_requests]
        self._flow = Inflight(state, prepare_requests)
        self._events = self._flow.events(state.keep_alive)
        self._begun: set[int] = set()
        self._first: tuple[int, Event] | None = None

    async def opened(self) -> None:
        """Wait until the first answer begins; raises Refusal if it fails instead."""
        async for item in self._events:
            if item is not None:
                self._first = item
                if isinstance(item[1], Failed):
                    raise refusal_for(item[1])
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
                    yield _data(refusal_for(item[1]).document)
                    break
            else:
                if self._with_usage:
                    yield _data({**self._head, "choices": [], "usage": usage(self._found)})
            yield DONE
        finally:
            await self.close()

    async def close(self) -> None:
        """Note what there was, and end what has not ended."""
        note(self._visit, self._found)
        await self._flow.close()

    def _of(self, index: int, event: Event) -> list[bytes]:
        """What one event adds to the stream."""
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


def note(request_log: RequestLog, found: Sequence[Collected]) -> None:
    """What the log says of answers."""
    counted = usage(found)
    request_log.prompt_tokens, request_log.completion_tokens = counted["prompt_tokens"], counted["completion_tokens"]
    reasons = {each.done.reason if each.done else f"failed_{each.failed.kind}" if each.failed else "cancelled" for each in found}
    request_log.outcome = ",".join(sorted(reasons))
    if request_log.said is None and request_log.texts is not None:
        request_log.said = [each.text for each in found]


def _data(document: Any) -> bytes:
    return f"data: {json.dumps(document, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
