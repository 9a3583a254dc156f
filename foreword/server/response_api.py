"""OpenAI's Responses API, complete and as a stream of events: text in, text out, nothing stored."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, final

from foreword.server.http_errors import error_of_failed
from foreword.server.inflight_requests import InflightRequests, RequestOutput
from foreword.server.preprocessing import EngineRequest
from foreword.server.response_api_schemas import ResponsesRequest
from foreword.server.responses import Json, json_text, usage
from foreword.server.server_state import RequestContext, ServerState
from foreword.server.stream import ALIVE, note
from foreword.serving.request import Answer, Event, Failed, Token


@final
class ResponseObject:
    """The `response` of one request, as it stands."""

    def __init__(self, context: RequestContext, body: ResponsesRequest) -> None:
        self.item_id = f"msg_{context.id}"
        self._fixed = {
            "id": f"resp_{context.id}",
            "object": "response",
            "created_at": int(time.time()),
            "model": body.model,
            "error": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}} if body.text is None else body.text.model_dump(by_alias=True, exclude_none=True),
            "tool_choice": "auto",
            "tools": [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "user": body.user,
        }

    def begun(self) -> Json:
        """Before the answer."""
        return {**self._fixed, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}

    def ended(self, found: RequestOutput) -> Json:
        """With the answer."""
        assert found.done is not None
        cut = found.done.reason == "length"
        counted = usage([found])
        counts = {
            "input_tokens": counted["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": counted["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counted["total_tokens"],
        }
        status = "incomplete" if cut else "completed"
        details = {"reason": "max_output_tokens"} if cut else None
        return {**self._fixed, "status": status, "incomplete_details": details, "output": [self.item(found.text, status)], "usage": counts}

    def item(self, text: str | None, status: str) -> Json:
        """The message of the answer, without content before there is one."""
        content = [] if text is None else [self.part(text)]
        return {"id": self.item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    @staticmethod
    def part(text: str) -> Json:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


@final
class ResponseStream:
    """The events of one response as bytes. `opened` waits for the first, so that a request that fails at once fails with its status."""

    def __init__(self, state: ServerState, context: RequestContext, engine_request: EngineRequest, made: ResponseObject) -> None:
        self._context, self._made = context, made
        self._found = RequestOutput(engine_request)
        self._requests = InflightRequests(state, [engine_request])
        self._events = self._requests.events(state.keep_alive)
        self._first: Event | None = None
        self._sent = 0

    async def opened(self) -> None:
        """Wait until the answer begins; raises HTTPError if it fails instead."""
        async for item in self._events:
            if item is not None:
                self._first = item[1]
                if isinstance(item[1], Failed):
                    raise error_of_failed(item[1])
                return

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body of the HTTP response."""
        assert self._first is not None, "opened() comes first"
        try:
            for chunk in (*self._head(), *self._of(self._first)):
                yield chunk
            async for item in self._events:
                for chunk in [ALIVE] if item is None else self._of(item[1]):
                    yield chunk
                if item is not None and isinstance(item[1], Failed):
                    break
            else:
                for chunk in self._tail():
                    yield chunk
        finally:
            await self.close()

    async def close(self) -> None:
        """Log what was sent, and cancel what is still running."""
        note(self._context, [self._found])
        await self._requests.close()

    def _head(self) -> list[bytes]:
        begun = self._made.begun()
        return [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
            self._event("response.output_item.added", output_index=0, item=self._made.item(None, "in_progress")),
            self._event("response.content_part.added", **self._place(), part=self._made.part("")),
        ]

    def _of(self, event: Event) -> list[bytes]:
        self._found.take(event)
        if isinstance(event, Failed):
            error = error_of_failed(event)
            return [self._event("error", code=str(error.status), message=error.message, param=error.param)]
        if isinstance(event, Token | Answer) and event.text:
            return [self._event("response.output_text.delta", **self._place(), delta=event.text, logprobs=[])]
        return []

    def _tail(self) -> list[bytes]:
        ended = self._made.ended(self._found)
        text = self._found.text
        return [
            self._event("response.output_text.done", **self._place(), text=text, logprobs=[]),
            self._event("response.content_part.done", **self._place(), part=self._made.part(text)),
            self._event("response.output_item.done", output_index=0, item=ended["output"][0]),
            self._event(f"response.{ended['status']}", response=ended),
        ]

    def _place(self) -> Json:
        return {"item_id": self._made.item_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        document = {"type": kind, "sequence_number": self._sent, **fields}
        self._sent += 1
        return f"event: {kind}\ndata: {json_text(document)}\n\n".encode()
