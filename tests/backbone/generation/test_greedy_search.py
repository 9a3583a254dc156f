"""Edge cases of generation; its contract tests are in contract/."""

from __future__ import annotations

import pytest
import tiny
import torch

from foreword.backbone.batch import collate
from foreword.backbone.generation.greedy_search import generate, steps
from foreword.errors import DataError
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix


@pytest.mark.parametrize("rows", [[Row(())], [Row(()), Row((5, 6))]], ids=["alone", "in a batch"])
def test_nothing_to_go_on_from_is_refused(rows: list[Row]) -> None:
    with pytest.raises(DataError) as caught:
        generate(tiny.frozen("llama"), collate(rows), None, max_new_tokens=2, stop=())
    assert str(caught.value) == ("a row has no token to continue from; put {bos} or words into the template, or remove empty texts.")


def test_a_prompt_alone_is_enough_to_go_on_from() -> None:
    model = tiny.frozen("llama")
    ids = (7, 8, 9)
    prompt = EmbeddingPrefix(model.embed(ids))
    said = generate(model, collate([Row((), (0, 0, 0))]), prompt, max_new_tokens=5, stop=())
    assert said == generate(model, collate([Row(ids)]), None, max_new_tokens=5, stop=())


def test_a_caller_keeps_its_own_gradient_mode() -> None:
    seen = []
    for _ in steps(tiny.frozen("llama"), collate([Row((5, 6))]), None, max_new_tokens=2, stop=()):
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
    assert seen == [(True, False)] * 2
