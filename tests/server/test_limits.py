"""What is too much is refused in one sentence, what leaves frees its place, and a server that stops lets answers end."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from server.given import Reply, Served, ask, predicted, serve, until

from foreword.server.admission import Limits

LONG = {"model": "long", "prompt": "a film", "temperature": 2.0, "logit_bias": {"2": -100}}  # never ends by itself


@pytest.fixture(scope="module")
def small(folder: Path) -> Iterator[Served]:
    """A server with low limits: two answers grow, three may wait."""
    limits = Limits(body_bytes=5000, body_seconds=1.0, text_chars=600, answers=8, queued=3, queued_tokens=200)
    found = serve(folder, limits=limits, max_sequences=2, texts=True)
    yield found
    found.stop()
    found.join()


@contextlib.contextmanager
def sent(served: Served, body: bytes | object, *headers: str, path: str = "/v1/completions") -> Iterator[socket.socket]:
    """A request on a socket of its own, which the test reads, or leaves."""
    address = urlsplit(served.url)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: {address.netloc}", "Content-Type: application/json", *headers]
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        lines.append(f"Content-Length: {len(data)}")
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as made:
        made.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        yield made


def status(made: socket.socket) -> int:
    with http.client.HTTPResponse(made) as response:
        response.begin()
        response.read()
        return response.status


def idle(served: Served) -> bool:
    stats = served.engine.stats()
    return stats.running == stats.waiting == served.state.admission.active == 0


def test_giant_bodies_and_texts_are_refused(small: Served) -> None:
    sentence = "The body has more than the 5000 bytes that are allowed; send less."
    found = ask(small.url, "/v1/completions", {"model": "writer", "prompt": "x" * 10_000})
    assert (found.status, found.message) == (413, sentence)
    with sent(small, b"", "Content-Length: 99999999999", "Expect: 100-continue") as made:
        assert status(made) == 413
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    with sent(small, chunk * 4 + b"0\r\n\r\n", "Transfer-Encoding: chunked") as made:
        assert status(made) == 413
    text = ask(small.url, "/v1/completions", {"model": "writer", "prompt": "x" * 601})
    assert text.message == "A text has 601 characters, but at most 600 are allowed; shorten it."
    many = ask(small.url, "/v1/completions", {"model": "writer", "prompt": ["x"] * 9})
    assert many.message == "The request asks for 9 answers, but at most 8 are allowed; ask for fewer."


def test_slow_and_broken_bodies_end(small: Served) -> None:
    with sent(small, b"{", "Content-Length: 100") as made:
        assert status(made) == 408
    with sent(small, b"{", "Content-Length: 100"):
        pass
    with sent(small, b"zz\r\n", "Transfer-Encoding: chunked") as made:
        assert status(made) == 400
    assert ask(small.url, "/health").status == 200


def test_header_floods_are_refused(small: Served) -> None:
    for headers in ([f"X-Flood-{index}: {'x' * 100}" for index in range(2000)], [f"X-Long: {'x' * 200_000}"]):
        with contextlib.suppress(ConnectionError), sent(small, {}, *headers) as made:
            assert status(made) in (400, 431)
    assert ask(small.url, "/health").status == 200


def test_a_full_queue_says_when_to_come_back(small: Served) -> None:
    replies: list[Reply] = []
    body = {**LONG, "prompt": ["a", "b"]}
    threads = [threading.Thread(target=lambda: replies.append(ask(small.url, "/v1/completions", body))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    refused = [reply for reply in replies if reply.status != 200]
    assert refused and len(refused) < 6
    assert all(
        reply.status == 503 and reply.headers["retry-after"] == "1" and "at most 3 are allowed; try again soon." in reply.message
        for reply in refused
    )
    until(lambda: idle(small))


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(small: Served, stream: bool) -> None:
    with sent(small, {**LONG, "max_tokens": 90, "stream": stream}) as made:
        if stream:
            assert made.recv(100)
        until(lambda: small.engine.stats().running == 1)
    until(lambda: idle(small))
    last = [line for line in small.lines() if line["event"] == "request"][-1]
    assert last["outcome"] == "cancelled" and (last["status"] == 200 if stream else last["status"] == 499)


def test_a_slow_reader_holds_nobody_up(small: Served) -> None:
    with sent(small, {**LONG, "max_tokens": 90, "stream": True, "logprobs": 20}):
        assert (
            ask(small.url, "/v1/completions", {"model": "writer", "prompt": "x"}).json["choices"][0]["text"]
            == predicted("writer", "x").text
        )
    until(lambda: idle(small))


def test_request_ids_and_log_lines(small: Served, served: Served) -> None:
    for server in (small, served):
        found = ask(server.url, "/v1/completions", {"model": "writer", "prompt": "my secret"}, X_Request_Id="abc-1")
        assert found.headers["x-request-id"] == "abc-1"
        until(lambda server=server: [line.get("id") for line in server.lines()][-1:] == ["abc-1"])
    made = ask(served.url, "/v1/models", X_Request_Id="no\tid " + "x" * 200)
    assert len(made.headers["x-request-id"]) == 32
    line = small.lines()[-1]
    assert {
        "time",
        "event",
        "id",
        "method",
        "path",
        "status",
        "seconds",
        "model",
        "answers",
        "outcome",
        "prompt_tokens",
        "completion_tokens",
    } <= set(line)
    assert (line["model"], line["path"], line["status"], line["answers"]) == ("writer", "/v1/completions", 200, 1)
    assert "my secret" in line["texts"][0] and line["said"] == [predicted("writer", "my secret").text]
    assert "my secret" not in served.log.getvalue()


def test_a_stopping_server_refuses_and_lets_answers_end(folder: Path) -> None:
    server = serve(folder, max_sequences=2, drain=60)
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(ask(server.url, "/v1/completions", {**LONG, "max_tokens": 90})))
    thread.start()
    until(lambda: server.engine.stats().running == 1)
    server.stop()
    until(lambda: server.state.draining)
    ready, new = ask(server.url, "/ready"), ask(server.url, "/v1/completions", {"model": "writer", "prompt": "x"})
    assert [(found.status, found.message) for found in (ready, new)] == [
        (503, "The server is stopping; use another one, or try again later.")
    ] * 2
    assert new.headers["retry-after"] == "1" and ask(server.url, "/health").status == 200
    thread.join(30)
    server.join()
    assert replies[0].status == 200 and replies[0].json["choices"][0]["finish_reason"] == "length"


def test_a_stopping_server_cuts_what_takes_too_long(folder: Path) -> None:
    server = serve(folder, drain=0.05)
    with sent(server, {**LONG, "max_tokens": 100, "stream": True}) as made:
        until(lambda: server.engine.stats().running == 1)
        server.stop()
        with http.client.HTTPResponse(made) as response:
            response.begin()
            body = response.read().decode()
    server.join()
    assert body.endswith("data: [DONE]\n\n") and '"code":503' in body
