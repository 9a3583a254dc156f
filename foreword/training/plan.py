"""How to train: a strict, frozen plan whose defaults work unswept. Learning rates are relative to the target's RMS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from foreword.errors import UsageError


@dataclass(frozen=True)
class TrainPlan:
    """One run. `learning_rate` 0.03 moves a virtual token by about 3 % of its target's RMS a step, whatever the model, site or re-parameterisation.

    `warmup` is a share of `steps`; then cosine to zero. `patience` counts evaluations without a better score before stopping early.
    `dampening` λ adds λ × the loss of the text's own tokens. `max_length` bounds text and answer (default: what the model can hold).
    """

    steps: int = 300
    batch_size: int = 16
    learning_rate: float | None = None
    warmup: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.0
    dampening: float = 0.0
    seed: int = 0
    max_length: int | None = None
    eval_every: int = 50
    eval_examples: int = 200
    patience: int = 6
    checkpoint_every: int = 50
    gradient_checkpointing: bool = False
    calibrate_prior: bool = False
    tracker: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every", "eval_examples", "patience", "checkpoint_every"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        if self.learning_rate is not None:
            _check(
                "learning_rate", self.learning_rate, 0 < self.learning_rate <= 10, "above 0 and at most 10, relative to the target's RMS"
            )
        if self.max_length is not None:
            _check("max_length", self.max_length, self.max_length >= 8, "at least 8")
        _check("warmup", self.warmup, 0 <= self.warmup < 1, "at least 0 and below 1, a share of the steps")
        _check("clip", self.clip, self.clip > 0, "above 0")
        for name in ("weight_decay", "dampening"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _check(
            "tracker",
            self.tracker,
            self.tracker in ("auto", "none", "tensorboard", "wandb", "mlflow", "trackio"),
            "auto, none or a tracker's name",
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainPlan:
        """Read what `to_dict` wrote; raises UsageError naming an unknown key."""
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise UsageError(f"a training plan has no key '{unknown[0]}'; known keys are {', '.join(f.name for f in fields(cls))}.")
        return cls(**data)


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        raise UsageError(f"{name} is {value!r}, but it must be {expected}.")
