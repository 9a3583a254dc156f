"""What `accelerate launch` runs in the tests: the same short trainings as the test itself, or one without an end."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny
from training.train_features import LABELS, PLAN, TASK, examples, spec

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import UsageError
from foreword.methods import full
from foreword.recipe import LoraSpec, Recipe
from foreword.tasks.base import Task
from foreword.tasks.head_classify import HeadClassify
from foreword.training.distributed import Processes
from foreword.training.loop import fit

HEADED = HeadClassify(LABELS)
FSDP = "ACCELERATE_USE_FSDP"

# Name -> recipe and task: re-parameterised numbers, a head, LoRA, and weights without a gradient (the output matrix, where a head answers).
CASES: dict[str, tuple[Any, Task]] = {
    "mlp": (spec("prefix-tuning"), TASK),
    "lstm": (spec("p-tuning"), TASK),
    "head": (spec("p-tuning-v2"), HEADED),
    "lora": (spec("prompt-tuning") + LoraSpec(2), TASK),
    "full": (full(), HEADED),
}
SPREAD = ("mlp", "head")


def train(folder: Path, name: str, model: FrozenModel | None = None, **changes: Any) -> None:
    """One case; the main process says after which steps it was."""
    what, task = CASES[name]
    plan = replace(PLAN, **{"batch_size": 5, "steps": 6, "eval_every": 3, **changes})
    fit(model or tiny.build("llama"), what, task, examples(16), examples(8, 100), plan, out=folder, listener=say)


def tell(*words: object) -> None:
    """A line in one piece: the processes share one pipe."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def say(event: dict[str, Any]) -> None:
    if event["event"] == "step":
        tell("step", event["step"])


def spread(folder: Path) -> None:
    """Cases on a model whose layers are spread out, as `--use_fsdp` asks; accelerate itself takes that flag with a GPU only, so it is set late."""
    processes = Processes("none", None)
    os.environ[FSDP] = "true"
    model = tiny.build("llama")
    try:
        processes.shard(model, CASES["lora"][0])
    except UsageError as error:
        tell("refused", error)
    processes.shard(model, Recipe.of(CASES["mlp"][0]))
    del os.environ[FSDP]
    local = sum(parameter.to_local().numel() for parameter in model.network.parameters() if hasattr(parameter, "to_local"))
    tell("spread", local)
    for name in SPREAD:
        train(folder / f"spread-{name}", name, model)


def main(folder: Path, what: str) -> None:
    tell("pid", os.environ["RANK"], os.getpid())
    if what == "forever":
        train(folder / "forever", "mlp", steps=100_000, eval_every=100_000, checkpoint_every=100_000)
        return
    try:
        train(folder / "unlike", "mlp", seed=int(os.environ["RANK"]))
    except UsageError as error:
        tell("refused", error)
    for name in CASES:
        train(folder / name, name)
    spread(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
