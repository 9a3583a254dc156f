"""The loop learns, resumes bit for bit, stops when asked, keeps the best, and never touches the base."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from training.train_features import METHOD_NAMES, PLAN, TASK, examples, spec
from transformers.modeling_layers import GradientCheckpointingLayer

from foreword.adapters.adapter import Adapter
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import DivergedError, TrainingError, UsageError
from foreword.tasks.base import Losses, Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify
from foreword.training.loop import TrainingInterrupted, fit
from foreword.training.optimization import cosine_schedule_with_warmup
from foreword.training.plan import TrainPlan


def at_step(number: int, action: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    """A listener that does something once, after a step."""

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == number:
            action()

    return listen


def snapshot(model: FrozenModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_training_lowers_the_loss_and_leaves_the_base_alone(name: str) -> None:
    model = tiny.build("llama")
    before = snapshot(model)
    losses: list[float] = []
    plan = replace(PLAN, steps=40, learning_rate=0.3, eval_every=20, patience=9)
    result = fit(
        model,
        spec(name),
        TASK,
        examples(16),
        examples(8, 100),
        plan,
        listener=lambda e: losses.append(e["loss"]) if e["event"] == "step" else None,
    )
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert result.steps == 40 and result.scores["accuracy"].n == 8
    assert all(torch.equal(before[key], tensor) for key, tensor in model.network.state_dict().items())
    assert all(parameter.grad is None for parameter in model.network.parameters())


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_killed_and_resumed_is_never_killed(name: str, tmp_path: Path) -> None:
    """Kill after step 5 (the last checkpoint is at 4), resume, and the adapter is the same to the last bit."""
    model, train, valid = tiny.build("llama"), examples(16), examples(8, 100)
    dropping = spec(name, dropout=0.1)
    whole = fit(model, dropping, TASK, train, valid, PLAN, out=tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        fit(model, dropping, TASK, train, valid, PLAN, out=tmp_path / "cut", listener=at_step(5, kill))
    torch.manual_seed(123)  # whatever happened in between
    resumed = fit(model, dropping, TASK, train, valid, PLAN, out=tmp_path / "cut", resume=True)
    assert torch.equal(whole.adapter.flat, resumed.adapter.flat)
    assert whole.history == resumed.history
    assert torch.equal(Adapter.load(tmp_path / "cut").flat, whole.adapter.flat)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_a_checkpoint_and_says_how_to_go_on(number: int, tmp_path: Path) -> None:
    model, train, valid = tiny.build("llama"), examples(16), examples(8, 100)
    whole = fit(model, spec("prompt-tuning"), TASK, train, valid, PLAN)
    out = tmp_path / "adapter"
    with pytest.raises(TrainingInterrupted) as caught:
        fit(model, spec("prompt-tuning"), TASK, train, valid, PLAN, out=out, listener=at_step(3, lambda: os.kill(os.getpid(), number)))
    assert str(caught.value) == f"stopped after step 3 of 8; its checkpoint is in '{out}.run'; continue with --resume."
    assert not out.exists()
    resumed = fit(model, spec("prompt-tuning"), TASK, train, valid, PLAN, out=out, resume=True)
    assert torch.equal(whole.adapter.flat, resumed.adapter.flat)


def test_resuming_another_run_is_refused(tmp_path: Path) -> None:
    model, train, valid, out = tiny.build("llama"), examples(16), examples(8, 100), tmp_path / "adapter"
    with pytest.raises(TrainingError) as caught:
        fit(model, spec("prompt-tuning"), TASK, train, valid, PLAN, out=out, resume=True)
    assert str(caught.value) == f"'{out}.run/checkpoint.pt' does not exist, so there is nothing to resume; train without --resume."
    fit(model, spec("prompt-tuning"), TASK, train, valid, PLAN, out=out)
    with pytest.raises(TrainingError) as caught:
        fit(model, spec("prompt-tuning"), TASK, train[:-1], valid, PLAN, out=out, resume=True)
    assert str(caught.value).startswith(f"the checkpoint in '{out}.run' was made with another data (")
    assert str(caught.value).endswith("; repeat the options of that run, or train without --resume.")
    (tmp_path / "adapter.run" / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(TrainingError) as caught:
        fit(model, spec("prompt-tuning"), TASK, train, valid, PLAN, out=out, resume=True)
    assert str(caught.value) == f"'{out}.run/checkpoint.pt' cannot be read (RuntimeError); delete '{out}.run' and train again."


def test_a_loss_that_is_no_number_stops_and_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = tiny.build("llama"), tmp_path / "adapter"
    real, calls = Classify.losses, []

    def broken(*given: Any) -> Losses:
        calls.append(1)
        costs = real(*given)
        return replace(costs, losses=costs.losses * (float("nan") if len(calls) == 6 else 1.0))

    monkeypatch.setattr(Classify, "losses", broken)
    with pytest.raises(DivergedError) as caught:
        fit(model, spec("prompt-tuning"), TASK, examples(16), examples(8, 100), replace(PLAN, learning_rate=0.5), out=out)
    assert str(caught.value) == (
        "the loss became nan at step 6; the best prompt so far is kept: train again with a lower --learning-rate (this run: 0.5), more --warmup, or --dtype float32."
    )
    assert not out.exists()
    best = Adapter.load(tmp_path / "adapter.best")
    assert best.provenance["steps"] == 5 and torch.isfinite(best.flat).all()


def test_gradient_checkpointing_changes_no_number() -> None:
    model, train, valid = tiny.build("llama"), examples(16), examples(8, 100)
    plain, saved = (
        fit(model, spec("prefix-tuning"), TASK, train, valid, replace(PLAN, gradient_checkpointing=on)).adapter.flat for on in (False, True)
    )
    assert torch.allclose(plain, saved, atol=1e-6)


def note(calls: list[int], *_: Any) -> None:
    calls.append(1)


def test_gradient_checkpointing_computes_layers_again() -> None:
    model, train, valid = tiny.build("llama"), examples(16), examples(8, 100)
    layers = [module for module in model.network.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert len(model.slots) == len(layers)  # numbered by a forward pass of its own, before the counting
    counts: dict[bool, int] = {}
    for on in (False, True):
        calls: list[int] = []
        noted = partial(note, calls)
        hooks = [layer.self_attn.register_forward_hook(noted) for layer in layers]  # type: ignore[operator,union-attr]
        fit(model, spec("prefix-tuning"), TASK, train, valid, replace(PLAN, gradient_checkpointing=on))
        counts[on] = len(calls)
        for hook in hooks:
            hook.remove()
    assert counts[True] == counts[False] + PLAN.steps * len(layers)
    assert not any(module.training for module in model.network.modules())


def test_texts_that_do_not_fit_are_cut_and_counted() -> None:
    long = [{**example, "text": example["text"] + " and on" * 40} for example in examples(4)]
    result = fit(tiny.build("llama"), spec("prompt-tuning"), TASK, [*examples(12), *long], examples(8, 100), replace(PLAN, max_length=32))
    assert result.cut >= 4


def test_early_stopping_and_the_best_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    quality = iter([1.0, 3.0, 2.0, 2.5, 9.0])  # better once, then worse for as long as patience lasts
    monkeypatch.setattr(Classify, "monitor", lambda task, scores: next(quality))
    result = fit(tiny.build("llama"), spec("p-tuning-v2"), TASK, examples(16), examples(8, 100), replace(PLAN, eval_every=1, patience=2))
    assert result.steps == 4
    assert result.scores["loss"].value == pytest.approx(result.history[1]["loss"], abs=1e-5)
    assert result.history[1]["loss"] != pytest.approx(result.history[3]["loss"], abs=1e-5)


def test_dampening_adds_the_texts_own_tokens() -> None:
    plain, damped = (
        fit(tiny.build("llama"), spec("prompt-tuning"), TASK, examples(16), examples(8, 100), replace(PLAN, dampening=weight)).adapter.flat
        for weight in (0.0, 0.3)
    )
    assert not torch.equal(plain, damped)


def test_generation_trains_too() -> None:
    rows = [{"input": f"say {word}", "output": word} for word in ("one", "two", "three", "four")] * 4
    result = fit(
        tiny.build("gpt2"), spec("p-tuning-v2"), Generate(max_new_tokens=4), rows, rows[:4], replace(PLAN, learning_rate=0.3, steps=16)
    )
    assert set(result.scores) == {"rouge_l", "exact_match", "loss"}
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_calibrated_prior_is_kept_in_the_adapter() -> None:
    result = fit(tiny.build("llama"), spec("prompt-tuning"), TASK, examples(16), examples(8, 100), replace(PLAN, calibrate_prior=True))
    prior = torch.tensor(result.adapter.task["prior"])
    assert prior.exp().sum() == pytest.approx(1.0, abs=1e-5)


def test_trackers_write_beside_the_adapter(tmp_path: Path) -> None:
    fit(
        tiny.build("llama"),
        spec("prompt-tuning"),
        TASK,
        examples(16),
        examples(8, 100),
        replace(PLAN, tracker="auto"),
        out=tmp_path / "adapter",
    )
    run = tmp_path / "adapter.run"
    assert (run / "record.jsonl").read_text().count('"event": "step"') == PLAN.steps
    assert list(run.rglob("events.out.tfevents*"))


def test_schedule_warms_up_then_falls_to_zero() -> None:
    plan = TrainPlan(steps=100, warmup=0.1)
    values = [cosine_schedule_with_warmup(step, plan) for step in range(100)]
    assert values[0] == pytest.approx(0.1) and values[9] == 1.0 and values[10] == 1.0
    assert all(a >= b for a, b in zip(values[10:], values[11:], strict=False)) and values[-1] < 0.001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0, but it must be at least 1."),
        (
            {"learning_rate": 0.0},
            "learning_rate is 0.0, but it must be above 0 and at most 10, relative to the RMS of the model's own values.",
        ),
        ({"warmup": 1.0}, "warmup is 1.0, but it must be at least 0 and below 1, a share of the steps."),
        ({"tracker": "x"}, "tracker is 'x', but it must be auto, none or a tracker's name."),
    ],
)
def test_a_plan_refuses_what_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainPlan(**change)
    assert str(caught.value) == message


def test_a_plan_reads_back_and_refuses_unknown_keys() -> None:
    plan = TrainPlan(steps=7, seed=3)
    assert TrainPlan.from_dict(plan.to_dict()) == plan
    with pytest.raises(UsageError, match="a training plan has no key 'stepz'; known keys are steps, "):
        TrainPlan.from_dict({"stepz": 7})


def test_checkpoints_of_other_versions_and_broken_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.run").mkdir()
    path = tmp_path / "a.run" / "checkpoint.pt"
    for write, why in (
        (
            lambda: torch.save({"step": 3, "best_value": 0.5}, path),
            "was written by another version of Foreword; resume it with that version, or",
        ),
        (lambda: path.write_bytes(b"garbage"), "cannot be read (UnpicklingError);"),
    ):
        write()
        with pytest.raises(TrainingError) as error:
            fit(tiny.build("llama"), spec("p-tuning-v2"), TASK, examples(8), examples(8, 100), PLAN, out=tmp_path / "a", resume=True)
        assert str(error.value) == f"'{path}' {why} delete '{tmp_path / 'a.run'}' and train again."


@pytest.mark.parametrize("task", [HeadClassify(("no", "yes")), Generate()], ids=lambda task: task.kind)
def test_options_that_would_do_nothing_are_refused(task: Task) -> None:
    model, rows = tiny.build("llama"), [{**row, "input": row["text"], "output": row["label"]} for row in examples(4)]

    def refusal(plan: TrainPlan) -> str:
        with pytest.raises(UsageError) as caught:
            fit(model, spec("prefix-tuning"), task, rows, rows, plan)
        return str(caught.value)

    assert refusal(replace(PLAN, calibrate_prior=True)) == (
        f"calibrate_prior is set, but a '{task.kind}' task scores no labels by their words, so there is no prior to subtract; leave it out."
    )
    if task.head is not None:
        assert refusal(replace(PLAN, dampening=0.2)) == (
            "dampening is 0.2, but a 'classify-head' task has a head, which reads a text and predicts none of its tokens; leave it at 0."
        )
