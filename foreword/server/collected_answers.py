"""The whole answers of one HTTP request, and what the log says of them."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from foreword.server.http_errors import HTTPError
from foreword.server.inflight_requests import ClientDisconnected, RequestOutput, collect, with_cancellation
from foreword.server.preprocessing import EngineRequest
from foreword.server.responses import usage
from foreword.server.server_state import RequestContext, ServerState


async def collected(
    request: Request, state: ServerState, context: RequestContext, made: Sequence[EngineRequest], *, apart: bool = False
) -> list[RequestOutput] | None:
    """Whole answers, in order, None if the client has left; raises HTTPError with the first failure unless each may fail for itself (`apart`)."""
    try:
        found = await with_cancellation(request.receive, collect(state, made, apart=apart))
    except ClientDisconnected:
        context.outcome = "cancelled"
        return None
    except HTTPError as error:
        context.outcome = f"failed_{error.status}"
        raise
    note(context, found)
    return found


def note(context: RequestContext, found: Sequence[RequestOutput]) -> None:
    """The facts about answers for the log."""
    counted = usage(found)
    context.prompt_tokens, context.completion_tokens = counted["prompt_tokens"], counted["completion_tokens"]
    reasons = {each.done.reason if each.done else f"failed_{each.failed.kind}" if each.failed else "cancelled" for each in found}
    context.outcome = ",".join(sorted(reasons))
    if context.said is None and context.texts is not None:
        context.said = [each.text for each in found]
