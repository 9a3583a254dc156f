"""What JSON can say and no server can use, sent to every endpoint: a sentence with status 400, and the server goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from server.given import BASE, Served, ask, predicted

from foreword.server.request_schemas import CompletionRequest

BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "writer", "prompt": "x"},
    "/v1/chat/completions": {"model": "writer", "messages": [{"role": "user", "content": "x"}]},
    "/v1/classify": {"model": "sentiment", "input": "x"},
    "/v1/tag": {"model": "names", "input": [["a", "x"]]},
    "/v1/qa": {"model": "answers", "input": {"question": "x", "context": "a film"}},
    "/v1/batch": {"model": "writer", "input": "x"},
    "/v1/tasks/load": {"name": "writer"},
    "/v1/tasks/unload": {"name": "writer"},
    "/v1/responses": {"model": "writer", "input": "x"},
    "/tokenize": {"model": "writer", "prompt": "x"},
    "/detokenize": {"model": "writer", "tokens": [40]},
}
HALF = "holds half of a surrogate pair, which is no character; send whole characters."
DEEP = "nested more than 64 levels deep; send a flatter value."
LARGE = "holds a number that is too large; send one that fits in 64 bits."
NOT_JSON = "The body is not JSON in UTF-8; send a JSON object."


def field(path: str) -> str:
    """The field with the texts, or the name."""
    return list(BODIES[path])[-1]


def with_value(path: str, value: str) -> bytes:
    """The body with a value, in JSON, in the place of its texts."""
    return json.dumps({**BODIES[path], field(path): "HERE"}).replace('"HERE"', value).encode()


def with_texts(path: str, text: str) -> bytes:
    """The body with other texts and names, in JSON without the quotes."""
    return json.dumps(BODIES[path]).replace('"x"', f'"{text}"').replace('"writer"', f'"{text}"').encode()


def wrong_bodies(path: str) -> dict[str, tuple[bytes, str]]:
    """Wrong bodies by what is wrong, each with the end of its sentence."""
    whole = json.dumps(BODIES[path])
    opened = "{" + f'"{field(path)}":'
    return {
        "half a pair": (with_texts(path, "a \\ud83d b"), HALF),
        "the other half": (with_texts(path, "\\uDE00"), HALF),
        "half a pair in a name": (with_value(path, '{"\\ud800": "x"}'), HALF),
        "half a pair as a field": (whole.replace("{", '{"\\udfff": 1, ', 1).encode(), HALF),
        "a half in bytes": (whole.encode().replace(b"writer", b"\xed\xa0\x80").replace(b'"x"', b'"\xed\xa0\x80"'), NOT_JSON),
        "deep lists": (b"[" * 50_000, DEEP),
        "deep objects": (opened.encode() * 20_000, DEEP),
        "deep and whole": (with_value(path, "[" * 500 + "]" * 500), DEEP),
        "not a number": (with_value(path, "NaN"), "The body holds NaN, which is not JSON; send a number."),
        "infinite": (with_value(path, "[-Infinity]"), "The body holds -Infinity, which is not JSON; send a number."),
        "beyond all doubles": (with_value(path, "1e999"), LARGE),
        "beyond 64 bits": (with_value(path, "9" * 30), LARGE),
        "thousands of digits": (with_value(path, "-" + "9" * 6000), LARGE),
        "a field twice": (
            f'{whole[:-1]}, "{field(path)}": "y"}}'.encode(),
            f"The body gives `{field(path)}` twice in one object; give it once.",
        ),
        "a mark of bytes": (b"\xef\xbb\xbf" + whole.encode(), "The body begins with a byte order mark; send JSON in UTF-8 without one."),
        "UTF-16": (whole.encode("utf-16"), NOT_JSON),
        "UTF-32": (whole.encode("utf-32"), NOT_JSON),
        "UTF-16 without a mark": (whole.encode("utf-16-le"), "send a JSON object."),
        "Latin-1": (with_texts(path, "café").decode().encode("latin-1"), NOT_JSON),
        "a zero byte": (whole.encode() + b"\0", "The body is not valid JSON (Extra data); send a JSON object."),
        "a list": (b"[]", "The body is not a JSON object; send one, with the header `Content-Type: application/json`."),
        "nothing": (b"", "The body is not a JSON object; send one, with the header `Content-Type: application/json`."),
        "null": (b"null", "The body is not a JSON object; send one, with the header `Content-Type: application/json`."),
    }


@pytest.mark.parametrize("path", BODIES)
def test_odd_bodies_are_refused_in_a_sentence(served: Served, path: str) -> None:
    for what, (body, sentence) in wrong_bodies(path).items():
        found = ask(served.url, path, body)
        error = found.json["data"][0]["error"] if path == "/v1/batch" and found.status == 200 else found.json["error"]
        assert error["code"] == 400 and error["message"].endswith(sentence), (what, found.text)
    assert ask(served.url, path, BODIES[path]).status == 200


def test_every_endpoint_with_a_body_is_tried(served: Served) -> None:
    pages = ask(served.url, "/openapi.json").json["paths"]
    posts = {path for path, methods in pages.items() if "post" in methods} - {"/v1/embeddings"}  # which needs an encoder
    assert posts == set(BODIES), "give every endpoint with a body a good one in BODIES"


@pytest.mark.parametrize("path", BODIES)
def test_a_body_of_another_type_is_no_object(served: Served, path: str) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        found = ask(served.url, path, BODIES[path], Content_Type=kind)
        assert (found.status, found.message) == (
            400,
            "The body is not a JSON object; send one, with the header `Content-Type: application/json`.",
        )
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"):
        assert ask(served.url, path, BODIES[path], Content_Type=kind).status == 200


def test_whole_characters_in_two_halves_are_text(served: Served) -> None:
    found = ask(served.url, "/v1/completions", b'{"model": "writer", "prompt": "\\ud83d\\ude00"}')
    assert found.json["choices"][0]["text"] == predicted("writer", "😀").text


def test_odd_values_in_every_field_of_a_completion(served: Served) -> None:
    fields = [name for name in CompletionRequest.model_fields if name not in ("model", "prompt")]
    assert len(fields) > 20
    for name in fields:
        for value in ('"\\ud800"', "1e999", "9" * 40, "[" * 70 + "]" * 70, '{"\\ud800": 1}'):
            found = ask(served.url, "/v1/completions", f'{{"model": "{BASE}", "prompt": "x", "{name}": {value}}}'.encode())
            assert found.status == 400 and found.json["error"]["param"] == name, (name, value, found.text)
