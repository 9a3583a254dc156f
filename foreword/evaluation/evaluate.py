"""Evaluation of an adapter: predictions, scores with standard errors, and the frozen model's own answers for comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

from foreword.adapters.adapter import Adapter
from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import UsageError
from foreword.evaluation.example_results import ExampleResult, example_results
from foreword.families.registry import check_site
from foreword.tasks.base import EvalFeature, Example, LengthBudget, Prediction, Task, budget_for
from foreword.tasks.data.row_origin import with_origin
from foreword.tasks.evaluation_loop import EvalSet, Tick, evaluate, evaluate_examples, predictions
from foreword.tasks.metrics.base import Score
from foreword.tasks.registry import task_from_dict
from foreword.tasks.streaming_task import StreamingTask
from foreword.tasks.template_task import TemplateTask


@final
class Reader:
    """A model with one task: that of an adapter, or a written prompt alone (`plain`)."""

    def __init__(self, model: FrozenModel, task: Task, adapter_state: AdapterState, length_budget: LengthBudget) -> None:
        self.model, self.task, self.adapter_state, self.length_budget = model, task, adapter_state, length_budget

    @classmethod
    def of(cls, model: FrozenModel, adapter: Adapter, *, max_length: int | None = None) -> Reader:
        """The reader of an adapter; raises FingerprintError for another base or tokenizer."""
        adapter.check(model.info)
        check_site(adapter.recipe.prompt, model.shape)
        return cls(
            adapter.model(model),
            task_from_dict(adapter.task),
            adapter.adapter_state().to(model.device),
            budget_for(adapter.recipe.prompt, model.info, max_length),
        )

    @classmethod
    def plain(cls, model: FrozenModel, task: Task, *, max_length: int | None = None) -> Reader:
        """The frozen model with the task's written template and no soft tokens: the zero-shot baseline."""
        if not isinstance(task, TemplateTask):
            raise UsageError(
                f"a '{task.kind}' task has a head, which must be trained; a written prompt can classify by label words, or generate."
            )
        if task.template.has_soft:
            raise UsageError("a written prompt cannot have {soft} tokens; give a template of words and fields only.")
        return cls(
            model,
            task.for_model(model.info, None),
            AdapterState(),
            LengthBudget(0, min(model.shape.positions, max_length or model.shape.positions)),
        )

    def predict(
        self, examples: Sequence[Example], *, truncate: bool = False, batch_size: int = 16, tick: Tick | None = None
    ) -> list[Prediction]:
        """Answers in the order of the examples; raises DataError for a text that is too long unless `truncate`."""
        eval_features = [self._eval_feature(example, truncate) for example in examples]
        return predictions(self.task, self.model, self.adapter_state, eval_features, batch_size, tick)

    def stream(self, example: Example, *, truncate: bool = False) -> Iterator[str]:
        """The answer to one example as it grows; raises UsageError for a task that has no text to stream."""
        if not isinstance(self.task, StreamingTask):
            raise UsageError(f"a '{self.task.kind}' task has no text to stream; use predict.")
        yield from self.task.stream(self.model, self.adapter_state.tokens, self._eval_feature(example, truncate).rows[0])

    def evaluate(
        self, examples: Sequence[Example], *, truncate: bool = False, batch_size: int = 16, tick: Tick | None = None
    ) -> tuple[dict[str, Score], int]:
        """Scores with standard errors, and how many texts were cut."""
        eval_set = EvalSet.prepare(self.task, self.model.info, self.length_budget, examples, truncate=truncate)
        return evaluate(self.task, self.model, self.adapter_state, eval_set, batch_size=batch_size, tick=tick), eval_set.cut

    def evaluate_examples(
        self, examples: Sequence[Example], *, truncate: bool = False, batch_size: int = 16, tick: Tick | None = None
    ) -> tuple[dict[str, Score], int, list[ExampleResult]]:
        """As `evaluate`, with the result of every example."""
        eval_set = EvalSet.prepare(self.task, self.model.info, self.length_budget, examples, truncate=truncate)
        found = evaluate_examples(self.task, self.model, self.adapter_state, eval_set, batch_size=batch_size, tick=tick)
        return found.scores, eval_set.cut, example_results(self.task, examples, found)

    def _eval_feature(self, example: Example, truncate: bool) -> EvalFeature:
        with with_origin(example):
            return self.task.eval_feature(example, self.model.info, self.length_budget, truncate=truncate)[0]
