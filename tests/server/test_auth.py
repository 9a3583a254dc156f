"""Keys: hashed, compared whole, each with its tasks and its rate."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from openai import AuthenticationError, OpenAI
from server.given import BASE, Served, ask, serve

from foreword.errors import UsageError
from foreword.server.auth import Caller, Keys, hash_key, make_key, read_keys, writable_by_others
from foreword.server.dependencies import charge
from foreword.server.http_errors import HTTPError
from foreword.server.preprocessing import EngineRequest
from foreword.server.server_state import RequestContext
from foreword.serving.request import Request

ALL, ONE, SLOW = "key-of-all", "key-of-one", "key-that-is-slow"


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Served]:
    callers = {hash_key(ALL): Caller("all"), hash_key(ONE): Caller("one", frozenset({"writer"})), hash_key(SLOW): Caller("slow", None, 3)}
    found = serve(folder, keys=Keys(callers))
    yield found
    found.stop()
    found.join()


def test_nothing_is_answered_without_a_key(guarded: Served) -> None:
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": ALL}, {"Authorization": f"Basic {ALL}"}):
        for path in ("/v1/models", "/v1/anything", "/metrics", "/nowhere"):
            found = ask(guarded.url, path, **given)
            assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
            assert found.message == "This server needs an API key; send a valid one as `Authorization: Bearer KEY`."
    assert [ask(guarded.url, path).status for path in ("/health", "/ready", "/openapi.json", "/docs")] == [200] * 4
    with OpenAI(base_url=guarded.url + "/v1", api_key="wrong", max_retries=0) as client, pytest.raises(AuthenticationError):
        client.models.list()
    with OpenAI(base_url=guarded.url + "/v1", api_key=ALL, max_retries=0) as client:
        assert client.completions.create(model="writer", prompt="x").choices[0].text


def test_a_hidden_task_looks_unknown(guarded: Served) -> None:
    mine = {"Authorization": f"Bearer {ONE}"}
    assert [card["id"] for card in ask(guarded.url, "/v1/models", **mine).json["data"]] == ["writer"]
    assert [card["name"] for card in ask(guarded.url, "/v1/tasks", **mine).json["tasks"]] == ["writer"]
    assert ask(guarded.url, "/v1/completions", {"model": "writer", "prompt": "x"}, **mine).status == 200
    for name in ("suffix", "nobody", BASE):
        refused = [
            ask(guarded.url, f"/v1/models/{name}", **mine),
            ask(guarded.url, f"/v1/tasks/{name}", **mine),
            ask(guarded.url, "/v1/completions", {"model": name, "prompt": "x"}, **mine),
            ask(guarded.url, "/v1/batch", {"model": name, "input": ["x"]}, **mine),
            ask(guarded.url, "/v1/tasks/load", {"name": name}, **mine),
            ask(guarded.url, "/v1/tasks/unload", {"name": name}, **mine),
        ]
        assert {(found.status, found.message) for found in refused} == {
            (404, f"The model `{name}` does not exist; GET /v1/models lists those that do.")
        }
        unload = ask(guarded.url, "/v1/tasks/unload", {"name": "writer"}, **mine)
        assert (unload.status, unload.message) == (
            401,
            "This key may use only some tasks, so it cannot unload one that others use too; use a key without a list of tasks.",
        )
        fine, hidden = ask(guarded.url, "/v1/batch", {"model": ["writer", name], "input": "x"}, **mine).json["data"]
        assert "text" in fine and hidden["error"] == refused[0].json["error"]
    assert ask(guarded.url, "/metrics", **mine).status == 401
    assert ask(guarded.url, "/metrics", Authorization=f"Bearer {ALL}").status == 200


def test_a_rate_is_kept_per_key(guarded: Served) -> None:
    slow = {"Authorization": f"Bearer {SLOW}"}
    many = ask(guarded.url, "/v1/completions", {"model": "writer", "prompt": ["x"] * 4, "max_tokens": 1}, **slow)
    assert (many.status, many.message) == (400, "The request asks for 4 answers, but this key allows 3 per minute; ask for fewer at once.")
    assert ask(guarded.url, "/v1/completions", {"model": "writer", "prompt": ["x"] * 3, "max_tokens": 1}, **slow).status == 200
    refused = ask(guarded.url, "/v1/completions", {"model": "writer", "prompt": "x", "max_tokens": 1}, **slow)
    assert refused.status == 429 and 15 <= int(refused.headers["retry-after"]) <= 20
    assert refused.message == f"This key allows 3 answers per minute; try again in {refused.headers['retry-after']} s."
    assert ask(guarded.url, "/v1/completions", {"model": "writer", "prompt": "x"}, Authorization=f"Bearer {ALL}").status == 200


def test_a_bucket_fills_as_time_goes_by() -> None:
    now = [0.0]
    keys, caller = Keys({}, clock=lambda: now[0]), Caller("a", None, 60)
    keys.charge(caller, 60)
    with pytest.raises(HTTPError) as caught:
        keys.charge(caller, 2)
    assert caught.value.retry_after == 2
    now[0] = 2.0
    keys.charge(caller, 2)
    now[0] = 10_000.0
    keys.charge(caller, 60)
    with pytest.raises(HTTPError):
        keys.charge(caller, 1)


def test_a_file_of_keys_holds_hashes_only(tmp_path: Path) -> None:
    key, line = make_key("alice", ["writer", "suffix"], 60)
    assert line == f"alice:{hashlib.sha256(key.encode()).hexdigest()}:tasks=suffix,writer:rate=60"
    path = tmp_path / "keys.txt"
    path.write_text(f"# ours\n\n{line}\n{make_key('bob')[1]}\n", "utf-8")
    keys = read_keys(path, "from the environment")
    assert len(keys) == 3
    assert keys.caller(f"Bearer {key}") == Caller("alice", frozenset({"writer", "suffix"}), 60)
    assert keys.caller("bearer from the environment") == Caller("environment")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "'{path}' holds no key; make one with `foreword make-key NAME >> {path}`."),
        ("alice:abc", "line 1 of '{path}' is not a key; write NAME:SHA256[:tasks=A,B][:rate=N], as `foreword make-key` does."),
        (
            f"a:{'0' * 64}:rate=0",
            "line 1 of '{path}' has the unknown option 'rate=0'; write tasks=A,B or rate=N with N answers per minute.",
        ),
        (f"a:{'0' * 64}\na:{'1' * 64}", "line 2 of '{path}' repeats the key 'a'; keep one of them."),
    ],
)
def test_a_wrong_file_of_keys_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(content, "utf-8")
    with pytest.raises(UsageError) as caught:
        read_keys(path)
    assert str(caught.value) == sentence.format(path=path)
    with pytest.raises(UsageError):
        make_key("a:b")


def test_keys_of_the_command_line_have_all_rights(tmp_path: Path) -> None:
    key, line = make_key("alice", ["writer"])
    path = tmp_path / "keys.txt"
    path.write_text(line, "utf-8")
    keys = read_keys(path, "environment's", ("first", "second", "second"))
    assert [keys.caller(f"Bearer {given}") for given in ("first", "second", "environment's", key)] == [
        *(Caller("api-key-1"), Caller("api-key-2"), Caller("environment"), Caller("alice", frozenset({"writer"}))),
    ]
    for wrong in ("", "  ", "schlüssel", "a\nb"):
        with pytest.raises(UsageError) as caught:
            read_keys(None, None, ("fine", wrong))
        assert str(caught.value) == "--api-key is not a key; give printable ASCII characters, such as a key that `foreword make-key` made."


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")
@pytest.mark.parametrize(("mode", "open_to_others"), [(0o600, False), (0o644, False), (0o620, True), (0o602, True), (0o666, True)])
def test_a_file_that_others_can_change_is_seen(tmp_path: Path, mode: int, open_to_others: bool) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("", "utf-8")
    path.chmod(mode)
    assert writable_by_others(path) is open_to_others


def test_a_request_runs_in_the_name_of_its_key(guarded: Served) -> None:
    context = RequestContext(caller=Caller("alice"))
    asked = [EngineRequest(Request(f"{index}", "writer", {"text": "x"}), None, "writer", index, 1) for index in range(2)]
    made = charge(guarded.state, context, asked)
    assert [each.request for each in made] == [replace(each.request, tenant="alice") for each in asked]
    assert (context.model, context.answers) == ("writer", 2)
