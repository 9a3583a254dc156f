"""How tokens are chosen: as transformers' processors allow them, as often as their share, and the same alone as in a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from foreword.errors import ServingError
from foreword.serving.sampling import SamplingParams
from foreword.serving.sampling_state import SampledToken, SamplingState
from foreword.serving.token_sampler import sample

V = 12


def logits(seed: int, size: int = V) -> torch.Tensor:
    return 2 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def chosen(scores: torch.Tensor, state: SamplingState) -> SampledToken:
    """The next token of one answer alone."""
    (found,) = sample(scores[None], [state])
    assert isinstance(found, SampledToken), found
    state.accept_token(found.token)
    return found


def allowed(processor: LogitsProcessor, scores: torch.Tensor) -> set[int]:
    """Tokens that transformers leaves possible."""
    found = processor(torch.tensor([[0]]), scores[None].clone())  # type: ignore[arg-type]
    return set(found[0].isfinite().nonzero().flatten().tolist())


@pytest.mark.parametrize(
    ("given_", "processor"),
    [({"top_k": 3}, TopKLogitsWarper(3)), ({"top_p": 0.7}, TopPLogitsWarper(0.7)), ({"min_p": 0.2}, MinPLogitsWarper(0.2))],
    ids=["top_k", "top_p", "min_p"],
)
def test_draws_are_among_those_that_transformers_allows(given_: dict[str, Any], processor: LogitsProcessor) -> None:
    for seed in range(8):
        scores = logits(seed)
        drawn = {chosen(scores, SamplingState(SamplingParams(temperature=1.0, seed=i, **given_))).token for i in range(150)}
        possible = allowed(processor, scores)
        assert drawn <= possible
        likely = {token for token in possible if scores.softmax(0)[token] / scores.softmax(0)[sorted(possible)].sum() > 0.08}
        assert likely <= drawn


def plain(scores: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The distribution by its definition: sort, cut, share out again."""
    shares, order = (scores.double() / params.temperature).softmax(0).sort(descending=True)
    keep = (shares.cumsum(0) - shares < params.top_p) & (shares >= params.min_p * shares[0])
    if params.top_k:
        keep[params.top_k :] = False
    return torch.zeros(len(scores), dtype=torch.double).scatter(0, order, shares * keep / (shares * keep).sum())


@pytest.mark.parametrize(
    "given_",
    [{}, {"top_k": 5}, {"top_k": 1}, {"top_p": 0.6}, {"top_p": 1e-300}, {"min_p": 0.1}, {"min_p": 1.0}]
    + [{"top_k": 4, "top_p": 0.9, "min_p": 0.05}, {"top_k": 99, "top_p": 0.5}, {"temperature": 0.4, "top_p": 0.8}, {"temperature": 1e-10}],
    ids=str,
)
def test_draws_have_the_plain_distribution(given_: dict[str, Any]) -> None:
    params, count = SamplingParams(**{"temperature": 1.0, "seed": 7, **given_}), 20_000
    scores = logits(3)
    state = SamplingState(params)
    found = torch.tensor([outcome.token for outcome in sample(scores.expand(count, V), [state] * count)])  # type: ignore[union-attr]
    wanted = plain(scores, params)
    shares = found.bincount(minlength=V) / count
    assert not shares[wanted == 0].any()
    assert torch.all((shares - wanted).abs() <= 4.5 * (wanted * (1 - wanted) / count).sqrt())


_PARAMS = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.0, 0.7, 1.0, 3.0])},
    optional={
        "top_k": st.integers(0, 40),
        "top_p": st.floats(0.01, 1),
        "min_p": st.floats(0, 1),
        "repetition_penalty": st.floats(0.5, 2),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(st.integers(0, 300), st.floats(-100, 100), max_size=3),
        "logprobs": st.integers(0, 3),
    },
)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(params=st.lists(_PARAMS, min_size=2, max_size=9), seed=st.integers(0, 1000), size=st.sampled_from([301, 4099]))
def test_an_answer_is_the_same_alone_and_in_any_batch(params: list[dict[str, Any]], seed: int, size: int) -> None:
    steps = [torch.stack([logits(seed + 100 * step + row, size) for row in range(len(params))]) for step in range(4)]

    def states() -> list[SamplingState]:
        return [SamplingState(SamplingParams(**{"seed": row, **each}), [1, 2, row]) for row, each in enumerate(params)]

    together: list[list[int]] = [[] for _ in params]
    batch = states()
    for scores in steps:
        for row, outcome in enumerate(sample(scores, batch)):
            assert isinstance(outcome, SampledToken)
            batch[row].accept_token(outcome.token)
            together[row].append(outcome.token)
    alone = [[chosen(scores[row], state).token for scores in steps] for row, state in enumerate(states())]
    assert together == alone


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 10_000), seen=st.lists(st.integers(0, V - 1), min_size=1), penalty=st.floats(0.5, 3.0))
def test_the_penalty_is_that_of_transformers(seed: int, seen: list[int], penalty: float) -> None:
    scores = logits(seed)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), scores[None].clone())[0]  # type: ignore[arg-type]
    found = chosen(scores, SamplingState(SamplingParams(repetition_penalty=penalty, logprobs=V), seen))
    assert found.token == int(theirs.argmax()) and found.logprob == pytest.approx(float(theirs.log_softmax(0).max()), abs=1e-5)
    assert [found.top[i] for i in range(V)] == pytest.approx(theirs.log_softmax(0).tolist(), abs=1e-5)


