"""What the serving benchmark asks: stores of many tasks on one model, requests with their moments of arrival, and how the answers came."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import torch

from foreword.adapters.adapter import Adapter
from foreword.adapters.safetensors_file import KEY
from foreword.backbone.frozen_model import FrozenModel
from foreword.methods import recipe
from foreword.prompts.head import Head
from foreword.prompts.init import Material, initial_values
from foreword.recipe import Recipe
from foreword.serving.engine import Engine
from foreword.serving.request import Answer, Failed, Request, Token
from foreword.serving.sampling import SamplingParams
from foreword.tasks.base import Task
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify

_IDS = count()
PREFIX = Generate("{input}\nIn short:{answer}", max_new_tokens=16)
SUFFIX = Generate("{input}\n{soft}In short:{answer}", max_new_tokens=16)


@dataclass(frozen=True)
class Ask:
    """A request: `task` None is the model itself, `at` the second of its arrival, `tokens` how long its answer may be."""

    task: str | None
    text: str
    at: float = 0.0
    tokens: int = 16


@dataclass
class Result:
    """Seconds from the first arrival to the last answer, tokens written, and waits: for the first token, and between tokens."""

    seconds: float = 0.0
    answers: int = 0
    tokens: int = 0
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)


def tasks(
    folder: Path, model: FrozenModel, many: int, method: str, task: Task, *, length: int = 20, first: int = 0, noise: float = 0.02
) -> list[str]:
    """Adapters t0, t1, … of one recipe that begin at the text of the task and differ by noise, drawn from seed `first` on.

    The engine cannot tell them from trained ones.
    """
    spec = recipe(method, length=length)
    fitted = task.for_model(model.info, spec)
    flat = (
        initial_values(spec, model, Material("Read the text and say in a few words what it is about."), seed=0)
        .origin.detach()
        .float()
        .cpu()
    )
    names = []
    for number in range(many):
        drawn = torch.randn(flat.shape, generator=torch.Generator().manual_seed(first + number))
        tensors = {KEY: flat * (1 + noise * drawn)}
        if fitted.head is not None:
            head = Head(fitted.head, model.shape.hidden, seed=number).bake()
            tensors |= {f"head.{key}": tensor for key, tensor in head.items()}
        made = Adapter(Recipe.of(spec), model.shape, tensors, fitted.to_dict(), model.name, model.fingerprint, model.tokenizer_fingerprint)
        made.save(folder / f"t{number}")
        names.append(f"t{number}")
    return names


def labels(many: int) -> HeadClassify:
    """A classifier's task."""
    return HeadClassify(tuple(f"label {number}" for number in range(many)))


def written(text: str) -> str:
    """What a task of PREFIX makes of a text: the same tokens for whoever has no task."""
    return f"{text}\nIn short:"


def zipf(tasks: int, many: int, seed: int = 0) -> list[int]:
    """Draws of tasks 0 … tasks-1, the n-th 1/n as often as the first."""
    return random.Random(seed).choices(range(tasks), [1 / (rank + 1) for rank in range(tasks)], k=many)


def poisson(many: int, rate: float, seed: int = 0) -> list[float]:
    """Moments of arrival, so many a second on average."""
    drawn, now, found = random.Random(seed), 0.0, []
    for _ in range(many):
        found.append(now)
        now += drawn.expovariate(rate)
    return found


async def serve(engine: Engine, asks: Sequence[Ask], column: str = "input") -> Result:
    """Ask all, each at its moment, and listen to the end."""
    result, begun = Result(), time.perf_counter()
    await asyncio.gather(*(_client(engine, ask, column, begun, result) for ask in asks))
    result.seconds = time.perf_counter() - begun
    return result


async def _client(engine: Engine, ask: Ask, column: str, begun: float, result: Result) -> None:
    if (wait := begun + ask.at - time.perf_counter()) > 0:
        await asyncio.sleep(wait)
    example = {column: ask.text} if ask.task else {"text": written(ask.text)}
    last = started = time.perf_counter()
    async for event in engine.submit(Request(str(next(_IDS)), ask.task, example, SamplingParams(max_tokens=ask.tokens))):
        now = time.perf_counter()
        if isinstance(event, Failed):
            raise RuntimeError(f"a request failed: {event.message}")
        if isinstance(event, Token):
            result.tokens += 1
        if isinstance(event, Token | Answer):
            (result.first if last is started else result.between).append(now - last)
            last = now
    result.answers += 1
