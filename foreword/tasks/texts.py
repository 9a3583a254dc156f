"""One or two texts of an example before a head that reads one state of the row."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.backbone.encoded import Encoded
from foreword.backbone.frozen import FrozenModel
from foreword.tasks.base import Example, Question, Reading
from foreword.tasks.headed import check_fits, row_of
from foreword.tasks.listed import cell, check_texts

ENDLESS = 1 << 30  # a budget that cuts nothing


def text_columns(pair: bool) -> tuple[str, ...]:
    return ("text", "text_b") if pair else ("text",)


def encode(example: Example, columns: Sequence[str], model: FrozenModel, how: Reading) -> Encoded:
    """The example's one or two texts, cut to the budget; raises DataError for a missing column, and for a second text that is not read."""
    check_texts(example, columns)
    texts = [cell(example, name) for name in columns]
    return model.tokenizer.pair(texts[0], texts[1] if len(texts) > 1 else None, how.budget - how.soft)


def ask(example: Example, columns: Sequence[str], model: FrozenModel, how: Reading, *, truncate: bool) -> tuple[Question, bool]:
    """The question a text is; raises DataError for one that is too long unless `truncate`, and says whether it was cut."""
    encoded = encode(example, columns, model, how)
    if encoded.cut and not truncate:
        check_fits(encoded, len(encode(example, columns, model, Reading(how.soft, ENDLESS)).ids), model, how, truncate=truncate)
    return Question((row_of(encoded, model, how),)), encoded.cut
