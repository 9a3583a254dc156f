"""A learnable toy task for tiny models: which of two words the text holds."""

from __future__ import annotations

from foreword.methods import METHODS, recipe
from foreword.specs import PromptSpec
from foreword.tasks.classify import Classify
from foreword.training.plan import TrainPlan

LABELS = ("no", "yes")
TASK = Classify(LABELS)
PLAN = TrainPlan(steps=8, batch_size=4, eval_every=4, eval_examples=8, checkpoint_every=2, tracker="none")
METHOD_NAMES = list(METHODS)


def examples(count: int, start: int = 0) -> list[dict[str, str]]:
    return [
        {"text": f"{'good' if i % 2 else 'bad'} film number {i}" + " indeed" * (i % 3), "label": LABELS[i % 2]}
        for i in range(start, start + count)
    ]


def spec(name: str, **changes: object) -> PromptSpec:
    return recipe(name, length=3, **changes)  # type: ignore[arg-type]
