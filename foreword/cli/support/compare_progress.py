"""Progress of a comparison: bars for the present run on a terminal, one line per finished run everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from foreword.cli.support.output import duration, say, score_text, screen
from foreword.cli.support.progress import TimeLeft

if TYPE_CHECKING:
    from foreword.evaluation.compare import Comparison, Run

Event = dict[str, Any]


def _ended(run: Run, event: Event, metric: str, comparison: Comparison) -> str:
    """One line on a finished run."""
    head = f"run {comparison.finished()} of {comparison.total()}: {run.name}:"
    if event["status"] != "done":
        return f"{head} {event['status']}: {event['reason']}"
    score = event["scores"].get(metric)
    shown = f"{metric} {score_text(score)}" if score and score["value"] is not None else "done"
    return f"{head} {shown}" + (f", {duration(event['seconds'])}" if event["steps"] else "")


@final
class Lines:
    """One line per finished run."""

    def __init__(self, metric: str, comparison: Comparison) -> None:
        self.metric, self.comparison = metric, comparison

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *problem: object) -> None:
        return

    def __call__(self, run: Run, event: Event) -> None:
        if event["event"] == "outcome":
            say(_ended(run, event, self.metric, self.comparison))


@final
class Bars:
    """A bar for all runs and one for the steps of the present run, below one line per finished run."""

    def __init__(self, metric: str, comparison: Comparison) -> None:
        self.metric, self.comparison = metric, comparison
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=18), MofNCompleteColumn(), TimeLeft())
        self.progress = Progress(*columns, console=screen(stderr=True), transient=True)
        self.all = self.progress.add_task("runs", total=comparison.total(), completed=comparison.finished())
        self.one = self.progress.add_task("", total=None)

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.progress.stop()

    def __call__(self, run: Run, event: Event) -> None:
        kind, name = event["event"], run.name[:34]
        if kind == "begin":
            self.progress.reset(self.one, total=None, description=name)
        elif kind == "start":
            self.progress.reset(self.one, total=event["steps"], description=name)
        elif kind == "step":
            self.progress.update(self.one, completed=event["step"])
        elif kind == "evaluated":
            self.progress.update(self.one, total=event["total"], completed=event["texts"], description=f"evaluating {run.method}"[:34])
        elif kind == "outcome":
            self.progress.update(self.all, total=self.comparison.total(), completed=self.comparison.finished())
            self.progress.console.print(_ended(run, event, self.metric, self.comparison))


def display(metric: str, comparison: Comparison) -> Bars | Lines:
    """A display of a running comparison; `metric` is the score shown."""
    return Bars(metric, comparison) if screen(stderr=True).is_terminal else Lines(metric, comparison)
