"""A batch of rows as tensors over the caller's own tokens [B, T]; virtual tokens are represented by their positions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foreword.errors import DataError
from foreword.prompts.template import Row

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Batch:
    """`at` [B, P] says which text column each soft token stands before, -1 where a row has fewer; `mask` is False on pads.

    `types` are token types: 1 on a second text, where a model tells the two apart.
    """

    ids: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    at: Int[Tensor, "B P"]
    labels: Int[Tensor, "B T"]
    weights: Float[Tensor, "B T"]
    types: Int[Tensor, "B T"]

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))


def collate(rows: Sequence[Row], *, pad: int = 0, side: Side = "left") -> Batch:
    """Pad rows to one length. Left by default: [pad][prompt][text], so answers of a batch end in the same columns.

    Raises DataError for soft tokens outside their row or out of order.
    """
    for row in rows:
        _check_places(row)
    width = max(len(row.ids) for row in rows)
    soft = max(len(row.at) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    at = torch.full((len(rows), soft), -1, dtype=torch.long)
    labels = torch.full((len(rows), width), -100, dtype=torch.long)
    weights = torch.zeros(len(rows), width)
    types = torch.zeros(len(rows), width, dtype=torch.long)
    for b, row in enumerate(rows):
        begin = width - len(row.ids) if side == "left" else 0
        span = slice(begin, begin + len(row.ids))
        ids[b, span] = torch.tensor(row.ids, dtype=torch.long)
        mask[b, span] = True
        if row.at:
            at[b, soft - len(row.at) :] = torch.tensor(row.at, dtype=torch.long) + begin
        if row.labels:
            labels[b, span] = torch.tensor(row.labels, dtype=torch.long)
            weights[b, span] = torch.tensor(row.weights)
        if row.types:
            types[b, span] = torch.tensor(row.types, dtype=torch.long)
    return Batch(ids, mask, at, labels, weights, types)


def _check_places(row: Row) -> None:
    if any(second < first for first, second in pairwise((0, *row.at, len(row.ids)))):
        raise DataError(
            f"a row of {len(row.ids)} tokens has soft tokens at {', '.join(map(str, row.at))}, but positions must go from 0 to {len(row.ids)} "
            "and not fall; correct them."
        )
