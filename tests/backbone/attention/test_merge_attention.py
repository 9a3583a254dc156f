"""Attention over two parts of the keys, merged, is attention over both."""

from __future__ import annotations

import pytest
import torch

from foreword.backbone.attention import merge_attention
from foreword.backbone.attention.merge_attention import attention_with_lse, merge


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("scale", [0.1, 4.0])
def test_two_parts_are_the_whole(dtype: torch.dtype, atol: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 16, generator=generator).to(dtype) for n in (5, 40, 40))
    mask = torch.zeros(2, 1, 5, 20, dtype=dtype).masked_fill(torch.rand(2, 1, 5, 20, generator=generator) > 0.5, -torch.inf)
    mask[..., 0] = 0
    first = attention_with_lse(query, key[:, :, :20], value[:, :, :20], None, scale)
    second = attention_with_lse(query, key[:, :, 20:], value[:, :, 20:], mask, scale)
    scores = query.float() @ key.float().transpose(2, 3) * scale + torch.nn.functional.pad(mask.float(), (20, 0))
    assert torch.allclose(merge(first, second).float(), scores.softmax(-1) @ value.float(), atol=atol)
    assert torch.allclose(merge(second, first).float(), scores.softmax(-1) @ value.float(), atol=atol)


def test_the_kernel_and_the_plain_formula_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, 3, n, 16, generator=generator) for n in (5, 40, 40))
    mask = torch.zeros(2, 1, 1, 40).masked_fill(torch.arange(40) > 30, -torch.inf)
    kernel = attention_with_lse(query, key, value, mask, 0.25)
    monkeypatch.setattr(merge_attention, "KERNEL_DEVICE", "none")
    for one, other in zip(kernel, attention_with_lse(query, key, value, mask, 0.25), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
