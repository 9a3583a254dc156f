"""OpenAI's endpoints: models, completions, chats."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse

from foreword.server import openapi
from foreword.server.http_errors import Refusal
from foreword.server.inflight import ClientGone, collect, unless_gone
from foreword.server.middleware import VISIT
from foreword.server.preprocessing import PreparedRequest, written
from foreword.server.responses import ChatShape, CompletionShape, Json, Shape, usage
from foreword.server.schemas import Chat, Completion
from foreword.server.state import RequestLog, ServerState
from foreword.server.stream import Stream, note
from foreword.serving.engine import TaskCard

ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": openapi.Error} for status in (400, 401, 404, 408, 413, 429, 500, 503)}
ERRORS["default"] = {"model": openapi.Error}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "object", "properties": {"data": {"type": "string"}}}}}}
}  # with `stream`
GONE = 499  # what the log says of a client that left; nobody reads it

router = APIRouter(responses=ERRORS)


def service_of(request: Request) -> ServerState:
    return request.app.state.server_state


def visit_of(request: Request) -> RequestLog:
    return request.scope[VISIT]


TheService = Annotated[ServerState, Depends(service_of)]
TheVisit = Annotated[RequestLog, Depends(visit_of)]


@router.get("/v1/models", response_model=openapi.ModelCards, tags=["models"])
async def list_models(state: TheService, request_log: TheVisit) -> Response:
    """The base model and every task: any of them may be the `model` of a request."""
    base = [base_card(state)] if request_log.caller.sees(state.base.name) else []
    return respond({"object": "list", "data": base + [card(state, task) for task in state.visible(request_log.caller)]})


@router.get("/v1/models/{name:path}", response_model=openapi.ModelCard, tags=["models"])
async def show_model(name: str, state: TheService, request_log: TheVisit) -> Response:
    """One model's card."""
    found = state.find(name, request_log.caller)
    return respond(base_card(state) if found is None else card(state, found))


@router.post("/v1/completions", response_model=openapi.Completion, responses=EVENTS, tags=["answers"])
async def complete(body: Completion, request: Request, state: TheService, request_log: TheVisit) -> Response:
    """An answer to a text. With `stream`, server-sent events."""
    return await answer(request, state, request_log, body, CompletionShape(state.base, logprobs=body.logprobs is not None))


@router.post("/v1/chat/completions", response_model=openapi.Chat, responses=EVENTS, tags=["answers"])
async def chat(body: Chat, request: Request, state: TheService, request_log: TheVisit) -> Response:
    """An answer to a message. With `stream`, server-sent events."""
    return await answer(request, state, request_log, body, ChatShape(state.base, logprobs=bool(body.logprobs)))


async def answer(request: Request, state: ServerState, request_log: RequestLog, body: Completion | Chat, shape: Shape) -> Response:
    """Whole, or as it grows."""
    prepare_requests = written(state, request_log, body)
    head: Json = {"id": f"{shape.prefix}-{request_log.id}", "object": shape.chunk, "created": int(time.time()), "model": body.model}
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return await _streamed(request, Stream(state, request_log, prepare_requests, shape, head, with_usage=with_usage))
    return await whole(request, state, request_log, prepare_requests, {**head, "object": shape.whole}, shape)


async def _streamed(request: Request, stream: Stream) -> Response:
    try:
        await unless_gone(request.receive, stream.opened())
    except BaseException as error:
        await stream.close()
        if isinstance(error, ClientGone):
            return Response(status_code=GONE)
        raise
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream.chunks(), media_type="text/event-stream", headers=headers, background=BackgroundTask(stream.close))


async def whole(
    request: Request, state: ServerState, request_log: RequestLog, prepare_requests: Sequence[PreparedRequest], head: Json, shape: Shape
) -> Response:
    try:
        found = await unless_gone(request.receive, collect(state, prepare_requests))
    except ClientGone:
        request_log.outcome = "cancelled"
        return Response(status_code=GONE)
    except Refusal as refusal:
        request_log.outcome = f"failed_{refusal.status}"
        raise
    note(request_log, found)
    return respond({**head, "choices": [shape.choice(index, each) for index, each in enumerate(found)], "usage": usage(found)})


def base_card(state: ServerState) -> Json:
    name = state.base.name
    return _card(state, name, name, None)


def card(state: ServerState, task: TaskCard) -> Json:
    return _card(state, task.name, task.root, state.base.name)


def _card(state: ServerState, name: str, root: str, parent: str | None) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": state.created,
        "owned_by": "foreword",
        "root": root,
        "parent": parent,
        "max_model_len": state.base.shape.positions,
        "permission": [],
    }


def respond(document: Json) -> Response:
    """A document as JSON; numbers that are not finite become null."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(document), ensure_ascii=False, allow_nan=False)
    return Response(text, media_type="application/json")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
