"""Foreword: soft prompts for frozen language models. Train a task into a few vectors, compare it honestly, serve a thousand of them.

Names load on first use, so that importing the package, and commands that need no model, stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.adapters.adapter import Adapter as Adapter
    from foreword.adapters.peft_prompt import export_peft as export_peft
    from foreword.adapters.peft_prompt import import_peft as import_peft
    from foreword.adapters.store import AdapterStore as AdapterStore
    from foreword.backbone.frozen_model import FrozenModel as FrozenModel
    from foreword.backbone.loading.load_info import load_info as load_info
    from foreword.backbone.loading.load_model import load as load
    from foreword.backbone.loading.load_model import wrap as wrap
    from foreword.backbone.model_info import ModelInfo as ModelInfo
    from foreword.errors import ForewordError as ForewordError
    from foreword.evaluation.evaluate import Reader as Reader
    from foreword.methods import full as full
    from foreword.methods import head_only as head_only
    from foreword.methods import lora as lora
    from foreword.methods import named as named
    from foreword.methods import p_tuning as p_tuning
    from foreword.methods import p_tuning_v2 as p_tuning_v2
    from foreword.methods import prefix_tuning as prefix_tuning
    from foreword.methods import prompt_tuning as prompt_tuning
    from foreword.methods import qlora as qlora
    from foreword.prompts.template import Template as Template
    from foreword.recipe import LoraSpec as LoraSpec
    from foreword.recipe import Recipe as Recipe
    from foreword.specs import Init as Init
    from foreword.specs import PromptSpec as PromptSpec
    from foreword.specs import Reparam as Reparam
    from foreword.tasks.choice import Choice as Choice
    from foreword.tasks.classify import Classify as Classify
    from foreword.tasks.data.reader import read as read_data
    from foreword.tasks.data.reader import sample as sample_data
    from foreword.tasks.data.split import split as split_data
    from foreword.tasks.generate import Generate as Generate
    from foreword.tasks.head_classify import HeadClassify as HeadClassify
    from foreword.tasks.knowledge_probe import Probe as Probe
    from foreword.tasks.metrics.base import Score as Score
    from foreword.tasks.multilabel import MultiLabel as MultiLabel
    from foreword.tasks.qa import QA as QA
    from foreword.tasks.regress import Regress as Regress
    from foreword.tasks.tag import Tag as Tag
    from foreword.training.fit_result import FitResult as FitResult
    from foreword.training.hf_trainer import trainable as trainable
    from foreword.training.loop import fit as fit
    from foreword.training.objective import Objective as Objective
    from foreword.training.objective import TaskLoss as TaskLoss
    from foreword.training.plan import TrainPlan as TrainPlan

_HOMES = {
    "Adapter": "adapters.adapter",
    "AdapterStore": "adapters.store",
    "Choice": "tasks.choice",
    "Classify": "tasks.classify",
    "FitResult": "training.fit_result",
    "ForewordError": "errors",
    "FrozenModel": "backbone.frozen_model",
    "Generate": "tasks.generate",
    "HeadClassify": "tasks.head_classify",
    "Init": "specs",
    "LoraSpec": "recipe",
    "ModelInfo": "backbone.model_info",
    "MultiLabel": "tasks.multilabel",
    "Objective": "training.objective",
    "Probe": "tasks.knowledge_probe",
    "PromptSpec": "specs",
    "QA": "tasks.qa",
    "Reader": "evaluation.evaluate",
    "Recipe": "recipe",
    "Regress": "tasks.regress",
    "Reparam": "specs",
    "Score": "tasks.metrics.base",
    "Tag": "tasks.tag",
    "TaskLoss": "training.objective",
    "Template": "prompts.template",
    "TrainPlan": "training.plan",
    "export_peft": "adapters.peft_prompt",
    "fit": "training.loop",
    "import_peft": "adapters.peft_prompt",
    "full": "methods",
    "head_only": "methods",
    "load": "backbone.loading.load_model",
    "load_info": "backbone.loading.load_info",
    "lora": "methods",
    "named": "methods",
    "p_tuning": "methods",
    "p_tuning_v2": "methods",
    "prefix_tuning": "methods",
    "prompt_tuning": "methods",
    "qlora": "methods",
    "read_data": "tasks.data.reader:read",
    "sample_data": "tasks.data.reader:sample",
    "split_data": "tasks.data.split:split",
    "trainable": "training.hf_trainer",
    "wrap": "backbone.loading.load_model",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]  (the table above is the one list)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'foreword' has no attribute '{name}'")
    home, _, inner = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"foreword.{home}"), inner or name)


def __dir__() -> list[str]:
    return __all__
