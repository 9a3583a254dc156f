"""OpenAI's endpoints: models, completions, chats."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse

from foreword.server import response_schemas
from foreword.server.body_route import BodyRoute
from foreword.server.chat_schemas import ChatCompletionRequest
from foreword.server.collected_answers import collected
from foreword.server.dependencies import ERRORS, EVENTS, GONE, Context, State, charge
from foreword.server.inflight_requests import ClientDisconnected, with_cancellation
from foreword.server.preprocessing import EngineRequest, preprocess
from foreword.server.request_schemas import CompletionRequest
from foreword.server.request_validation import check_generation
from foreword.server.response_api import ResponseStream
from foreword.server.responses import ChatBuilder, CompletionBuilder, Json, ResponseBuilder, json_response, usage
from foreword.server.server_state import RequestContext, ServerState
from foreword.server.stream import Stream
from foreword.server.tool_responses import ToolCallBuilder
from foreword.serving.engine import TaskCard

FACT_BYTES = 64  # of a response for each token or alternative, about

router = APIRouter(route_class=BodyRoute, responses=ERRORS)


@router.get("/v1/models", response_model=response_schemas.ModelCards, tags=["models"])
async def list_models(state: State, context: Context) -> Response:
    """The base model and every task: any of them may be the `model` of a request."""
    base = [base_card(state)] if context.caller.sees(state.base.name) else []
    return json_response({"object": "list", "data": base + [card(state, task) for task in state.visible(context.caller)]})


@router.get("/v1/models/{name:path}", response_model=response_schemas.ModelCard, tags=["models"])
async def show_model(name: str, state: State, context: Context) -> Response:
    """One model's card."""
    found = state.find(name, context.caller)
    return json_response(base_card(state) if found is None else card(state, found))


@router.post("/v1/completions", response_model=response_schemas.CompletionResponse, responses=EVENTS, tags=["answers"])
async def complete(body: CompletionRequest, request: Request, state: State, context: Context) -> Response:
    """An answer to a text. With `stream`, server-sent events."""
    return await answer(request, state, context, body, CompletionBuilder(state.base, logprobs=body.logprobs is not None))


@router.post("/v1/chat/completions", response_model=response_schemas.ChatCompletionResponse, responses=EVENTS, tags=["answers"])
async def chat(body: ChatCompletionRequest, request: Request, state: State, context: Context) -> Response:
    """An answer to a message. With `stream`, server-sent events."""
    shape = ChatBuilder(state.base, logprobs=bool(body.logprobs))
    calls = body.tools and body.tool_choice != "none"
    return await answer(request, state, context, body, ToolCallBuilder(shape, body) if calls else shape)


async def answer(
    request: Request, state: ServerState, context: RequestContext, body: CompletionRequest | ChatCompletionRequest, shape: ResponseBuilder
) -> Response:
    """A complete response, or a stream."""
    card = state.find(body.model, context.caller)
    check_generation(body, card, state.base.shape.vocabulary)
    engine_requests = await state.threads.run(context.num_bytes, preprocess, state, context.id, body, card)
    engine_requests = charge(state, context, engine_requests)
    head: Json = {"id": f"{shape.prefix}-{context.id}", "object": shape.chunk, "created": int(time.time()), "model": body.model}
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return await stream_response(request, Stream(state, context, engine_requests, shape, head, with_usage=with_usage))
    return await whole(request, state, context, engine_requests, {**head, "object": shape.whole}, shape)


async def stream_response(request: Request, stream: Stream | ResponseStream) -> Response:
    """The response of a stream that has begun; one that fails at once fails with its status."""
    try:
        await with_cancellation(request.receive, stream.opened())
    except BaseException as error:
        await stream.close()
        if isinstance(error, ClientDisconnected):
            return Response(status_code=GONE)
        raise
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream.chunks(), media_type="text/event-stream", headers=headers, background=BackgroundTask(stream.close))


async def whole(
    request: Request,
    state: ServerState,
    context: RequestContext,
    engine_requests: Sequence[EngineRequest],
    head: Json,
    shape: ResponseBuilder,
) -> Response:
    found = await collected(request, state, context, engine_requests)
    if found is None:
        return Response(status_code=GONE)

    def build() -> Response:
        return json_response({**head, "choices": [shape.choice(index, each) for index, each in enumerate(found)], "usage": usage(found)})

    tops = [top for each in found for top in (*(token.top for token in each.tokens), *(each.prompt.top if each.prompt else ()))]
    facts = sum(1 + len(top) for top in tops)
    return await state.threads.run(FACT_BYTES * facts, build)  # log-probabilities of long texts are megabytes


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
