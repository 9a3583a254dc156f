"""The heads of transformers' own classes: one linear layer on the last states, and the names of the base model's weights in these classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

_CLASSES: dict[str, Any] = {
    "TOKEN_CLS": AutoModelForTokenClassification,
    "SEQ_CLS": AutoModelForSequenceClassification,
    "QUESTION_ANS": AutoModelForQuestionAnswering,
}


@dataclass(frozen=True)
class HeadPlace:
    """`loader` is the auto class, `module` the head's name in it, `base` the base model's."""

    loader: str
    module: str
    base: str


def head_place(family: str, task_type: str, outputs: int, bias: bool) -> HeadPlace | None:
    """Where transformers' model for one of PEFT's task types keeps a head of `outputs` numbers.

    None where there is no such model, or where it has more than dropout and this one layer after the base model.
    """
    config, auto = AutoConfig.for_model(family, num_labels=outputs), _CLASSES[task_type]
    config.num_hidden_layers = 1
    try:
        with torch.device("meta"):
            network = auto.from_config(config)
    except ValueError:  # transformers has no such class for this family
        return None
    bases = [name for name, part in network.named_children() if isinstance(part, PreTrainedModel)]
    heads = {name: part for name, part in network.named_children() if not isinstance(part, PreTrainedModel | nn.Dropout)}
    (name, layer), *more = heads.items()
    if more or not isinstance(layer, nn.Linear) or (layer.out_features, layer.bias is not None) != (outputs, bias):
        return None
    return HeadPlace(auto.__name__, name, bases[0])
