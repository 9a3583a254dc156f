"""Laws: aligned, predicting. What comes out stands at the caller's tokens and equals stock transformers."""

from __future__ import annotations

import pytest
import tiny
import torch
from contract.given import TOLERANCE, distance, labelled, prompt, reference, row_for, spec, text_columns, tokens, words
from contract.laws import law

from foreword.backbone.batch import collate
from foreword.errors import DataError
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, VirtualTokens

LENGTH = 10
PLACEMENTS = {
    "leading": (0, 0, 0, 0),
    "behind BOS": (1, 1, 1, 1),
    "scattered": (1, 4, 4, 7),
    "both ends": (0, 0, 10, 10),
    "suffix": (10,) * 4,
}


def places_for(read: VirtualTokens) -> list[tuple[int, ...]]:
    """A kv prefix has one place, soft tokens among the text have many."""
    return list(PLACEMENTS.values()) if isinstance(read, EmbeddingPrefix) else [()]


@law("aligned")
def test_outputs_stand_at_the_text_and_equal_transformers(method: str, name: str) -> None:
    read = tokens(name, method, window="model")
    ids = (tiny.BOS, *words(LENGTH - 1))
    bare = reference(name, Row(ids), None)
    for places in places_for(read):
        row = Row(ids, places)
        truth = reference(name, row, read)[text_columns(row)]
        for training in (True, False):  # attention may take another way under gradients
            with torch.set_grad_enabled(training):
                ours = tiny.frozen(name).forward(collate([row]), read)
            assert ours.shape == (1, LENGTH, 320)
            assert distance(ours[0], truth) < TOLERANCE
        moved = distance(ours[0], bare)
        assert moved < TOLERANCE if places == PLACEMENTS["suffix"] else moved > 0.01, "a prompt moves what stands behind it, and only that"


@law("predicting")
def test_label_positions_alone_equal_all_logits(method: str, name: str) -> None:
    model, read = tiny.frozen(name), tokens(name, method, window="model")
    labels = (-100,) * 5 + words(1) + (-100,) * 2 + words(2)
    rows = [labelled((tiny.BOS, *words(LENGTH - 1)), places, labels) for places in places_for(read)]
    rows.append(labelled(rows[0].ids[:7], rows[0].at, (-100,) * 6 + words(1)))
    for side in ("left", "right"):
        batch = collate(rows, pad=tiny.PAD, side=side)
        ours = model.predicting(batch, read, batch.labels >= 0)
        truth = []
        for row in rows:
            columns, every = text_columns(row), reference(name, row, read)
            truth += [every[columns[i] - 1] for i, label in enumerate(row.labels) if label >= 0]
        assert distance(ours, torch.stack(truth)) < TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_first_token_with_nothing_before_it_is_refused(side: str) -> None:
    model, read = tiny.frozen("llama"), tokens("llama", "p-tuning-v2")
    rows = [labelled((5, 6, 7), (), (-100, 6, 7)), labelled((8, 9), (), (8, 9))]
    batch = collate(rows, side=side)
    with pytest.raises(DataError) as caught:
        model.predicting(batch, read, batch.labels >= 0)
    assert str(caught.value) == (
        "the first token of a row is a label, but no token before it predicts it; begin the template with {bos}, words, a field or a soft token."
    )


def test_a_soft_token_predicts_the_first_label() -> None:
    model, read = tiny.frozen("llama"), tokens("llama", "prompt-tuning")
    row = row_for(read, words(3))
    batch = collate([row])
    select = torch.tensor([[True, False, False]])
    assert distance(model.predicting(batch, read, select)[0], reference("llama", row, read)[3]) < TOLERANCE


def test_a_prompt_that_does_not_fit_its_rows_is_refused() -> None:
    model = tiny.frozen("llama")
    with torch.no_grad():
        read = prompt(model, spec("prompt-tuning", 3))()
    for row, message in (
        (Row(words(4), (0, 0)), "a row has 2 soft tokens, but its prompt has 3"),
        (Row(words(4)), "a row has 0 soft tokens, but its prompt has 3"),
    ):
        with pytest.raises(DataError) as caught:
            model.forward(collate([row]), read)
        assert str(caught.value) == f"{message}; render the row for this prompt."
    with pytest.raises(DataError) as caught:
        model.forward(collate([Row(words(4), (0, 0))]), None)
    assert str(caught.value).startswith("a row has 2 soft tokens, but its prompt has 0; ")
