"""The endpoint of OpenAI's Responses API."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from foreword.server.body_route import BodyRoute
from foreword.server.collected_answers import collected
from foreword.server.dependencies import ERRORS, EVENTS, GONE, Context, State, charge
from foreword.server.openai_routes import stream_response
from foreword.server.preprocessing import preprocess
from foreword.server.request_validation import check_generation
from foreword.server.response_api import ResponseObject, ResponseStream
from foreword.server.response_api_schemas import ResponsesRequest, ResponsesResponse
from foreword.server.responses import json_response

router = APIRouter(route_class=BodyRoute, responses=ERRORS)


@router.post("/v1/responses", response_model=ResponsesResponse, responses=EVENTS, tags=["answers"])
async def respond(body: ResponsesRequest, request: Request, state: State, context: Context) -> Response:
    """An answer to a text or a conversation. With `stream`, server-sent events."""
    card, chat = state.find(body.model, context.caller), body.chat()
    check_generation(chat, card, state.base.shape.vocabulary)
    made = await state.threads.run(context.num_bytes, preprocess, state, context.id, chat, card)
    made = charge(state, context, made)
    shape = ResponseObject(context, body)
    if body.stream:
        return await stream_response(request, ResponseStream(state, context, made[0], shape))
    found = await collected(request, state, context, made)
    if found is None:
        return Response(status_code=GONE)
    return json_response(shape.ended(found[0]))
