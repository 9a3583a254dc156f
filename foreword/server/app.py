"""The application: routes, the middleware around them, and every error in one shape. The engine is passed in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from foreword.errors import ForewordError
from foreword.server import health, openai_routes, task_routes
from foreword.server.http_errors import HTTPError, error_of, shorten
from foreword.server.middleware import RequestMiddleware
from foreword.server.server_state import ServerState
from foreword.server.validation_errors import error_of_body

ABOUT = """Many tasks from one frozen language model, each by a small soft prompt. A request's `model` is the name of a task or of the base model.

Decoding is greedy by default, so answers equal those of `foreword predict`. Every error message is one sentence."""


def create_app(state: ServerState) -> FastAPI:
    """An ASGI application over a service, which starts and closes its engine; nothing is shared between two of them."""
    app = FastAPI(title="Foreword", version=version("foreword"), description=ABOUT, redoc_url=None, lifespan=_lifespan)
    app.state.server_state = state
    app.include_router(task_routes.router)
    app.include_router(openai_routes.router)
    app.include_router(health.router)
    app.add_exception_handler(HTTPError, _http_error)
    app.add_exception_handler(ForewordError, _foreword_error)
    app.add_exception_handler(RequestValidationError, _invalid_body)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_middleware(RequestMiddleware, state=state)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The engine runs as long as the application; one that was already started or closed stays as it is."""
    engine = app.state.server_state.engine
    await engine.start()
    try:
        yield
    finally:
        await engine.close()


def _answer(error: HTTPError) -> Response:
    return JSONResponse(error.document, error.status, headers=error.headers)


async def _http_error(_: Request, error: Exception) -> Response:
    return _answer(cast(HTTPError, error))


async def _foreword_error(_: Request, error: Exception) -> Response:
    return _answer(error_of(cast(ForewordError, error)))


async def _invalid_body(_: Request, error: Exception) -> Response:
    return _answer(error_of_body(cast(RequestValidationError, error).errors()))


async def _framework_error(request: Request, error: Exception) -> Response:
    """Errors of the framework itself: paths, methods, bodies that are not text."""
    found = cast(HTTPException, error)
    path = shorten(request.url.path)
    if found.status_code == 404:
        return _answer(HTTPError(404, f"{path} does not exist; see /docs for the endpoints."))
    if found.status_code == 405:
        answer = _answer(HTTPError(405, f"{path} does not support {request.method}; see /docs for the endpoints."))
        answer.headers.update(found.headers or {})
        return answer
    return _answer(HTTPError(400, "The body is not JSON in UTF-8; send a JSON object."))
