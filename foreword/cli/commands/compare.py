"""`foreword compare`: methods × seeds on your data, with quality, its error and costs."""

from __future__ import annotations

import math
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from foreword.cli.support import output
from foreword.cli.support.compare_progress import display
from foreword.cli.support.dataclass_options import expand
from foreword.cli.support.loaders import check_model, model_kind, spinner
from foreword.cli.support.options import AsJson, Columns, Device, Dtype, TaskOptions, check_columns, parse_columns
from foreword.cli.support.task_inference import task_of
from foreword.errors import DataError, UsageError
from foreword.methods import BASELINES, METHODS, WRITTEN, few_shot, named
from foreword.training.plan import TrainPlan

if TYPE_CHECKING:
    from foreword.evaluation.compare import Comparison
    from foreword.evaluation.report import Line
    from foreword.evaluation.subprocess_pool import Work
    from foreword.recipe import Recipe
    from foreword.tasks.base import Task
    from foreword.tasks.data.reader import Rows

DATA = "Data"
_PLAN: dict[str, Field[Any]] = {each.name: each for each in fields(TrainPlan)}


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


def _shared(name: str) -> Any:
    """An option of the plan, with its help."""
    return field(default=_PLAN[name].default, metadata=_PLAN[name].metadata)


@dataclass(frozen=True)
class Budget:
    """The part of a plan that is the same for all methods; the comparison sets seeds and learning rates."""

    steps: int = _shared("steps")
    batch_size: int = _shared("batch_size")
    warmup: float = _shared("warmup")
    clip: float = _shared("clip")
    weight_decay: float = _shared("weight_decay")
    max_length: int | None = _shared("max_length")
    eval_every: int = _shared("eval_every")
    eval_examples: int = _shared("eval_examples")
    patience: int = _shared("patience")
    gradient_checkpointing: bool = _shared("gradient_checkpointing")
    calibrate_prior: bool = _shared("calibrate_prior")

    def plan(self) -> TrainPlan:
        return TrainPlan(**asdict(self), tracker="none")


@dataclass(frozen=True)
class RunOptions:
    """Which runs there are."""

    methods: str | None = _option(None, f"Some of {', '.join([*METHODS, *BASELINES])}, or combinations of them with +, comma-separated.")
    seeds: int = _option(3, "Number of seeds; each method is trained once per seed.")
    tune: int = _option(1, "Number of learning rates tried per method; the one with the best validation score is used.")
    length: int | None = _option(None, "Number of virtual tokens of every soft prompt.")
    shots: int | None = _option(None, "Number of examples in the prompt of few-shot.")
    written: str | None = _option(None, "Template of the written prompts; by default that of the task.")
    budget_minutes: float | None = _option(None, "Do not start a run that may end after this many minutes.")

    def __post_init__(self) -> None:
        if self.budget_minutes is not None and not self.budget_minutes >= 0:
            raise UsageError(f"--budget-minutes is {self.budget_minutes}, but it must be at least 0.")

    @property
    def minutes(self) -> float:
        return math.inf if self.budget_minutes is None else self.budget_minutes

    @property
    def template(self) -> str | None:
        """The written prompt as it is read."""
        return None if self.written is None else self.written.replace("\\n", "\n").replace("\\t", "\t")

    def recipes(self, task: Task | None = None) -> dict[str, Recipe]:
        """By method, in order: those of --methods, else the soft prompts and the cheap baselines for the task.

        Raises UsageError for methods and options that are not valid.
        """
        names = _usual(task) if self.methods is None else self.methods.split(",")
        found: dict[str, Recipe] = {}
        for recipe in map(named, names):
            if recipe.method in found:
                raise UsageError(f"method '{recipe.method}' is listed twice; list each method once.")
            found[recipe.method] = self._sized(recipe)
        if found and self.shots is not None and not any(recipe.shots for recipe in found.values()):
            raise UsageError("--shots needs few-shot among --methods; add it, or leave --shots out.")
        if found and self.length is not None and not any(recipe.prompt for recipe in found.values()):
            raise UsageError("--length needs a soft prompt among --methods; add one, or leave --length out.")
        return found

    def _sized(self, recipe: Recipe) -> Recipe:
        if self.length is not None and recipe.prompt is not None:
            recipe = replace(recipe, prompt=replace(recipe.prompt, length=self.length))
        return replace(recipe, shots=few_shot(self.shots).shots) if self.shots is not None and recipe.shots else recipe


