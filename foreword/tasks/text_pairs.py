"""One or two texts of an example before a head that reads one state of the row."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.backbone.model_info import ModelInfo
from foreword.backbone.token_alignment import Encoded
from foreword.tasks.base import EvalFeature, Example, LengthBudget
from foreword.tasks.data.list_cells import cell, check_texts
from foreword.tasks.head_task import check_fits, row_of

ENDLESS = 1 << 30  # a budget that truncates nothing


def text_columns(pair: bool) -> tuple[str, ...]:
    return ("text", "text_b") if pair else ("text",)


def has_second_text(examples: Sequence[Example]) -> bool:
    """Whether examples have the column text_b; all rows of a file have the same columns."""
    return bool(examples) and "text_b" in examples[0]


def encode(example: Example, columns: Sequence[str], info: ModelInfo, length_budget: LengthBudget) -> Encoded:
    """The example's one or two texts, cut to the budget; raises DataError for a missing column, and for a second text that the task does not read."""
    check_texts(example, columns)
    texts = [cell(example, name) for name in columns]
    return info.tokenizer.pair(texts[0], texts[1] if len(texts) > 1 else None, length_budget.max_tokens - length_budget.soft_tokens)


def eval_feature(
    example: Example, columns: Sequence[str], info: ModelInfo, length_budget: LengthBudget, *, truncate: bool
) -> tuple[EvalFeature, bool]:
    """The eval feature of a text; raises DataError for one that is too long unless `truncate`, and says whether it was cut."""
    encoded = encode(example, columns, info, length_budget)
    if encoded.cut and not truncate:
        check_fits(
            encoded,
            len(encode(example, columns, info, LengthBudget(length_budget.soft_tokens, ENDLESS)).ids),
            info,
            length_budget,
            truncate=truncate,
        )
    return EvalFeature((row_of(encoded, info, length_budget),)), encoded.cut
