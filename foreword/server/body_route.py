"""The route of an endpoint with a body: the body is read and validated before FastAPI sees it, in a thread if it is large."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, final

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.responses import Response

from foreword.server.admission import Limits
from foreword.server.bounded_schema import BoundedSchema
from foreword.server.http_errors import HTTPError
from foreword.server.json_body import check_values, read_json
from foreword.server.validation_errors import error_of_body

NO_OBJECT = "The body is not a JSON object; send one, with the header `Content-Type: application/json`."


@final
class BodyRoute(APIRoute):
    """FastAPI's route, whose handler gets a body that is valid already; routes without a body stay as they are."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        schema = None if self.body_field is None else self.body_field.field_info.annotation
        if schema is None:
            return handle

        async def validated(request: Request) -> Response:
            body = await request.body()
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if not body or not (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))):
                raise HTTPError(400, NO_OBJECT)
            state = request.app.state.server_state
            made = await state.threads.run(len(body), read_body, schema, body, state.limits)
            return await handle(_ReadRequest(request, made))

        return validated


@final
class _ReadRequest(Request):
    """A request whose body has been read and validated."""

    def __init__(self, request: Request, body: BoundedSchema) -> None:
        super().__init__(request.scope, request.receive)
        self._valid = body

    async def body(self) -> bytes:
        return b"{}"  # read already; FastAPI only looks whether there is one

    async def json(self) -> Any:
        return self._valid


def read_body(schema: type[BoundedSchema], body: bytes, limits: Limits) -> BoundedSchema:
    """A body of this schema; raises HTTPError with the first thing that is wrong."""
    found = read_json(body, limits)
    if isinstance(found, dict):
        for name, value in found.items():
            if not (name in schema.apart and isinstance(value, list)):
                check_values(value, name)
    try:
        return schema.model_validate(found)
    except ValidationError as error:
        raise error_of_body(error.errors(include_url=False)) from None
