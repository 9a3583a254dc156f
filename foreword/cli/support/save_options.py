"""`--save`: the results of single examples in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.support import output
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.evaluation.example_results import ExampleResult, Write

Save = Annotated[
    Path | None,
    typer.Option("--save", metavar="FILE", help="Keep every example's input, target, answer, scores and loss: .jsonl or .parquet."),
]
Overwrite = Annotated[bool, typer.Option("--force", "--overwrite", help="Replace a file that is there already.")]


def check_save(save: Path | None, overwrite: bool, source: str | None) -> None:
    """Raise UsageError for a file that cannot be written or is the `source` of the examples; called before anything is loaded."""
    from foreword.evaluation.example_results import check_path

    if save is not None:
        if source is not None and save.exists() and Path(source).exists() and save.samefile(source):
            raise UsageError(f"'{save}' holds the examples themselves, and --save would replace them; choose another file.")
        check_path(save, overwrite=overwrite)
    elif overwrite:
        raise UsageError("--force came without --save; give a file to replace, or leave --force out.")


@contextmanager
def saved(save: Path | None) -> Iterator[Write]:
    """A function that saves results in the file, or drops them without one; at the end it prints what was saved."""
    from foreword.evaluation.example_results import open_results

    if save is None:
        yield lambda results: None
        return
    count = 0
    with open_results(save) as write:

        def counted(results: Iterable[ExampleResult]) -> None:
            nonlocal count
            results = list(results)
            count += len(results)
            write(results)

        yield counted
    output.say(f"{output.count(count, 'example')} kept in '{save}'")
