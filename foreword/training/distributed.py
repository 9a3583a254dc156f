"""The processes of a run: one, or several that share every batch. Each holds all trained parameters; gradients are summed, so all stay equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from foreword.backbone import fsdp
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import UsageError
from foreword.recipe import Recipe
from foreword.training.run_log import Listener, RunLog, trackers

Thing = TypeVar("Thing")


@final
class Processes:
    """One of the processes of `accelerate launch`. A single process does not communicate.

    No DDP wrapper: the trained part is small, so its gradients are summed after the backward pass; parameters without gradients are left out.
    """

    def __init__(self, tracker: str, folder: Path | None) -> None:
        self.folder = folder
        chosen = trackers(tracker) if folder else []
        self.accelerator = Accelerator(device_placement=False, log_with=chosen or None, project_dir=folder)
        self.number = self.accelerator.num_processes

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.accelerator.is_main_process

    def check_equal(self, facts: Mapping[str, Any]) -> None:
        """Raise UsageError in all processes if their data, models or options differ."""
        if self.number == 1:
            return
        found = gather_object([dict(facts)])
        for name in facts:
            if any(other[name] != found[0][name] for other in found):
                raise UsageError(
                    f"the processes of this run differ in their {name}, but they share every batch; give all of them the same files and options."
                )

    def shard(self, model: FrozenModel, recipe: Recipe) -> None:
        """Shard the base model over the processes if `--use_fsdp` is set; raises UsageError for methods that train its layers."""
        if self.number == 1 or not fsdp.asked():
            return
        if recipe.lora is not None or recipe.full:
            raise UsageError(f"method '{recipe.method}' trains layers of the model, which --use_fsdp shards; launch it without.")
        fsdp.shard(model, self.accelerator.device)

    def run_log(self, listener: Listener | None) -> RunLog:
        """The log of the main process; other processes keep none."""
        return RunLog(self.folder, listener) if self.main else RunLog(None, None)

    def track(self, config: Mapping[str, Any]) -> None:
        """Start the trackers."""
        if self.folder:
            self.accelerator.init_trackers("foreword", config=dict(config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log values to the trackers."""
        if self.folder:
            self.accelerator.log(dict(values), step=step)

    def close(self) -> None:
        """Close the trackers; the processes stay connected for a later run."""
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def share(self, things: Sequence[Thing]) -> Sequence[Thing]:
        """This process's part of a batch."""
        return things[self.accelerator.process_index :: self.number]

    def sum(self, number: float) -> float:
        """The sum of every process's number."""
        if self.number == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=self.accelerator.device)
        torch.distributed.all_reduce(total)
        return float(total)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over all processes, in place."""
        if self.number > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.accelerator.wait_for_everyone()
