"""An adapter on examples: predictions, scores with their errors, and the frozen model's own answers to compare with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

from foreword.adapters.adapter import Adapter
from foreword.backbone.families import check_site
from foreword.backbone.frozen import FrozenModel
from foreword.backbone.learned import Learned
from foreword.errors import UsageError
from foreword.tasks.base import Example, Prediction, Question, Reading, Task, reading
from foreword.tasks.generate import Generate
from foreword.tasks.judge import Exam, Tick, judge, predictions
from foreword.tasks.metrics import Score
from foreword.tasks.placed import naming
from foreword.tasks.registry import task_from_dict
from foreword.tasks.templated import TemplateTask


@final
class Reader:
    """A model reading one task: an adapter's, or a written prompt alone (`plain`)."""

    def __init__(self, model: FrozenModel, task: Task, learned: Learned, how: Reading) -> None:
        self.model, self.task, self.learned, self.how = model, task, learned, how

    @classmethod
    def of(cls, model: FrozenModel, adapter: Adapter, *, max_length: int | None = None) -> Reader:
        """Read an adapter; raises FingerprintError for another base or tokenizer."""
        adapter.check(model)
        check_site(adapter.recipe.prompt, model.shape)
        return cls(adapter.model(model), task_from_dict(adapter.task), adapter.learned(), reading(adapter.recipe.prompt, model, max_length))

    @classmethod
    def plain(cls, model: FrozenModel, task: Task, *, max_length: int | None = None) -> Reader:
        """The frozen model with the task's written template and no soft tokens: the zero-shot baseline."""
        if not isinstance(task, TemplateTask):
            raise UsageError(
                f"a '{task.kind}' task has a head, which must be trained; a written prompt can classify by label words, or generate."
            )
        if task.template.has_soft:
            raise UsageError("a written prompt cannot have {soft} tokens; give a template of words and fields only.")
        return cls(model, task.suited(model, None), Learned(), Reading(0, min(model.shape.positions, max_length or model.shape.positions)))

    def predict(
        self, examples: Sequence[Example], *, truncate: bool = False, batch_size: int = 16, tick: Tick | None = None
    ) -> list[Prediction]:
        """Answers in the order of the examples; raises DataError for a text that is too long unless `truncate`."""
        questions = [self._question(example, truncate) for example in examples]
        return predictions(self.task, self.model, self.learned, questions, batch_size, tick)

    def stream(self, example: Example, *, truncate: bool = False) -> Iterator[str]:
        """The answer to one example as it grows; raises UsageError for a task that has no text to stream."""
        if not isinstance(self.task, Generate):
            raise UsageError(f"a '{self.task.kind}' task has no text to stream; use predict.")
        yield from self.task.stream(self.model, self.learned.tokens, self._question(example, truncate).rows[0])

    def evaluate(
        self, examples: Sequence[Example], *, truncate: bool = False, batch_size: int = 16, tick: Tick | None = None
    ) -> tuple[dict[str, Score], int]:
        """Scores with standard errors, and how many texts were cut."""
        exam = Exam.prepare(self.task, self.model, self.how, examples, truncate=truncate)
        return judge(self.task, self.model, self.learned, exam, batch_size=batch_size, tick=tick), exam.cut

    def _question(self, example: Example, truncate: bool) -> Question:
        with naming(example):
            return self.task.ask(example, self.model, self.how, truncate=truncate)[0]
