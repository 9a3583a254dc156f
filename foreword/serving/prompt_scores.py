"""The log-probabilities of a text's own tokens, collected chunk by chunk while it is prefilled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

from foreword.prompts.template import Row
from foreword.serving.request import PromptLogprobs
from foreword.serving.token_sampler import logprobs

_ELEMENTS = 1 << 22  # logits that are read at once: 16 MB in fp32


@final
class PromptScores:
    """Of the text tokens `ids`, `prompt` has those behind a compiled prefix, which are scored; `count` alternatives are reported for each."""

    def __init__(self, ids: Sequence[int], prompt: Row, count: int) -> None:
        self.ids, self.count = tuple(ids), count
        self._places = _places(prompt, len(ids) - len(prompt.ids))
        self._logprobs: list[float | None] = [None] * len(self.ids)
        self._top: list[Mapping[int, float]] = [{}] * len(self.ids)
        self._taken = False
        self._problem: Exception | None = None

    def add(self, logits: Float[Tensor, "T V"], first: int) -> None:
        """Read the logits after the inputs from `first` on, text and soft tokens in one line; what comes after the whole prompt is left out."""
        if self._taken:  # the text is prefilled again after a preemption
            return
        try:
            self._add(logits, first)
        except Exception as error:  # it ends this answer, whose event it is
            self._problem = error

    def _add(self, logits: Float[Tensor, "T V"], first: int) -> None:
        scored = [(row, place) for row, place in enumerate(self._places[first + 1 : first + 1 + len(logits)]) if place is not None]
        size = max(1, _ELEMENTS // logits.shape[-1])
        for begin in range(0, len(scored), size):
            part = scored[begin : begin + size]
            rows = logits[[row for row, _ in part]].float()
            found = logprobs(rows, [self.ids[place] for _, place in part], [self.count] * len(part))
            for (_, place), (logprob, top) in zip(part, found, strict=True):
                self._logprobs[place], self._top[place] = logprob, top

    def take(self) -> PromptLogprobs | None:
        """The event, once. Raises what went wrong on the way."""
        if self._problem is not None:
            raise self._problem
        if self._taken:
            return None
        self._taken = True
        return PromptLogprobs(self.ids, tuple(self._logprobs), tuple(self._top))


def _places(prompt: Row, num_compiled: int) -> list[int | None]:
    """For each input which of the text's tokens it is, None for a soft token."""
    before, places = Counter(prompt.at), list[int | None]()
    for index in range(len(prompt.ids)):
        places += [*[None] * before[index], index + num_compiled]
    return places
