"""The pretended GPU is as strict as a real one, and its numbers are the CPU's."""

from __future__ import annotations

import copy

import pytest
import torch
from contract.devices import on
from contract.triples import JOBS
from pretended_device import CUDA, MixedDevices, pretended_gpu
from torch import nn

from foreword.backbone.adapter_state import AdapterState
from foreword.evaluation.evaluate import Reader
from foreword.prompts.head import Head
from foreword.tasks.base import budget_for


def test_tensors_say_where_they_are() -> None:
    with pretended_gpu():
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert here.device.type == "cpu" and there.device == CUDA and there.is_cuda
        for made in (
            there + 1,
            there[1:],
            there.new_zeros(2),
            torch.zeros_like(there),
            there.float(),
            there.to(here.to(CUDA)),
            here.cuda(),
        ):
            assert made.device == CUDA
        for made in (there.cpu(), there.to("cpu", torch.float64), there.to(here), torch.zeros_like(there, device="cpu"), here[:1]):
            assert made.device.type == "cpu"
        layer = nn.Linear(3, 2).to("cuda")
        assert copy.deepcopy(layer).weight.device == CUDA
        assert nn.functional.cross_entropy(layer(there)[None], torch.tensor([0], device=CUDA)).device == CUDA
    assert there.device.type == "cpu", "outside there is no such device"


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat([here, there]),
        lambda here, there: there.masked_fill_(here > 0, 0.0),
        lambda here, there: here[there.long()],
        lambda here, there: torch.nn.functional.linear(there, here[None]),
        lambda here, there: torch.randn(3, device=there.device, generator=torch.Generator()),
        lambda here, there: torch.multinomial(there, 1, generator=torch.Generator()),
        lambda here, there: there.numpy(),
    ],
)
def test_mixing_raises(mix: object) -> None:
    with pretended_gpu(), pytest.raises(MixedDevices):
        mix(torch.ones(3), torch.ones(3, device="cuda"))  # type: ignore[operator]


def test_what_cuda_allows_passes() -> None:
    with pretended_gpu():
        here, there = torch.arange(3), torch.ones(3, device="cuda")
        assert (there * torch.tensor(2.0)).tolist() == [2, 2, 2]
        assert there[here].device == CUDA and there[here > 1].tolist() == [1]
        there.copy_(here)
        assert there.tolist() == [0, 1, 2] and there.device == CUDA


def test_gradients_go_back_to_their_device() -> None:
    with pretended_gpu():
        here = torch.ones(3, requires_grad=True)
        there = torch.full((3,), 2.0, device="cuda", requires_grad=True)
        (here.to("cuda") * there).sum().backward()
        assert here.grad is not None and there.grad is not None
        assert (here.grad.device.type, there.grad.device.type) == ("cpu", "cuda") and here.grad.tolist() == [2, 2, 2]


def test_a_head_that_was_left_behind_is_found() -> None:
    job = JOBS["classify-head"]
    with pretended_gpu():
        model = on("bert", CUDA)
        task = job.task.for_model(model.info, None)
        assert task.head is not None
        state = AdapterState(None, Head(task.head, model.shape.states))
        reader = Reader(model, task, state, budget_for(None, model.info))
        with pytest.raises(MixedDevices) as caught:
            reader.predict(job.examples)
    assert str(caught.value) == "aten::div got tensors on two devices: [4, 32] on cuda:0, [32] on cpu."
