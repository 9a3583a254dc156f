"""`foreword demo`: three soft prompts on real texts, the frozen model with a written prompt against each, one model answering all."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from foreword.adapters.adapter import Adapter
from foreword.backbone.loading.load_model import load
from foreword.demo import gemma
from foreword.demo.tasks import TASKS, DemoTask
from foreword.errors import ModelError
from foreword.evaluation.evaluate import Reader
from foreword.evaluation.example_results import EXAMPLES
from foreword.evaluation.subprocess_pool import Processes
from foreword.tasks.metrics.base import Score

Listener = Callable[[str, dict[str, Any]], None]
Display = Callable[[Mapping[str, str]], AbstractContextManager[Listener]]  # from each task's name and metric
_WORKER = "foreword.demo.demo_worker"
_ASKED = 2  # requests of each task that the demo answers


def run(*, out: Path, quick: bool, console: Console, display: Display) -> dict[str, Any]:
    """Prepare the model, train and evaluate the tasks, answer a few requests of all from one model; the table's rows are returned for --json.

    Raises ModelError where a task's process ends early.
    """
    started_at = time.monotonic()
    console.print(gemma.TERMS)
    source = str(gemma.prepare())
    for item in TASKS:
        console.print(f"{item.name}: {item.what}")
    with display({item.name: item.task.metric for item in TASKS}) as listener:
        rows = _trained(source, out, quick, listener)
    _show(console, rows)
    model = load(source)
    answers = [
        answer for item in TASKS for answer in _ask(Reader.of(model, Adapter.load(out / item.name), max_length=item.plan.max_length), item)
    ]
    _show_answers(console, answers)
    kept = f"The adapters are in '{out}', every test text with its answers in '{out / EXAMPLES}'."
    console.print(f'\n{kept} Next:\n  foreword list {out}\n  foreword predict {out / "sentiment"} "a joy to watch"', soft_wrap=True)
    return {"model": model.name, "rows": rows, "answers": answers, "seconds": round(time.monotonic() - started_at, 3)}


def _trained(source: str, out: Path, quick: bool, listener: Listener) -> list[dict[str, Any]]:
    """The table's rows. All tasks at once, each in a process of its own: the small steps of one gain little from a second core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = {"model": source, "out": str(out), "quick": quick, "threads": max(1, cores // len(TASKS))}
    processes = [Processes(_WORKER) for _ in TASKS]

    def train(item: DemoTask, process: Processes) -> dict[str, Any]:
        with process:
            found = process({"task": item.name, **shared}, lambda event: listener(item.name, event))
        if found["status"] != "done":
            raise ModelError(f"the demo's task '{item.name}' has no result: {found['reason']}")
        return found["row"]

    with ThreadPoolExecutor(len(TASKS)) as pool:
        try:
            return list(pool.map(train, TASKS, processes))
        except BaseException:  # Ctrl-C among them: the others end too
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()
            raise


def _ask(reader: Reader, item: DemoTask) -> list[dict[str, str]]:
    asked = item.split().test[:_ASKED]
    predicted = reader.predict(asked, truncate=True)
    column = item.task.columns[0]
    return [
        {"task": item.name, "input": example[column], "answer": prediction.text, "target": example[item.task.target]}
        for example, prediction in zip(asked, predicted, strict=True)
    ]


def _show(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(title="One frozen model: a written prompt against a soft prompt", box=None, title_justify="left", pad_edge=False)
    for name in ("task", "metric", "written", "soft", "n", "bytes"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right", no_wrap=True)
    for row in rows:
        for metric in (row["metric"], "loss"):
            pair = [Score(**row["scores"][side][metric]) for side in ("written", "soft")]
            table.add_row(row["task"], metric, *map(str, pair), str(pair[0].n), f"{row['bytes']:,}")
    console.print()
    console.print(table)


def _show_answers(console: Console, answers: list[dict[str, str]]) -> None:
    console.print("\nRequests of all three tasks, answered by the one model:")
    for answer in answers:
        text = textwrap.shorten(answer["input"], 60, placeholder="…")
        console.print(f"  {answer['task']:<10} {text}\n             → {answer['answer']}   (right: {answer['target']})", soft_wrap=True)
