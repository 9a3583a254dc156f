"""A thin client of `foreword serve`, from the standard library: JSON, server-sent events, and refusals as errors."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from typing import Any, final
from urllib.parse import quote, urlsplit

from foreword.errors import ServingError, UsageError

ATTEMPTS = 5  # where the server says that it will take the same request later
PATIENCE = 60  # longest wait between two of them, in seconds
TIMEOUT = 600


@final
class Client:
    """Asks one server; raises ServingError with the server's own sentence."""

    def __init__(self, url: str, key: str | None) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(f"--url '{url}' is no address of a server; give one such as http://127.0.0.1:8000.")
        self._url, self._key = url.rstrip("/").removesuffix("/v1"), key

    def task(self, name: str) -> tuple[str, Sequence[str]]:
        """A task's kind and columns; ("text", ("text",)) for the base model."""
        try:
            found = self._json(f"/v1/tasks/{quote(name, safe='')}")
        except NotThere:
            self._json(f"/v1/models/{quote(name, safe='/')}")
            return "text", ("text",)
        if found["problem"] and not found["columns"]:
            raise ServingError(found["problem"])
        return found["kind"], found["columns"]

    def post(self, path: str, body: object) -> Any:
        return self._json(path, body)

    def get(self, path: str) -> Any:
        return self._json(path)

    def stream(self, body: dict[str, Any]) -> Iterator[str]:
        """Pieces of a completion as they come."""
        for event in self.events("/v1/completions", body | {"stream": True}):
            yield from (choice["text"] for choice in event["choices"] if choice["text"])

    def events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Server-sent events of an answer, to its end."""
        with self._open(path, body) as response:
            for line in response:
                data = line.decode().strip().removeprefix("data: ")
                if data == "[DONE]":
                    return
                if data and not data.startswith(":"):
                    found = json.loads(data)
                    if "error" in found:
                        raise ServingError(found["error"]["message"])
                    yield found
        raise ServingError(f"the server at {self._url} went away before the answer ended; ask again.")

    def _json(self, path: str, body: object = None) -> Any:
        with self._open(path, body) as response:
            try:
                return json.loads(response.read())
            except (ValueError, HTTPException) as error:
                raise ServingError(f"what answers at {self._url} is no Foreword server ({error}); check --url.") from error

    def _open(self, path: str, body: object) -> HTTPResponse:
        """A response; waits where the server asks to."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        data = None if body is None else json.dumps(body).encode()
        for left in reversed(range(ATTEMPTS)):
            try:
                return urllib.request.urlopen(urllib.request.Request(self._url + path, data, headers), timeout=TIMEOUT)
            except urllib.error.HTTPError as error:
                with error:
                    wait, said = error.headers.get("Retry-After", ""), _said(error)
                if left and wait.isdecimal() and int(wait) <= PATIENCE:
                    time.sleep(int(wait))
                    continue
                raise (NotThere if error.code == 404 else ServingError)(said) from error
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", error)
                raise ServingError(
                    f"no server answers at {self._url} ({reason}); start one with `foreword serve`, or give --url."
                ) from error
        raise AssertionError("the last attempt returns or raises")


@final
class NotThere(ServingError):
    """The server knows no such task."""


def _said(error: urllib.error.HTTPError) -> str:
    """The server's sentence, or what there is instead."""
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"the server answered {error.code} ({error.reason}), which is no answer of Foreword's; check --url."
