"""Which examples make which batch: length buckets, shuffled, and a pure function of seed and step, so resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_POOL = 16  # batches sorted together: enough to cut padding, few enough to stay random


class BucketSampler:
    """Batches of row indices: each epoch shuffles all rows, sorts pools of 16 batches by length and shuffles the batches."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, min(batch_size, len(lengths)), seed
        self.per_epoch = len(lengths) // self.batch_size
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def batch(self, step: int) -> list[int]:
        """Row indices of a step, counted from 0 over all epochs."""
        epoch, index = divmod(step, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._batches(epoch))
        return self._epoch[1][index]

    def _batches(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()[: self.per_epoch * self.batch_size]
        size = self.batch_size * _POOL
        pools = [sorted(order[i : i + size], key=lambda row: self.lengths[row]) for i in range(0, len(order), size)]
        flat = [row for pool in pools for row in pool]
        batches = [flat[i : i + self.batch_size] for i in range(0, len(flat), self.batch_size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
