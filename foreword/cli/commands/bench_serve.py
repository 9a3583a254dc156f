"""`foreword bench serve`: throughput and latency of a running server."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from foreword.cli.support import output, predict_inputs
from foreword.cli.support.dataclass_options import expand
from foreword.cli.support.load_test import PERCENTILES, Body, RequestTimes, arrival_times, send_requests, summary
from foreword.cli.support.options import AsJson
from foreword.cli.support.progress import ticking
from foreword.cli.support.serve_options import URL, Checked, Key, Url, option
from foreword.errors import ServingError, UsageError
from foreword.task_kinds import BASE_MODEL, find_kind

if TYPE_CHECKING:
    from foreword.cli.support.client import Client

# About thirty tokens each; written for this benchmark.
TEXTS = (
    "The council of the harbour town has put off its vote on the new ferry line once more, because two of the four bids came without the papers that were asked for.",
    "After three quiet seasons the orchestra opens its hall again this autumn, with a programme that sets early string quartets beside new works for brass and drums.",
    "Engineers say that the bridge can carry its load for another ten years, if the cables on the north side are replaced before the heavy frost sets in this winter.",
    "The team lost its lead in the last five minutes of the game, when a long throw found nobody at the far post but a defender who had just come on to the field.",
)


@dataclass(frozen=True)
class Load(Checked):
    """Number and times of requests."""

    requests: int = option(200, "Number of requests.", 1)
    concurrency: int = option(32, "Maximum number of concurrent requests.", 1)
    rate: float | None = option(None, "Requests per second, at random times (Poisson); by default as fast as possible.", 0.001)
    zipf: bool = option(False, "Send the n-th task 1/n as many requests as the first; by default all tasks get the same number.")
    max_tokens: int = option(16, "Maximum length of generated answers in tokens.", 1)
    seed: int = option(0, "Seed for the choice of tasks and request times.")


@expand(load="Load")
def bench_serve(
    load: Load,
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="Tasks to send requests to; by default all tasks of the server.")
    ] = None,
    url: Url = URL,
    key: Key = None,
    file: Annotated[
        str | None, typer.Option("--file", help="Text file whose lines are the inputs; by default sentences of 30 tokens.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Send many requests to a running server and report throughput and latency.

    Tasks that generate text are streamed. When the server is busy (429, 503), the request is retried; the latency includes the wait.

    [bold]Example:[/bold] foreword bench serve --requests 500 --concurrency 64
    """
    from foreword.cli.support.client import Client  # httpx2 is a large import

    with Client(url, key) as client:
        kinds = {name: client.task(name) for name in tasks or _all(client)}
        texts = TEXTS if file is None else [example["text"] for example in predict_inputs.examples((), _lines(file), ("text",))]
        if not texts:
            raise UsageError(f"'{file}' holds no text; give a line for each.")
        names = list(kinds)
        shares = [1 / (rank + 1) if load.zipf else 1.0 for rank in range(len(names))]
        drawn = random.Random(load.seed).choices(names, shares, k=load.requests)
        asks = [(kinds[name][0], _body(name, *kinds[name], texts[i % len(texts)], load.max_tokens)) for i, name in enumerate(drawn)]
        with ticking("asking", load.requests, shown=not json) as tick:
            times, seconds = send_requests(client, asks, arrival_times(load.requests, load.rate, load.seed), load.concurrency, tick)
    _tell(times, seconds, len(names), json)


def _all(client: Client) -> list[str]:
    found = [task["name"] for task in client.get("/v1/tasks")["tasks"] if task["problem"] is None]
    if not found:
        raise UsageError("the server has no working task; give its base model as TASK, or add adapters to its store.")
    return found


def _lines(file: str) -> str:
    if not file.endswith(".txt"):
        raise UsageError(f"--file is '{file}', but it must be a .txt file with a text a line.")
    return file


def _body(name: str, kind: str, columns: Sequence[str], text: str, max_tokens: int) -> Body:
    """One request; a task of several columns gets the text in each."""
    row = find_kind(kind)
    given: Any = text if row is BASE_MODEL else dict.fromkeys(columns, text)
    return {"model": name, "prompt": given, "max_tokens": max_tokens} if row.answers == "text" else {"model": name, "input": [given]}


def _tell(times: Sequence[RequestTimes], seconds: float, num_tasks: int, json: bool) -> None:
    found = summary(times, seconds)
    if found["failed"] == found["requests"]:
        raise ServingError(f"all {output.count(found['requests'], 'request')} failed: {next(iter(found['problems']))}")
    if json:
        output.document({"tasks": num_tasks, **found})
        return
    answered = found["requests"] - found["failed"]
    facts = [
        ("answered", f"{answered:,} of {output.count(found['requests'], 'request')}, {output.count(num_tasks, 'task')}"),
        ("took", output.duration(seconds)),
        ("a second", f"{found['requests_per_second']:.1f} answers, {found['tokens_per_second']:.0f} tokens written"),
    ]
    output.facts(facts)
    output.show(_table(found))
    for problem, many in sorted(found["problems"].items(), key=lambda item: -item[1])[:3]:
        output.say(f"note: {output.count(many, 'request')} failed: {problem}")


def _table(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("milliseconds to")
    for share in PERCENTILES:
        table.add_column(f"p{share}", justify="right", no_wrap=True)
    for name in ("first_token", "between_tokens", "whole_answer"):
        if found[name] is not None:
            label = {"between_tokens": "the next token"}.get(name, "the " + name.replace("_", " "))
            table.add_row(label, *(f"{1000 * value:.1f}" for value in found[name].values()))
    return table
