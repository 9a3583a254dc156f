"""A question with a context that may be longer than the model: overlapping windows of the context, each read with the whole question.

A tokenizer's own `stride` and `return_overflowing_tokens` give the same windows for encoders with WordPiece or byte-level BPE, but not for Unigram
vocabularies, whose special tokens a text could then write (token_alignment.py), nor for causal models, which read a line break and "Answer:".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.backbone.model_info import ModelInfo
from foreword.backbone.token_alignment import Encoded, Span
from foreword.errors import DataError
from foreword.prompts.template import Row
from foreword.tasks.base import LengthBudget
from foreword.tasks.data.list_cells import excerpt
from foreword.tasks.head_task import row_of

MIN_ROOM = 16  # tokens of context in a window, at least
CAUSAL_END = "\nAnswer:"  # read last by a causal model, whose last state alone has seen the whole context


@dataclass(frozen=True)
class Window:
    """One row. `labels` are 0 where an answer may begin or end: at begin…end, tokens of the context that are no white space, and at `null`, no answer here.

    `spans` are the characters of the context that its tokens begin…end stand for.
    """

    row: Row
    begin: int
    spans: tuple[Span, ...]
    null: int

    @property
    def end(self) -> int:
        return self.begin + len(self.spans)

    def places(self, first: int, last: int) -> tuple[int, int] | None:
        """Tokens that hold the characters first…last of the context, or None where the window does not hold them all."""
        touched = [i for i, (begin, end) in enumerate(self.spans) if end > first and begin < last and self.row.labels[self.begin + i] == 0]
        if not touched or self.spans[0][0] > first or self.spans[-1][1] < last:
            return None
        return self.begin + touched[0], self.begin + touched[-1]


def windows(question: str, context: str, info: ModelInfo, length_budget: LengthBudget, overlap: int) -> list[Window]:
    """Windows that overlap by `overlap` tokens, or by half where they are short. Raises DataError for a question that leaves no room."""
    whole = info.tokenizer.pair(question, context, 1 << 30)
    places = [place for place, text in enumerate(whole.text) if text == 1]
    if not places or 0 not in whole.text or not context.strip():
        raise DataError(f"the question '{excerpt(question)}' or its context is empty; fill both, or remove the row.")
    first, size = places[0], len(places)
    tail = tuple(info.tokenizer.encode(CAUSAL_END)) if info.shape.kind == "causal" else ()
    room = length_budget.max_tokens - length_budget.soft_tokens - (len(whole.ids) - size) - len(tail)
    if room < min(size, MIN_ROOM):
        raise DataError(
            f"the question '{excerpt(question)}' leaves room for {max(room, 0)} tokens of its context in {info.name}, but {MIN_ROOM} are needed; shorten it or the prompt."
        )
    starts = [0]
    while starts[-1] + room < size:
        starts.append(starts[-1] + room - min(overlap, room // 2))
    return [_window(whole, first, (begin, min(begin + room, size)), size, tail, context, info, length_budget) for begin in starts]


def _window(
    whole: Encoded,
    first: int,
    part: tuple[int, int],
    size: int,
    tail: Sequence[int],
    context: str,
    info: ModelInfo,
    length_budget: LengthBudget,
) -> Window:
    """The context's tokens part[0]…part[1] between all that stands before and behind the context."""
    begin, end = first + part[0], first + part[1]

    def cut(values: tuple, more: Sequence) -> tuple:
        return (*values[:first], *values[begin:end], *values[first + size :], *more)

    ids = cut(whole.ids, tail)
    encoded = Encoded(
        ids, cut(whole.types, (0,) * len(tail)), cut(whole.text, (-1,) * len(tail)), cut(whole.spans, ((-1, -1),) * len(tail))
    )
    last = first + part[1] - part[0]
    null = 0 if info.tokenizer.opening and not tail else len(ids) - 1
    spans = encoded.spans[first:last]
    labels = [-100] * len(ids)
    for place in [null, *(first + i for i, (b, e) in enumerate(spans) if context[b:e].strip())]:
        labels[place] = 0
    return Window(row_of(encoded, info, length_budget, labels), first, spans, null)
