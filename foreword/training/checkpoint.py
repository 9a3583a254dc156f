"""Full checkpoints beside the adapter: everything that resuming needs, written atomically."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from foreword.errors import TrainingError
from foreword.evaluation.atomic_file import atomic_file

_FILE = "checkpoint.pt"


@dataclass
class Checkpoint:
    """State after `step` steps: everything trained (encoders too), optimiser, loss scale, random states by device, the best tensors so far, all scores
    so far, and `identity`: facts that must be equal in a run that resumes it."""

    step: int
    trainable: dict[str, Tensor]
    optimizer: dict[str, Any]
    loss_scale: dict[str, float]
    random_states: dict[str, Tensor]
    best_tensors: dict[str, Tensor]
    best_metric: float
    evals_since_best: int
    seconds: float
    history: list[dict[str, float | int]]
    identity: dict[str, Any]


def folder(out: Path) -> Path:
    """The folder of a run's checkpoint, log and tracker files: `NAME.run` next to the adapter."""
    return out.with_name(out.name + ".run")


def save(checkpoint: Checkpoint, run: Path) -> Path:
    """Write atomically: a kill or a full disk leaves the previous checkpoint. Raises UsageError if it cannot be written."""
    run.mkdir(parents=True, exist_ok=True)
    target = run / _FILE
    with atomic_file(target) as file:
        torch.save(vars(checkpoint), file)
    return target


def load(run: Path, identity: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint that belongs to the same run; raises TrainingError naming the first thing that differs."""
    path = run / _FILE
    if not path.exists():
        raise TrainingError(f"'{path}' does not exist, so there is nothing to resume; train without --resume.")
    try:
        found = Checkpoint(**torch.load(path, weights_only=True, map_location="cpu"))
    except TypeError as error:  # other fields
        raise TrainingError(
            f"'{path}' was written by another version of Foreword; resume it with that version, or delete '{run}' and train again."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, UnpicklingError) as error:
        raise TrainingError(f"'{path}' cannot be read ({type(error).__name__}); delete '{run}' and train again.") from error
    for key, value in identity.items():
        if found.identity.get(key) != value:
            raise TrainingError(
                f"the checkpoint in '{run}' was made with another {key} ({found.identity.get(key)!r}, now {value!r}); repeat the options of that run, or train without --resume."
            )
    return found