@expand(runs="Runs", task="Task", budget="Training, the same for all methods")
def compare(
    data: Annotated[str, typer.Argument(metavar="DATA", help="JSONL, CSV, Parquet or CoNLL file, or a datasets id such as imdb:train.")],
    model: Annotated[str, typer.Option("--model", help="Base model: a hub id or a folder.", rich_help_panel="Model")],
    out: Annotated[Path, typer.Option("--out", help="Folder for results and adapters; finished runs in it are not repeated.")],
    runs: RunOptions,
    task: TaskOptions,
    budget: Budget,
    valid: Annotated[str | None, typer.Option("--valid", help="Validation data; by default a tenth of DATA.", rich_help_panel=DATA)] = None,
    test: Annotated[str | None, typer.Option("--test", help="Test data; by default a fifth of DATA.", rich_help_panel=DATA)] = None,
    columns: Columns = None,
    metric: Annotated[str | None, typer.Option(help="The score to sort by; by default the main score of the task.")] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    json: AsJson = False,
) -> None:
    """Compare methods on your data, each trained with several seeds.

    All methods get the same examples, steps and batches. Test data is used neither for training nor for selection. Each run is saved when it
    ends; after an interruption, the same command continues.

    [bold]Example:[/bold] foreword compare reviews.jsonl --model google/gemma-3-270m --out compare
    """
    plan, asked = budget.plan(), runs.recipes()
    check_model(model)
    with spinner("starting"):
        from foreword.evaluation.compare import Comparison
        from foreword.evaluation.run_config import RunConfig
        from foreword.evaluation.subprocess_pool import Processes

    trains = not asked or any(recipe.trains or name in WRITTEN for name, recipe in asked.items())
    job, parts = _data(task, model, data, valid, test, columns, trains=trains)
    setting = RunConfig(model, job.to_dict(), plan, *parts, dtype=dtype, device=device, chat=task.chat, written=runs.template)
    comparison = Comparison(setting, runs.recipes(job), runs.seeds, out, tune=runs.tune)
    with Processes() as work:
        with spinner(f"looking at {model}"):
            comparison.look(work)
        whole = _go_on(comparison, work, metric or job.metric, runs.minutes)
    _report(comparison, metric or job.metric, whole, json)


def _usual(task: Task | None) -> list[str]:
    """The soft prompts, LoRA, and the baselines that do not train the model."""
    return [] if task is None else [*METHODS, "lora", "zero-shot" if task.head is None else "head-only"]


def _data(
    options: TaskOptions, model: str, data: str, valid: str | None, test: str | None, columns: str | None, *, trains: bool
) -> tuple[Task, list[Rows]]:
    """The task on this model, and examples to train, to validate and to test with. Sets without a file are split off DATA, always in the same way."""
    from foreword.tasks.data.reader import read
    from foreword.tasks.data.split import split

    names = parse_columns(columns)
    rows = read(data, columns=names)
    held, kept = (read(source, columns=names) if source is not None else [] for source in (valid, test))
    task = task_of(options, rows, data, model_kind(model), trains=trains)
    for part, source in ((rows, data), (held, str(valid)), (kept, str(test))):
        check_columns(part, task, source)
    needed = 1 + (not held) + (not kept)
    if len(rows) < max(needed, 2):
        raise DataError(
            f"'{data}' has {output.count(len(rows), 'example')}, but a comparison needs at least {max(needed, 2)}; add examples."
        )
    if not kept:
        rows, kept = split(rows, valid=0.2)
    if not held:
        rows, held = split(rows)
    _note_overlap(task, rows, kept)
    return task, [rows, held, kept]


