"""Where tokens and soft tokens stand among the columns of a pass."""

from __future__ import annotations

import torch

from foreword.backbone.attention.pass_layout import one_stack, two_stacks
from foreword.backbone.batch import collate
from foreword.prompts.template import Row


def test_one_stack() -> None:
    batch = collate([Row((5, 6, 7, 8), (1, 1, 4)), Row((9, 10), (0,))])
    layout = one_stack(batch.mask, batch.at)
    assert layout.tokens["self"].tolist() == [[0, 3, 4, 5], [-1, -1, 5, 6]]
    assert layout.embeddings["self"].tolist() == [[1, 2, 6], [4, -1, -1]]


def test_without_soft_tokens_columns_are_the_batchs_own() -> None:
    batch = collate([Row((5, 6, 7)), Row((9,))], side="right")
    layout = one_stack(batch.mask, batch.at)
    assert layout.tokens["self"].tolist() == [[0, 1, 2], [0, -1, -1]]
    assert layout.embeddings["self"].shape == (2, 0)


def test_two_stacks_are_packed_to_the_left() -> None:
    batch = collate([Row((5, 6, 7, 8, 9), (0, 2)), Row((9, 10, 11), (1,))])
    answer = torch.tensor([[False, False, False, True, True], [False, False, False, False, True]])
    layout = two_stacks(batch.mask, batch.at, answer, 2)
    assert layout.tokens["encoder"].tolist() == [[1, 2, 4, -1, -1], [-1, -1, 0, 2, -1]]
    assert layout.embeddings["encoder"].tolist() == layout.embeddings["cross"].tolist() == [[0, 3], [1, -1]]
    assert layout.tokens["decoder"].tolist() == layout.tokens["cross"].tolist() == [[-1, -1, -1, 2, 3], [-1, -1, -1, -1, 2]]
    assert layout.embeddings["decoder"].tolist() == [[-1, -1], [-1, -1]]
