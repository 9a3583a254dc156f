"""What routes depend on: the server's state, the request's context, the errors they may return, and the charge of a request to its caller."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, Request

from foreword.server import response_schemas
from foreword.server.middleware import CONTEXT
from foreword.server.preprocessing import EngineRequest
from foreword.server.server_state import RequestContext, ServerState

ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": response_schemas.Error} for status in (400, 401, 404, 408, 413, 429, 500, 503)}
ERRORS["default"] = {"model": response_schemas.Error}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "object", "properties": {"data": {"type": "string"}}}}}}
}  # with `stream`
GONE = 499  # the status in the log for a client that has disconnected; never sent


def state_of(request: Request) -> ServerState:
    return request.app.state.server_state


def context_of(request: Request) -> RequestContext:
    return request.scope[CONTEXT]


State = Annotated[ServerState, Depends(state_of)]
Context = Annotated[RequestContext, Depends(context_of)]


def charge(state: ServerState, context: RequestContext, requests: Sequence[EngineRequest]) -> list[EngineRequest]:
    """The engine requests in their caller's name, counted against the caller's rate and noted for the log; raises HTTPError if they are too many now."""
    state.keys.charge(context.caller, len(requests))
    names = list(dict.fromkeys(each.model for each in requests))
    context.model, context.answers = ",".join(names[:8]), len(requests)
    if state.log.texts:
        context.texts = [json.dumps(each.request.example, ensure_ascii=False) for each in requests]
    return [replace(each, request=replace(each.request, tenant=context.caller.name)) for each in requests]
