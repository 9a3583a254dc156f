"""Latency of single texts relative to the frozen model with a written prompt, measured alternately in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.evaluation.evaluate import Reader
from foreword.task_kinds import TASK_KINDS
from foreword.tasks.base import Example, Task, budget_for

Answer = Callable[[Example], Any]
TEXTS, WARM = 20, 2


def first_token(task: Task) -> Task:
    """The task for measuring: texts are generated up to the first token, because their lengths differ."""
    return replace(cast(Any, task), max_new_tokens=1) if TASK_KINDS[task.kind].answers == "text" else task


def bare(model: FrozenModel, reader: Reader | None, written: Task | None, max_length: int | None) -> Reader:
    """The frozen model without the trained prompt: with a written prompt or, for a task with a head, with the head alone."""
    if written is not None:
        return Reader.plain(model, first_token(written), max_length=max_length)
    assert reader is not None, "a task without a written prompt has a head, and so a reader"
    return Reader(model, reader.task, AdapterState(None, reader.adapter_state.head), budget_for(None, model.info, max_length))


def added(ours: Answer, theirs: Answer, examples: Sequence[Example], device: torch.device) -> dict[str, float | int]:
    """`ratio`: the median over texts of our time / theirs, `low` and `high` its quartiles, and both median seconds.

    Each text is answered by both, in alternating order, so that other load on the machine affects both alike.
    """
    texts = [examples[i % len(examples)] for i in range(min(TEXTS, max(len(examples), 4)))]
    for text in texts[:WARM]:
        ours(text)
        theirs(text)
    pairs = []
    for number, text in enumerate(texts):
        if number % 2:
            first, second = _timed(theirs, text, device), _timed(ours, text, device)
            pairs.append((second, first))
        else:
            pairs.append((_timed(ours, text, device), _timed(theirs, text, device)))
    ratios = [a / b for a, b in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {"ratio": middle, "low": low, "high": high, "seconds": mine, "base_seconds": other, "n": len(pairs)}


def _timed(answer: Answer, text: Example, device: torch.device) -> float:
    begun = time.perf_counter()
    answer(text)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun
