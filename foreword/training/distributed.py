"""The processes of a run: one, or several that share every batch. Each holds all that is trained; gradients are summed, so all stay alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from foreword.backbone import fsdp
from foreword.backbone.frozen import FrozenModel
from foreword.errors import UsageError
from foreword.recipe import Recipe
from foreword.training.run_log import Listener, RunLog, trackers

Thing = TypeVar("Thing")


@final
class Processes:
    """What `accelerate launch` started, seen from one of its processes. Where there is one, nothing is sent anywhere.

    Nothing is wrapped: what is trained is small, so its gradients are summed when a backward pass is over, and what has none takes no part.
    """

    def __init__(self, tracker: str, folder: Path | None) -> None:
        self.folder = folder
        chosen = trackers(tracker) if folder else []
        self.accelerator = Accelerator(device_placement=False, log_with=chosen or None, project_dir=folder)
        self.number = self.accelerator.num_processes

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and talks."""
        return self.accelerator.is_main_process

    def check_equal(self, facts: Mapping[str, Any]) -> None:
        """Raise UsageError, in all of them, where processes have other data, models or options than this one."""
        if self.number == 1:
            return
        found = gather_object([dict(facts)])
        for name in facts:
            if any(other[name] != found[0][name] for other in found):
                raise UsageError(
                    f"the processes of this run differ in their {name}, but they share every batch; give all of them the same files and options."
                )

    def shard(self, model: FrozenModel, recipe: Recipe) -> None:
        """Keep a part of the base model on each process where `--use_fsdp` asks for it; raises UsageError for what trains its layers."""
        if self.number == 1 or not fsdp.asked():
            return
        if recipe.lora is not None or recipe.full:
            raise UsageError(f"method '{recipe.method}' trains layers of the model, which --use_fsdp shards; launch it without.")
        fsdp.shard(model, self.accelerator.device)

    def run_log(self, listener: Listener | None) -> RunLog:
        """The log of the main process; other processes keep none."""
        return RunLog(self.folder, listener) if self.main else RunLog(None, None)

    def track(self, config: Mapping[str, Any]) -> None:
        """Begin what trackers write."""
        if self.folder:
            self.accelerator.init_trackers("foreword", config=dict(config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers for the trackers."""
        if self.folder:
            self.accelerator.log(dict(values), step=step)

    def close(self) -> None:
        """End what trackers write; the processes stay connected for a run to come."""
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
        """Give every process the sum of all gradients."""
        if self.number > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)

    def wait(self) -> None:
        """Go on when all have come here."""
        self.accelerator.wait_for_everyone()
