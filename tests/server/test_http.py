"""HTTP itself: methods, slashes, pages of other origins, a proxy's prefix."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from server.given import Served, ask, predicted, serve

from foreword.errors import UsageError
from foreword.server.auth import Caller, Keys, hash_key
from foreword.server.cors import check_origins

GETS = ["/v1/models", "/v1/models/writer", "/v1/tasks", "/v1/tasks/writer", "/health", "/ready", "/metrics", "/docs", "/openapi.json"]
POSTS = ["/v1/completions", "/v1/chat/completions", "/v1/classify", "/v1/batch"]
PAGE, KEY = "https://page.example", "a key"


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Served]:
    """A server with a key, for the pages of one origin, under a prefix."""
    found = serve(folder, keys=Keys({hash_key(KEY): Caller("me")}), root_path="/llm", origins=(PAGE,))
    yield found
    found.stop()
    found.join()


def raw(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One request, whose redirects are not followed, with every byte after the headers."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", "Connection": "close", **headers})
        response = connection.getresponse()
        assert response.fp is not None
        head = {name.lower(): value for name, value in response.getheaders()}
        return response.status, head, response.fp.read() if method == "HEAD" else response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_its_body(served: Served, path: str) -> None:
    status, head, rest = raw(served.url, "HEAD", path)
    assert (status, rest) == (200, b"")
    code, full, body = raw(served.url, "GET", path)
    assert code == 200 and (path == "/metrics" or int(head["content-length"]) == len(body)) and head["content-type"] == full["content-type"]


def test_head_of_what_is_not_there_is_its_status(served: Served) -> None:
    assert raw(served.url, "HEAD", "/v1/tasks/nobody")[0] == 404
    assert raw(served.url, "HEAD", "/v1/completions")[::2] == (405, b"")


def test_options_say_what_a_path_supports(served: Served) -> None:
    for paths, allowed in ((GETS, "GET, HEAD, OPTIONS"), (POSTS, "POST, OPTIONS")):
        for path in paths:
            status, head, body = raw(served.url, "OPTIONS", path)
            assert (status, head["allow"], body) == (204, allowed, b""), path
    assert raw(served.url, "OPTIONS", "/v1/tasks/load")[1]["allow"] == "GET, POST, HEAD, OPTIONS"  # a task may have that name
    assert raw(served.url, "OPTIONS", "/nowhere")[0] == 404
    status, head, _ = raw(served.url, "PUT", "/v1/models")
    assert (status, head["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_a_slash_at_the_end_redirects_nobody(served: Served) -> None:
    for method, paths in (("POST", POSTS), ("GET", ["/v1/models", "/health", "/metrics"])):
        for path in paths:
            status, head, _ = raw(served.url, method, path + "/", b"{}" if method == "POST" else None)
            assert status == 404 and "location" not in head
    found = ask(served.url, "/v1/completions/", {"model": "writer", "prompt": "x"})
    assert (found.status, found.message) == (404, "/v1/completions/ does not exist; leave out the slash at its end.")


def test_a_page_of_an_allowed_origin_may_ask(shared: Served) -> None:
    question = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    status, head, _ = raw(shared.url, "OPTIONS", "/v1/completions", **question)
    assert (status, head["access-control-allow-origin"]) == (200, PAGE)
    assert "POST" in head["access-control-allow-methods"] and "authorization" in head["access-control-allow-headers"]
    body = b'{"model": "writer", "prompt": "x"}'
    status, head, _ = raw(shared.url, "POST", "/v1/completions", body, Origin=PAGE, Authorization=f"Bearer {KEY}")
    assert (status, head["access-control-allow-origin"]) == (200, PAGE) and "x-request-id" in head["access-control-expose-headers"]
    status, head, _ = raw(shared.url, "POST", "/v1/completions", body, Origin=PAGE)
    assert (status, head["access-control-allow-origin"]) == (401, PAGE)  # else the page could not read why


def test_a_page_of_another_origin_may_not(shared: Served, served: Served) -> None:
    other = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    status, head, _ = raw(shared.url, "OPTIONS", "/v1/completions", **other)
    assert status == 400 and "access-control-allow-origin" not in head
    _, head, _ = raw(served.url, "POST", "/v1/completions", b'{"model": "writer", "prompt": "x"}', Origin=PAGE)
    assert "access-control-allow-origin" not in head


def test_a_prefix_is_served_whether_or_not_a_proxy_removes_it(shared: Served) -> None:
    mine = {"Authorization": f"Bearer {KEY}"}
    for prefix in ("", "/llm"):
        assert ask(shared.url, f"{prefix}/health").status == 200
        assert ask(shared.url, f"{prefix}/v1/models").status == ask(shared.url, f"{prefix}/metrics").status == 401
        found = ask(shared.url, f"{prefix}/v1/completions", {"model": "writer", "prompt": "x"}, **mine)
        assert found.json["choices"][0]["text"] == predicted("writer", "x").text
        assert ask(shared.url, f"{prefix}/v1/tag", {"model": "names", "input": "a"}, **mine).status == 200
        assert "/llm/openapi.json" in ask(shared.url, f"{prefix}/docs").text
    assert ask(shared.url, "/llmhealth").status == 401
    assert {line["path"] for line in shared.lines() if line["event"] == "request"} <= {"/v1/completions", "/v1/models", "/v1/tag", "other"}


@pytest.mark.parametrize("origin", ["", "page.example", "https://page.example/", "https://page.example/path", "https://*.example", "null"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    check_origins([PAGE, "*", "http://localhost:3000", "chrome-extension://abc"])
    with pytest.raises(UsageError) as caught:
        check_origins([PAGE, origin])
    assert str(caught.value) == f"--allow-origin '{origin}' is not an origin; give one such as https://example.org, without a path, or *."
