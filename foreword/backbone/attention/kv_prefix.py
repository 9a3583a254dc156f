"""KV prefixes of one forward pass: keys and values before those of the text, in every attention that has a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class PrefixAttachment:
    """Keys and values that one forward pass adds before those of every attention: R is 1 (shared by all rows) or B.

    `slots` numbers the attention modules as `ModelShape.kv` does. `keys` and `values` hold [R, K, P, D] by slot, `mask` [R, P] by slot marks
    real virtual tokens (rows differ in length and in layers); rows of `fading` [R] lose them outside a sliding window, counted from the
    queries' `positions` [B, T]; `windows` is each slot's window.
    """

    slots: Mapping[nn.Module, int]
    keys: dict[int, Tensor]
    values: dict[int, Tensor]
    mask: dict[int, Bool[Tensor, "R P"]]
    fading: Bool[Tensor, " R"]
    positions: Int[Tensor, "B T"]
    windows: tuple[int | None, ...]

    def extend(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prefix one attention's keys, values and mask."""
        slot = self.slots[module]
        if slot not in self.keys:
            return key, value, mask
        rows = len(key)
        prefix = [side[slot].to(key.device).expand(rows, -1, -1, -1) for side in (self.keys, self.values)]
        seen = self._visible(slot).to(mask.device).expand(rows, 1, mask.shape[2], -1)
        if mask.dtype != torch.bool:
            seen = torch.zeros_like(seen, dtype=mask.dtype).masked_fill(~seen, torch.finfo(mask.dtype).min / 2)
        mask = mask.expand(rows, -1, -1, -1)
        return torch.cat([prefix[0], key], 2), torch.cat([prefix[1], value], 2), torch.cat([seen, mask], 3)

    def repeated(self, beams: int) -> PrefixAttachment:
        """The attachment of a batch in which every row is repeated `beams` times."""

        def rows(side: Tensor) -> Tensor:
            return side if len(side) == 1 else side.repeat_interleave(beams, 0)

        sides = {name: {slot: rows(side) for slot, side in getattr(self, name).items()} for name in ("keys", "values", "mask")}
        return replace(self, **sides, fading=rows(self.fading), positions=rows(self.positions))

    def _visible(self, slot: int) -> Bool[Tensor, "R 1 T P"]:
        seen, window = self.mask[slot][:, None, None, :], self.windows[slot]
        if window is None or not bool(self.fading.any()):
            return seen
        columns = torch.arange(seen.shape[3], device=self.positions.device)
        near = self.positions[:, None, :, None] - columns < window
        return seen & (near | ~self.fading[:, None, None, None])
