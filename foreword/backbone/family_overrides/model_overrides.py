"""Families that are outside transformers' attention interface or its gradient checkpointing: modules of their own over the same weights."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from foreword.backbone.attention import attention_context
from foreword.families.registry import FAMILIES


@dataclass(frozen=True)
class ModelOverrides:
    """Which module classes of transformers are replaced by which, and whether attention is then outside the attention interface."""

    replaced: Mapping[type[nn.Module], type[nn.Module]]
    own_attention: bool = False


def override_modules(network: PreTrainedModel) -> bool:
    """Replace the modules that a family's record names, once; returns whether its attention is outside the attention interface."""
    record = FAMILIES.get(network.config.model_type)
    if record is None or not record.overrides:
        return False
    overrides: ModelOverrides = pkgutil.resolve_name(record.overrides)
    replaced = False
    for old, new in overrides.replaced.items():
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is old:
                    setattr(parent, name, _with_children_of(child, new, network.config))
                    replaced = True
    if replaced and overrides.own_attention:
        attention_context.keep_hook(network.base_model)
    return overrides.own_attention


def _with_children_of(old: nn.Module, new: type[nn.Module], config: object) -> nn.Module:
    """A module of another class with the same children, which hold all its weights."""
    with torch.device("meta"):
        made = new(config)
    for name, child in old.named_children():
        setattr(made, name, child)
    return made.train(old.training)
