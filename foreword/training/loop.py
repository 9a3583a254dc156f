"""The training loop, in the open: batches, loss, gradient of the prompt alone, steps, evaluations, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreword.adapters.adapter import Adapter
from foreword.backbone.frozen import FrozenModel
from foreword.errors import DivergedError, TrainingError
from foreword.learning_rates import main_part, rate_of
from foreword.recipe import LoraSpec, Recipe
from foreword.specs import PromptSpec
from foreword.tasks.base import Example, LengthBudget, Task, budget_for
from foreword.tasks.data import reader
from foreword.tasks.data.row_origin import map_rows
from foreword.tasks.evaluation_loop import EvalSet, evaluate
from foreword.tasks.metrics.base import Score
from foreword.training import checkpoint
from foreword.training.checkpoint import Checkpoint
from foreword.training.distributed import Processes
from foreword.training.interrupt import Interrupt
from foreword.training.loss_monitor import LossMonitor
from foreword.training.plan import TrainPlan
from foreword.training.run_log import Listener, peak_memory, versions
from foreword.training.sampler import BucketSampler
from foreword.training.setup import resolve_lora, start, task_for_model


class TrainingInterrupted(TrainingError):
    """The user stopped the run; its checkpoint is kept."""


@dataclass(frozen=True)
class FitResult:
    """What a run gave: the adapter (saved when `out` was given) with its validation scores, and how it went.

    `num_trained` counts the numbers that had gradients, those of a re-parameterisation too, which the adapter does not keep.
    """

    adapter: Adapter
    scores: dict[str, Score]
    steps: int
    seconds: float
    peak_memory: int
    cut: int
    notices: list[str] = field(default_factory=list)
    history: list[dict[str, float | int]] = field(default_factory=list)
    num_trained: int = 0


def fit(
    model: FrozenModel,
    what: Recipe | PromptSpec | LoraSpec,
    task: Task,
    train: Sequence[Example],
    valid: Sequence[Example],
    plan: TrainPlan | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> FitResult:
    """Train what a recipe says (a soft prompt, LoRA, their sum, …) with the task's head, if it has one; the base model is never changed.

    With `out` the adapter is saved there and checkpoints go to `out` + ".run"; `resume` goes on from them, bit for bit on a CPU.
    Raises ModelError, UsageError or DataError before the first step, DivergedError for a loss that is no number,
    TrainingInterrupted after Ctrl-C.
    """
    run = Run(model, Recipe.of(what), task, train, valid, plan or TrainPlan(), None if out is None else Path(out), listener)
    if resume:
        run.restore()
    with Interrupt() as interrupt:
        run.train(interrupt)
    return run.finish(overwrite)


class Run:
    """One training run under way."""

    def __init__(
        self,
        model: FrozenModel,
        recipe: Recipe,
        task: Task,
        train: Sequence[Example],
        valid: Sequence[Example],
        plan: TrainPlan,
        out: Path | None,
        listener: Listener | None,
    ) -> None:
        self.recipe, self.lora = resolve_lora(recipe, model)
        self.base, self.plan, self.out = model, plan, out
        self.task = task_for_model(task, self.recipe, model.info)
        self.length_budget: LengthBudget = budget_for(recipe.prompt, model.info, plan.max_length)
        self.begun, self.before = time.monotonic(), 0.0
        self.folder = None if out is None else checkpoint.folder(out)
        self.processes = Processes(plan.tracker, self.folder)
        self.processes.spread(model, self.recipe)
        self.record = self.processes.record(listener)
        taught = map_rows(train, lambda example: self.task.train_features(example, model.info, self.length_budget, plan.dampening))
        self.train_features = [train_feature for train_features, _ in taught for train_feature in train_features]
        self.eval_set = EvalSet.prepare(self.task, model.info, self.length_budget, valid[: plan.eval_examples], truncate=True)
        self.cut = sum(cut for _, cut in taught) + self.eval_set.cut
        self.binding = self._binding(train, valid)
        self.processes.agree({**self.binding, "tokenizer": model.tokenizer_fingerprint})
        self._build(train)
        self.step, self.best_value, self.stale = 0, -math.inf, 0
        self.best: dict[str, Tensor] = self.tuning.bake()
        self.history: list[dict[str, float | int]] = []
        self.notices: list[str] = []

    def _binding(self, train: Sequence[Example], valid: Sequence[Example]) -> dict[str, Any]:
        """What a checkpoint must share with the run that resumes it."""
        return {
            "plan": self.plan.to_dict(),
            "method": self.recipe.to_dict(),
            "task": self.task.to_dict(),
            "data": f"{reader.digest(train)} {reader.digest(valid)}",
            "base model": self.base.fingerprint,
        }

    def _build(self, train: Sequence[Example]) -> None:
        plan = self.plan
        self.model, self.tuning = start(
            self.base, self.recipe, self.task, self.task.material(train), self.train_features, plan.seed, self.lora
        )
        suits = (self.task.kind, self.base.shape.kind)
        groups = self.tuning.groups(plan.learning_rate, *suits)
        self.rates = [float(group["lr"]) for group in groups]
        rate = plan.learning_rate or rate_of(main_part(self.recipe), *suits)
        self.watch = LossMonitor(plan.steps, rate)
        self.accelerator = self.processes.accelerator
        self.optimizer = self.accelerator.prepare_optimizer(adamw(groups, plan.weight_decay))
        self.sampler = BucketSampler([train_feature.num_tokens for train_feature in self.train_features], plan.batch_size, plan.seed)
        torch.manual_seed(plan.seed)
        self.processes.track({"learning_rate": rate, "steps": plan.steps})

    def train(self, interrupt: Interrupt) -> None:
        """Step until the plan ends, the score stops improving or the user asks to stop."""
        self.record.add("start", step=self.step, steps=self.plan.steps, rows=len(self.train_features), cut=self.cut, rate=self.rates[0])
        try:
            while self.step < self.plan.steps and self.stale < self.plan.patience:
                self._one_step()
                if self.step % self.plan.eval_every == 0 or self.step == self.plan.steps:
                    self._evaluate()
                if self.processes.sum(interrupt.asked):
                    self._interrupted()
                if self.step % self.plan.checkpoint_every == 0:
                    self._save_checkpoint()
        except DivergedError:
            self._keep_best()
            raise
        finally:
            self.processes.close()

    def _one_step(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * schedule(self.step, self.plan)
        loss = self._loss(self.sampler.batch(self.step))
        value = self.processes.sum(float(loss.detach()))
        notice = self.watch.see(value, self.step + 1)
        self.accelerator.backward(loss)
        self.processes.sum_gradients(self.tuning.parameters())
        norm = self.accelerator.clip_grad_norm_(self.tuning.parameters(), self.plan.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.record.add("step", step=self.step, loss=value, gradient=float(norm))  # type: ignore[arg-type]  # None only under DeepSpeed
        self.processes.log({"loss": value}, self.step)
        if notice:
            self.notices.append(notice)
            self.record.add("notice", step=self.step, text=notice)

    def _loss(self, indices: list[int]) -> Tensor:
        """Mean loss over what the batch labels, weighted: this process's share of it."""
        train_features = [self.train_features[i] for i in indices]
        total = sum(train_feature.weight for train_feature in train_features)
        mine = self.processes.share(train_features)
        with self.model.gradient_checkpointing(self.plan.gradient_checkpointing):
            costs = self.task.losses(self.model, self.tuning(), mine or train_features[:1])
        return (costs.losses * costs.weights).sum() * (1 / total if mine else 0.0)

    def _evaluate(self) -> dict[str, Score]:
        self.tuning.eval()
        baked = self.tuning.bake()
        scores = evaluate(self.task, self.model, self.tuning.read(baked, self.model.shape), self.eval_set, batch_size=self.plan.batch_size)
        self.tuning.train()
        value = self.processes.sum(self.task.monitor(scores)) / self.processes.number  # one number, or they would part ways
        self.history.append({"step": self.step, **{name: score.value for name, score in scores.items()}})
        self.record.add("eval", step=self.step, scores={name: score.to_dict() for name, score in scores.items()})
        self.processes.log({f"valid_{name}": score.value for name, score in scores.items()}, self.step)
        if value > self.best_value:
            self.best, self.best_value, self.stale = baked, value, 0
        else:
            self.stale += 1
        return scores

    def _save_checkpoint(self) -> None:
        if self.folder is None or not self.processes.main:
            return
        state = (self.tuning.state_dict(), self.optimizer.state_dict(), torch.get_rng_state())
        so_far = (self.best, self.best_value, self.stale, self._seconds())
        checkpoint.save(Checkpoint(self.step, *state, *so_far, self.history, self.binding), self.folder)

    def _seconds(self) -> float:
        """Time spent, that before a resume included."""
        return self.before + time.monotonic() - self.begun

    def restore(self) -> None:
        """Go on from the last checkpoint of the same run."""
        if self.folder is None:
            raise TrainingError("resume was asked for, but no output folder was given; give the one of the run to resume.")
        found = checkpoint.load(self.folder, self.binding)
        self.tuning.load_state_dict(found.tuning)
        self.optimizer.load_state_dict(found.optimizer)
        torch.set_rng_state(found.rng)
        self.step, self.best, self.best_value, self.stale = found.step, found.best, found.best_value, found.stale
        self.history, self.before = found.history, found.seconds

    def _interrupted(self) -> None:
        self._save_checkpoint()
        kept = (
            f"its checkpoint is in '{self.folder}': go on with --resume"
            if self.folder
            else "nothing was kept, as no output folder was given"
        )
        raise TrainingInterrupted(f"stopped after step {self.step} of {self.plan.steps}; {kept}.")

    def _keep_best(self) -> None:
        """After a divergence: the best prompt so far is saved as the adapter."""
        if self.out is not None and math.isfinite(self.best_value):
            best = self._adapter({})
            if self.processes.main:
                best.save(self.out.with_name(self.out.name + ".best"), overwrite=True)

    def _adapter(self, scores: dict[str, Score]) -> Adapter:
        task = self.task
        if self.plan.calibrate_prior:
            task = task.calibrated(self.model, self.tuning.read(self.best, self.model.shape).tokens, self.length_budget.soft_tokens)
        facts = {
            "seed": self.plan.seed,
            "steps": self.step,
            "plan": self.plan.to_dict(),
            "data": self.binding["data"],
            "versions": versions(),
        }
        return Adapter(
            recipe=self.recipe,
            shape=self.base.shape,
            tensors=self.best,
            task=task.to_dict(),
            base=self.base.name,
            base_fingerprint=self.base.fingerprint,
            tokenizer_fingerprint=self.base.tokenizer_fingerprint,
            scores={name: score.to_dict() for name, score in scores.items()},
            provenance=facts,
        )

    def finish(self, overwrite: bool) -> FitResult:
        """Judge the best prompt, save the adapter and say how it went."""
        adapter_state = self.tuning.read(self.best, self.model.shape)
        scores = evaluate(self.task, self.model, adapter_state, self.eval_set, batch_size=self.plan.batch_size)
        adapter = self._adapter(scores)
        if self.out is not None and self.processes.main:
            adapter.save(self.out, overwrite=overwrite)
        self.processes.wait()
        seconds = self._seconds()
        self.record.add("end", step=self.step, scores=adapter.scores, seconds=round(seconds, 3))
        trained = sum(parameter.numel() for parameter in self.tuning.parameters())
        return FitResult(adapter, scores, self.step, seconds, peak_memory(), self.cut, self.notices, self.history, trained)


def adamw(groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.AdamW:
    """AdamW in one pass over memory where torch has it; in several it is a third of a step of full fine-tuning (LOG.md)."""
    fused = all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=fused or None)


def schedule(step: int, plan: TrainPlan) -> float:
    """Linear warm-up over a share of the steps, then cosine to zero; a function of the step alone."""
    warm = max(1, round(plan.warmup * plan.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, plan.steps - warm)))
