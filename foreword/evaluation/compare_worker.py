"""Runs of a comparison, each in its own process, so that no run inherits another's memory, caches or random numbers.

`python -m foreword.evaluation.compare_worker` is what `Processes` starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foreword.adapters.folder import TENSORS
from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import load
from foreword.backbone.loading.logging import quiet
from foreword.errors import ForewordError
from foreword.evaluation import latency, peak_memory
from foreword.evaluation.evaluate import Reader
from foreword.evaluation.example_results import ExampleResult, example_results, write_results
from foreword.evaluation.forked_jobs import Event, Tell, serve
from foreword.evaluation.run_config import RunConfig
from foreword.prompts.template import Template
from foreword.recipe import Recipe
from foreword.tasks.base import Task, budget_for
from foreword.tasks.data.row_origin import map_rows
from foreword.tasks.evaluation_loop import EvalSet, evaluate_examples, predictions
from foreword.tasks.few_shot import FewShot, choose, written
from foreword.tasks.metrics.base import Score
from foreword.tasks.registry import task_from_dict
from foreword.tasks.template_task import TemplateTask
from foreword.training.fit_result import FitResult
from foreword.training.initial_values import check_options, task_for_model
from foreword.training.loop import fit

UNTRAINED = {
    "adapter": None,
    "num_parameters": 0,
    "num_trained": 0,
    "bytes": 0,
    "steps": 0,
    "seconds": 0.0,
    "peak_memory": None,
    "notices": [],
}


@dataclass(frozen=True)
class Bench:
    """A run's configuration on its loaded model."""

    setting: RunConfig
    model: FrozenModel

    @classmethod
    def of(cls, setting: RunConfig, quantize: Any = None) -> Bench:
        quiet(downloads=False)
        return cls(setting, load(setting.model, dtype=setting.dtype, device=setting.device, quantize=quantize))

    @property
    def task(self) -> Task:
        return self.laid_out(task_from_dict(self.setting.task))

    @property
    def written(self) -> Task | None:
        """The task with its written prompt, None for a task with a head."""
        task = task_from_dict(self.setting.task)
        return self.laid_out(written(task, self.setting.written)) if isinstance(task, TemplateTask) else None

    def laid_out(self, task: Task) -> Task:
        """The task in the model's chat format, if that was asked for."""
        if not self.setting.chat or not isinstance(task, TemplateTask):
            return task
        return task.with_template(Template.parse(self.model.tokenizer.chat(task.template.source)))

    def few_shot(self, shots: int, seed: int) -> FewShot:
        task = task_from_dict(self.setting.task)
        chosen = choose(task, self.setting.train, shots, seed)
        chat = self.model.tokenizer.chat if self.setting.chat else None
        return FewShot.of(task, chosen, words=self.setting.written, chat=chat)

    def zero_shot(self) -> Reader:
        """The frozen model with the written prompt; raises UsageError for a task with a head."""
        task = self.laid_out(written(task_from_dict(self.setting.task), self.setting.written))
        reader = Reader.plain(self.model, task, max_length=self.setting.plan.max_length)
        if self.setting.plan.calibrate_prior:
            return Reader(self.model, reader.task.calibrated(self.model, None, 0), reader.adapter_state, reader.length_budget)
        return reader


def look(job: dict[str, Any], tell: Tell) -> Event:
    """Facts about the model, and which recipes it does not support; raises ForewordError for data that no method can read."""
    bench = Bench.of(RunConfig.from_dict(job["setting"]))
    model, setting = bench.model, bench.setting
    task = (bench.written or bench.task).for_model(model.info, None)
    check_options(setting.plan, task)
    length_budget = budget_for(None, model.info, setting.plan.max_length)
    map_rows(setting.train, lambda example: task.train_features(example, model.info, length_budget))
    for part in (setting.valid, setting.test):
        EvalSet.prepare(task, model.info, length_budget, part, truncate=True)
    refused = {}
    for name, recipe in job["recipes"].items():
        try:
            _check(bench, Recipe.from_dict(recipe), name in job["written"])
        except ForewordError as error:
            refused[name] = str(error)
    kind = {"device": model.device.type, "precision": str(model.dtype).removeprefix("torch.")}
    prints = {"base model": model.fingerprint, "tokenizer": model.tokenizer_fingerprint}
    return {"facts": {**prints, **kind}, "kind": model.shape.kind, "refused": refused}


def _check(bench: Bench, recipe: Recipe, is_written: bool) -> None:
    """Raise ForewordError if this model or task does not support a recipe, as far as this is known before training."""
    if is_written:
        bench.few_shot(recipe.shots, 0) if recipe.shots else bench.zero_shot()
        return
    task_for_model(bench.task, recipe, bench.model.info)
    budget_for(recipe.prompt, bench.model.info, bench.setting.plan.max_length)


