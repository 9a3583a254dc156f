"""The client of a server, against servers that answer well, badly, late or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from foreword.cli.support import client as module
from foreword.cli.support.client import Client
from foreword.errors import ServingError, UsageError

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    """The address of a server that answers every request by `answer`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer(self)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def events(handler: BaseHTTPRequestHandler, text: str) -> None:
    send(handler, text.encode(), kind="text/event-stream; charset=utf-8")


def refusal(url: str, ask: Callable[[Client], object]) -> str:
    with Client(url, None) as client, pytest.raises(ServingError) as caught:
        ask(client)
    return str(caught.value)


def stream(client: Client) -> list[str]:
    return list(client.stream({"prompt": "x"}))


def piece(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'text': text}]}, ensure_ascii=False)}\n\n"


def test_the_key_the_body_and_the_path_reach_the_server() -> None:
    seen: list[tuple[str, str | None, str | None]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.path, handler.headers["Authorization"], handler.headers["Content-Type"]))
        send(handler, b'{"data": ["\xc3\xa9"]}')

    with served(answer) as url, Client(url + "/v1/", "secret") as client:
        assert client.post("/v1/batch", {"input": ["\ud800 é"]}) == {"data": ["é"]}
        assert client.get("/v1/tasks") == {"data": ["é"]}
    assert seen == [("/v1/batch", "Bearer secret", "application/json"), ("/v1/tasks", "Bearer secret", "application/json")]


def test_a_stream_keeps_every_character_and_ends_at_done() -> None:
    pieces = ["a\u2028b", "\x85", "東", "", " 👍"]
    text = ": a comment\n\n" + "".join(map(piece, pieces)) + "data: [DONE]\n\n" + piece("too late")
    with served(lambda handler: events(handler, text)) as url, Client(url, None) as client:
        assert stream(client) == [text for text in pieces if text]


def test_a_stream_that_breaks_off_is_one_sentence() -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Content-Length", "9999")
        handler.end_headers()
        handler.wfile.write(piece("a").encode())
        handler.close_connection = True

    for answer in (cut, lambda handler: events(handler, piece("a"))):
        with served(answer) as url:
            assert refusal(url, stream) == f"the server at {url} went away before the answer ended; ask again."


def test_an_error_inside_a_stream_is_the_servers_sentence() -> None:
    text = piece("a") + 'data: {"error": {"message": "The engine stopped."}}\n\n'
    with served(lambda handler: events(handler, text)) as url:
        assert refusal(url, stream) == "The engine stopped."


def test_other_servers_are_told_from_foreword() -> None:
    with served(lambda handler: send(handler, b"<html>", kind="text/html")) as url:
        found = refusal(url, lambda client: client.get("/v1/tasks"))
        assert found == f"what answers at {url} is no Foreword server (Expecting value: line 1 column 1 (char 0)); check --url."
        assert refusal(url, stream) == (
            f"what answers at {url} is no Foreword server (Expected response with content type 'text/event-stream', got 'text/html'); check --url."
        )
    with served(lambda handler: send(handler, b"<html>", 502)) as url:
        found = refusal(url, lambda client: client.get("/v1/tasks"))
        assert found == "the server answered 502 (Bad Gateway), which is no answer of Foreword's; check --url."


def test_a_server_that_says_when_is_asked_again() -> None:
    waits = ["0", "0"]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if waits:
            send(handler, b'{"error": {"message": "The queue is full."}}', 503, Retry_After=waits.pop())
        else:
            send(handler, b'{"done": true}')

    with served(answer) as url, Client(url, None) as client:
        assert client.post("/v1/batch", {}) == {"done": True} and not waits
        waits[:] = ["0"] * module.ATTEMPTS
    with served(answer) as url:
        assert refusal(url, lambda client: client.post("/v1/batch", {})) == "The queue is full." and not waits
        waits[:] = [str(module.PATIENCE + 1)]
        assert refusal(url, lambda client: client.post("/v1/batch", {})) == "The queue is full." and not waits


def test_a_base_model_is_a_task_without_columns() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/v1/tasks/"):
            send(handler, b'{"error": {"message": "No such task."}}', 404)
        else:
            send(handler, json.dumps({"id": handler.path}).encode())

    with served(answer) as url, Client(url, None) as client:
        assert client.task("org/model") == ("text", ("text",))


def test_a_server_that_is_too_slow_or_hangs_up_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    with served(lambda handler: over.wait(10) and None) as url:
        found = refusal(url, lambda client: client.get("/v1/tasks"))
        over.set()
        assert found == f"no server answers at {url} (timed out); start one with `foreword serve`, or give --url."

    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    with served(hang_up) as url:
        assert refusal(url, lambda client: client.get("/v1/tasks")) == (
            f"no server answers at {url} (Server disconnected without sending a response); start one with `foreword serve`, or give --url."
        )
    for odd, why in (
        ("http://127.0.0.1:x", "Invalid port: 'x'"),
        ("http://", "Request URL is missing an 'http://' or 'https://' protocol"),
    ):
        assert refusal(odd, lambda client: client.get("/v1/tasks")) == (
            f"no server answers at {odd.rstrip('/')} ({why}); start one with `foreword serve`, or give --url."
        )


def test_a_key_that_no_header_can_carry() -> None:
    with pytest.raises(UsageError) as error:
        Client("http://127.0.0.1:1", "é")
    assert str(error.value) == "--key holds a character that no API key has; copy the key again."
