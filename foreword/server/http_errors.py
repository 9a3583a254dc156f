"""HTTP errors: a status, a type and one sentence, in the format of OpenAI's errors."""

from __future__ import annotations

from typing import Any, final

from foreword.errors import CapacityError, ForewordError
from foreword.serving.request import Failed

TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}
RETRY_AFTER = 1  # seconds until a retry, if nothing better is known


@final
class HTTPError(Exception):
    """An error response. `param` names the wrong field, `retry_after` the seconds until a retry."""

    def __init__(self, status: int, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        assert status in TYPES
        super().__init__(message)
        self.status, self.message, self.param, self.retry_after = status, message, param, retry_after

    @property
    def document(self) -> dict[str, Any]:
        """The body of the response."""
        return {"error": {"message": self.message, "type": TYPES[self.status], "param": self.param, "code": self.status}}

    @property
    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def model_not_found(name: str) -> HTTPError:
    """No such model, or one that this caller may not use."""
    return HTTPError(404, f"The model `{shorten(name)}` does not exist; GET /v1/models lists those that do.", param="model")


def error_of(error: ForewordError) -> HTTPError:
    """The HTTP error of a caller's mistake or of insufficient capacity."""
    if isinstance(error, CapacityError):
        return HTTPError(503, error.request_message, retry_after=RETRY_AFTER)
    return HTTPError(400, error.request_message)


def error_of_failed(failed: Failed) -> HTTPError:
    """The HTTP error of a request that failed in the engine."""
    if failed.kind == "capacity":
        return HTTPError(503, failed.message, retry_after=RETRY_AFTER)
    if failed.kind == "engine":
        return HTTPError(500, failed.message)
    return HTTPError(400, failed.message, param="model" if failed.kind == "task" else None)


def shorten(text: str, size: int = 100) -> str:
    """A caller's text, shortened to one line for a message."""
    text = "".join(character if character.isprintable() else "�" for character in text[: size + 1])
    return text if len(text) <= size else text[: size - 1] + "…"
