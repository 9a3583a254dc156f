"""Foreword: soft prompts for frozen language models. Train a task into a few vectors, compare it honestly, serve a thousand of them.

Names load on first use, so that importing the package, and commands that need no model, stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.adapters.adapter import Adapter
    from foreword.adapters.peft import export_peft, import_peft
    from foreword.adapters.store import AdapterStore
    from foreword.backbone.frozen import FrozenModel
    from foreword.backbone.load import load, wrap
    from foreword.errors import ForewordError
    from foreword.evaluation.evaluate import Reader
    from foreword.methods import p_tuning, p_tuning_v2, prefix_tuning, prompt_tuning
    from foreword.prompts.template import Template
    from foreword.specs import Init, PromptSpec, Reparam
    from foreword.tasks.classify import Classify
    from foreword.tasks.data import read as read_data
    from foreword.tasks.data import split as split_data
    from foreword.tasks.generate import Generate
    from foreword.tasks.metrics import Score
    from foreword.training.loop import FitResult, fit
    from foreword.training.plan import TrainPlan

_HOMES = {
    "Adapter": "adapters.adapter",
    "AdapterStore": "adapters.store",
    "Classify": "tasks.classify",
    "FitResult": "training.loop",
    "ForewordError": "errors",
    "FrozenModel": "backbone.frozen",
    "Generate": "tasks.generate",
    "Init": "specs",
    "PromptSpec": "specs",
    "Reader": "evaluation.evaluate",
    "Reparam": "specs",
    "Score": "tasks.metrics",
    "Template": "prompts.template",
    "TrainPlan": "training.plan",
    "export_peft": "adapters.peft",
    "fit": "training.loop",
    "import_peft": "adapters.peft",
    "load": "backbone.load",
    "p_tuning": "methods",
    "p_tuning_v2": "methods",
    "prefix_tuning": "methods",
    "prompt_tuning": "methods",
    "read_data": "tasks.data:read",
    "split_data": "tasks.data:split",
    "wrap": "backbone.load",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]  (the table above is the one list)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'foreword' has no attribute '{name}'")
    home, _, inner = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"foreword.{home}"), inner or name)


def __dir__() -> list[str]:
    return __all__
