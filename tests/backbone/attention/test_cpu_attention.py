"""Attention for training on a CPU: what it gives, and when it is taken."""

from __future__ import annotations

import pytest
import torch

from foreword.backbone.attention import cpu_attention


def test_gradients_through_packed_attention_equal_sdpas() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 5, 8, generator=generator, requires_grad=True) for heads in (4, 2, 2))
    mask = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    ours = cpu_attention.attention(query, key, value, mask, None)
    theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    for left, right in zip(*(torch.autograd.grad(out.square().sum(), (query, key, value)) for out in (ours, theirs)), strict=True):
        torch.testing.assert_close(left, right)
    assert cpu_attention.suits(query, key)
    assert cpu_attention.suits(query.bfloat16(), query.bfloat16())
    assert not cpu_attention.suits(query, query), "SDPA is faster in fp32 where every query head has keys of its own"
    with torch.no_grad():
        assert not cpu_attention.suits(query, key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_states_and_queries_that_see_nothing_are_finite_as_in_sdpa(dtype: torch.dtype) -> None:
    """Products of 300 with itself over 8 numbers are far outside of float16."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.tensor([1.0, -1.0] * 4)
    query = torch.full((2, 4, 5, 8), 300.0).to(dtype).requires_grad_()
    key = (300.0 * signs * torch.randn(2, 2, 5, 1, generator=generator).sign()).to(dtype).requires_grad_()
    value = torch.randn(2, 2, 5, 8, generator=generator).to(dtype).requires_grad_()
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    mask[0, :, :3] = False
    ours = cpu_attention.attention(query, key, value, mask, None)
    theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    assert not ours[0, :3].any()
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(ours.float().sum(), (query, key, value)))
