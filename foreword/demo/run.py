"""`foreword demo`: three soft prompts on real texts, the frozen model with a written prompt against each, one model answering all."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from foreword.adapters.adapter import Adapter
from foreword.backbone.frozen import FrozenModel
from foreword.backbone.load import load
from foreword.demo import gemma
from foreword.demo.tasks import TASKS, DemoTask
from foreword.evaluation.evaluate import Reader
from foreword.methods import DEFAULT_METHOD, recipe
from foreword.tasks.metrics import Score
from foreword.training.loop import fit
from foreword.training.record import Listener

Display = Callable[[str], AbstractContextManager[Listener]]
_BATCH = 16
_ASKED = 2  # requests of each task that the demo answers


def run(*, out: Path, quick: bool, console: Console, display: Display) -> dict[str, Any]:
    """Prepare the model, train and judge each task, answer a few requests; the table's rows are returned for --json."""
    begun = time.monotonic()
    console.print(gemma.TERMS)
    model = load(gemma.prepare())
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, str]] = []
    for item in TASKS:
        console.print(f"\n{item.name}: {item.what}")
        split = item.split()
        test = split.test[:40] if quick else split.test
        plan = replace(item.plan, steps=10, eval_every=10, eval_examples=20) if quick else item.plan
        with display(item.task.metric) as listener:
            result = fit(
                model,
                recipe(DEFAULT_METHOD),
                item.task,
                split.train,
                split.valid,
                plan,
                out=out / item.name,
                overwrite=True,
                listener=listener,
            )
        before, after = _judge(model, item, result.adapter, test)
        rows.append(_row(item, before, after, result.adapter, result.seconds))
        answers.extend(_ask(Reader.of(model, result.adapter, max_length=plan.max_length), item, test))
    _show(console, rows)
    _show_answers(console, answers)
    console.print(
        f"\nThe adapters are in '{out}'. Next:\n  foreword list {out}\n  foreword predict {out / 'sentiment'} \"a joy to watch\"",
        soft_wrap=True,
    )
    return {"model": model.name, "rows": rows, "answers": answers, "seconds": round(time.monotonic() - begun, 3)}


def _judge(model: FrozenModel, item: DemoTask, adapter: Adapter, test: list[dict[str, str]]) -> tuple[dict[str, Score], dict[str, Score]]:
    """The written prompt and the soft prompt on the same held-out texts, read to the same length."""
    written = Reader.plain(model, item.baseline(), max_length=item.plan.max_length)
    soft = Reader.of(model, adapter, max_length=item.plan.max_length)
    return tuple(reader.evaluate(test, truncate=True, batch_size=_BATCH)[0] for reader in (written, soft))  # type: ignore[return-value]


def _row(item: DemoTask, before: dict[str, Score], after: dict[str, Score], adapter: Adapter, seconds: float) -> dict[str, Any]:
    scores = {"written": before, "soft": after}
    return {
        "task": item.name,
        "metric": item.metric,
        "scores": {name: {metric: score.to_dict() for metric, score in found.items()} for name, found in scores.items()},
        "bytes": sum(tensor.nbytes for tensor in adapter.tensors.values()),
        "num_parameters": adapter.num_parameters,
        "seconds": round(seconds, 3),
    }


def _ask(reader: Reader, item: DemoTask, test: list[dict[str, str]]) -> list[dict[str, str]]:
    asked = test[:_ASKED]
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
