"""Foreword's own endpoints: labels, tags, answers, batches, and the tasks themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from server.given import BASE, HEADED, WRITERS, Served, adapter, ask, predicted, serve, store, until


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """A server whose store may be changed; it looks for changes often."""
    folder = store(tmp_path_factory.mktemp("own"))
    found = serve(folder, watch=0.05)
    yield found, folder
    found.stop()
    found.join()


@pytest.mark.parametrize("name", ["sentiment", "topic"])
def test_labels_with_their_shares(served: Served, name: str) -> None:
    texts = ["a film", "x"]
    found = ask(served.url, "/v1/classify", {"model": name, "input": texts}).json
    assert found["object"] == "list" and found["model"] == name and found["usage"]["prompt_tokens"] > 0
    for item, text in zip(found["data"], texts, strict=True):
        told = predicted(name, text)
        assert item["label"] == told.text and item["scores"] == pytest.approx(told.scores, abs=1e-5)
    one = ask(served.url, "/v1/classify", {"model": name, "input": {"text": "a film"}}).json
    assert one["data"][0]["label"] == found["data"][0]["label"] and one["data"][0]["index"] == 0


def test_several_labels_and_numbers(served: Served) -> None:
    several = ask(served.url, "/v1/classify", {"model": "topics", "input": "a film"}).json["data"][0]
    assert several["labels"] == predicted("topics", "a film").value and set(several["scores"]) == {"sport", "war", "art"}
    number = ask(served.url, "/v1/classify", {"model": "stars", "input": "a film"}).json["data"][0]
    assert number["value"] == pytest.approx(predicted("stars", "a film").value, abs=1e-4)


def test_tags_of_words_in_both_forms(served: Served) -> None:
    found = ask(served.url, "/v1/tag", {"model": "names", "input": ["a film of Paris", ["a", "film", "of", "Paris"]]}).json["data"]
    assert found[0]["tags"] == found[1]["tags"] == predicted("names", "a film of Paris").value and len(found[0]["tags"]) == 4


def test_answers_from_a_context(served: Served) -> None:
    pair = {"question": "what", "context": "a film of Paris and more"}
    found = ask(served.url, "/v1/qa", {"model": "answers", "input": pair}).json["data"]
    told = predicted("answers", pair).value
    assert [(item["answer"], item["start"]) for item in found] == [(told["answer"], told["start"])]


def test_a_task_is_sent_to_its_own_endpoint(served: Served) -> None:
    found = ask(served.url, "/v1/classify", {"model": "writer", "input": "x"})
    assert found.message == "The task `writer` is of kind generate, which /v1/classify does not answer; use /v1/completions."
    assert ask(served.url, "/v1/tag", {"model": BASE, "input": "x"}).status == 400


def test_a_batch_is_every_input_for_every_task(served: Served) -> None:
    names, texts = ["writer", "suffix"], ["a film", "x", "one two"]
    found = ask(served.url, "/v1/batch", {"model": names, "input": texts}).json
    assert [(item["model"], item["input"], item["text"]) for item in found["data"]] == [
        (name, index, predicted(name, text).text) for name in names for index, text in enumerate(texts)
    ]
    assert found["usage"]["completion_tokens"] > 0
    mixed = ask(served.url, "/v1/batch", {"model": "topics", "input": "x"}).json["data"][0]
    assert mixed["value"] == predicted("topics", "x").value


def test_what_fails_in_a_batch_fails_alone(served: Served) -> None:
    found = ask(served.url, "/v1/batch", {"model": "writer", "input": ["a film", "word " * 500]}).json["data"]
    assert found[0]["text"] == predicted("writer", "a film").text
    assert found[1]["error"]["code"] == 400 and "fit in tiny-llama" in found[1]["error"]["message"]
    cut = ask(served.url, "/v1/batch", {"model": "writer", "input": "word " * 500, "truncate": True}).json["data"][0]
    assert cut["finish_reason"] in ("stop", "length")
    whole = ask(served.url, "/v1/completions", {"model": "writer", "prompt": ["a film", "word " * 500]})
    assert whole.status == 400 and "fit in tiny-llama" in whole.message


def test_items_of_a_batch_that_cannot_be_read_fail_alone(served: Served) -> None:
    good = {"question": "what", "context": "a film"}
    body = {
        "model": "pairs",
        "input": [good, "x", {"question": "x"}, {**good, "more": "x"}, 5, {"question": 1, "context": "x"}, "HALF", good],
    }
    items = ask(served.url, "/v1/batch", json.dumps(body).replace("HALF", "\\ud800 x").encode()).json["data"]
    assert [(item["index"], item["model"], item["input"]) for item in items] == [(index, "pairs", index) for index in range(8)]
    assert items[0]["text"] == items[7]["text"] == predicted("pairs", good).text
    assert [item["error"]["message"] for item in items[1:7]] == [
        "The task `pairs` reads question, context, but one text came; give an object with these columns.",
        "`pairs` reads question, context, but question came; give exactly these columns.",
        "`pairs` reads question, context, but question, context, more came; give exactly these columns.",
        "`input` should be a valid string or a valid dictionary, but 5 came; correct it, or see /docs.",
        '`input` should be a valid string or a valid list, but {"question": 1, "context": "x"} came; correct it, or see /docs.',
        "`input` holds half of a surrogate pair, which is no character; send whole characters.",
    ]
    assert {item["error"]["code"] for item in items[1:7]} == {400}


def test_models_of_a_batch_that_do_not_exist_fail_alone(served: Served) -> None:
    body = {"model": ["writer", "nobody", "HALF", "sentiment", "writer"], "input": ["x", "a film"], "temperature": 0.5, "seed": 1}
    items = ask(served.url, "/v1/batch", json.dumps(body).replace("HALF", "\\ud800").encode()).json["data"]
    assert [item["index"] for item in items] == list(range(10)) and [item["input"] for item in items] == [0, 1] * 5
    assert [item["text"] for item in items[:2]] == [item["text"] for item in items[8:]]
    assert [item["error"]["message"] for item in items[2:8:2]] == [
        "The model `nobody` does not exist; GET /v1/models lists those that do.",
        "The model `�` does not exist; GET /v1/models lists those that do.",
        "The task `sentiment` (classify) samples no tokens, so `temperature` does not apply; leave it out.",
    ]
    assert [item["error"]["code"] for item in items[2:8]] == [404] * 4 + [400] * 2
    nobody = ask(served.url, "/v1/batch", {"model": "nobody", "input": ["x"]})
    assert (nobody.status, nobody.message) == (404, "The model `nobody` does not exist; GET /v1/models lists those that do.")
    none = ask(served.url, "/v1/batch", {"model": ["nobody"], "input": "x"}).json
    assert none["data"][0]["error"]["code"] == 404 and none["usage"]["total_tokens"] == 0


def test_an_error_names_the_field_of_the_request_and_no_option(served: Served) -> None:
    long = "word " * 500
    for path, body in {
        "/v1/completions": {"model": "writer", "prompt": long},
        "/v1/classify": {"model": "topic", "input": long},
        "/v1/tag": {"model": "names", "input": long},
    }.items():
        found = ask(served.url, path, body)
        assert found.status == 400 and found.message.endswith("fit in tiny-llama; shorten it, or set `truncate` to true.")
        assert ask(served.url, path, {**body, "truncate": True}).status == 200


def test_columns_are_said_exactly(served: Served) -> None:
    for given, sentence in {
        "x": "The task `pairs` reads question, context, but one text came; give an object with these columns.",
    }.items():
        assert ask(served.url, "/v1/batch", {"model": "pairs", "input": given}).message == sentence
    wrong = ask(served.url, "/v1/batch", {"model": "pairs", "input": {"question": "x", "contxt": "y"}})
    assert wrong.message == "`pairs` reads question, context, but question, contxt came; give exactly these columns."
    odd = ask(served.url, "/v1/batch", {"model": "pairs", "input": {"a\nb\x1b[1m": "x"}})
    assert odd.message == "`pairs` reads question, context, but a�b�[1m came; give exactly these columns."


def test_tasks_are_listed_loaded_and_unloaded(own: tuple[Served, Path]) -> None:
    server, _ = own
    cards = {card["name"]: card for card in ask(server.url, "/v1/tasks").json["tasks"]}
    assert (
        set(cards) == {*WRITERS, *HEADED} and cards["pairs"]["columns"] == ["question", "context"] and cards["writer"]["state"] == "known"
    )
    loaded = ask(server.url, "/v1/tasks/load", {"name": "writer"}).json
    assert (loaded["name"], loaded["state"]) == ("writer", "resident")
    ask(server.url, "/v1/tasks/unload", {"name": "writer"})
    until(lambda: ask(server.url, "/v1/tasks/writer").json["state"] == "known")
    assert ask(server.url, "/v1/tasks/load", {"name": "nobody"}).status == 404
    assert ask(server.url, "/v1/tasks/unload", {"name": "nobody"}).status == 404


def test_new_and_replaced_adapters_are_picked_up(own: tuple[Served, Path]) -> None:
    server, folder = own
    adapter("writer").save(folder / "newcomer")
    until(lambda: ask(server.url, "/v1/tasks/newcomer").status == 200)
    complete = {"model": "newcomer", "prompt": "a film"}
    assert ask(server.url, "/v1/completions", complete).json["choices"][0]["text"] == predicted("writer", "a film").text
    adapter("writer", seed=5).save(folder / "newcomer", overwrite=True)
    other = predicted("writer", "a film", seed=5).text
    until(lambda: ask(server.url, "/v1/completions", complete).json["choices"][0]["text"] == other)
    shutil.rmtree(folder / "newcomer")
    until(lambda: ask(server.url, "/v1/completions", complete).status == 404)


def test_a_broken_or_foreign_adapter_fails_its_own_requests(own: tuple[Served, Path]) -> None:
    server, folder = own
    adapter("writer").save(folder / "broken")
    tensors = folder / "broken" / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-4])
    shutil.copytree(folder / "broken", folder / "torn")
    (folder / "torn" / "foreword.json").write_text("{", "utf-8")
    until(lambda: ask(server.url, "/v1/tasks/torn").status == 200)
    for name in ("broken", "torn"):
        found = ask(server.url, "/v1/completions", {"model": name, "prompt": "x"})
        assert found.status == 400 and name in found.message and found.message.count("\n") == 0
        assert ask(server.url, "/v1/tasks/load", {"name": name}).status == 400
    assert ask(server.url, "/v1/tasks/torn").json["state"] == "broken"
    fine, *bad = ask(server.url, "/v1/batch", {"model": ["writer", "broken", "torn"], "input": "a film"}).json["data"]
    assert fine["text"] == predicted("writer", "a film").text and [item["error"]["code"] for item in bad] == [400, 400]
