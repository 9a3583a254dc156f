"""Families that are outside transformers' attention interface or its gradient checkpointing: a branch of their own, made of the same weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.albert.modeling_albert import AlbertLayerGroup
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention
from transformers.models.mpnet.modeling_mpnet import MPNetLayer, MPNetSelfAttention

from foreword.backbone.attention import attention_context
from foreword.backbone.families.albert import CheckpointedAlbertGroup
from foreword.backbone.families.deberta_v2 import PrefixedDebertaAttention
from foreword.backbone.families.mpnet import CheckpointedMPNetLayer, PrefixedMPNetAttention

# By model type: which modules are replaced by which, and whether attention reads the visitor from the context of the call.
_REPLACED: dict[str, dict[type[nn.Module], type[nn.Module]]] = {
    "albert": {AlbertLayerGroup: CheckpointedAlbertGroup},
    "deberta-v2": {DisentangledSelfAttention: PrefixedDebertaAttention},
    "mpnet": {MPNetSelfAttention: PrefixedMPNetAttention, MPNetLayer: CheckpointedMPNetLayer},
}
_OWN_ATTENTION = {"deberta-v2", "mpnet"}


def branch(network: PreTrainedModel) -> bool:
    """Put the modules of a family's own branch in place, once; says whether its attention is outside the attention interface."""
    family = network.config.model_type
    replaced = False
    for old, new in _REPLACED.get(family, {}).items():
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is old:
                    setattr(parent, name, _again(child, new, network.config))
                    replaced = True
    if replaced and family in _OWN_ATTENTION:
        attention_context.announce(network.base_model)
    return family in _OWN_ATTENTION


def _again(old: nn.Module, new: type[nn.Module], config: object) -> nn.Module:
    """A module of another class with the very children of the old one, which hold all its weights."""
    with torch.device("meta"):
        made = new(config)
    for name, child in old.named_children():
        setattr(made, name, child)
    return made.train(old.training)
