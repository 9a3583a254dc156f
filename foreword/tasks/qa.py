"""Extractive question answering: a head says of each token of the context whether the answer begins or ends there (SQuAD)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.backbone.batch import collate
from foreword.backbone.frozen import FrozenModel
from foreword.backbone.learned import Learned
from foreword.errors import DataError, UsageError
from foreword.prompts.head import HeadSpec
from foreword.prompts.init import Material
from foreword.prompts.template import Row
from foreword.tasks.answers import checked_answers, parse_answers
from foreword.tasks.base import Costs, Example, Lesson, Prediction, Question, Reading
from foreword.tasks.headed import HeadTask
from foreword.tasks.listed import cell, short
from foreword.tasks.metrics import Score
from foreword.tasks.qa_metrics import answer_scores
from foreword.tasks.windows import Window, windows

_Span = tuple[float, int, int]  # log-odds, first and last character
_NOTHING: _Span = (-float("inf"), 0, 0)


@final
@dataclass(frozen=True)
class QA(HeadTask):
    """p(begin), p(end) = softmax over the context's tokens and one that means "not here": [CLS], or the last token of a causal model.

    The question stands before the context, so that a causal model reads the context knowing it. A context that does not fit is read in windows
    that overlap by `overlap` tokens; its answer is the span of at most `max_answer` tokens whose log-odds against "not here" are highest. If
    `unanswerable`, log-odds of at most `threshold` give the empty answer (Rajpurkar et al. 2018, arXiv:1806.03822).
    """

    unanswerable: bool = False
    threshold: float = 0.0
    overlap: int = 128
    max_answer: int = 30
    description: str = ""
    kind: ClassVar[str] = "qa"
    metric: ClassVar[str] = "f1"
    target: ClassVar[str] = "answers"

    def __post_init__(self) -> None:
        if self.overlap < 0 or self.max_answer < 1:
            raise UsageError(f"overlap {self.overlap} and max_answer {self.max_answer} came, but they must be at least 0 and 1.")

    @classmethod
    def of(cls, examples: Sequence[Example], **settings: Any) -> QA:
        """The task, with unanswerable questions if there are any among the examples."""
        return cls(any(not parse_answers(cell(example, cls.target)) for example in examples), **settings)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("question", "context")

    @property
    def head(self) -> HeadSpec:
        return HeadSpec(2)

    def lessons(self, example: Example, model: FrozenModel, how: Reading, dampening: float = 0.0) -> tuple[list[Lesson], bool]:
        """One lesson a window; a window that does not hold the first answer whole teaches "not here"."""
        spans = checked_answers(example)
        if not spans and not self.unanswerable:
            raise DataError(
                f"the question '{short(example['question'])}' has no answer, but this task is for questions that have one; remove it, or set unanswerable."
            )
        found = []
        for window in self._windows(example, model, how):
            places = window.places(*spans[0]) if spans else None
            begin, end = places or (window.null, window.null)
            found.append(Lesson((window.row,), (float(begin), float(end))))
        return found, False

    def ask(self, example: Example, model: FrozenModel, how: Reading, *, truncate: bool, room: int | None = None) -> tuple[Question, bool]:
        parts = self._windows(example, model, how)
        return Question(tuple(window.row for window in parts), (cell(example, "context"), parts)), False

    def _windows(self, example: Example, model: FrozenModel, how: Reading) -> list[Window]:
        return windows(cell(example, "question"), cell(example, "context"), model, how, self.overlap)

    def losses(self, model: FrozenModel, learned: Learned, lessons: Sequence[Lesson]) -> Costs:
        rows = [lesson.rows[0] for lesson in lessons]
        logs = _logits(model, learned, rows).log_softmax(1)
        pads = torch.tensor([logs.shape[1] - len(row.ids) for row in rows])
        places = (torch.tensor([lesson.target for lesson in lessons]).long() + pads[:, None]).to(logs.device)
        found = -logs.gather(1, places[:, None]).mean((1, 2))
        return Costs(found, torch.ones_like(found), [1] * len(lessons))

    def predict(self, model: FrozenModel, learned: Learned, questions: Sequence[Question], batch_size: int) -> Iterator[Prediction]:
        for begin in range(0, len(questions), batch_size):
            part = questions[begin : begin + batch_size]
            found = self._spans(model, learned, [question.notes[1] for question in part], batch_size)
            for question, (odds, first, last) in zip(part, found, strict=True):
                context = question.notes[0]
                text = "" if self.unanswerable and odds <= self.threshold else context[first:last].strip()
                yield Prediction(text, value={"answer": text, "start": context.find(text, first) if text else None, "log_odds": odds})

    @torch.inference_mode()
    def _spans(self, model: FrozenModel, learned: Learned, groups: Sequence[Sequence[Window]], batch_size: int) -> list[_Span]:
        """The best answer over the windows of each question."""
        flat = [(index, window) for index, group in enumerate(groups) for window in group]
        best: list[_Span] = [_NOTHING] * len(groups)
        for begin in range(0, len(flat), batch_size):
            part = flat[begin : begin + batch_size]
            logits = _logits(model, learned, [window.row for _, window in part]).cpu()
            for (index, window), row in zip(part, logits, strict=True):
                best[index] = max(best[index], self._best(window, row[len(row) - len(window.row.ids) :]))
        return best

    def _best(self, window: Window, logits: Float[Tensor, "T 2"]) -> _Span:
        """The likeliest answer of a window: its log-odds against "not here", and its characters."""
        starts, ends = logits[window.begin : window.end].T
        best = _NOTHING
        for more in range(min(self.max_answer, len(starts))):
            sums = starts[: len(starts) - more] + ends[more:]
            place = int(sums.argmax())
            best = max(best, (float(sums[place]), place, place + more))
        value, first, last = best
        return value - float(logits[window.null].sum()), window.spans[first][0], window.spans[last][1]

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        found = answer_scores([p.text for p in predictions], [[answer.text for answer in parse_answers(text)] for text in targets])
        return {"f1": found["f1"], "exact_match": found["exact_match"]}

    def material(self, examples: Sequence[Example]) -> Material:
        text = self.description or "Find the words of the context that answer the question."
        return Material(text, (), tuple(" ".join(example[name] for name in self.columns) for example in examples))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


def _logits(model: FrozenModel, learned: Learned, rows: Sequence[Row]) -> Float[Tensor, "B T 2"]:
    """Logits of begin and end at every token, none (-∞) where no answer can be."""
    batch = collate(rows, pad=model.tokenizer.pad).to(model.device)
    logits = learned.needed_head()(model.hidden(batch, learned.tokens))
    return logits.masked_fill((batch.labels < 0)[:, :, None], -float("inf"))