def run(job: dict[str, Any], tell: Tell) -> Event:
    """Train, evaluate on the test data and measure the time of single texts."""
    recipe = Recipe.from_dict(job["recipe"])
    bench = Bench.of(RunConfig.from_dict(job["setting"]), recipe.quantize)
    if job["written"] and recipe.shots:
        return _few_shot(bench, recipe.shots, job, tell)
    if job["written"]:
        return UNTRAINED | _evaluated(bench, bench.zero_shot(), Path(job["examples"]), tell)
    if recipe.lora is not None:
        import foreword.backbone.weights.lora  # noqa: F401  (PEFT takes seconds to import, which must not count as training)
    plan = replace(bench.setting.plan, seed=job["seed"], learning_rate=job["rate"])
    peak_memory.forget_peak(bench.model.device)
    result = fit(bench.model, recipe, bench.task, bench.setting.train, bench.setting.valid, plan, listener=tell)
    peak = peak_memory.peak(bench.model.device)
    result.adapter.save(job["adapter"], overwrite=True)
    reader = Reader.of(bench.model, result.adapter, max_length=plan.max_length)
    monitor = {"monitor": _number(reader.task.monitor(result.scores))}
    return _trained(result, job["adapter"], peak) | monitor | _evaluated(bench, reader, Path(job["examples"]), tell)


def _trained(result: FitResult, adapter: str, peak: int) -> Event:
    return {
        "adapter": adapter,
        "num_parameters": result.adapter.num_parameters,
        "num_trained": result.num_trained,
        "bytes": (Path(adapter) / TENSORS).stat().st_size,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "peak_memory": peak,
        "valid": _plain(result.scores),
        "notices": result.notices,
    }


def _evaluated(bench: Bench, reader: Reader, examples: Path, tell: Tell) -> Event:
    """Scores on the test data, with the result of each example in a file, what is needed for answers, and the time it adds."""
    peak_memory.forget_peak(bench.model.device)
    setting = bench.setting
    scores, cut, results = reader.evaluate_examples(
        setting.test, truncate=True, batch_size=setting.plan.batch_size, tick=_ticking(tell, len(setting.test))
    )
    held = peak_memory.peak(bench.model.device)
    short = Reader(reader.model, latency.first_token(reader.task), reader.adapter_state, reader.length_budget)
    added = latency.added(lambda text: short.predict([text], truncate=True), _bare(bench, reader), setting.test, bench.model.device)
    return _saved(examples, results) | {"scores": _plain(scores), "truncated": cut, "answering_memory": held, "latency": added}


def _saved(examples: Path, results: Sequence[ExampleResult]) -> Event:
    """The results of the examples in their file, and its name for the row. A run that is repeated replaces it."""
    examples.parent.mkdir(parents=True, exist_ok=True)
    write_results(examples, results)
    return {"examples": str(examples)}


def _few_shot(bench: Bench, shots: int, job: dict[str, Any], tell: Tell) -> Event:
    """As `_evaluated`, with examples chosen by the seed before every text."""
    setting, model, none = bench.setting, bench.model, AdapterState()
    length_budget = budget_for(None, model.info, setting.plan.max_length)
    few = bench.few_shot(shots, job["seed"])
    if setting.plan.calibrate_prior:
        few = few.calibrated(model, length_budget)
    peak_memory.forget_peak(model.device)
    eval_set, fewer = few.eval_set(model.info, length_budget, setting.test)
    task = few.tasks[0]
    found = evaluate_examples(task, model, none, eval_set, batch_size=setting.plan.batch_size, tick=_ticking(tell, len(setting.test)))
    held = peak_memory.peak(model.device)
    first = latency.first_token(task)
    added = latency.added(
        lambda text: predictions(first, model, none, [few.eval_feature(text, model.info, length_budget)[0]], 1),
        _bare(bench, None),
        setting.test,
        model.device,
    )
    notices = [f"{fewer} of {len(setting.test)} texts were too long for all {shots} examples."] if fewer else []
    results = example_results(task, setting.test, found)
    return (
        UNTRAINED
        | _saved(Path(job["examples"]), results)
        | {
            "scores": _plain(found.scores),
            "truncated": eval_set.cut,
            "answering_memory": held,
            "latency": added,
            "notices": notices,
        }
    )


def _bare(bench: Bench, reader: Reader | None) -> latency.Answer:
    """The frozen model without the trained part."""
    without = latency.bare(bench.model, reader, bench.written, bench.setting.plan.max_length)
    return lambda text: without.predict([text], truncate=True)


def _plain(scores: dict[str, Score]) -> dict[str, dict[str, Any]]:
    return {name: {key: _number(value) for key, value in score.to_dict().items()} for name, score in scores.items()}


def _number(value: float) -> float | None:
    """A JSON number; NaN, such as a correlation with a constant, is null."""
    return value if math.isfinite(value) else None


def _ticking(tell: Tell, total: int) -> Callable[[int], None]:
    return lambda done: tell({"event": "evaluated", "texts": done, "total": total})


if __name__ == "__main__":
    serve(lambda job, tell: (look if job["do"] == "look" else run)(job, tell))
