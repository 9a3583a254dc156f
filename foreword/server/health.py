"""Health endpoints: liveness, readiness and metrics."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from foreword.server import response_schemas
from foreword.server.dependencies import ERRORS, State
from foreword.server.http_errors import RETRY_AFTER, HTTPError
from foreword.server.inflight_requests import stopping
from foreword.server.responses import json_response

router = APIRouter(responses={status: ERRORS[status] for status in (401, 500, 503, "default")}, tags=["operations"])


@router.get("/health", response_model=response_schemas.State)
async def health(state: State) -> Response:
    """200 while the engine works, 503 when it has to be restarted."""
    if not state.engine.healthy and not state.draining:
        raise HTTPError(503, "The engine has stopped; restart the server.", retry_after=RETRY_AFTER)
    return json_response({"status": "alive"})


@router.get("/ready", response_model=response_schemas.State)
async def ready(state: State) -> Response:
    """200 while new requests are taken, 503 while the server stops."""
    if not state.ready:
        raise stopping()
    return json_response({"status": "ready"})


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
async def metrics(state: State) -> Response:
    """Counts and times for Prometheus."""
    return Response(state.metrics.page(), media_type=CONTENT_TYPE_LATEST)
