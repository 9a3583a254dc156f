"""`foreword predict`: an answer to each text, as it is found."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

import typer

from foreword.cli.support import output, predict_inputs, progress
from foreword.cli.support.loaders import open_adapter, open_base, warm_up
from foreword.cli.support.options import AdapterPath, AsJson, BaseModel, BatchSize, Device, Dtype, Truncate
from foreword.cli.support.predict_inputs import Example
from foreword.cli.support.save_options import Overwrite, Save, check_save, saved
from foreword.errors import DataError, UsageError
from foreword.task_kinds import TASK_KINDS, TaskKind

if TYPE_CHECKING:
    from foreword.evaluation.evaluate import Reader
    from foreword.evaluation.example_results import Write

BEST = 10  # likeliest labels or candidates that are shown
NOTHING = "(none)"  # no label, or no answer in the context
CHUNK = 16  # batches answered before anything is printed: enough to sort by length, few enough to print early into a pipe


def predict(
    adapter: AdapterPath,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Input texts; by default read from --file or standard input.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", help="JSONL, CSV, Parquet or CoNLL file with the task's columns, or .txt with one text per line."),
    ] = None,
    model: BaseModel = None,
    dtype: Dtype = "auto",
    device: Device = None,
    truncate: Truncate = False,
    batch_size: BatchSize = 16,
    stream: Annotated[
        bool | None, typer.Option("--stream/--no-stream", help="Print tokens as they are generated; by default on terminals only.")
    ] = None,
    save: Save = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Predict the answers to texts with an adapter.

    Texts are read from the arguments, from --file, or from standard input, one per line. If the task has several
    columns, each text is a JSON object.

    [bold]Example:[/bold] foreword predict prompts/sentiment "a joy to watch"
    """
    _check_output(stream, json, save, overwrite, file)
    warm_up()
    from foreword.evaluation.evaluate import Reader
    from foreword.tasks.registry import task_from_dict

    found = open_adapter(adapter)
    task, kind = task_from_dict(found.task), TASK_KINDS[found.task["kind"]]
    source = predict_inputs.examples(texts or [], file, task.columns)
    first = next(source, None)  # a mistake in it is reported before the model is loaded
    if first is None:
        raise DataError("no text came, only empty lines; give one text or JSON object a line.")
    reader = Reader.of(open_base(found, adapter, model, dtype=dtype, device=device), found)
    many = len(texts or []) != 1
    if stream or (stream is None and texts and sys.stdout.isatty() and not json and not save and kind.streams):
        _stream(reader, chain([first], source), truncate, many)
        return
    with saved(save) as write:
        _answer(reader, chain([first], source), truncate, batch_size, Printer(kind, task.columns, many, json), write)


def _check_output(stream: bool | None, json: bool, save: Path | None, overwrite: bool, file: str | None) -> None:
    """Raise UsageError for conflicting outputs, and for a file that cannot be written or is the input."""
    if stream and json:
        raise UsageError("--stream and --json were both given, but JSON cannot be streamed; leave one of them out.")
    if stream and save:
        raise UsageError("--stream and --save were both given, but results cannot be saved from a stream; leave one of them out.")
    check_save(save, overwrite, file)


def _answer(reader: Reader, source: Iterable[Example], truncate: bool, batch_size: int, printer: Printer, write: Write) -> None:
    """Print and save answers, some batches at a time."""
    from foreword.evaluation.example_results import ExampleResult

    with progress.ticking("predicting", None, shown=not sys.stdout.isatty()) as tick:
        for part in predict_inputs.chunks(source, CHUNK * batch_size):
            pairs = list(zip(part, reader.predict(part, truncate=truncate, batch_size=batch_size, tick=tick), strict=True))
            for example, prediction in pairs:
                printer(example, prediction)
            write(ExampleResult.of(reader.task, example, prediction) for example, prediction in pairs)


def _stream(reader: Reader, source: Iterable[Example], truncate: bool, many: bool) -> None:
    """Each answer piece by piece."""
    for example in source:
        pieces = reader.stream(example, truncate=truncate)
        head = next(pieces, "")  # errors come before anything is printed
        print(header(example) if many else "", end="")
        for piece in chain([head], pieces):
            print(piece, end="", flush=True)
        print(flush=True)


@runtime_checkable
class Found(Protocol):
    """An answer, as a task or a server gives it."""

    @property
    def text(self) -> str: ...
    @property
    def scores(self) -> Mapping[str, float]: ...
    @property
    def value(self) -> Any: ...


class Printer:
    """Prints answers of a task: JSON objects, or lines for a reader."""

    def __init__(self, kind: TaskKind, columns: Sequence[str], many: bool, json: bool) -> None:
        self.kind, self.columns, self.many, self.json = kind, columns, many, json

    def __call__(self, example: Example, found: Found) -> None:
        if self.json:
            output.document(self._document(example, found))
        elif self.kind.per_word:
            self._by_word(example, found.value)
        elif found.text not in found.scores and (self.many or not found.scores):
            print((header(example) if self.many else "") + (found.text or NOTHING), flush=True)
        elif self.many:
            width = max(map(len, found.scores))
            print(_fit(f"{found.text:{width}}  {found.scores[found.text]:.3f}  {_one_line(example)}"), flush=True)
        else:
            ranked = sorted(found.scores.items(), key=lambda item: -item[1])
            output.facts((label, f"{share:.3f}") for label, share in ranked[:BEST])

    def _by_word(self, example: Example, answers: list[str]) -> None:
        text = example[self.columns[0]]
        words = predict_inputs.listed(text)
        pairs = list(zip(map(str, text.split() if words is None else words), answers, strict=True))
        if self.many:
            print(" ".join(f"{word}/{answer}" for word, answer in pairs), flush=True)
        else:
            output.facts(pairs)

    def _document(self, example: Example, found: Found) -> dict[str, Any]:
        cells: dict[str, Any] = {name: predict_inputs.listed(example[name]) or example[name] for name in self.columns}
        given = next(iter(cells.values())) if len(cells) == 1 else cells
        value = found.text if found.value is None else found.value
        answer = value if isinstance(value, dict) else {self.kind.target: value}
        return {"input": given, **answer, **({"scores": found.scores} if found.scores else {})}


def _one_line(example: Example) -> str:
    return " | ".join(" ".join(predict_inputs.words_in(value).split()) for value in example.values())


def header(example: Example) -> str:
    """The line above an answer, where there are several."""
    return _fit(f"> {_one_line(example)}") + "\n"


def _fit(line: str) -> str:
    """A line cut to a terminal's width; complete in a pipe."""
    width = output.screen().width
    return line if len(line) <= width else line[: width - 1] + "…"
