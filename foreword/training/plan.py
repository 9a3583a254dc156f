"""How to train: a strict, frozen plan whose defaults work unswept. Learning rates are relative to the RMS of the model's own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from foreword.errors import UsageError


def _option(default: Any, help: str) -> Any:
    """A field with its help: the one source for the command line's pages too."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainPlan:
    """One run; every field is an option of `foreword train`, with this help. A learning rate means the same for any model and method."""

    steps: int = _option(300, "Maximum number of training steps.")
    batch_size: int = _option(16, "Examples per step.")
    learning_rate: float | None = _option(
        None,
        "Relative learning rate: the size of one step as a share of the RMS of the model's own values. By default it depends on the method.",
    )
    warmup: float = _option(0.06, "Share of the steps for linear warm-up; then a cosine schedule to zero.")
    clip: float = _option(1.0, "Maximum gradient norm.")
    weight_decay: float = _option(0.0, "Weight decay towards the initial values.")
    dampening: float = _option(
        0.0, "Weight of an additional loss on the tokens of the text; typically 0.1 to 0.3. Not for tasks with a head."
    )
    seed: int = _option(0, "Seed for the initial values and the order of examples.")
    max_length: int | None = _option(None, "Maximum number of tokens of text and answer; by default the model's limit.")
    eval_every: int = _option(50, "Steps between evaluations.")
    eval_examples: int = _option(200, "Maximum number of validation examples used during training.")
    patience: int = _option(6, "Early stopping: evaluations without improvement before training stops.")
    checkpoint_every: int = _option(50, "Steps between checkpoints.")
    gradient_checkpointing: bool = _option(False, "Use less memory and about a third more time.")
    calibrate_prior: bool = _option(False, "Subtract the label scores of an empty text (classification).")
    tracker: str = _option("auto", "Experiment tracker: auto (TensorBoard if installed), none, tensorboard, wandb, mlflow or trackio.")

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every", "eval_examples", "patience", "checkpoint_every"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        if self.learning_rate is not None:
            _check(
                "learning_rate",
                self.learning_rate,
                0 < self.learning_rate <= 10,
                "above 0 and at most 10, relative to the RMS of the model's own values",
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
