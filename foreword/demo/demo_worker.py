"""One task of the demo in a process of its own: trained, and evaluated beside the written prompt. `python -m foreword.demo.demo_worker` is what the demo starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from foreword.adapters.adapter import Adapter
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import load
from foreword.backbone.loading.logging import quiet
from foreword.demo.tasks import TASKS, DemoTask
from foreword.evaluation.evaluate import Reader
from foreword.evaluation.example_results import EXAMPLES, write_results
from foreword.evaluation.forked_jobs import Event, Tell, serve
from foreword.methods import DEFAULT_METHOD, recipe
from foreword.tasks.metrics.base import Score
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

_BATCH = 16


def train(job: Event, tell: Tell) -> Event:
    """Train and evaluate the task that a job names: {"row": …} of the demo's table."""
    quiet(downloads=False)
    torch.set_num_threads(job["threads"])
    item = next(item for item in TASKS if item.name == job["task"])
    model, split, plan = load(job["model"]), item.split(), plan_of(item, job["quick"])
    out = Path(job["out"]) / item.name
    result = fit(model, recipe(DEFAULT_METHOD), item.task, split.train, split.valid, plan, out=out, overwrite=True, listener=tell)
    tell({"event": "evaluating"})
    test = split.test[:40] if job["quick"] else split.test
    scores, examples = {}, {}
    for side, reader in _readers(model, item, result.adapter).items():
        scores[side], _, results = reader.evaluate_examples(test, truncate=True, batch_size=_BATCH)
        examples[side] = Path(job["out"]) / EXAMPLES / f"{item.name}-{side}.jsonl"
        examples[side].parent.mkdir(parents=True, exist_ok=True)
        write_results(examples[side], results)
    return {"row": _row(item, scores, examples, result.adapter, result.seconds)}


def plan_of(item: DemoTask, quick: bool) -> TrainPlan:
    return replace(item.plan, steps=10, eval_every=10, eval_examples=20) if quick else item.plan


def _readers(model: FrozenModel, item: DemoTask, adapter: Adapter) -> dict[str, Reader]:
    """The written prompt and the soft prompt, reading the same held-out texts to the same length."""
    written = Reader.plain(model, item.baseline(), max_length=item.plan.max_length)
    return {"written": written, "soft": Reader.of(model, adapter, max_length=item.plan.max_length)}


def _row(
    item: DemoTask, scores: dict[str, dict[str, Score]], examples: dict[str, Path], adapter: Adapter, seconds: float
) -> dict[str, Any]:
    return {
        "task": item.name,
        "metric": item.metric,
        "scores": {side: {metric: score.to_dict() for metric, score in found.items()} for side, found in scores.items()},
        "examples": {side: str(path) for side, path in examples.items()},
        "bytes": sum(tensor.nbytes for tensor in adapter.tensors.values()),
        "num_parameters": adapter.num_parameters,
        "seconds": round(seconds, 3),
    }


if __name__ == "__main__":
    serve(train)
