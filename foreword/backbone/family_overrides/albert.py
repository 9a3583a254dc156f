"""ALBERT's layers, which are outside transformers' gradient checkpointing."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.albert.modeling_albert import AlbertLayerGroup

from foreword.backbone.family_overrides.model_overrides import ModelOverrides


class CheckpointedAlbertGroup(GradientCheckpointingLayer, AlbertLayerGroup):
    """The same group of layers, as transformers checkpoints layers."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(*args, **kwargs)


OVERRIDES = ModelOverrides({AlbertLayerGroup: CheckpointedAlbertGroup})