def _note_overlap(task: Task, train: Rows, test: Rows) -> None:
    """Print a note if test texts are in the training data."""
    seen = {tuple(row[name] for name in task.columns) for row in train}
    both = sum(tuple(row[name] for name in task.columns) in seen for row in test)
    if both:
        output.say(
            f"note: {both} of {output.count(len(test), 'test text')} also occur in the training data; the scores are too optimistic."
        )


def _go_on(comparison: Comparison, work: Work, metric: str, minutes: float) -> bool:
    """Do the missing runs, with a display; after an interrupt, print what is saved."""
    from foreword.evaluation.report import check_metric

    check_metric(comparison.results.rows, metric)
    for method, why in comparison.refused.items():
        output.say(f"note: {method} is refused: {why}")
    output.say(
        f"{output.count(comparison.total(), 'run')}, {comparison.finished()} of them finished and saved in '{comparison.results.path}'"
    )
    try:
        with display(metric, comparison) as shown:
            whole = comparison.go_on(work, shown, minutes=minutes)
    except KeyboardInterrupt:
        output.say(f"note: finished runs are saved in '{comparison.results.path}'; run the same command to continue.")
        raise
    if not whole:
        output.say("note: the time limit was reached; run the same command to continue with the next run.")
    return whole


def _report(comparison: Comparison, metric: str, whole: bool, json: bool) -> None:
    from foreword.evaluation.report import check_metric, lines

    rows = comparison.rows()
    check_metric(rows, metric)
    found = lines(rows, metric)
    if json:
        setting = comparison.setting.facts()
        document = {"rows": rows, "summary": [line.to_dict() for line in found], "metric": metric, "complete": whole, "setting": setting}
        output.document({**document, "results": str(comparison.results.path)})
        return
    output.show(table(found, metric))
    for line in found:
        if line.reason and (line.runs or line.diverged or line.failed):  # refused methods were reported before
            output.say(f"note: {line.method}: {line.reason}")
    output.screen().print(legend(found, metric), style="dim", soft_wrap=True)


def table(found: list[Line], metric: str) -> Table:
    """One row per method."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("method", metric, "seeds"):
        table.add_column(name, no_wrap=True)
    for name in ("trained", "stored", "time", "memory", "latency"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in found:
        table.add_row(line.method, *_quality(line, metric), *_costs(line))
    return table


def _quality(line: Line, metric: str) -> tuple[str, str]:
    """The score with its error, and the spread between seeds."""
    wrong = [f"{number} {what}" for number, what in ((line.diverged, "diverged"), (line.failed, "failed")) if number]
    if metric not in line.scores:
        return (wrong[0].split()[1] if wrong else "refused" if not line.runs else "–"), ", ".join(wrong) or "–"
    score = line.scores[metric]
    seeds = f"{score.seeds}" + ("" if score.spread is None else f", ± {score.spread:.3f}")
    return f"{score.value:.3f} ± {score.stderr:.3f}", ", ".join([seeds, *wrong])


def _costs(line: Line) -> list[str]:
    if line.bytes is None or line.latency is None or line.seconds is None:
        return ["–"] * 5
    latency = f"×{line.latency['ratio']:.2f} ({line.latency['low']:.2f}–{line.latency['high']:.2f})"
    if not line.num_trained:
        return ["0", "0 bytes", "–", "–", latency]
    memory = "–" if line.peak_memory is None else output.size(line.peak_memory)
    return [f"{line.num_trained:,}", output.size(line.bytes), output.duration(line.seconds), memory, latency]


def legend(found: list[Line], metric: str) -> str:
    sizes = {line.scores[metric].n for line in found if metric in line.scores}
    n = f"{max(sizes):,} test examples; " if sizes else ""
    return (
        f"{n}± is one standard error over test examples and seeds; seeds: number of runs and their standard deviation.\n"
        "Trained parameters, bytes stored, time and peak memory of training; latency: one text, relative to the frozen model with a "
        "written prompt, or with the head alone (median, quartiles)."
    )
