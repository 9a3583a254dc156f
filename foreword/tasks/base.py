"""The base class of tasks: a task turns examples into rows, and the model's outputs into losses, predictions and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.errors import UsageError
from foreword.prompts.head import HeadSpec
from foreword.prompts.init import Material
from foreword.prompts.template import Row
from foreword.prompts.tokens import VirtualTokens
from foreword.specs import PromptSpec
from foreword.tasks.conversation import LAST_USER
from foreword.tasks.metrics.base import Score

Example = Mapping[str, str]


@dataclass(frozen=True)
class Prediction:
    """One answer: `text` for people (a label, generated text), `value` for programs, if it is more than a text.

    Where the task has labels, `scores` maps each to its probability and `losses` to the nats per token of its words.
    """

    text: str
    scores: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    value: Any = None


@dataclass(frozen=True)
class TrainFeature:
    """The training rows of one example (one, or one per choice), the target of a head, and the weight of their loss."""

    rows: tuple[Row, ...]
    target: tuple[float, ...] = ()
    weight: float = 1.0

    @property
    def num_tokens(self) -> int:
        return max(row.num_tokens for row in self.rows)


@dataclass(frozen=True)
class EvalFeature:
    """The rows of one example to predict, and the task's notes for turning outputs into an answer."""

    rows: tuple[Row, ...]
    notes: Any = None

    @property
    def num_tokens(self) -> int:
        return max(row.num_tokens for row in self.rows)


@dataclass(frozen=True)
class Losses:
    """Losses in nats of M labels with their weights; `sizes` says how many labels each train feature has, in order."""

    losses: Float[Tensor, " M"]
    weights: Float[Tensor, " M"]
    sizes: list[int]


@dataclass(frozen=True)
class LengthBudget:
    """How many tokens a row may have: `max_tokens` in all, `soft_tokens` of them virtual tokens at the input site (0 at the kv site)."""

    soft_tokens: int
    max_tokens: int


def budget_for(spec: PromptSpec | None, info: ModelInfo, max_length: int | None = None) -> LengthBudget:
    """The length budget of a prompt on a model; on causal models a kv prefix uses some of its positions. Raises UsageError if nothing fits."""
    length = spec.length if spec else 0
    soft = length if spec and spec.site == "input" else 0
    budget = info.shape.positions - (length - soft if info.shape.kind == "causal" else 0)
    if max_length is not None:
        budget = min(budget, max_length + soft)
    if budget - soft < 8:
        raise UsageError(
            f"{length} virtual tokens and a text of at least 8 tokens need more than the {info.shape.positions} positions of {info.name}; use fewer."
        )
    return LengthBudget(soft, budget)


class Task(ABC):
    """Abstract. Immutable; `to_dict` and `task_from_dict` are inverse."""

    kind: ClassVar[str]
    metric: ClassVar[str]
    target: ClassVar[str]
    has_prior: ClassVar[bool] = False  # whether `calibrated` measures anything
    conversation: str = LAST_USER  # a setting of tasks that read one text

    @classmethod
    def of(cls, examples: Sequence[Example], **settings: Any) -> Task:
        """The task for these examples; subclasses take labels or units from them here.

        Raises DataError for examples that are not suitable.
        """
        return cls(**settings)

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns an example must have to be predicted."""

    @property
    def head(self) -> HeadSpec | None:
        """The head that is trained with the prompt, if the task has one."""
        return None

    def for_model(self, info: ModelInfo, spec: PromptSpec | None) -> Task:
        """The task for this model and prompt; raises ModelError for a model that does not support it."""
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """All possible answers, if they are few and known: examples for a written prompt are drawn evenly from them."""
        return ()

    def calibrated(self, model: FrozenModel, tokens: VirtualTokens | None, soft: int) -> Task:
        """The task with a prior of its answers measured on texts without content behind `soft` virtual tokens; itself where it has no prior."""
        return self

    @abstractmethod
    def train_features(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, dampening: float = 0.0
    ) -> tuple[list[TrainFeature], bool]:
        """The train features of an example, truncated to the budget, and whether it was truncated; raises DataError for an invalid answer."""

    @abstractmethod
    def eval_feature(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool, max_answer_tokens: int | None = None
    ) -> tuple[EvalFeature, bool]:
        """The eval feature of an example without its answer, with `max_answer_tokens` positions left for it (by default the maximum of the task).

        Raises DataError for a text that is too long unless `truncate`; returns whether it was truncated.
        """

    def answer_length(self, example: Example, info: ModelInfo) -> int:
        """Tokens of the right answer in the row; 0 for a task with a head."""
        return 0

    @abstractmethod
    def losses(self, model: FrozenModel, adapter_state: AdapterState, train_features: Sequence[TrainFeature]) -> Losses:
        """The losses of train features in fp32."""

    @abstractmethod
    def predict(
        self, model: FrozenModel, adapter_state: AdapterState, eval_features: Sequence[EvalFeature], batch_size: int
    ) -> Iterator[Prediction]:
        """Predictions in order."""

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        """Metrics with standard error and n; `metric` names the main one."""

    def monitor(self, scores: Mapping[str, Score]) -> float:
        """The value that selects the best checkpoint, higher is better: on a hundred validation texts metrics are too noisy for this."""
        return -scores["loss"].value

    @abstractmethod
    def material(self, examples: Sequence[Example]) -> Material:
        """The material for initialisers."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """This task as JSON."""
