"""Progress display: a bar on a terminal, plain lines elsewhere, always on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from foreword.cli.support.output import count, duration, say, score_text, screen

Event = dict[str, Any]
Scores = dict[str, dict[str, float]]


@final
class TimeLeft(ProgressColumn):
    """The estimated time left, once it is known."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        return Text("" if task.finished or not task.time_remaining else f"{duration(task.time_remaining)} left")


@final
class Best:
    """The best score so far, and its text."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.value: float | None = None

    def update(self, scores: Scores) -> None:
        found = scores[self.metric]["value"]
        better = min if self.metric == "loss" else max
        self.value = found if self.value is None else better(self.value, found)

    def __str__(self) -> str:
        return "" if self.value is None else f"best {self.metric} {self.value:.3f}"


@final
class TrainingBar:
    """Steps, loss, best score and the time left, in one line of at most 80 columns."""

    def __init__(self, metric: str) -> None:
        self.best = Best(metric)
        loss, best = TextColumn("loss {task.fields[loss]}"), TextColumn("{task.fields[best]}")
        columns = (SpinnerColumn(), BarColumn(bar_width=18), MofNCompleteColumn(), loss, best, TimeLeft())
        self.progress = Progress(*columns, console=screen(stderr=True), transient=True)
        self.task = self.progress.add_task("training", total=None, loss="  …  ", best="")

    def __enter__(self) -> TrainingBar:
        self.progress.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        kind = event["event"]
        if kind == "start":
            self.progress.update(self.task, total=event["steps"], completed=event["step"])
        elif kind == "step":
            self.progress.update(self.task, completed=event["step"], loss=f"{event['loss']:.3f}")
        elif kind == "eval":
            self.best.update(event["scores"])
            self.progress.update(self.task, best=str(self.best))
        elif kind == "notice":
            self.progress.console.print(f"note: {event['text']}")


@final
class TrainingLines:
    """One line per evaluation: steps, mean loss since the last line, score, best score, time left."""

    def __init__(self, metric: str, name: str = "") -> None:
        self.best, self.name = Best(metric), name
        self.losses: list[float] = []
        self.first = self.steps = 0
        self.begun = time.monotonic()

    def __enter__(self) -> TrainingLines:
        return self

    def __exit__(self, *problem: object) -> None:
        return

    def __call__(self, event: Event) -> None:
        kind = event["event"]
        if kind == "start":
            self.first, self.steps, self.begun = event["step"], event["steps"], time.monotonic()
            say(f"{self.name}training on {count(event['rows'], 'example')}, step {self.first} of {self.steps}")
        elif kind == "step":
            self.losses.append(event["loss"])
        elif kind == "eval":
            self.best.update(event["scores"])
            self._line(event["step"], event["scores"])
        elif kind == "notice":
            say(f"note: {self.name}{event['text']}")

    def _line(self, step: int, scores: Scores) -> None:
        left = (time.monotonic() - self.begun) / max(step - self.first, 1) * (self.steps - step)
        mean = sum(self.losses) / max(len(self.losses), 1)
        self.losses.clear()
        score = f"{self.best.metric} {score_text(scores[self.best.metric])}"
        say(f"{self.name}step {step} of {self.steps}  loss {mean:.3f}  {score}  {self.best}  {duration(left)} left")


def training(metric: str) -> TrainingBar | TrainingLines:
    """A display of one run; `metric` is the score shown."""
    return TrainingBar(metric) if screen(stderr=True).is_terminal else TrainingLines(metric)


@final
class TrainingBars:
    """A bar for each of several runs at once."""

    def __init__(self, metrics: Mapping[str, str]) -> None:
        self.best = {name: Best(metric) for name, metric in metrics.items()}
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=18),
            MofNCompleteColumn(),
            TextColumn("{task.fields[best]}"),
            TimeLeft(),
        )
        self.progress = Progress(*columns, console=screen(stderr=True), transient=True)
        self.tasks = {name: self.progress.add_task(name, total=None, best="") for name in metrics}

    def __enter__(self) -> TrainingBars:
        self.progress.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.progress.stop()

    def __call__(self, name: str, event: Event) -> None:
        kind, task = event["event"], self.tasks[name]
        if kind == "start":
            self.progress.update(task, total=event["steps"], completed=event["step"])
        elif kind == "step":
            self.progress.update(task, completed=event["step"])
        elif kind == "eval":
            self.best[name].update(event["scores"])
            self.progress.update(task, best=str(self.best[name]))
        elif kind == "evaluating":
            self.progress.update(task, best=f"{self.best[name]}, evaluating")
        elif kind == "notice":
            self.progress.console.print(f"note: {name}: {event['text']}")


@final
class TrainingsLines:
    """One line per evaluation, with the name of its run."""

    def __init__(self, metrics: Mapping[str, str]) -> None:
        self.lines = {name: TrainingLines(metric, f"{name}: ") for name, metric in metrics.items()}

    def __enter__(self) -> TrainingsLines:
        return self

    def __exit__(self, *problem: object) -> None:
        return

    def __call__(self, name: str, event: Event) -> None:
        self.lines[name](event)


def trainings(metrics: Mapping[str, str]) -> TrainingBars | TrainingsLines:
    """A display of several runs at once, each with the metric that is shown."""
    return TrainingBars(metrics) if screen(stderr=True).is_terminal else TrainingsLines(metrics)


@contextmanager
def ticking(what: str, total: int | None, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of texts done; on a terminal it moves a bar."""
    console = screen(stderr=True)
    if not console.is_terminal or not shown:
        yield lambda done: None
        return
    columns = (SpinnerColumn(), TextColumn(what), BarColumn(bar_width=30), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)
