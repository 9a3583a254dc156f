"""`foreword train`: from a file of examples to an adapter."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.adapters.folder import TENSORS, check_target
from foreword.cli.support import output, progress
from foreword.cli.support.dataclass_options import expand
from foreword.cli.support.loaders import model_kind, open_model, warm_up
from foreword.cli.support.options import (
    AsJson,
    Columns,
    Device,
    Dtype,
    Force,
    MethodOptions,
    Stream,
    TaskOptions,
    check_columns,
    in_chat,
    parse_columns,
)
from foreword.cli.support.predict_inputs import words_in
from foreword.cli.support.task_inference import task_of
from foreword.errors import AdapterError, DivergedError, ForewordError
from foreword.training.plan import TrainPlan

if TYPE_CHECKING:
    from foreword.tasks.data.reader import Rows
    from foreword.training.fit_result import FitResult

DATA, ADAPTER = "Data", "Adapter"


class Resumable(ForewordError):
    """A run that the user stopped; the same command with --resume continues it."""


@expand(method="Method", task="Task", plan="Training")
def train(
    data: Annotated[str, typer.Argument(metavar="DATA", help="JSONL, CSV, Parquet or CoNLL file, or a datasets id such as imdb:train.")],
    model: Annotated[str, typer.Option("--model", help="Base model: a hub id or a folder.", rich_help_panel="Model")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new adapter.", rich_help_panel=ADAPTER)],
    method: MethodOptions,
    task: TaskOptions,
    plan: TrainPlan,
    valid: Annotated[str | None, typer.Option("--valid", help="Validation data; by default a tenth of DATA.", rich_help_panel=DATA)] = None,
    columns: Columns = None,
    stream: Stream = None,
    dtype: Dtype = "auto",
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.", rich_help_panel=ADAPTER)] = False,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Train a soft prompt or a baseline (LoRA, full fine-tuning, …) on a file of examples.

    The columns select the task: text,label classification; input,output generation; tokens,tags (or a CoNLL file) tagging;
    question,context,answers question answering; question,choices,label multiple choice. --task selects another one, and --columns maps other
    column names. After Ctrl-C, the same command with --resume continues from the last checkpoint.

    [bold]Example:[/bold] foreword train reviews.jsonl --model google/gemma-3-270m --out prompts/sentiment
    """
    recipe = method.recipe()
    check_target(out, overwrite=force or resume)
    rows, held = _examples(data, valid, columns, stream, plan.seed)
    warm_up()
    from foreword.tasks.data.split import split

    job = task_of(task, rows, data, model_kind(model), trains=recipe.trains)
    check_columns(rows, job, data)
    check_columns(held, job, str(valid))
    if not held:
        rows, held = split(rows)  # only now: messages name the rows of the file
    _note_checkpoint(out, resume)
    frozen = open_model(model, dtype=dtype, device=device, quantize=recipe.quantize)
    job = in_chat(job, frozen.info) if task.chat else job
    run = partial(_fit, frozen, recipe, job, rows, held, plan, out=out, resume=resume, overwrite=force or resume)
    result = _watched(run, job.metric, out)
    if not output.is_main():
        return
    if json:
        output.document(_document(result, out, model))
    else:
        _report(result, out, plan, held[0])


def _examples(data: str, valid: str | None, columns: str | None, stream: int | None, seed: int) -> tuple[Rows, Rows]:
    """Training examples and those of the validation file, if there is one."""
    from foreword.tasks.data.reader import read, sample

    names = parse_columns(columns)
    rows = read(data, columns=names) if stream is None else sample(data, stream, columns=names, seed=seed)
    return rows, [] if valid is None else read(valid, columns=names)


def _note_checkpoint(out: Path, resume: bool) -> None:
    from foreword.training.checkpoint import folder

    if not resume and (folder(out) / "checkpoint.pt").exists():
        output.say(f"note: this run replaces the checkpoint in '{folder(out)}'; to continue from it, stop now and add --resume.")


def _fit(*given: Any, out: Path, **how: Any) -> FitResult:
    """`fit`, after checking that its folder can be written."""
    from foreword.training.checkpoint import folder
    from foreword.training.loop import fit

    try:
        folder(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AdapterError(f"'{folder(out)}' cannot be made ({error.strerror}); choose another --out.") from error
    return fit(*given, out=out, **how)


def _watched(run: Callable[..., FitResult], metric: str, out: Path) -> FitResult:
    """Run with a display; after a divergence say where the best prompt is."""
    from foreword.training.loop import TrainingInterrupted

    best = out.with_name(out.name + ".best")
    before = _stamp(best)
    try:
        if not output.is_main():
            return run()
        with progress.training(metric) as display:
            return run(listener=display)
    except TrainingInterrupted as stopped:
        raise Resumable(str(stopped)) from stopped
    except DivergedError:
        if _stamp(best) != before:
            output.say(f"note: the best prompt of this run is the adapter '{best}'.")
        raise


def _stamp(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _document(result: FitResult, out: Path, model: str) -> dict[str, Any]:
    adapter = result.adapter
    return {
        "adapter": str(out),
        "method": adapter.method,
        "task": adapter.task["kind"],
        "model": model,
        "num_parameters": adapter.num_parameters,
        "bytes": (out / TENSORS).stat().st_size,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "peak_memory": result.peak_memory,
        "scores": {name: score.to_dict() for name, score in result.scores.items()},
        "truncated": result.cut,
        "notices": result.notices,
    }


def _report(result: FitResult, out: Path, plan: TrainPlan, example: Mapping[str, str]) -> None:
    """Print the table of a finished run, and the next commands."""
    adapter, screen = result.adapter, output.screen()
    if result.cut:
        output.say(f"note: {output.count(result.cut, 'text')} did not fit and lost the end.")
    if result.steps < plan.steps:
        output.say(
            f"note: stopped early at step {result.steps} of {plan.steps}: {output.count(plan.patience, 'evaluation')} without a better score."
        )
    screen.print(f"{out}: {adapter.method} on {adapter.base}")
    rows = [(name, output.score_text(score.to_dict())) for name, score in result.scores.items()]
    rows += [
        ("numbers", f"{adapter.num_parameters:,} in {output.size((out / TENSORS).stat().st_size)}"),
        ("time", f"{output.duration(result.seconds)} for {output.count(result.steps, 'step')}"),
        ("memory", f"{output.size(result.peak_memory)} at most"),
    ]
    output.facts(rows)
    where = shlex.quote(str(out))
    from foreword.tasks.registry import task_from_dict

    fields = task_from_dict(adapter.task).columns
    shown = shlex.quote(textwrap.shorten(words_in(example[fields[0]]), 40, placeholder="")) if len(fields) == 1 else "--file MORE.jsonl"
    screen.print(
        f"Next:\n  foreword predict {where} {shown}\n  foreword evaluate {where} TEST.jsonl\n  foreword show {where}", soft_wrap=True
    )
