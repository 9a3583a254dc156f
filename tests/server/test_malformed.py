"""Bodies made from the OpenAPI page, right and wrong, and from nothing at all: never a 5xx, always the documented shape, and the server goes on.

FOREWORD_FUZZ multiplies the number of bodies.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from server.given import BASE, HEADED, WRITERS, Served, ask, predicted

TIMES = int(os.environ.get("FOREWORD_FUZZ", "1"))
QUIET = settings(
    deadline=None,
    derandomize=TIMES == 1,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODELS = [BASE, *(name for name in WRITERS if name != "long"), *HEADED, "nobody", "../writer", ""]
POSTS = [
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/classify",
    "/v1/tag",
    "/v1/qa",
    "/v1/batch",
    "/v1/tasks/load",
    "/v1/tasks/unload",
    "/v1/responses",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
]


@cache
def page(url: str) -> Any:
    return schemathesis.openapi.from_url(url + "/openapi.json")


@pytest.fixture(scope="module")
def session() -> Any:
    with requests.Session() as found:
        yield found


def directed(case: Case, number: int) -> Case:
    """A case that reaches a task, and does not write for long."""
    body = case.body
    if isinstance(body, dict):
        for field, value in (("model", MODELS[number % len(MODELS)]), ("name", MODELS[number % len(MODELS)])):
            if isinstance(body.get(field), str):
                body[field] = value
        if isinstance(body.get("n"), int) and 3 < body["n"] <= 64:
            body["n"] = 3
    return case


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # another thread, the server's, may
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", POSTS)
def test_bodies_made_from_the_page(served: Served, session: requests.Session, path: str, mode: GenerationMode) -> None:
    operation = page(served.url)[path]["POST"]

    @settings(QUIET, max_examples=8 * TIMES)
    @given(case=operation.as_strategy(generation_mode=mode), number=st.integers(0, 100))
    def check(case: Case, number: int) -> None:
        response = directed(case, number).call(session=session, timeout=30)
        case.validate_response(response, checks=CHECKS)
        if response.status_code >= 400:
            error = json.loads(response.text)["error"]
            assert error["code"] == response.status_code and "\n" not in error["message"].strip() and error["message"].endswith(".")

    check()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["model", "prompt", "input", "messages", "n", "x"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(QUIET, max_examples=100 * TIMES)
@given(path=st.sampled_from(POSTS), body=st.binary(max_size=60) | JUNK.map(lambda value: json.dumps(value).encode()))
def test_bodies_made_of_nothing(served: Served, path: str, body: bytes) -> None:
    found = ask(served.url, path, body)
    assert found.status in (400, 404) and found.message


@settings(QUIET, max_examples=25 * TIMES)
@given(
    name=st.sampled_from(["../x", "..", "/etc/passwd", "a/../b", "con", "%2e%2e", "x" * 5000, "a\u0000b", "writer/"]) | st.text(max_size=30)
)
def test_names_like_paths_are_unknown(served: Served, name: str) -> None:
    if name in MODELS[:-3]:
        return
    for path, body in {"/v1/completions": {"model": name, "prompt": "x"}, "/v1/tasks/unload": {"name": name}}.items():
        assert ask(served.url, path, body).status == 404
    assert ask(served.url, "/v1/tasks/load", {"name": name}).status in (400, 404)


def test_deep_and_huge_values(served: Served) -> None:
    for body in (b"[" * 100_000, b'{"prompt":' * 20_000, b'{"model":"writer","prompt":"x","seed":' + b"9" * 6000 + b"}", b"\xff\xfe", b""):
        assert ask(served.url, "/v1/completions", body).status == 400
    for field, value in {
        "max_tokens": 10**30,
        "seed": 10**30,
        "logit_bias": {"9" * 30: 1},
        "top_k": 10**30,
        "n": 10**9,
        "temperature": 1e308,
    }.items():
        found = ask(served.url, "/v1/completions", {"model": "writer", "prompt": "x", field: value})
        assert found.status in (200, 400), (field, found.text)
    assert (
        ask(served.url, "/v1/completions", {"model": "writer", "prompt": "x"}).json["choices"][0]["text"] == predicted("writer", "x").text
    )
