"""One run of the quality benchmark: train, keep the best prompt by validation, evaluate it on sentences no run has seen."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import models
import theirs
import torch
from peft import PeftModel
from runs import Run

from foreword.backbone.frozen_model import FrozenModel
from foreword.demo.corpora import Split
from foreword.evaluation.evaluate import Reader
from foreword.methods import recipe
from foreword.prompts.template import Row
from foreword.tasks.base import LengthBudget, Prediction
from foreword.tasks.classify import Classify
from foreword.tasks.metrics import base as metrics
from foreword.tasks.metrics.base import Score
from foreword.tasks.template_task import for_site
from foreword.training.loop import fit
from foreword.training.optimization import cosine_schedule_with_warmup
from foreword.training.plan import TrainPlan
from foreword.training.sampler import BucketSampler

Scores = dict[str, Score]


@dataclass(frozen=True)
class Setting:
    """What all runs share: the data, the task as `foreword train` guesses it, and a plan of which only steps and seed are set."""

    source: str
    split: Split
    steps: int = 200
    length: int = 20
    task: Classify = field(default_factory=lambda: Classify(("negative", "positive")))

    def plan(self, seed: int) -> TrainPlan:
        return TrainPlan(steps=self.steps, seed=seed)


@dataclass(frozen=True)
class Trained:
    """Scores of the best prompt of a run, and where it diverged if it did."""

    valid: Scores
    test: Scores
    diverged: int | None = None


def run_one(run: Run, setting: Setting, model: FrozenModel) -> dict[str, Any]:
    """Do a run; the result as it is kept."""
    begun = time.monotonic()
    trained = (_ours if run.system == "foreword" else _theirs)(run, setting, model)
    scores = {part: {name: score.to_dict() for name, score in getattr(trained, part).items()} for part in ("valid", "test")}
    monitor = setting.task.monitor(trained.valid)
    seconds = round(time.monotonic() - begun, 1)
    return {**vars(run), "monitor": monitor, **scores, "diverged": trained.diverged, "seconds": seconds}


def _ours(run: Run, setting: Setting, model: FrozenModel) -> Trained:
    """`fit` with the library's defaults."""
    spec = recipe(run.method, length=setting.length)
    result = fit(model, spec, setting.task, setting.split.train, setting.split.valid, setting.plan(run.seed))
    test, _ = Reader.of(model, result.adapter).evaluate(setting.split.test)
    return Trained(result.scores, test)


def _theirs(run: Run, setting: Setting, model: FrozenModel) -> Trained:
    """PEFT in the same loop: batches, schedule, clipping, evaluations and choice of the best prompt are those of `fit`."""
    variant = theirs.VARIANTS[run.method][run.variant]
    words = setting.task.material(setting.split.train).text
    network = models.network(setting.source)
    peft = theirs.attach(network, setting.source, variant, length=setting.length, text=words, seed=run.seed)
    loop = PeftLoop(peft, model, setting, run)
    loop.train()
    return Trained(loop.evaluate(setting.split.valid), loop.evaluate(setting.split.test), loop.diverged)


class PeftLoop:
    """Training of a PEFT model on rows of our template; the frozen model only reads texts."""

    def __init__(self, peft: PeftModel, reader: FrozenModel, setting: Setting, run: Run) -> None:
        self.peft, self.reader, self.setting, self.rate = peft, reader, setting, float(run.rate or 0)
        self.plan = setting.plan(run.seed)
        self.task: Classify = for_site(
            setting.task, recipe("p-tuning-v2")
        )  # rows without places for soft tokens: PEFT puts its own in front
        self.length_budget = LengthBudget(0, reader.shape.positions - setting.length)
        self.rows = [self.task.train_row(example, reader.info, self.length_budget)[0] for example in setting.split.train]
        self.sampler = BucketSampler([row.num_tokens for row in self.rows], self.plan.batch_size, run.seed)
        self.parameters = theirs.trained(peft)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.rate, weight_decay=self.plan.weight_decay)
        self.diverged: int | None = None

    def train(self) -> None:
        best, kept = -math.inf, self._state()
        for step in range(self.plan.steps):
            if not self._step(step):
                self.diverged = step + 1
                break
            if (step + 1) % self.plan.eval_every == 0 or step + 1 == self.plan.steps:
                value = self.task.monitor(self.evaluate(self.setting.split.valid[: self.plan.eval_examples]))
                if value > best:
                    best, kept = value, self._state()
        with torch.no_grad():
            for parameter, value in zip(self.parameters, kept, strict=True):
                parameter.copy_(value)

    def _state(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]

    def _step(self, step: int) -> bool:
        """One step of the optimiser; False when the loss is no number."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * cosine_schedule_with_warmup(step, self.plan)
        rows = [self.rows[index] for index in self.sampler.batch(step)]
        loss = theirs.token_losses(self.peft, rows, self.reader.tokenizer.pad)[0].mean()
        if not math.isfinite(float(loss.detach())):
            return False
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.plan.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return True

    @torch.inference_mode()
    def evaluate(self, examples: Sequence[dict[str, str]]) -> Scores:
        """Scores as `evaluate` of the library gives them: the label whose words are likeliest, and the loss of the right one."""
        labels = self.setting.task.labels
        targets = [example["label"] for example in examples]
        means = {label: self._means([{**example, "label": label} for example in examples]) for label in labels}
        chosen = [Prediction(max(labels, key=lambda label: means[label][i])) for i in range(len(examples))]
        losses = [-means[target][i] for i, target in enumerate(targets)]
        return {**self.task.score(chosen, targets), "loss": metrics.mean(losses)}

    def _means(self, examples: Sequence[dict[str, str]]) -> list[float]:
        """Mean log-probability of each example's answer, in the order of the examples; computed shortest first."""
        rows: list[Row] = [self.task.train_row(example, self.reader.info, self.length_budget)[0] for example in examples]
        order = sorted(range(len(rows)), key=lambda i: rows[i].num_tokens)
        found: dict[int, float] = {}
        for begin in range(0, len(order), self.plan.batch_size):
            part = order[begin : begin + self.plan.batch_size]
            losses, sizes = theirs.token_losses(self.peft, [rows[i] for i in part], self.reader.tokenizer.pad)
            found |= {i: -float(each.mean()) for i, each in zip(part, losses.split(sizes), strict=True)}
        return [found[i] for i in range(len(rows))]
