"""The application: routes, the middleware around them, and every error in one shape. The engine is passed in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from foreword.errors import ForewordError
from foreword.server import cors, embedding_routes, health, openai_routes, response_routes, task_routes, tokenizer_routes
from foreword.server.http_errors import HTTPError, error_of, shorten
from foreword.server.middleware import RequestMiddleware
from foreword.server.server_state import ServerState
from foreword.server.validation_errors import error_of_body

ABOUT = """Many tasks from one frozen language model, each by a small soft prompt. A request's `model` is the name of a task or of the base model.

Decoding is greedy by default, so answers equal those of `foreword predict`. Every error message is one sentence."""

METHODS = ("GET", "POST")  # of all routes


def create_app(state: ServerState, *, root_path: str = "", origins: Sequence[str] = ()) -> FastAPI:
    """An ASGI application over a service, which starts and closes its engine; nothing is shared between two of them.

    Args:
        root_path: Prefix under which a proxy serves the application, such as `/llm`.
        origins: Origins of web pages that may send requests from a browser, such as `https://example.org`; `*` allows all.
    """
    app = FastAPI(
        title="Foreword",
        version=version("foreword"),
        description=ABOUT,
        redoc_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,  # clients follow a redirect of a POST with a GET
    )
    app.state.server_state = state
    app.include_router(task_routes.router)
    app.include_router(openai_routes.router)
    app.include_router(response_routes.router)
    app.include_router(embedding_routes.router)
    app.include_router(tokenizer_routes.router)
    app.include_router(health.router)
    app.add_exception_handler(HTTPError, _http_error)
    app.add_exception_handler(ForewordError, _foreword_error)
    app.add_exception_handler(RequestValidationError, _invalid_body)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_middleware(RequestMiddleware, state=state, root_path=root_path)
    if origins:
        cors.allow_origins(app, origins)
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
        app.state.server_state.threads.close()


def _answer(error: HTTPError) -> Response:
    return JSONResponse(error.document, error.status, headers=error.headers)


async def _http_error(_: Request, error: Exception) -> Response:
    return _answer(cast(HTTPError, error))


async def _foreword_error(_: Request, error: Exception) -> Response:
    return _answer(error_of(cast(ForewordError, error)))


async def _invalid_body(_: Request, error: Exception) -> Response:
    return _answer(error_of_body(cast(RequestValidationError, error).errors()))


def _other_method(request: Request, path: str) -> Response:
    """The response to a method that a path has no route for: what it does support, for OPTIONS, and an error for others."""
    routes = request.app.routes
    methods = [name for name in METHODS if any(route.matches({**request.scope, "method": name})[0] is Match.FULL for route in routes)]
    allow = {"Allow": ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=allow)
    answer = _answer(HTTPError(405, f"{path} does not support {request.method}; see /docs for the endpoints."))
    answer.headers.update(allow)
    return answer


async def _framework_error(request: Request, error: Exception) -> Response:
    """Errors of the framework itself: paths, methods, bodies that are not text."""
    found = cast(HTTPException, error)
    path = shorten(request.url.path)
    if found.status_code == 404:
        cure = "leave out the slash at its end" if len(path) > 1 and path.endswith("/") else "see /docs for the endpoints"
        return _answer(HTTPError(404, f"{path} does not exist; {cure}."))
    if found.status_code == 405:
        return _other_method(request, path)
    return _answer(HTTPError(400, "The body is not JSON in UTF-8; send a JSON object."))
