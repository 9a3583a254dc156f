"""`foreword evaluate`: scores of an adapter on examples, with their errors."""

from __future__ import annotations

from typing import Annotated

import typer

from foreword.cli.support import output, progress
from foreword.cli.support.loaders import open_adapter, open_base, warm_up
from foreword.cli.support.options import (
    AdapterPath,
    AsJson,
    BaseModel,
    BatchSize,
    Columns,
    Device,
    Dtype,
    Truncate,
    check_columns,
    parse_columns,
)
from foreword.cli.support.save_options import Overwrite, Save, check_save, saved


def evaluate(
    adapter: AdapterPath,
    data: Annotated[str, typer.Argument(metavar="DATA", help="JSONL, CSV, Parquet or CoNLL file, or a datasets id such as imdb:test.")],
    columns: Columns = None,
    model: BaseModel = None,
    dtype: Dtype = "auto",
    device: Device = None,
    truncate: Truncate = False,
    batch_size: BatchSize = 16,
    save: Save = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Evaluate an adapter on labelled examples.

    Prints every score with its standard error and the number of examples.

    [bold]Example:[/bold] foreword evaluate prompts/sentiment test.jsonl
    """
    check_save(save, overwrite, data)
    from foreword.tasks.data.reader import read

    rows = read(data, columns=parse_columns(columns))
    warm_up()
    from foreword.evaluation.evaluate import Reader
    from foreword.tasks.registry import task_from_dict

    found = open_adapter(adapter)
    check_columns(rows, task_from_dict(found.task), data)
    reader = Reader.of(open_base(found, adapter, model, dtype=dtype, device=device), found)
    with progress.ticking("evaluating", len(rows)) as tick:
        scores, cut, results = reader.evaluate_examples(rows, truncate=truncate, batch_size=batch_size, tick=tick)
    plain = {name: score.to_dict() for name, score in scores.items()}
    if cut:
        output.say(f"note: {output.count(cut, 'text')} did not fit and lost the end.")
    with saved(save) as write:
        write(results)
    if json:
        kept = {} if save is None else {"examples": str(save)}
        output.document({"adapter": adapter, "n": len(rows), "scores": plain, "truncated": cut, **kept})
    else:
        output.facts((name, output.score_text(score)) for name, score in plain.items())
