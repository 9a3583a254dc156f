"""KV prefixes of the rows of a batch, stacked as one attachment that attention reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from foreword.backbone.attention.kv_prefix import PrefixAttachment
from foreword.families.registry import check_window
from foreword.prompts.tokens import KVPrefix
from foreword.shape import ModelShape


def attach(
    prefixes: Sequence[KVPrefix | None],
    shape: ModelShape,
    slots: Mapping[nn.Module, int],
    positions: Int[Tensor, "B T"],
    dtype: torch.dtype,
) -> PrefixAttachment:
    """KV prefixes of one shared or B different rows as one attachment, cast once to the network's precision.

    Raises ModelError for a window that the model cannot keep.
    """
    for prefix in prefixes:
        check_window(prefix.window if prefix else "pinned", shape)
    device = positions.device
    lengths = [prefix.length if prefix else 0 for prefix in prefixes]
    layers = sorted({layer for prefix in prefixes if prefix for layer in prefix.keys})
    real = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]

    def stack(side: str, layer: int) -> Tensor:
        kv = shape.kv[layer]
        rows = []
        for prefix in prefixes:
            part = getattr(prefix, side).get(layer) if prefix else None
            if part is None:
                part = torch.zeros(kv.heads, 0, kv.dim)
            part = part.to(device, dtype)
            rows.append(part if part.shape[1] == real.shape[1] else nn.functional.pad(part, (0, 0, 0, real.shape[1] - part.shape[1])))
        return torch.stack(rows)

    def present(layer: int) -> Tensor:
        """The mask of rows whose prefix has this layer."""
        has = [prefix is not None and layer in prefix.keys for prefix in prefixes]
        return real if all(has) else real & torch.tensor(has, device=device)[:, None]

    return PrefixAttachment(
        slots=slots,
        keys={layer: stack("keys", layer) for layer in layers},
        values={layer: stack("values", layer) for layer in layers},
        mask={layer: present(layer) for layer in layers},
        fading=torch.tensor([prefix is not None and prefix.window == "model" for prefix in prefixes], device=device),
        positions=positions,
        windows=tuple(kv.window for kv in shape.kv),
    )
