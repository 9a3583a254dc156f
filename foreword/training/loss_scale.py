"""The loss scale of models in fp16, whose small gradients would become zero there (Micikevicius et al. 2018, §3.2, arXiv:1710.03740)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import final

from torch import Tensor, nn

from foreword.errors import DivergedError

_FIRST = 2.0**12  # gradients from 1e-11 on are kept, and few models overflow, which would cost a step
_PATIENCE = 200  # steps with finite gradients before the scale is doubled


@final
class LossScale:
    """A power of two that the loss is multiplied with, and gradients are divided by: halved where gradients are not finite; 1 where it is not `on`."""

    def __init__(self, on: bool) -> None:
        self.on, self.value, self.finite_steps = on, _FIRST if on else 1.0, 0

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to start the backward pass from."""
        return loss * self.value if self.on else loss

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide gradients by the scale, in place."""
        for parameter in parameters:
            if self.on and parameter.grad is not None:
                parameter.grad.div_(self.value)

    def accepts(self, norm: float, step: int) -> bool:
        """Whether gradients of this norm can be used; the scale goes down where not, and up after many that can.

        Raises DivergedError where they are not finite without a scale either.
        """
        if not self.on:
            return True
        if not math.isfinite(norm):
            self.value, self.finite_steps = self.value / 2, 0
            if self.value < 1:
                raise DivergedError(
                    f"the gradients of step {step} are not finite in float16, even with a loss scale of 1; "
                    "train again with --dtype bfloat16 or float32."
                )
            return False
        self.finite_steps += 1
        if self.finite_steps == _PATIENCE:
            self.value, self.finite_steps = self.value * 2, 0
        return True

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"value": self.value, "finite_steps": self.finite_steps}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from the state of a checkpoint."""
        self.value, self.finite_steps = state["value"], int(state["finite_steps"])
