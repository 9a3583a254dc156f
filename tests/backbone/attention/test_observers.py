"""Observers beside what else a pass may have: mixed batches, no pads, gradient checkpointing, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import tiny
import torch
from contract.given import TOLERANCE, distance, prompt, spec
from contract.given_observed import P, batch_of, model_of, outputs, prompt_of
from torch import Tensor

from foreword.backbone.attention.attention_observer import AttentionCall, AttentionObserver
from foreword.backbone.attention.builtin_observers import AttentionToPrompt, MaskVirtualTokens, Recorder
from foreword.backbone.attention.observed_pass import ObservedPass
from foreword.errors import UsageError
from foreword.prompts.tokens import VirtualTokens

MODELS = ("llama", "gemma2", "bert", "mpnet", "deberta-v2", "t5", "bart")


def mixed(name: str) -> list[VirtualTokens | None]:
    return [prompt_of(name, "prefix-tuning"), prompt_of(name, "prompt-tuning"), None]


@pytest.mark.parametrize("name", MODELS)
def test_rows_with_prompts_of_different_kinds(name: str) -> None:
    """A row's shares are those it has alone, wherever its virtual tokens stand; a row without a prompt has none."""
    reads, batch = mixed(name), batch_of(name, mixed(name))
    together, by_itself = AttentionToPrompt(), AttentionToPrompt()
    outputs(name, batch, reads, [together])
    for b, read in enumerate(reads):
        one = type(batch)(*(side[b : b + 1] for side in vars(batch).values()))
        outputs(name, one, [read], [by_itself])
        for slot, calls in together.shares.items():
            for shares, alone in zip(calls, by_itself.shares[slot], strict=True):
                assert shares.shape[2] == P
                assert distance(shares[b, :, : alone.shape[2]], alone[0]) < TOLERANCE
                assert (float(shares[b].sum()) > 0) == (
                    read is not None and not (b == 1 and model_of(name).shape.kv[slot].part == "decoder")
                )


@pytest.mark.parametrize("name", MODELS)
def test_masked_soft_tokens_have_no_share_in_any_row(name: str) -> None:
    reads, batch = mixed(name), batch_of(name, mixed(name))
    observer, plain = AttentionToPrompt(), outputs(name, batch, reads)
    masked = outputs(name, batch, reads, [MaskVirtualTokens([1]), observer])
    assert all(bool((shares[:, :, 1] == 0).all()) for calls in observer.shares.values() for shares in calls)
    changed = torch.stack([~torch.isclose(one, other).all(1) for one, other in zip(plain.split(1), masked.split(1), strict=True)]).flatten()
    row = torch.arange(3)[:, None].expand_as(batch.mask)[batch.mask]
    assert [bool(changed[row == b].any()) for b in range(3)] == [True, True, False], "rows with a prompt change, the third does not"


class Counter(AttentionObserver):
    """Counts what it is shown."""

    def __init__(self) -> None:
        self.calls = 0

    def observe(self, call: AttentionCall) -> None:
        self.calls += 1


