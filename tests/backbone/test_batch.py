"""Rows as tensors."""

from __future__ import annotations

import pytest
import torch

from foreword.backbone.batch import Batch, Side, collate
from foreword.errors import DataError
from foreword.prompts.template import Row

LONG = Row((5, 6, 7), (0, 2, 3), (-100, -100, 9), (0.0, 0.0, 0.5))
SHORT = Row((8,), (1,), (8,), (2.0,))


def listed(batch: Batch) -> list[list[list[float]]]:
    return [tensor.tolist() for tensor in (batch.ids, batch.mask, batch.at, batch.labels, batch.weights)]


@pytest.mark.parametrize(
    ("side", "ids", "at", "labels", "weights"),
    [
        ("left", [99, 99, 8], [-1, -1, 3], [-100, -100, 8], [0.0, 0.0, 2.0]),
        ("right", [8, 99, 99], [-1, -1, 1], [8, -100, -100], [2.0, 0.0, 0.0]),
    ],
)
def test_shorter_rows_are_padded(side: Side, ids: list[int], at: list[int], labels: list[int], weights: list[float]) -> None:
    batch = collate([LONG, SHORT], pad=99, side=side)
    mask = [index != 99 for index in ids]
    assert listed(batch) == [
        [[5, 6, 7], ids],
        [[True] * 3, mask],
        [[0, 2, 3], at],
        [[-100, -100, 9], labels],
        [[0.0, 0.0, 0.5], weights],
    ]


def test_rows_without_labels_or_soft_tokens() -> None:
    batch = collate([Row((5, 6)), Row((7,))])
    assert batch.at.shape == (2, 0) and not bool(batch.weights.any()) and bool((batch.labels == -100).all())
    assert [tensor.dtype for tensor in (batch.ids, batch.mask, batch.at, batch.labels)] == [torch.long, torch.bool, torch.long, torch.long]


def test_a_row_of_soft_tokens_only() -> None:
    batch = collate([Row((), (0, 0)), Row((4, 5), (2, 2))])
    assert batch.at.tolist() == [[2, 2], [2, 2]] and batch.mask.tolist() == [[False, False], [True, True]]


def test_everything_moves_together() -> None:
    moved = collate([LONG, SHORT]).to(torch.device("meta"))
    assert {tensor.device.type for tensor in vars(moved).values()} == {"meta"}


@pytest.mark.parametrize("at", [(0, 4), (-1,), (2, 1), (9, 9)])
def test_soft_tokens_outside_their_row_are_refused(at: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as caught:
        collate([Row((5, 6, 7), (3, 3)), Row((5, 6, 7), at)])
    assert str(caught.value) == (
        f"a row of 3 tokens has soft tokens at {', '.join(map(str, at))}, but positions must go from 0 to 3 and not fall; correct them."
    )
