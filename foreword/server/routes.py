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

from foreword.server import documents
from foreword.server.asks import Ask, written
from foreword.server.edge import VISIT
from foreword.server.flow import ClientGone, collect, unless_gone
from foreword.server.refusals import Refusal
from foreword.server.schemas import Chat, Completion
from foreword.server.service import Service, Visit
from foreword.server.shapes import ChatShape, CompletionShape, Json, Shape, usage
from foreword.server.stream import Stream, note
from foreword.serving.engine import TaskCard

ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": documents.Error} for status in (400, 401, 404, 408, 413, 429, 500, 503)}
ERRORS["default"] = {"model": documents.Error}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "object", "properties": {"data": {"type": "string"}}}}}}
}  # with `stream`
GONE = 499  # what the log says of a client that left; nobody reads it

router = APIRouter(responses=ERRORS)


def service_of(request: Request) -> Service:
    return request.app.state.service


def visit_of(request: Request) -> Visit:
    return request.scope[VISIT]


TheService = Annotated[Service, Depends(service_of)]
TheVisit = Annotated[Visit, Depends(visit_of)]


@router.get("/v1/models", response_model=documents.ModelCards, tags=["models"])
async def list_models(service: TheService, visit: TheVisit) -> Response:
    """The base model and every task: any of them may be the `model` of a request."""
    base = [base_card(service)] if visit.caller.sees(service.base.name) else []
    return respond({"object": "list", "data": base + [card(service, task) for task in service.visible(visit.caller)]})


@router.get("/v1/models/{name:path}", response_model=documents.ModelCard, tags=["models"])
async def show_model(name: str, service: TheService, visit: TheVisit) -> Response:
    """One model's card."""
    found = service.find(name, visit.caller)
    return respond(base_card(service) if found is None else card(service, found))


@router.post("/v1/completions", response_model=documents.Completion, responses=EVENTS, tags=["answers"])
async def complete(body: Completion, request: Request, service: TheService, visit: TheVisit) -> Response:
    """An answer to a text. With `stream`, server-sent events."""
    return await answer(request, service, visit, body, CompletionShape(service.base, logprobs=body.logprobs is not None))


@router.post("/v1/chat/completions", response_model=documents.Chat, responses=EVENTS, tags=["answers"])
async def chat(body: Chat, request: Request, service: TheService, visit: TheVisit) -> Response:
    """An answer to a message. With `stream`, server-sent events."""
    return await answer(request, service, visit, body, ChatShape(service.base, logprobs=bool(body.logprobs)))


async def answer(request: Request, service: Service, visit: Visit, body: Completion | Chat, shape: Shape) -> Response:
    """Whole, or as it grows."""
    asks = written(service, visit, body)
    head: Json = {"id": f"{shape.prefix}-{visit.id}", "object": shape.chunk, "created": int(time.time()), "model": body.model}
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return await _streamed(request, Stream(service, visit, asks, shape, head, with_usage=with_usage))
    return await whole(request, service, visit, asks, {**head, "object": shape.whole}, shape)


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


async def whole(request: Request, service: Service, visit: Visit, asks: Sequence[Ask], head: Json, shape: Shape) -> Response:
    try:
        found = await unless_gone(request.receive, collect(service, asks))
    except ClientGone:
        visit.outcome = "cancelled"
        return Response(status_code=GONE)
    except Refusal as refusal:
        visit.outcome = f"failed_{refusal.status}"
        raise
    note(visit, found)
    return respond({**head, "choices": [shape.choice(index, each) for index, each in enumerate(found)], "usage": usage(found)})


def base_card(service: Service) -> Json:
    name = service.base.name
    return _card(service, name, name, None)


def card(service: Service, task: TaskCard) -> Json:
    return _card(service, task.name, task.root, service.base.name)


def _card(service: Service, name: str, root: str, parent: str | None) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "foreword",
        "root": root,
        "parent": parent,
        "max_model_len": service.base.shape.positions,
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
