"""What machines ask a server: does it live, may it be asked, how is it."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from foreword.server import documents
from foreword.server.flow import stopping
from foreword.server.refusals import LATER, Refusal
from foreword.server.routes import ERRORS, TheService, respond

router = APIRouter(responses={status: ERRORS[status] for status in (401, 500, 503, "default")}, tags=["operations"])


@router.get("/health", response_model=documents.State)
async def health(service: TheService) -> Response:
    """200 while the engine works, 503 when it has to be restarted."""
    if not service.engine.healthy and not service.draining:
        raise Refusal(503, "The engine has stopped; restart the server.", retry_after=LATER)
    return respond({"status": "alive"})


@router.get("/ready", response_model=documents.State)
async def ready(service: TheService) -> Response:
    """200 while new requests are taken, 503 while the server stops."""
    if not service.ready:
        raise stopping()
    return respond({"status": "ready"})


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
async def metrics(service: TheService) -> Response:
    """Counts and times for Prometheus."""
    return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)
