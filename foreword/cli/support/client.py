"""A thin client of `foreword serve`, over httpx2 (which huggingface_hub brings along): JSON, server-sent events, and refusals as errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, final
from urllib.parse import quote, urlsplit

import httpx2

from foreword.errors import ServingError, UsageError

ATTEMPTS = 5  # where the server says that it will take the same request later
PATIENCE = 60  # longest wait between two of them, in seconds
TIMEOUT = 600


@final
class Client:
    """Asks one server, from any number of threads; raises ServingError with the server's own sentence. A `with` block closes its connections."""

    def __init__(self, url: str, key: str | None) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(f"--url '{url}' is no address of a server; give one such as http://127.0.0.1:8000.")
        self._url = url.rstrip("/").removesuffix("/v1")
        if key is not None and not key.isascii():
            raise UsageError("--key holds a character that no API key has; copy the key again.")
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        limits = httpx2.Limits(max_connections=None)  # `foreword bench serve` decides how many are asked at once
        self._http = httpx2.Client(headers=headers, timeout=TIMEOUT, limits=limits, follow_redirects=True)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *problem: object) -> None:
        self._http.close()

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
        """A completion part by part, as it is written."""
        for event in self.events("/v1/completions", body | {"stream": True}):
            yield from (choice["text"] for choice in event["choices"] if choice["text"])

    def events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Server-sent events of an answer, to its end."""
        with closing(self._open(path, body)) as response:
            try:
                for event in httpx2.EventSource(response):
                    if event.data == "[DONE]":
                        return
                    found = json.loads(event.data)
                    if "error" in found:
                        raise ServingError(found["error"]["message"])
                    yield found
            except (httpx2.SSEError, ValueError) as error:
                raise self._stranger(error) from error
            except httpx2.HTTPError as error:
                raise self._gone() from error
        raise self._gone()

    def _json(self, path: str, body: object = None) -> Any:
        with closing(self._open(path, body)) as response:
            try:
                return json.loads(response.read())
            except (ValueError, httpx2.HTTPError) as error:
                raise self._stranger(error) from error

    def _open(self, path: str, body: object) -> httpx2.Response:
        """An answer whose body is not read yet; waits where the server asks to."""
        content = None if body is None else json.dumps(body)
        for left in reversed(range(ATTEMPTS)):
            try:
                request = self._http.build_request("GET" if content is None else "POST", self._url + path, content=content)
                response = self._http.send(request, stream=True)
                if response.is_success:
                    return response
                with closing(response):
                    response.read()
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise ServingError(
                    f"no server answers at {self._url} ({_reason(error)}); start one with `foreword serve`, or give --url."
                ) from error
            wait = response.headers.get("Retry-After", "")
            if not left or not wait.isdecimal() or int(wait) > PATIENCE:
                raise (NotThere if response.status_code == 404 else ServingError)(_said(response))
            time.sleep(int(wait))
        raise AssertionError("the last attempt returns or raises")

    def _stranger(self, error: Exception) -> ServingError:
        return ServingError(f"what answers at {self._url} is no Foreword server ({_reason(error)}); check --url.")

    def _gone(self) -> ServingError:
        return ServingError(f"the server at {self._url} went away before the answer ended; ask again.")


@final
class NotThere(ServingError):
    """The server knows no such task."""


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _said(response: httpx2.Response) -> str:
    """The server's sentence, or what there is instead."""
    try:
        return str(json.loads(response.content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status_code} ({response.reason_phrase}), which is no answer of Foreword's; check --url."
