"""Bodies made to be expensive: each is refused at once, and everybody else is served meanwhile. In a process of its own, whose memory is measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from server.given import BASE, Served, ask, predicted, serve
from server.server_process import ServerProcess, save_prompts, start

from foreword.server.admission import Limits

MOST = 4 << 20  # bytes that a body may have
GROWTH = 600 << 20  # bytes of memory; 5.7 GB before bodies were counted
ANSWERED = 8.0  # seconds, on a machine that does much else; 42 before


def filled(opening: str, item: str, closing: str, size: int = MOST) -> bytes:
    """A body of about so many bytes of one item."""
    count = (size - len(opening) - len(closing) - 10) // (len(item) + 1)
    return (opening + ",".join([item] * count) + closing).encode()


def numbered(opening: str, value: str, closing: str, count: int) -> bytes:
    """A body with so many different fields."""
    return (opening + ",".join(f'"a{index}":{value}' for index in range(count)) + closing).encode()


TOO_MANY = "values, but at most 200000 are allowed; send fewer at once."
MILLIONS = {
    "prompt": ("/v1/completions", filled('{"model":"writer","prompt":[', "1.5", "]}"), TOO_MANY),
    "messages": ("/v1/chat/completions", filled('{"model":"writer","messages":[', "1", "]}"), TOO_MANY),
    "tag": ("/v1/tag", filled('{"model":"writer","input":[', "[1]", "]}"), TOO_MANY),
    "empty": ("/v1/batch", filled('{"model":"writer","input":[', "[]", "]}"), TOO_MANY),
    "fields": ("/v1/classify", numbered("{", "1", "}", 250_000), TOO_MANY),
}
ALLOWED = {  # as many values as may come, all wrong, in every place where each could be an error of its own
    "prompt": ("/v1/completions", filled('{"model":"writer","prompt":[', "1.5", "]}", 790_000), "`prompt` should be"),
    "ids": ("/v1/completions", filled('{"model":"writer","prompt":[[', "1", "],[null]]}", 390_000), "`prompt` should be"),
    "columns": ("/v1/completions", numbered('{"model":"writer","prompt":{', "1", "}}", 190_000), "`prompt` should be"),
    "messages": ("/v1/chat/completions", filled('{"model":"writer","messages":[', "1", "]}", 390_000), "`messages[0]` should be"),
    "conversation": (
        "/v1/chat/completions",
        filled('{"model":"tiny-llama","messages":[', '{"role":"user","content":"x"}', "]}", 1_900_000),
        "The conversation has ",
    ),
    "parts": ("/v1/chat/completions", numbered('{"model":"writer","messages":[{', "1", "}]}", 190_000), "`messages[0]` should be"),
    "tag": ("/v1/tag", filled('{"model":"writer","input":[', "[1]", "]}", 390_000), "`input` should be"),
    "batch": ("/v1/batch", filled('{"model":"writer","input":[', "1", "]}", 390_000), "The request asks for "),
    "item": ("/v1/batch", numbered('{"model":"writer","input":{', "1", "}}", 190_000), "`input` should be"),
    "models": ("/v1/batch", filled('{"input":"x","model":[', '"x"', "]}", 790_000), "The request asks for "),
    "unknown": (
        "/v1/completions",
        numbered("{", "1", "}", 190_000),
        "The body has 190000 fields, but no request has more than 64; see /docs.",
    ),
    "bias": (
        "/v1/completions",
        numbered('{"model":"writer","prompt":"x","logit_bias":{', '"x"', "}}", 190_000),
        "`logit_bias.a0` should be",
    ),
    "quotes": ("/v1/completions", b'{"model":"writer","prompt":"' + b'\\",' * 1_300_000, "The body is not valid JSON (Unterminated string"),
}


class Prober(threading.Thread):
    """Somebody who asks for the server's health all the time."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.slowest, self.count, self.done = url, 0.0, 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            began = time.monotonic()
            assert ask(self.url, "/health").status == 200
            self.slowest, self.count = max(self.slowest, time.monotonic() - began), self.count + 1


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    found = start(save_prompts(tmp_path_factory.mktemp("store")), "--model-name", BASE, "--load", "all")
    yield found
    found.kill()


def send(process: ServerProcess, path: str, body: bytes) -> tuple[int, str]:
    """A body, while somebody else asks for the server's health."""
    prober = Prober(process.url)
    prober.start()
    try:
        found = ask(process.url, path, body)
    finally:
        prober.done.set()
        prober.join()
    assert prober.slowest < ANSWERED
    return found.status, found.message


@pytest.mark.parametrize("name", MILLIONS)
def test_a_million_values_are_refused_at_once(process: ServerProcess, name: str) -> None:
    path, body, sentence = MILLIONS[name]
    before = process.peak_bytes()
    began = time.monotonic()
    status, message = send(process, path, body)
    assert status == 413 and message.startswith("The body has ") and message.endswith(sentence)
    assert time.monotonic() - began < ANSWERED and process.peak_bytes() - before < GROWTH


@pytest.mark.parametrize("name", ALLOWED)
def test_as_many_faults_as_may_come_are_one(process: ServerProcess, name: str) -> None:
    path, body, sentence = ALLOWED[name]
    before = process.peak_bytes()
    status, message = send(process, path, body)
    assert status == 400 and message.startswith(sentence), message
    assert process.peak_bytes() - before < GROWTH


def test_good_requests_are_answered_as_ever(process: ServerProcess) -> None:
    texts = [f"a film {index}" for index in range(40)]
    found = ask(process.url, "/v1/classify", {"model": "sentiment", "input": texts, "metadata": {"padding": "x" * 100_000}}).json
    assert [item["label"] for item in found["data"]] == [predicted("sentiment", text).text for text in texts]


def test_long_texts_are_counted_while_others_are_answered(process: ServerProcess) -> None:
    status, message = send(process, "/v1/completions", b'{"model":"writer","prompt":["' + b"a film " * 28_000 + b'"]}')
    assert status == 400 and message.endswith("shorten it, or set `truncate` to true.")


def test_the_limit_of_values_is_a_setting(folder: Path) -> None:
    server: Served = serve(folder, limits=Limits(values=10))
    try:
        commas = ask(server.url, "/v1/completions", {"model": "writer", "prompt": "a, b, c, [d], {e}, f, g, h, i, j, k", "max_tokens": 1})
        many = ask(server.url, "/v1/completions", {"model": "writer", "prompt": ["x"] * 9})
    finally:
        server.stop()
        server.join()
    assert commas.status == 200
    assert (many.status, many.message) == (413, "The body has 12 values, but at most 10 are allowed; send fewer at once.")
