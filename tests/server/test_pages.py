"""What operators and people with mistakes read: metrics, health, the page, one sentence for each wrong body."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from server.given import Served, ask, serve, store, until

from foreword.errors import UsageError
from foreword.server.auth import Keys
from foreword.server.uvicorn_server import check_address

SENTENCES = [
    ("/v1/completions", b"{", "The body is not valid JSON (Expecting property name enclosed in double quotes); send a JSON object."),
    ("/v1/completions", [], "The body is not a JSON object; send one, with the header `Content-Type: application/json`."),
    ("/v1/completions", {"prompt": "x"}, "`model` is missing; give it."),
    ("/v1/completions", {"model": "writer", "prompt": "x", "tools": [{}]}, "`tools` is not supported; leave it out, or see /docs."),
    (
        "/v1/completions",
        {"model": "writer", "prompt": "x", "maxtokens": 3},
        "`maxtokens` is not a field of this request; leave it out, or see /docs.",
    ),
    ("/v1/completions", {"model": 7, "prompt": "x"}, "`model` should be a valid string, but 7 came; correct it, or see /docs."),
    (
        "/v1/completions",
        {"model": "writer", "prompt": "x", "max_tokens": "9"},
        '`max_tokens` should be a valid integer, but "9" came; correct it, or see /docs.',
    ),
    ("/v1/completions", {"model": "writer", "prompt": "x", "max_tokens": 0}, "max_tokens is 0, but it must be at least 1."),
    ("/v1/completions", {"model": "writer", "prompt": []}, "The request has no input; give at least one."),
    (
        "/v1/completions",
        {"model": "writer", "prompt": [1, 2]},
        "The task `writer` reads text, but these token ids are not those of a text; give a text.",
    ),
    ("/v1/completions", {"model": "tiny-llama", "prompt": [999]}, "A list of token ids needs at least one, each from 0 to 319."),
    (
        "/v1/completions",
        {"model": "writer", "prompt": "x", "n": 2},
        "`n` is 2, but all greedy answers are the same; give a temperature above 0, or leave n out.",
    ),
    (
        "/v1/completions",
        {"model": "writer", "prompt": "x", "presence_penalty": 3.0},
        "presence_penalty is 3.0, but it must be from -2 to 2.",
    ),
    (
        "/v1/completions",
        {"model": "writer", "prompt": "x", "guided_regex": "a", "guided_choice": ["b"]},
        "guided_regex and guided_choice came with more than one structure, but an answer follows only one; leave out the others.",
    ),
    (
        "/v1/completions",
        {"model": "writer", "prompt": "x", "stop_token_ids": [400]},
        "`stop_token_ids` has 400, but token ids are numbers below 320; correct it.",
    ),
    (
        "/v1/completions",
        {"model": "writer", "prompt": "x", "echo": True, "stream": True},
        "`echo` cannot be streamed; leave out one of `echo` and `stream`.",
    ),
    (
        "/v1/completions",
        {"model": "sentiment", "prompt": "x", "guided_choice": ["b"]},
        "The task `sentiment` (classify) samples no tokens, so `guided_choice` does not apply; leave it out.",
    ),
    (
        "/v1/chat/completions",
        {"model": "writer", "messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"a": 1}},
        "The task `writer` reads no chat format, so `chat_template_kwargs` does not apply; leave it out.",
    ),
    (
        "/v1/chat/completions",
        {"model": "tiny-llama", "messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"tokenize": True}},
        "`chat_template_kwargs` gives `tokenize`, which is set by the server; leave it out.",
    ),
    (
        "/v1/chat/completions",
        {"model": "tiny-llama", "messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": {"name": "f"}}]},
        "The chat format of `tiny-llama` takes no tools; leave them out, or use `response_format`.",
    ),
    (
        "/v1/completions",
        {"model": "writer", "prompt": "x", "response_format": {"type": "json_schema"}},
        "`response_format` needs a `json_schema` where its type is json_schema, and only there.",
    ),
    (
        "/v1/completions",
        {"model": "writer", "prompt": "x", "logit_bias": {"400": 1}},
        "`logit_bias` names the token '400', but token ids are numbers below 320; correct it.",
    ),
    (
        "/v1/completions",
        {"model": "sentiment", "prompt": "x", "temperature": 1.0},
        "The task `sentiment` (classify) samples no tokens, so `temperature` does not apply; leave it out.",
    ),
    ("/v1/chat/completions", {"model": "writer", "messages": [{"content": "x"}]}, "`messages[0].role` is missing; give it."),
    (
        "/v1/chat/completions",
        {"model": "writer", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]},
        "a conversation ends with a message of role assistant, but a task answers a user; end with a message of role user.",
    ),
    (
        "/v1/chat/completions",
        {"model": "writer", "messages": [{"role": "user", "content": None}]},
        '`messages[0]` should be a message with content, as its role is user, but {"role": "user", "content": null} came; correct it, or see /docs.',
    ),
    (
        "/v1/chat/completions",
        {"model": "writer", "messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}, {"role": "user", "content": "x"}]},
        "`messages[0].audio` is not supported; leave it out, or see /docs.",
    ),
    (
        "/v1/chat/completions",
        {"model": "writer", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "max_completion_tokens": 4},
        "`max_tokens` is 3, but `max_completion_tokens` is 4; give one of them.",
    ),
    ("/v1/completions", {"model": "writer", "prompt": "x", "best_of": 3}, "`best_of` is 3, but only n answers are written; leave it out."),
    ("/v1/completions", {"model": "writer", "prompt": "x", "suffix": "y"}, "`suffix` is not supported; leave it out, or see /docs."),
    ("/v1/batch", {"model": [], "input": "x"}, "`model` is an empty list; name at least one task."),
]


@pytest.mark.parametrize(("path", "body", "sentence"), SENTENCES)
def test_a_wrong_body_is_one_sentence(served: Served, path: str, body: object, sentence: str) -> None:
    found = ask(served.url, path, body)
    assert (found.status, found.message) == (400, sentence)


def test_what_asks_for_nothing_is_taken(served: Served) -> None:
    more = {
        "user": "me",
        "metadata": {"a": "b"},
        "tools": [],
        "echo": False,
        "frequency_penalty": 0.0,
        "n": 1,
        "logit_bias": {},
        "stop": None,
        "best_of": 1,
        "suffix": "",
        "temperature": None,
        "stream_options": None,
        "truncate": None,
    }
    assert ask(served.url, "/v1/completions", {"model": "writer", "prompt": "x", **more, "response_format": {"type": "text"}}).status == 200


def test_paths_and_methods(served: Served) -> None:
    assert ask(served.url, "/v2/models").message == "/v2/models does not exist; see /docs for the endpoints."
    wrong = ask(served.url, "/v1/completions")
    assert (wrong.status, wrong.message) == (405, "/v1/completions does not support GET; see /docs for the endpoints.")
    assert ask(served.url, "/health").json == {"status": "alive"} and ask(served.url, "/ready").json == {"status": "ready"}
    assert "swagger" in ask(served.url, "/docs").text


def test_the_page_names_every_endpoint_and_its_errors(served: Served) -> None:
    page = ask(served.url, "/openapi.json").json
    assert set(page["paths"]) == {
        *("/v1/models", "/v1/models/{name}", "/v1/completions", "/v1/chat/completions", "/v1/classify", "/v1/tag", "/v1/qa", "/v1/batch"),
        *("/v1/tasks", "/v1/tasks/{name}", "/v1/tasks/load", "/v1/tasks/unload", "/health", "/ready", "/metrics"),
        *("/v1/responses", "/v1/embeddings", "/tokenize", "/detokenize", "/version"),
    }
    for path, methods in page["paths"].items():
        for method, operation in methods.items():
            assert operation["description"] and "422" not in operation["responses"] and "503" in operation["responses"], (path, method)


def test_metrics_count_by_task(tmp_path: Path) -> None:
    server = serve(store(tmp_path), memory_bytes=400_000)
    try:
        ask(server.url, "/v1/completions", {"model": "writer", "prompt": ["x", "a film"]})
        ask(server.url, "/v1/classify", {"model": "sentiment", "input": "x"})
        ask(server.url, "/v1/completions", {"model": "writer", "prompt": "word " * 500})
        ask(server.url, "/v1/completions", {"model": "made up", "prompt": "x"})
        until(lambda: server.state.admission.active == 0)
        found = samples(ask(server.url, "/metrics").text)
    finally:
        server.stop()
        server.join()
    ended = [found.get(("foreword_requests_total", ("outcome", reason), ("task", "writer")), 0.0) for reason in ("stop", "length")]
    assert sum(ended) == 2
    assert found["foreword_requests_total", ("outcome", "refused_request"), ("task", "writer")] == 1
    assert found["foreword_requests_total", ("outcome", "stop"), ("task", "sentiment")] == 1
    assert found["foreword_completion_tokens_total", ("task", "writer")] > 2 < found["foreword_prompt_tokens_total", ("task", "writer")]
    for name, count in {"time_to_first_token_seconds": 2, "e2e_request_latency_seconds": 3}.items():
        assert found[f"foreword_{name}_count", ("task", "writer")] == count
    assert found["foreword_inter_token_latency_seconds_count", ("task", "writer")] > 0
    assert found["foreword_http_responses_total", ("path", "/v1/completions"), ("status", "404")] == 1
    assert (found["foreword_tasks",], found["foreword_tasks_resident",], found["foreword_memory_budget_bytes",]) == (11, 2, 400_000)
    assert found["foreword_task_loads_total",] == 2 and 0 < found["foreword_prefix_bytes",] <= 400_000
    assert found["foreword_num_requests_running",] == found["foreword_queued_answers",] == 0 and found["foreword_healthy",] == 1
    assert not any("made up" in str(name) for name in found)


def samples(page: str) -> dict[tuple[object, ...], float]:
    """Every number of a page by its name and labels."""
    families = text_string_to_metric_families(page)
    return {(sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples}


def test_a_public_address_needs_keys() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        check_address(host, Keys({}), insecure=False)
    check_address("0.0.0.0", Keys({}), insecure=True)
    with pytest.raises(UsageError) as caught:
        check_address("192.0.2.1", Keys({}), insecure=False)
    assert str(caught.value) == (
        "--host 192.0.2.1 accepts other machines, but no API keys are set; give --keys FILE (see `foreword make-key`), "
        "or --insecure to allow requests without a key."
    )