@pytest.mark.parametrize(("name", "method"), [("llama", "prefix-tuning"), ("llama", "prompt-tuning"), ("deberta-v2", "prefix-tuning")])
def test_gradient_checkpointing_masks_again_and_shows_nothing_twice(name: str, method: str) -> None:
    model = model_of(name)
    soft = prompt(model, spec(method, P))
    batch = batch_of(name, [soft()] * 3)
    gradients = []
    for on, off in ((False, [1]), (True, [1]), (True, [2])):
        soft.zero_grad()
        counter = Counter()
        with model.gradient_checkpointing(on):
            model.hidden(batch, soft(), [MaskVirtualTokens(off), counter])[batch.mask].square().mean().backward()
        assert counter.calls == model.shape.num_layers
        gradients.append(torch.cat([side.grad.flatten() for side in soft.parameters() if side.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    assert distance(gradients[1], gradients[2]) > 1e-4


def test_gradients_beside_observers_are_what_they_are_without() -> None:
    model = tiny.frozen("llama-grouped")
    soft = prompt(model, spec("prefix-tuning", P))
    batch, gradients = batch_of("llama-grouped", [soft()] * 3), []
    for observers in ([], [Recorder(), AttentionToPrompt()]):
        soft.zero_grad()
        model.hidden(batch, soft(), observers)[batch.mask].square().mean().backward()
        gradients.append(torch.cat([side.grad.flatten() for side in soft.parameters() if side.grad is not None]))
    assert torch.equal(*gradients)


@pytest.mark.parametrize("name", ["llama", "deberta-v2"])
def test_threads_with_different_masks_do_not_meet(name: str) -> None:
    read = prompt_of(name, "prefix-tuning")
    batch, barrier = batch_of(name, [read] * 3), Barrier(2)

    def work(index: int) -> list[Tensor]:
        found = []
        for _ in range(4):
            barrier.wait(timeout=60)
            found.append(outputs(name, batch, read, [MaskVirtualTokens([index])]))
        return found

    alone = [outputs(name, batch, read, [MaskVirtualTokens([index])]) for index in range(2)]
    assert distance(*alone) > TOLERANCE
    with ThreadPoolExecutor(2) as pool:
        for truth, found in zip(alone, pool.map(work, range(2)), strict=True):
            assert all(distance(truth, one) < 1e-5 for one in found)


def test_logits_of_labels_are_observed_too() -> None:
    model, read = tiny.frozen("llama"), prompt_of("llama", "prompt-tuning")
    batch, select = batch_of("llama", [read] * 3), torch.zeros(3, 17, dtype=torch.bool)
    select[:, -1] = True
    recorder, other = Recorder(), Recorder()
    with torch.no_grad():
        assert torch.equal(model.predicting(batch, read, select, [recorder]), model.predicting(batch, read, select))
        model.hidden(batch, read, [other])
    assert torch.equal(recorder.calls[1][0].query, other.calls[1][0].query)


def test_layers_that_share_weights_are_met_one_by_one() -> None:
    read, recorder = prompt_of("albert", "prefix-tuning"), Recorder()
    outputs("albert", batch_of("albert", [read] * 3), read, [recorder])
    first, *others = recorder.calls[0]
    assert len(others) == 2 and not torch.equal(first.query, others[0].query)


def test_an_observer_keeps_the_last_pass_only() -> None:
    read, recorder = prompt_of("llama", "prefix-tuning"), Recorder()
    for _ in range(2):
        outputs("llama", batch_of("llama", [read] * 3), read, [recorder])
    assert [len(calls) for calls in recorder.calls.values()] == [1, 1]


def test_without_observers_a_pass_carries_what_it_always_did() -> None:
    model, read = tiny.frozen("llama"), prompt_of("llama", "prefix-tuning")
    batch = batch_of("llama", [read] * 3)
    assert not isinstance(model.prepare(batch, read).inputs["foreword"], ObservedPass)
    assert "foreword" not in model.prepare(batch, None).inputs
    assert isinstance(model.prepare(batch, None, [Recorder()]).inputs["foreword"], ObservedPass)


@pytest.mark.parametrize(
    ("indices", "layers", "message"),
    [
        ([0, 4], None, "the mask names virtual token 4, but there are 4, counted from 0; choose one of them."),
        ([0], [2], "the mask names layer 2, but there are 2, counted from 0; choose one of them."),
        ([-1], None, "the mask names index -1, but virtual tokens and layers are counted from 0; give 0 or more."),
        ([0], [-2], "the mask names index -2, but virtual tokens and layers are counted from 0; give 0 or more."),
    ],
)
def test_tokens_and_layers_that_are_not_there(indices: list[int], layers: Any, message: str) -> None:
    read = prompt_of("llama", "prefix-tuning")
    with pytest.raises(UsageError) as caught:
        outputs("llama", batch_of("llama", [read] * 3), read, [MaskVirtualTokens(indices, layers)])
    assert str(caught.value) == message
