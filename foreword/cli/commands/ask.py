"""`foreword ask`: answers from a server, printed as `foreword predict` prints them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.commands.predict import Printer, header
from foreword.cli.support import predict_inputs
from foreword.cli.support.dataclass_options import expand
from foreword.cli.support.options import AsJson, Truncate
from foreword.cli.support.predict_inputs import Example
from foreword.cli.support.serve_options import URL, Drawing, Key, Url
from foreword.errors import DataError, ServingError, UsageError
from foreword.task_kinds import BASE_MODEL, TaskKind, find_kind

if TYPE_CHECKING:
    from foreword.cli.support.client import Client

AT_ONCE = 64  # inputs of one request


@dataclass(frozen=True)
class ServerAnswer:
    """A server's answer in the shape of a prediction."""

    text: str
    scores: dict[str, float] = field(default_factory=dict)
    value: Any = None


@expand(drawing="Sampling")
def ask(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name of a task or of the base model.")],
    drawing: Drawing,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Input texts; by default read from --file or standard input.")
    ] = None,
    url: Url = URL,
    key: Key = None,
    file: Annotated[
        str | None,
        typer.Option("--file", help="JSONL, CSV, Parquet or CoNLL file with the task's columns, or .txt with one text per line."),
    ] = None,
    truncate: Truncate = False,
    stream: Annotated[
        bool | None, typer.Option("--stream/--no-stream", help="Print tokens as they are generated; by default on terminals only.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Send texts to a running `foreword serve` and print the answers.

    Texts are read from the arguments, from --file, or from standard input, one per line. If the task has several
    columns, each text is a JSON object.

    [bold]Example:[/bold] foreword ask sentiment "a joy to watch"
    """
    if stream and json:
        raise UsageError("--stream and --json were both given, but JSON cannot be streamed; leave one of them out.")
    from foreword.cli.support.client import Client  # httpx2 is a large import

    with Client(url, key) as client:
        name, columns = client.task(task)
        kind = find_kind(name)
        source = predict_inputs.examples(texts or [], file, columns)  # rows of a file hold all its columns
        first = next(source, None)
        if first is None:
            raise DataError("no text came, only empty lines; give one text or JSON object a line.")
        asked = {"model": task, "truncate": truncate, **drawing.fields()}
        many = len(texts or []) != 1
        if stream and not kind.streams:
            raise UsageError(f"--stream does not apply to a {kind.name} task, which writes no text; leave it out.")
        if stream or (stream is None and texts and kind.streams and sys.stdout.isatty() and not json):
            _stream(client, asked, chain([first], source), many, kind, columns)
            return
        _whole(client, asked, chain([first], source), Printer(kind, columns, many, json))


def _whole(client: Client, asked: dict[str, Any], source: Iterable[Example], printer: Printer) -> None:
    """Answers in batches, each printed when complete."""
    for part in predict_inputs.chunks(source, AT_ONCE):
        body = asked | {
            "input": [example["text"] for example in part]
            if printer.kind is BASE_MODEL
            else [{name: example[name] for name in printer.columns} for example in part]
        }
        for example, item in zip(part, client.post("/v1/batch", body)["data"], strict=True):
            if "error" in item:
                raise ServingError(item["error"]["message"])
            printer(example, ServerAnswer(item["text"], item.get("scores") or {}, item.get("value")))


def _stream(client: Client, asked: dict[str, Any], source: Iterable[Example], many: bool, kind: TaskKind, columns: Sequence[str]) -> None:
    """Each answer piece by piece."""
    for example in source:
        pieces = client.stream(asked | {"prompt": example["text"] if kind is BASE_MODEL else {name: example[name] for name in columns}})
        head = next(pieces, "")  # errors come before anything is printed
        print(header(example) if many else "", end="")
        for piece in chain([head], pieces):
            print(piece, end="", flush=True)
        print(flush=True)
