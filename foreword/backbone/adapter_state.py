"""What one task adds to a forward pass of the frozen model; LoRA, if any, is part of the model."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from foreword.prompts.head import Head
from foreword.prompts.tokens import VirtualTokens


@dataclass(frozen=True)
class AdapterState:
    """Virtual tokens before or inside the text, and a head on the last states; a written prompt has neither."""

    tokens: VirtualTokens | None = None
    head: Head | None = None

    def to(self, device: torch.device) -> AdapterState:
        """The same on a model's device, where heads must be; this one does not change."""
        tokens, head = self.tokens, self.head
        moved = head is not None and head.weight.device != device
        return AdapterState(tokens and tokens.to(device), copy.deepcopy(head).to(device) if head is not None and moved else head)

    def needed_head(self) -> Head:
        """The head of a task that has one."""
        assert self.head is not None, "a task with a head is read with one"
        return self.head