def test_frequency_and_presence_count_the_answer_only() -> None:
    scores = torch.zeros(4)
    state = SamplingState(SamplingParams(frequency_penalty=0.5, presence_penalty=0.25, logprobs=4), [3, 3, 3])
    assert [chosen(scores, state).token for _ in range(4)] == [0, 1, 2, 3]
    assert [chosen(scores, state).token for _ in range(2)] == [0, 1]
    wanted = -torch.tensor([1.25, 1.25, 0.75, 0.75])  # counts 2, 2, 1, 1
    assert list(dict(sorted(chosen(scores, state).top.items())).values()) == pytest.approx(wanted.log_softmax(0).tolist(), abs=1e-5)


def test_the_end_cannot_come_before_the_least_number_of_tokens() -> None:
    scores = torch.tensor([5.0, 4.0, 1.0, 0.0])
    state = SamplingState(SamplingParams(min_tokens=2), end_tokens={0, 1})
    assert [chosen(scores, state).token for _ in range(3)] == [2, 2, 0]


def test_the_same_seed_draws_the_same_again_and_no_other_random_numbers_are_touched() -> None:
    scores, before = logits(0), torch.get_rng_state()

    def drawn(seed: int | None) -> list[int]:
        state = SamplingState(SamplingParams(temperature=1.0, seed=seed))
        return [chosen(scores, state).token for _ in range(50)]

    assert drawn(3) == drawn(3) != drawn(4)
    assert drawn(-3) != drawn(3) and drawn(2**70) == drawn(2**70)
    assert drawn(None) != drawn(None)
    assert "random" not in vars(SamplingState(SamplingParams()))
    assert torch.equal(torch.get_rng_state(), before)


def test_biases_move_and_forbid() -> None:
    assert chosen(logits(0), SamplingState(SamplingParams(logit_bias={5: 100}))).token == 5
    best = int(logits(0).argmax())
    assert chosen(logits(0), SamplingState(SamplingParams(logit_bias={best: -100}))).token != best
    everything = SamplingParams(logit_bias=dict.fromkeys(range(V), -100.0), temperature=1.0, top_p=1e-300)
    assert chosen(logits(0), SamplingState(everything)).token == best


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extremes_give_a_token(dtype: torch.dtype) -> None:
    scores = torch.tensor([[-6e4, 6e4, -torch.inf, 1.0]], dtype=dtype)
    for given_ in ({"temperature": 1e-10}, {"temperature": 10.0}, {"repetition_penalty": 0.01}, {"repetition_penalty": 10.0}):
        state = SamplingState(SamplingParams(**{"temperature": 1.0, **given_}), [0, 1, 2, 3])  # type: ignore[arg-type]
        (found,) = sample(scores, [state])
        assert found == SampledToken(1)


@pytest.mark.parametrize("given_", [{}, {"temperature": 1.0}, {"logprobs": 2}])
def test_logits_that_are_not_finite_fail_their_own_answer_only(given_: dict[str, Any]) -> None:
    scores = torch.stack([logits(0), torch.full((V,), torch.nan), logits(1), torch.full((V,), -torch.inf)])
    found = sample(scores, [SamplingState(SamplingParams(seed=row, **given_)) for row in range(4)])
    for row in (0, 2):
        assert found[row] == sample(scores[row : row + 1], [SamplingState(SamplingParams(seed=row, **given_))])[0]
    for row in (1, 3):
        assert isinstance(found[row], ServingError)
        assert (
            str(found[row])
            == "the model's logits are not finite numbers, so no token can be chosen; look at its adapter and its precision."
        )
