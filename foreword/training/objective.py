"""What a training step minimises: the task's loss, or another objective that a run chooses.

The cross-entropy itself is the task's: `tasks/template_task.py` for label words and text, `head_losses` of each task with a head. `training/loop.py` takes
the weighted mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.tasks.base import Example, LengthBudget, Losses, Task, TrainFeature
from foreword.tasks.data.row_origin import map_rows
from foreword.tasks.evaluation_loop import EvalSet, evaluate
from foreword.tasks.metrics.base import Score


@dataclass(frozen=True)
class TrainSet:
    """What is trained on, and how many texts were cut.

    Batches are made by the features' `num_tokens` and weighted by their `weight`; `rows` give a head its scale. An objective that needs more, such
    as a teacher's logits, keeps it in a subclass of TrainFeature.
    """

    features: Sequence[TrainFeature]
    cut: int


class Objective(ABC):
    """Abstract. Immutable. `to_dict` says what a checkpoint must share with the run that resumes it, so it must name everything that changes a loss."""

    kind: ClassVar[str]

    @abstractmethod
    def train_set(
        self, task: Task, model: FrozenModel, length_budget: LengthBudget, examples: Sequence[Example], dampening: float
    ) -> TrainSet:
        """The features of the training examples; raises DataError for an example that cannot be trained on."""

    @abstractmethod
    def losses(self, task: Task, model: FrozenModel, adapter_state: AdapterState, features: Sequence[TrainFeature]) -> Losses:
        """The losses of some of these features in fp32, in the graph of what is trained."""

    def eval_set(self, task: Task, model: FrozenModel, length_budget: LengthBudget, examples: Sequence[Example]) -> EvalSet:
        """The validation examples as `evaluate` reads them; by default as the task does."""
        return EvalSet.prepare(task, model.info, length_budget, examples, truncate=True)

    def evaluate(
        self, task: Task, model: FrozenModel, adapter_state: AdapterState, eval_set: EvalSet, *, batch_size: int
    ) -> dict[str, Score]:
        """Validation scores; by default the task's metrics and its loss."""
        return evaluate(task, model, adapter_state, eval_set, batch_size=batch_size)

    def monitor(self, task: Task, scores: Mapping[str, Score]) -> float:
        """The number that chooses the best checkpoint, higher is better; by default the task's."""
        return task.monitor(scores)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """This objective as JSON, with everything that changes a loss."""


@final
class TaskLoss(Objective):
    """The loss of the right answer, as the task defines it."""

    kind: ClassVar[str] = "task-loss"

    def train_set(
        self, task: Task, model: FrozenModel, length_budget: LengthBudget, examples: Sequence[Example], dampening: float
    ) -> TrainSet:
        found = map_rows(examples, lambda example: task.train_features(example, model.info, length_budget, dampening))
        return TrainSet([feature for features, _ in found for feature in features], sum(cut for _, cut in found))

    def losses(self, task: Task, model: FrozenModel, adapter_state: AdapterState, features: Sequence[TrainFeature]) -> Losses:
        return task.losses(model, adapter_state, features)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}
