"""The training loop, in the open: batches, loss, gradient of the prompt alone, steps, evaluations, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreword.adapters.adapter import Adapter
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import DivergedError, TrainingError
from foreword.learning_rates import main_part, rate_of
from foreword.recipe import LoraSpec, Recipe
from foreword.specs import PromptSpec
from foreword.tasks.base import Example, LengthBudget, Task, budget_for
from foreword.tasks.data import reader
from foreword.tasks.metrics.base import Score
from foreword.training import checkpoint
from foreword.training.checkpoint import Checkpoint
from foreword.training.distributed import Processes
from foreword.training.fit_result import FitResult
from foreword.training.initial_values import check_options, resolve_lora, setup_training, task_for_model
from foreword.training.interrupt import Interrupt
from foreword.training.loss_monitor import LossMonitor
from foreword.training.loss_scale import LossScale
from foreword.training.objective import Objective, TaskLoss
from foreword.training.optimization import adamw, cosine_schedule_with_warmup, set_learning_rates
from foreword.training.plan import TrainPlan
from foreword.training.random_state import random_states, restore_random_states
from foreword.training.run_log import Listener, peak_memory, versions
from foreword.training.sampler import BucketSampler


class TrainingInterrupted(TrainingError):
    """The user stopped the run; its checkpoint is kept."""


def fit(
    model: FrozenModel,
    what: Recipe | PromptSpec | LoraSpec,
    task: Task,
    train: Sequence[Example],
    valid: Sequence[Example],
    plan: TrainPlan | None = None,
    *,
    objective: Objective | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> FitResult:
    """Train what a recipe says (a soft prompt, LoRA, their sum, …) with the task's head, if it has one; the base model is never changed.

    A step minimises the task's loss, or another `objective`. With `out` the adapter is saved there and checkpoints go to `out` + ".run"; `resume`
    goes on from them, bit for bit on a CPU.
    Raises ModelError, UsageError or DataError before the first step, DivergedError for a loss that is no number,
    TrainingInterrupted after Ctrl-C.
    """
    folder = None if out is None else Path(out)
    run = Run(model, Recipe.of(what), task, train, valid, plan or TrainPlan(), objective or TaskLoss(), folder, listener)
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
        objective: Objective,
        out: Path | None,
        listener: Listener | None,
    ) -> None:
        self.recipe, self.lora = resolve_lora(recipe, model)
        self.base, self.plan, self.objective, self.out = model, plan, objective, out
        self.task = task_for_model(task, self.recipe, model.info)
        check_options(plan, self.task)
        self.length_budget: LengthBudget = budget_for(recipe.prompt, model.info, plan.max_length)
        self.started_at, self.seconds_before = time.monotonic(), 0.0
        self.folder = None if out is None else checkpoint.folder(out)
        self.processes = Processes(plan.tracker, self.folder)
        self.processes.shard(model, self.recipe)
        self.run_log = self.processes.run_log(listener)
        self.train_set = objective.train_set(self.task, model, self.length_budget, train, plan.dampening)
        self.eval_set = objective.eval_set(self.task, model, self.length_budget, valid[: plan.eval_examples])
        self.cut = self.train_set.cut + self.eval_set.cut
        self.identity = self._identity(train, valid)
        self.processes.check_equal({**self.identity, "tokenizer": model.tokenizer_fingerprint})
        self._build(train)
        self.step, self.best_metric, self.evals_since_best = 0, -math.inf, 0
        self.best_tensors: dict[str, Tensor] = self.trainable.bake()
        self.history: list[dict[str, float | int]] = []
        self.notices: list[str] = []

    def _identity(self, train: Sequence[Example], valid: Sequence[Example]) -> dict[str, Any]:
        """What a checkpoint must share with the run that resumes it."""
        return {
            "plan": self.plan.to_dict(),
            "method": self.recipe.to_dict(),
            "task": self.task.to_dict(),
            "objective": self.objective.to_dict(),
            "data": f"{reader.digest(train)} {reader.digest(valid)}",
            "base model": self.base.fingerprint,
        }

    def _build(self, train: Sequence[Example]) -> None:
        plan = self.plan
        features = self.train_set.features
        self.model, self.trainable = setup_training(
            self.base, self.recipe, self.task, self.task.material(train), features, plan.seed, self.lora
        )
        kinds = (self.task.kind, self.base.shape.kind)
        groups = self.trainable.parameter_groups(plan.learning_rate, *kinds)
        self.rates = [float(group["lr"]) for group in groups]
        rate = plan.learning_rate or rate_of(main_part(self.recipe), *kinds)
        self.loss_monitor = LossMonitor(plan.steps, rate)
        self.accelerator = self.processes.accelerator
        self.optimizer = self.accelerator.prepare_optimizer(adamw(groups, plan.weight_decay))
        self.loss_scale = LossScale(self.model.dtype == torch.float16 and self.accelerator.scaler is None)
        self.sampler = BucketSampler([feature.num_tokens for feature in features], plan.batch_size, plan.seed)
        torch.manual_seed(plan.seed)
        self.processes.track({"learning_rate": rate, "steps": plan.steps})

    def train(self, interrupt: Interrupt) -> None:
        """Step until the plan ends, the score stops improving or the user asks to stop."""
        rows = len(self.train_set.features)
        self.run_log.add("start", step=self.step, steps=self.plan.steps, rows=rows, cut=self.cut, rate=self.rates[0])
        try:
            while self.step < self.plan.steps and self.evals_since_best < self.plan.patience:
                self._one_step()
                if self.step % self.plan.eval_every == 0 or self.step == self.plan.steps:
                    self._evaluate()
                if self.processes.sum(interrupt.asked):
                    self._stop()
                if self.step % self.plan.checkpoint_every == 0:
                    self._save_checkpoint()
        except DivergedError:
            self._save_best()
            raise
        finally:
            self.processes.close()

    def _one_step(self) -> None:
        set_learning_rates(self.optimizer, self.rates, cosine_schedule_with_warmup(self.step, self.plan))
        loss = self._loss(self.sampler.batch(self.step))
        value = self.processes.sum(float(loss.detach()))
        notice = self.loss_monitor.update(value, self.step + 1)
        self.accelerator.backward(self.loss_scale.scaled(loss))
        self.processes.sum_gradients(self.trainable.parameters())
        self.loss_scale.unscale(self.trainable.parameters())
        norm = float(self.accelerator.clip_grad_norm_(self.trainable.parameters(), self.plan.clip))  # type: ignore[arg-type]  # None only under DeepSpeed
        if self.loss_scale.accepts(norm, self.step + 1):
            self.optimizer.step()
        else:
            self.run_log.add("skipped", step=self.step + 1, loss_scale=self.loss_scale.value)
        self.optimizer.zero_grad()
        self.step += 1
        self.run_log.add("step", step=self.step, loss=value, gradient=norm if math.isfinite(norm) else None)
        self.processes.log({"loss": value}, self.step)
        if notice:
            self.notices.append(notice)
            self.run_log.add("notice", step=self.step, text=notice)

    def _loss(self, indices: list[int]) -> Tensor:
        """Mean loss over what the batch labels, weighted: this process's share of it."""
        features = [self.train_set.features[i] for i in indices]
        total = sum(feature.weight for feature in features)
        share = self.processes.share(features)
        with self.model.gradient_checkpointing(self.plan.gradient_checkpointing):
            found = self.objective.losses(self.task, self.model, self.trainable(), share or features[:1])
        return (found.losses * found.weights).sum() * (1 / total if share else 0.0)

    def _evaluate(self) -> None:
        self.trainable.eval()
        baked = self.trainable.bake()
        scores = self._scores(baked)
        self.trainable.train()
        # The mean over processes, whose numbers may differ in the last bits: all must choose the same checkpoint.
        value = self.processes.sum(self.objective.monitor(self.task, scores)) / self.processes.number
        self.history.append({"step": self.step, **{name: score.value for name, score in scores.items()}})
        self.run_log.add("eval", step=self.step, scores={name: score.to_dict() for name, score in scores.items()})
        self.processes.log({f"valid_{name}": score.value for name, score in scores.items()}, self.step)
        if value > self.best_metric:
            self.best_tensors, self.best_metric, self.evals_since_best = baked, value, 0
        else:
            self.evals_since_best += 1

    def _scores(self, baked: dict[str, Tensor]) -> dict[str, Score]:
        """Validation scores of baked tensors, which are put into the model where weights are trained."""
        adapter_state = self.trainable.adapter_state(baked, self.model)
        return self.objective.evaluate(self.task, self.model, adapter_state, self.eval_set, batch_size=self.plan.batch_size)

    def _save_checkpoint(self) -> None:
        if self.folder is None or not self.processes.main:
            return
        state = (self.trainable.state_dict(), self.optimizer.state_dict(), self.loss_scale.state(), random_states(self.model.device))
        so_far = (self.best_tensors, self.best_metric, self.evals_since_best, self._seconds())
        checkpoint.save(Checkpoint(self.step, *state, *so_far, self.history, self.identity), self.folder)

    def _seconds(self) -> float:
        """Time spent, that before a resume included."""
        return self.seconds_before + time.monotonic() - self.started_at

    def restore(self) -> None:
        """Go on from the last checkpoint of the same run."""
        if self.folder is None:
            raise TrainingError("resume was asked for, but no output folder was given; give the one of the run to resume.")
        found = checkpoint.load(self.folder, self.identity)
        self.trainable.load_state_dict(found.trainable)
        self.optimizer.load_state_dict(found.optimizer)
        self.loss_scale.load(found.loss_scale)
        restore_random_states(found.random_states, self.model.device)
        self.step, self.best_tensors, self.best_metric = found.step, found.best_tensors, found.best_metric
        self.history, self.seconds_before, self.evals_since_best = found.history, found.seconds, found.evals_since_best

    def _stop(self) -> None:
        """Save a checkpoint and end the run as the user asked; raises TrainingInterrupted."""
        self._save_checkpoint()
        kept = (
            f"its checkpoint is in '{self.folder}'; continue with --resume"
            if self.folder
            else "nothing was saved, because no output folder was given"
        )
        raise TrainingInterrupted(f"stopped after step {self.step} of {self.plan.steps}; {kept}.")

    def _save_best(self) -> None:
        """After a divergence: the best prompt so far is saved as the adapter."""
        if self.out is not None and math.isfinite(self.best_metric):
            best = self._adapter({})
            if self.processes.main:
                best.save(self.out.with_name(self.out.name + ".best"), overwrite=True)

    def _adapter(self, scores: dict[str, Score]) -> Adapter:
        task = self.task
        if self.plan.calibrate_prior:
            tokens = self.trainable.adapter_state(self.best_tensors, self.model).tokens
            task = task.calibrated(self.model, tokens, self.length_budget.soft_tokens)
        provenance = {
            "seed": self.plan.seed,
            "steps": self.step,
            "plan": self.plan.to_dict(),
            "data": self.identity["data"],
            "versions": versions(),
        }
        return Adapter(
            recipe=self.recipe,
            shape=self.base.shape,
            tensors=self.best_tensors,
            task=task.to_dict(),
            base=self.base.name,
            base_fingerprint=self.base.fingerprint,
            tokenizer_fingerprint=self.base.tokenizer_fingerprint,
            scores={name: score.to_dict() for name, score in scores.items()},
            provenance=provenance,
        )

    def finish(self, overwrite: bool) -> FitResult:
        """Evaluate the best prompt, save the adapter and say how it went."""
        scores = self._scores(self.best_tensors)
        adapter = self._adapter(scores)
        if self.out is not None and self.processes.main:
            adapter.save(self.out, overwrite=overwrite)
        self.processes.wait()
        seconds = self._seconds()
        self.run_log.add("end", step=self.step, scores=adapter.scores, seconds=round(seconds, 3))
        trained = sum(parameter.numel() for parameter in self.trainable.parameters())
        return FitResult(adapter, scores, self.step, seconds, peak_memory(), self.cut, self.notices, self.history, trained)
