"""What an answer means: a task turns examples into rows, and the model's outputs into losses, predictions and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.errors import UsageError
from foreword.prompts.head import HeadSpec
from foreword.prompts.init import Material
from foreword.prompts.template import Row
from foreword.prompts.tokens import VirtualTokens
from foreword.specs import PromptSpec
from foreword.tasks.metrics.base import Score

Example = Mapping[str, str]


@dataclass(frozen=True)
class Prediction:
    """One answer: `text` is what people read (a label, generated text), `value` what programs do, where it is more than a text.

    Where the task has labels, `scores` maps each to its probability and `losses` to the nats per token of its words.
    """

    text: str
    scores: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    value: Any = None


@dataclass(frozen=True)
class TrainFeature:
    """Rows that are learned from together (one, or the choices of one example), what a head should say, and the weight of their loss."""

    rows: tuple[Row, ...]
    target: tuple[float, ...] = ()
    weight: float = 1.0

    @property
    def num_tokens(self) -> int:
        return max(row.num_tokens for row in self.rows)


@dataclass(frozen=True)
class EvalFeature:
    """Rows that are answered together, and what the task noted to make an answer of the model's outputs."""

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
    """The length budget of a prompt on a model; on causal models a kv prefix takes its positions off the budget. Raises UsageError when nothing fits."""
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

    @classmethod
    def of(cls, examples: Sequence[Example], **settings: Any) -> Task:
        """The task that these examples are for; a class that takes labels or units from them says so here.

        Raises DataError for examples that it cannot be made from.
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
        """The task as this model and prompt read it; raises ModelError for a model that cannot do it."""
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The right answers that there are, where they are few and known: examples for a written prompt are drawn evenly from them."""
        return ()

    def calibrated(self, model: FrozenModel, tokens: VirtualTokens | None, soft: int) -> Task:
        """The task with a prior of its answers measured on texts without content behind `soft` virtual tokens; itself where it has no prior."""
        return self

    @abstractmethod
    def train_features(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, dampening: float = 0.0
    ) -> tuple[list[TrainFeature], bool]:
        """What is learned from an example, cut to the budget, and whether it had to be cut; raises DataError for a wrong answer."""

    @abstractmethod
    def eval_feature(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool, max_answer_tokens: int | None = None
    ) -> tuple[EvalFeature, bool]:
        """What is asked for an example without its answer, with `max_answer_tokens` positions left for it (by default the maximum of the task).

        Raises DataError for a text that is too long unless `truncate`; says whether it was cut.
        """

    def answer_length(self, example: Example, info: ModelInfo) -> int:
        """Tokens of the right answer that stand in the row; none where a head answers."""
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
        """Metrics with standard error and n; `metric` names the one that people read first."""

    def monitor(self, scores: Mapping[str, Score]) -> float:
        """The number that chooses the best checkpoint, higher is better: on a hundred validation texts metrics are too noisy to choose by."""
        return -scores["loss"].value

    @abstractmethod
    def material(self, examples: Sequence[Example]) -> Material:
        """What initialisers may start from."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """This task as JSON."""
