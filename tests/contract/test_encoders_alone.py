"""Laws of encoders: alone, baked, threads, frozen, checkpointed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import tiny_encoders
import torch
from contract.given import TOLERANCE, distance, prompt, spec
from contract.given_encoders import placed, text, tokens
from contract.laws import law
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from foreword.backbone.batch import collate
from foreword.methods import METHODS
from foreword.prompts.soft_prompt import SoftPrompt, as_tokens
from foreword.prompts.template import Row
from foreword.prompts.tokens import VirtualTokens
from foreword.specs import Layers

ROUNDS = 4


@dataclass(frozen=True)
class Case:
    """One row of a batch: the method of its prompt (None for none), the prompt's length and layers, the row's tokens and soft places."""

    method: str | None
    length: int
    layers: Layers
    num_tokens: int
    places: tuple[float, ...]

    def tokens(self, name: str) -> VirtualTokens | None:
        if self.method is None:
            return None
        return tokens(name, self.method, self.length, layers=self.layers if METHODS[self.method]().site == "kv" else "all")

    def row(self, name: str, seed: int) -> Row:
        at = tuple(sorted(int(place * self.num_tokens) for place in self.places[: self.length]))
        return placed(text(name, self.num_tokens, seed), self.tokens(name), at)


def cases(methods: st.SearchStrategy[str | None]) -> st.SearchStrategy[Case]:
    places = st.lists(st.floats(0, 1), min_size=7, max_size=7).map(tuple)
    return st.builds(Case, methods, st.sampled_from((1, 4, 7)), st.sampled_from(("all", "last:1", (0,))), st.integers(3, 24), places)


others = cases(st.sampled_from((None, *METHODS)))
quick = settings(max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@law("alone", "encoder")
@quick
@given(data=st.data())
def test_a_row_does_not_see_its_neighbours(method: str, name: str, data: st.DataObject) -> None:
    batch = [data.draw(cases(st.just(method))), *data.draw(st.lists(others, min_size=1, max_size=3))]
    model, rows, reads = tiny_encoders.frozen(name), [], []
    for seed, case in enumerate(batch):
        rows.append(case.row(name, seed))
        reads.append(case.tokens(name))
    with torch.no_grad():
        alone = [model.hidden(collate([row]), read)[0] for row, read in zip(rows, reads, strict=True)]
        for side in ("left", "right"):
            padded = collate(rows, pad=model.tokenizer.pad, side=side)
            together = model.hidden(padded, reads)
            assert together.shape == (*padded.ids.shape, 32)
            for b, truth in enumerate(alone):
                assert distance(together[b][padded.mask[b]], truth) < TOLERANCE


@law("alone", "encoder")
def test_one_prompt_for_all_rows_equals_the_same_prompt_per_row(method: str, name: str) -> None:
    model, read = tiny_encoders.frozen(name), tokens(name, method)
    batch = collate([placed(text(name, count), read) for count in (3, 12, 7)])
    shared, each = model.hidden(batch, read), model.hidden(batch, [read] * 3)
    assert distance(shared[batch.mask], each[batch.mask]) < 1e-5


@law("baked", "encoder")
def test_baked_equals_unbaked(method: str, name: str) -> None:
    model, made = tiny_encoders.frozen(name), spec(method)
    soft = prompt(model, made)
    flat = soft.bake()
    assert flat.shape == (made.length, made.width(model.shape)) and not flat.requires_grad
    assert distance(flat, soft.origin) > 0.01, "the re-parameterisation must add something, or this proves nothing"
    batch = collate([placed(text(name, count), soft()) for count in (5, 9)])
    with torch.no_grad():
        ours, truth = model.hidden(batch, as_tokens(flat, made, model.shape)), model.hidden(batch, soft())
    assert distance(ours[batch.mask], truth[batch.mask]) < 1e-5


@law("threads", "encoder")
def test_threads_do_not_meet(method: str, name: str) -> None:
    model, barrier = tiny_encoders.frozen(name), Barrier(2)
    reads = (tokens(name, method, 4), tokens(name, method, 7, seed=1))
    batches = [collate([placed(text(name, 11), read)]) for read in reads]

    @torch.no_grad()
    def work(read: VirtualTokens, index: int) -> list[Tensor]:
        found = []
        for _ in range(ROUNDS):
            barrier.wait(timeout=60)
            found.append(model.hidden(batches[index], read))
        return found

    with torch.no_grad():
        alone = [model.hidden(batch, read) for batch, read in zip(batches, reads, strict=True)]
        bare = model.hidden(collate([text(name, 11)]))
    assert not torch.equal(*alone)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, reads, range(2)))
    for truth, found in zip(alone, together, strict=True):
        assert all(distance(truth, one) < 1e-5 for one in found)
    with torch.no_grad():
        assert torch.equal(model.hidden(collate([text(name, 11)])), bare), "nothing of a prompt is left behind"


def loss(name: str, soft: SoftPrompt) -> Tensor:
    """How far states are from some that are asked for: every number of every token counts."""
    model, read = tiny_encoders.frozen(name), soft()
    batch = collate([placed(text(name, n), read) for n in (4, 9)])
    states = model.hidden(batch, read)[batch.mask]
    return (states - torch.linspace(-1, 1, states.numel(), device=states.device).view_as(states)).square().mean()


@law("frozen", "encoder")
def test_training_leaves_the_base_model_bit_identical(method: str, name: str) -> None:
    model = tiny_encoders.frozen(name)
    soft = prompt(model, spec(method))
    soft.train()
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    first, marks = soft.bake(), [(p.data_ptr(), p._version) for p in model.network.parameters()]
    optimiser, losses = torch.optim.AdamW(soft.parameters(), lr=0.1), []
    for _ in range(3):
        cost = loss(name, soft)
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
        losses.append(cost.item())
    assert losses[-1] < losses[0] and not torch.equal(soft.bake(), first), "the prompt must learn, or this proves nothing"
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    assert [(p.data_ptr(), p._version) for p in model.network.parameters()] == marks, "nobody wrote to a weight, not even the same number"
    assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())
    assert not any(module.training for module in model.network.modules())


def gradients(name: str, soft: SoftPrompt, on: bool, *, inside: bool = True, twice: bool = False) -> list[Tensor]:
    """Gradients of every trained parameter; the backward pass inside the block, after it, or twice over a graph that is kept."""
    model = tiny_encoders.frozen(name)
    with model.gradient_checkpointing(on):
        cost = loss(name, soft)
        if inside:
            cost.backward(retain_graph=twice)
    if twice:
        soft.zero_grad()
    if not inside or twice:
        model.hidden(collate([text(name, 5)]))  # another forward pass, without a prompt, comes between
        cost.backward()
    found = [parameter.grad for parameter in soft.parameters()]
    soft.zero_grad()
    assert all(gradient is not None for gradient in found)
    return [gradient for gradient in found if gradient is not None]


@law("checkpointed", "encoder")
def test_gradients_with_checkpointing_equal_those_without(method: str, name: str) -> None:
    model = tiny_encoders.frozen(name)
    soft = prompt(model, spec(method))
    layers = [module for module in model.network.modules() if isinstance(module, GradientCheckpointingLayer)]
    calls: list[int] = []
    first = [next(module for module in layer.modules() if isinstance(module, nn.Linear)) for layer in layers]
    hooks = [linear.register_forward_hook(lambda *_, i=i: calls.append(i)) for i, linear in enumerate(first)]
    try:
        off = gradients(name, soft, False)
        once = len(calls)
        assert once and set(calls) == set(range(len(layers)))
        calls.clear()
        on = gradients(name, soft, True)
        assert len(calls) == 2 * once, "every layer runs twice: forward, and again on the way back"
    finally:
        for hook in hooks:
            hook.remove()
    for found in (on, gradients(name, soft, True, inside=False), gradients(name, soft, True, twice=True)):
        for left, right in zip(off, found, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    assert any(bool(gradient.abs().max() > 0) for gradient in off)


@law("checkpointed", "encoder")
def test_the_backward_pass_may_run_in_another_thread(method: str, name: str) -> None:
    """As it does on a GPU; a context of the forward pass would not be there."""
    model = tiny_encoders.frozen(name)
    soft = prompt(model, spec(method))
    off = gradients(name, soft, False)
    with model.gradient_checkpointing():
        cost = loss(name, soft)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(cost.backward).result()
    for left, parameter in zip(off, soft.parameters(), strict=True):
        assert isinstance(parameter.grad, Tensor)
        torch.testing.assert_close(left, parameter.grad, rtol=1e-4, atol=1e-6)
