"""Law: threads. Two threads with different prompts on one model, at the same time, get what each gets alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import tiny
import torch
from contract.given import distance, row_for, tokens, words
from contract.laws import law
from torch import Tensor

from foreword.backbone.batch import collate
from foreword.prompts.tokens import VirtualTokens

ROUNDS = 4


@law("threads")
def test_threads_do_not_meet(method: str, name: str) -> None:
    model, barrier = tiny.frozen(name), Barrier(2)
    reads = (tokens(name, method, 4), tokens(name, method, 7, seed=1))
    batches = [collate([row_for(read, words(11))]) for read in reads]

    @torch.no_grad()
    def work(read: VirtualTokens, index: int) -> list[Tensor]:
        found = []
        for _ in range(ROUNDS):
            barrier.wait(timeout=60)
            found.append(model.forward(batches[index], read))
        return found

    with torch.no_grad():
        alone = [model.forward(batch, read) for batch, read in zip(batches, reads, strict=True)]
    assert not torch.equal(*alone)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, reads, range(2)))
    for truth, found in zip(alone, together, strict=True):
        assert all(distance(truth, one) < 1e-5 for one in found)
