"""What machines ask a server: does it live, may it be asked, how is it."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from foreword.server import openapi
from foreword.server.http_errors import LATER, Refusal
from foreword.server.inflight import stopping
from foreword.server.openai_routes import ERRORS, TheService, respond

router = APIRouter(responses={status: ERRORS[status] for status in (401, 500, 503, "default")}, tags=["operations"])


@router.get("/health", response_model=openapi.State)
async def health(state: TheService) -> Response:
    """200 while the engine works, 503 when it has to be restarted."""
    if not state.engine.healthy and not state.draining:
        raise Refusal(503, "The engine has stopped; restart the server.", retry_after=LATER)
    return respond({"status": "alive"})


@router.get("/ready", response_model=openapi.State)
async def ready(state: TheService) -> Response:
    """200 while new requests are taken, 503 while the server stops."""
    if not state.ready:
        raise stopping()
    return respond({"status": "ready"})


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
async def metrics(state: TheService) -> Response:
    """Counts and times for Prometheus."""
    return Response(state.metrics.page(), media_type=CONTENT_TYPE_LATEST)
