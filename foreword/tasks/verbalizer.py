"""Which of several answers the model finds likeliest after a text: the mean log-probability of each one's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.tokenizer import TextTokenizer
from foreword.prompts.template import Row
from foreword.prompts.tokens import VirtualTokens
from foreword.tasks.template_task import token_losses


@final
class AnswerTokens:
    """Token ids of a task's answers, cached for one tokenizer, because thousands of examples need them."""

    def __init__(self) -> None:
        self._kept: tuple[TextTokenizer, list[list[int]]] | None = None

    def of(self, tokenizer: TextTokenizer, tokenize: Callable[[], list[list[int]]]) -> list[list[int]]:
        """The result of `tokenize` for this tokenizer; it is called again only for another one, or after an error."""
        kept = self._kept
        if kept is None or kept[0] is not tokenizer:
            kept = self._kept = (tokenizer, tokenize())
        return kept[1]

    def __reduce__(self) -> tuple[type[AnswerTokens], tuple[()]]:
        return AnswerTokens, ()  # copies of a task start empty, without a tokenizer


@torch.inference_mode()
def candidate_scores(
    model: FrozenModel,
    tokens: VirtualTokens | None,
    rows: Sequence[Row],
    candidate_ids: Sequence[Sequence[int]],
    *,
    at_once: int | None = None,
) -> Float[Tensor, "B C"]:
    """Mean log p(tokens of answer c | row b). Answers of one token share one pass over the row; longer ones are read `at_once` rows at a time."""
    short = [c for c, ids in enumerate(candidate_ids) if len(ids) == 1]
    found = torch.empty(len(rows), len(candidate_ids))
    if short:
        batch = collate([answered(row, candidate_ids[short[0]]) for row in rows], pad=model.tokenizer.pad)
        logs = model.predicting(batch, tokens, batch.labels >= 0).float().log_softmax(1)
        found[:, short] = logs[:, [candidate_ids[c][0] for c in short]].cpu()
    long = [(b, c) for b in range(len(rows)) for c, ids in enumerate(candidate_ids) if len(ids) != 1]
    size = at_once or max(len(long), 1)
    for begin in range(0, len(long), size):
        part = long[begin : begin + size]
        batch = collate([answered(rows[b], candidate_ids[c]) for b, c in part], pad=model.tokenizer.pad)
        losses = token_losses(model, batch, tokens).cpu().split([len(candidate_ids[c]) for _, c in part])
        for (b, c), costs in zip(part, losses, strict=True):
            found[b, c] = -costs.mean()
    return found


def answered(row: Row, ids: Sequence[int]) -> Row:
    """A row with an answer to score."""
    blank = (-100,) * len(row.ids)
    return Row((*row.ids, *ids), row.at, (*blank, *ids), (0.0,) * len(row.ids) + (1.0,) * len(ids))
