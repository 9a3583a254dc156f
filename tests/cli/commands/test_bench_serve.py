"""`foreword bench serve` against a real server: what it asks, what it counts, and what it says of failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.given import Foreword
from server.given import BASE, Served, serve, store, until

from foreword.cli.support.load_test import RequestTimes, arrival_times, percentiles, summary

FEW = ("--requests", "12", "--concurrency", "4", "--max-tokens", "5")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts that tiny models can read: by default there are sentences of thirty real tokens."""
    path = tmp_path_factory.mktemp("texts") / "short.txt"
    path.write_text("a joy\n\na mess\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = serve(store(tmp_path_factory.mktemp("prompts")))
    yield found
    found.stop()
    found.join()


def test_every_task_of_the_server_is_asked(served: Served, foreword: Foreword, short: Path) -> None:
    before, many = len(served.lines()), ("--requests", "60", "--concurrency", "8", "--max-tokens", "5")
    result = foreword("bench", "serve", "--url", served.url, *many, "--file", short, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["tasks"], found["requests"], found["failed"], found["problems"]) == (11, 60, 0, {})
    asked: list[dict[str, Any]] = []

    def logged() -> bool:  # a line is written once its answer has been sent
        asked[:] = [line for line in served.lines()[before:] if line.get("path") in ("/v1/completions", "/v1/batch")]
        return len(asked) == 60

    until(logged)
    assert {line["model"] for line in asked} == {task.name for task in served.engine.tasks()}
    written = sum(line["completion_tokens"] for line in asked if line["path"] == "/v1/completions")
    assert written > 0 and found["tokens_per_second"] == pytest.approx(written / found["seconds"])
    assert found["requests_per_second"] == pytest.approx(60 / found["seconds"])
    for name in ("first_token", "between_tokens", "whole_answer"):
        assert 0 <= found[name]["p50"] <= found[name]["p90"] <= found[name]["p99"] <= found["seconds"]


def test_a_table_for_people(served: Served, foreword: Foreword, short: Path) -> None:
    result = foreword("bench", "serve", "writer", BASE, "--url", served.url, *FEW, "--file", short)
    assert (result.exit_code, result.stderr) == (0, "")
    first, *_, heads, one, other, last = result.stdout.splitlines()
    assert first == "answered  12 of 12 requests, 2 tasks"
    assert heads.split() == ["milliseconds", "to", "p50", "p90", "p99"]
    assert [line.rstrip("0123456789. ") for line in (one, other, last)] == ["the first token", "the next token", "the whole answer"]


def test_a_task_without_tokens_has_whole_answers_only(served: Served, foreword: Foreword, short: Path) -> None:
    result = foreword("bench", "serve", "topic", "--url", served.url, *FEW, "--file", short)
    assert result.stdout.splitlines()[-1].startswith("the whole answer") and "token  " not in result.stdout


def test_arrivals_wait_for_their_moment_and_draws_repeat(served: Served, foreword: Foreword, short: Path) -> None:
    words = ("bench", "serve", "writer", "--url", served.url, *FEW, "--file", short)
    found = json.loads(foreword(*words, "--rate", "40", "--zipf", "--json").stdout)
    dues = arrival_times(12, 40, 0)
    assert found["seconds"] >= dues[-1] and dues == arrival_times(12, 40, 0) != arrival_times(12, 40, 1)
    assert sorted(dues) == dues and dues[0] > 0
    assert abs(arrival_times(4000, 40, 2)[-1] - 100) < 10


def test_failures_are_counted_with_the_servers_sentence(served: Served, foreword: Foreword) -> None:
    long = {"requests": 2, "failed": 1}
    times = [RequestTimes(whole=2.0, first=1.0, between=[0.5], tokens=3), RequestTimes(problem="No.")]
    found = summary(times, 2.0)
    assert found.items() >= long.items() and found["problems"] == {"No.": 1}
    assert (found["requests_per_second"], found["tokens_per_second"], found["first_token"]) == (
        0.5,
        1.5,
        {"p50": 1.0, "p90": 1.0, "p99": 1.0},
    )
    assert percentiles([]) is None
    result = foreword("bench", "serve", "writer", "--url", served.url, *FEW[:-2], "--max-tokens", "100000")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "foreword: error: all 12 requests failed: "
        "an answer of 100000 tokens leaves none for a text, because 125 fit in tiny-llama; ask for fewer.\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nobody",), "The model `nobody` does not exist; GET /v1/models lists those that do."),
        (("--file", "texts.csv"), "--file is 'texts.csv', but it must be a .txt file with a text a line."),
        (("--rate", "0"), "--rate is 0.0, but it must be at least 0.001."),
        (("--requests", "0"), "--requests is 0, but it must be at least 1."),
    ],
)
def test_refusals(words: tuple[str, ...], message: str, served: Served, foreword: Foreword) -> None:
    result = foreword("bench", "serve", *words, "--url", served.url)
    assert (result.exit_code, result.stderr) == (2, f"foreword: error: {message}\n")


def test_an_empty_store_and_an_empty_file(foreword: Foreword, served: Served, tmp_path: Path) -> None:
    empty = serve(tmp_path)
    result = foreword("bench", "serve", "--url", empty.url)
    empty.stop()
    empty.join()
    assert result.stderr == (
        "foreword: error: the server has no working task; give its base model as TASK, or add adapters to its store.\n"
    )
    (tmp_path / "none.txt").write_text("\n", "utf-8")
    result = foreword("bench", "serve", "writer", "--url", served.url, "--file", tmp_path / "none.txt")
    assert result.stderr == f"foreword: error: '{tmp_path / 'none.txt'}' holds no text; give a line for each.\n"
