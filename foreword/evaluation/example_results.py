"""The result of every example of an evaluation, as records in a JSONL or Parquet file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, final

from foreword.errors import DataError, UsageError
from foreword.evaluation.atomic_file import atomic_file

if TYPE_CHECKING:
    from foreword.tasks.base import Example, Prediction, Task
    from foreword.tasks.evaluation_loop import Evaluation

SUFFIXES = (".jsonl", ".parquet")
EXAMPLES = "examples"  # the folder, in that of a comparison or the demo, with such a file for every run
Write = Callable[[Iterable["ExampleResult"]], None]


@final
@dataclass(frozen=True)
class ExampleResult:
    """One example: what was read, the right answer, the model's, and how sure it was. A number that is not finite is None.

    Attributes:
        input: The columns that the task reads.
        target: The right answer as the data has it; None where there is none.
        answer: The model's answer as text.
        value: The answer as data, where it is more than a text: a list of tags or labels, a number, a span.
        scores: The probability of each label, candidate or choice; empty where the task has none.
        loss: The mean loss of the right answer in nats; None where it was not computed.
        num_losses: How many losses that is the mean of: the windows of a long context, 1 otherwise, 0 where there is no loss.
    """

    input: dict[str, str]
    target: str | None
    answer: str
    value: Any
    scores: dict[str, float | None]
    loss: float | None
    num_losses: int

    @classmethod
    def of(cls, task: Task, example: Example, prediction: Prediction, losses: Sequence[float] = ()) -> ExampleResult:
        """An example with its prediction; without `losses`, the loss is the one that the prediction has for its target, if any."""
        target = example.get(task.target)
        found = list(losses) or [prediction.losses[label] for label in [target] if label in prediction.losses]
        return cls(
            {name: example[name] for name in task.columns if name in example},
            target,
            prediction.text,
            _finite(prediction.value),
            {name: score if math.isfinite(score) else None for name, score in prediction.scores.items()},
            _finite(sum(found) / len(found)) if found else None,
            len(found),
        )

    @property
    def prediction(self) -> Prediction:
        """What the task's metrics read."""
        from foreword.tasks.base import Prediction

        return Prediction(self.answer, {name: math.nan if p is None else p for name, p in self.scores.items()}, value=self.value)


def example_results(task: Task, examples: Sequence[Example], evaluation: Evaluation) -> list[ExampleResult]:
    """The result of each example, in order."""
    found = zip(examples, evaluation.predictions, evaluation.losses, strict=True)
    return [ExampleResult.of(task, example, prediction, losses) for example, prediction, losses in found]


def check_path(path: Path, *, overwrite: bool = False) -> None:
    """Raise UsageError for a file that results cannot be written to."""
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"'{path}' ends in '{path.suffix}', but results are saved as {' or '.join(SUFFIXES)}; choose one of these endings."
        )
    if not path.parent.is_dir():
        raise UsageError(f"'{path}' cannot be written, because there is no folder '{path.parent}'; make it, or choose another file.")
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder, but results are saved in a file; choose another name.")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"'{path}' already exists; choose another name, or give --force to replace it.")
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written ({error.strerror}); choose another folder.") from error


@contextmanager
def open_results(path: Path) -> Iterator[Write]:
    """A function that writes results as they come; the file appears when the block ends without an error.

    Raises UsageError if the file cannot be written.
    """
    with atomic_file(path) as file:
        if path.suffix == ".jsonl":
            yield lambda results: file.writelines(_line(result) for result in results)
            return
        import pyarrow
        import pyarrow.parquet

        with pyarrow.parquet.ParquetWriter(file, _schema()) as writer:
            yield lambda results: writer.write_table(pyarrow.Table.from_pylist([_cells(result) for result in results], _schema()))


def write_results(path: Path, results: Iterable[ExampleResult]) -> None:
    """Write all results at once, as `open_results` does."""
    with open_results(path) as write:
        write(results)


def read_results(path: str | Path) -> list[ExampleResult]:
    """Read the results in a file; raises DataError for other files."""
    path = Path(path)
    try:
        rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
        return [_result(row) for row in rows]
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror or error}); check the path.") from error
    except (ValueError, TypeError, AttributeError) as error:  # pyarrow's errors are ValueErrors
        raise DataError(f"'{path}' does not hold the results of an evaluation; write it with foreword evaluate --save.") from error


def _result(row: Mapping[str, Any]) -> ExampleResult:
    if set(row) != {field.name for field in fields(ExampleResult)}:
        raise ValueError("other fields")
    return ExampleResult(**row)


def _line(result: ExampleResult) -> bytes:
    return json.dumps(asdict(result), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _cells(result: ExampleResult) -> dict[str, Any]:
    """A row of Parquet: maps as pairs, and `value`, whose type the task decides, as JSON text."""
    value = None if result.value is None else json.dumps(result.value, ensure_ascii=False, allow_nan=False)
    return {**asdict(result), "input": list(result.input.items()), "value": value, "scores": list(result.scores.items())}


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="\n") as lines:
        yield from map(json.loads, lines)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    for row in pyarrow.parquet.read_table(path).to_pylist():
        value = None if row.get("value") is None else json.loads(row["value"])
        yield {**row, "input": dict(row.get("input", ())), "value": value, "scores": dict(row.get("scores", ()))}


def _schema() -> Any:
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    return pyarrow.schema(
        {
            "input": pyarrow.map_(text, text),
            "target": text,
            "answer": text,
            "value": text,
            "scores": pyarrow.map_(text, number),
            "loss": number,
            "num_losses": pyarrow.int32(),
        }
    )


def _finite(value: Any) -> Any:
    """The same data with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
