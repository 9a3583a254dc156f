"""The middleware: every request gets an id, a caller and a body of bounded size before it is handled, and a line in the log afterwards."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from typing import Any, final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foreword.server.auth import ANONYMOUS, Caller
from foreword.server.http_errors import HTTPError
from foreword.server.inflight_requests import stopping
from foreword.server.server_state import RequestContext, ServerState

CONTEXT = "foreword.request_context"  # where a request has its context in its ASGI scope
PUBLIC_PATHS = ("/health", "/ready", "/docs", "/openapi.json")  # need no key
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LINGER = 5.0  # seconds for which a body that is too large is still read and dropped, so that the client gets the error


@final
class RequestMiddleware:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, state: ServerState, root_path: str = "") -> None:
        self._app, self._state, self._root_path = app, state, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state, context = self._state, RequestContext()
        scope = {**scope, "root_path": self._root_path or scope.get("root_path", "")}
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        name = given if _ID.fullmatch(given) else context.id
        heads = scope["method"] == "HEAD"
        inner = {**scope, CONTEXT: context, "method": "GET" if heads else scope["method"]}
        watched = _ResponseSender(send, context, name, with_body=not heads)
        try:
            context.caller = self._caller(scope, headers)
            body = await self._body(headers, receive)
            context.num_bytes = len(body)
            await self._app(inner, _replay(body, receive), watched)
        except HTTPError as error:
            await watched.answer(error)
        except Exception as error:  # whatever the error, the client gets a response and the server continues
            context.outcome = "fault"
            state.log("fault", id=name, path=path_of(scope), error=f"{type(error).__name__}: {error}")
            await watched.answer(HTTPError(500, f"The server failed ({type(error).__name__}); see the id {name} in its log."))
        finally:
            self._close(scope, inner.get("route"), context, name)

    def _caller(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        """The caller; raises HTTPError for an unknown one, and for new work while the server stops."""
        path = path_of(scope)
        if path in PUBLIC_PATHS:
            return ANONYMOUS
        caller = self._state.keys.caller(headers.get("authorization"))
        if path == "/metrics" and caller.tasks is not None:
            raise HTTPError(401, "The metrics name every task, but this key may use only some of them; use a key without a list of tasks.")
        if path.startswith("/v1/") and scope["method"] == "POST" and self._state.draining:
            raise stopping()
        return caller

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """The whole body; raises HTTPError for one that is too large, or too slow."""
        limits, clock = self._state.limits, asyncio.get_running_loop().time
        declared = headers.get("content-length", "")
        large = declared.isdecimal() and int(declared) > limits.body_bytes
        body, size, more = bytearray(), 0, not (large and "expect" in headers)  # before the body is read
        try:
            async with asyncio.timeout(_LINGER if large else limits.body_seconds) as timeout:
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HTTPError(400, "The body ended early; send all of it.")
                    size, more = size + len(message.get("body", b"")), message.get("more_body", False)
                    if not large and size > limits.body_bytes:
                        large = True
                        body.clear()
                        timeout.reschedule(clock() + _LINGER)
                    if not large:
                        body += message.get("body", b"")
        except TimeoutError:
            if not large:
                raise HTTPError(
                    408, f"The body did not arrive in {limits.body_seconds:g} s; send it faster, or in smaller requests."
                ) from None
        if large:
            raise HTTPError(413, f"The body has more than the {limits.body_bytes} bytes that are allowed; send less.")
        return bytes(body)

    def _close(self, scope: Scope, found: object, context: RequestContext, name: str) -> None:
        """The request's line in the log, and its count by the route that was found."""
        route = getattr(found, "path", None)
        self._state.metrics.http.labels(route or "other", str(context.status)).inc()
        if path_of(scope) in (*PUBLIC_PATHS, "/metrics"):
            return
        self._state.log(
            "request",
            id=name,
            method=scope["method"],
            path=route or "other",
            status=context.status,
            seconds=time.monotonic() - context.began,
            key=context.caller.name or None,
            model=context.model,
            answers=context.answers,
            outcome=context.outcome,
            prompt_tokens=context.prompt_tokens,
            completion_tokens=context.completion_tokens,
            texts=context.texts,
            said=context.said,
        )


def path_of(scope: Scope) -> str:
    """The path of a request without the prefix under which a proxy serves the application."""
    prefix, path = scope.get("root_path", ""), scope["path"]
    return path[len(prefix) :] if prefix and path.startswith(prefix + "/") else path


@final
class _ResponseSender:
    """`send` with the request's id in the headers, which notes the status; a HEAD request gets no body."""

    def __init__(self, send: Send, context: RequestContext, name: str, *, with_body: bool = True) -> None:
        self._send, self._context, self._name, self._with_body = send, context, name, with_body

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._context.status = message["status"]
            message = {**message, "headers": [*message["headers"], (b"x-request-id", self._name.encode())]}
        elif not self._with_body:
            message = {**message, "body": b""}
        await self._send(message)

    async def answer(self, error: HTTPError) -> None:
        """Send an error, unless a response has begun already."""
        if self._context.status:
            return
        body = json.dumps(error.document).encode()
        facts = {"Content-Type": "application/json", "Content-Length": str(len(body)), **error.headers}
        headers = [(name.lower().encode(), value.encode()) for name, value in facts.items()]
        await self({"type": "http.response.start", "status": error.status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` that gives the body once, and then the next message, which is the client's disconnect."""
    left: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again
