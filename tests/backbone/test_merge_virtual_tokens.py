"""Merging virtual tokens with a batch: columns, masks and positions, by their values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.backbone.merge_virtual_tokens import merge, positions

TEXT = torch.tensor([[[1.0], [2.0], [3.0]]])
SOFT = torch.tensor([[[-1.0], [-2.0]]])
ALL = torch.ones(1, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("at", "line", "text"),
    [
        ([0, 0], [-1, -2, 1, 2, 3], [2, 3, 4]),
        ([1, 1], [1, -1, -2, 2, 3], [0, 3, 4]),
        ([0, 3], [-1, 1, 2, 3, -2], [1, 2, 3]),
        ([1, 2], [1, -1, 2, -2, 3], [0, 2, 4]),
        ([3, 3], [1, 2, 3, -1, -2], [0, 1, 2]),
    ],
)
def test_soft_tokens_stand_before_their_column(at: list[int], line: list[float], text: list[int]) -> None:
    merged = merge(TEXT, ALL, SOFT, torch.tensor([at]))
    assert merged.embeds[0, :, 0].tolist() == line
    assert merged.text.tolist() == [text] and merged.mask.tolist() == [[True] * 5]


def test_pads_stay_in_front_and_absent_soft_tokens_join_them() -> None:
    mask = torch.tensor([[False, True, True]])
    merged = merge(TEXT, mask, SOFT, torch.tensor([[-1, 1]]))
    assert merged.embeds[0, :, 0].tolist() == [-1, 1, -2, 2, 3]
    assert merged.mask.tolist() == [[False, False, True, True, True]] and merged.text.tolist() == [[1, 3, 4]]


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_what_goes_in_comes_out(data: st.DataObject) -> None:
    """Whatever the places, text columns give the text back, and soft tokens keep their order."""
    width, count = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    at = sorted(data.draw(st.lists(st.integers(0, width), min_size=count, max_size=count)))
    text, soft = torch.arange(1.0, width + 1)[None, :, None], -torch.arange(1.0, count + 1)[None, :, None]
    merged = merge(text, torch.ones(1, width, dtype=torch.bool), soft, torch.tensor([at]))
    line = merged.embeds[0, :, 0]
    assert line[merged.text[0]].tolist() == text[0, :, 0].tolist()
    assert line[line < 0].tolist() == soft[0, :, 0].tolist()
    for token, place in zip(soft[0, :, 0], at, strict=True):
        before = line[: int((line == token).nonzero())]
        assert int((before > 0).sum()) == place


def test_gradients_reach_soft_tokens_in_their_own_precision() -> None:
    soft = torch.zeros(1, 2, 1, requires_grad=True)
    merged = merge(TEXT.bfloat16(), ALL, soft, torch.tensor([[0, 3]]))
    assert merged.embeds.dtype == torch.bfloat16
    merged.embeds.sum().backward()
    assert soft.grad is not None and soft.grad.dtype == torch.float32 and soft.grad.flatten().tolist() == [1.0, 1.0]


def test_positions_count_real_tokens_from_the_end_of_the_prefix() -> None:
    mask = torch.tensor([[False, False, True, True], [True, True, True, False]])
    assert positions(mask, torch.tensor([0, 5])).tolist() == [[0, 0, 0, 1], [5, 6, 7, 7]]
