"""Long texts that arrive beside running answers: how long these stand still, in what order the long ones are answered, and what memory one of 8,000 tokens takes."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import serve_work as work
from serve import gemma, texts
from serve_operations import Facts, fact, run

from foreword.serving.local_engine import LocalEngine
from foreword.serving.request import Failed, Request, Token
from foreword.serving.sampling import SamplingParams

STREAMS, BURST, LONG, VERY_LONG, SHORT = 3, 8, 1001, 8000, 31
_IDS = count()


async def ask(engine: LocalEngine, text: str, tokens: int, moments: list[float], task: str | None = None) -> None:
    """One answer; the moments of its beginning and of its tokens."""
    moments.append(time.perf_counter())
    example = {"input": text} if task else {"text": text}
    async for event in engine.submit(Request(str(next(_IDS)), task, example, SamplingParams(max_tokens=tokens, ignore_eos=True))):
        if isinstance(event, Failed):
            raise RuntimeError(f"a request failed: {event.message}")
        if isinstance(event, Token):
            moments.append(time.perf_counter())


def long_texts(engine: LocalEngine, many: int, tokens: int) -> list[str]:
    """Texts of so many tokens, each its own."""
    tokenizer = engine.info.tokenizer
    ids = tokenizer.encode(" ".join(texts(2000)))
    return [tokenizer.decode(ids[i * tokens : (i + 1) * tokens - 1]) for i in range(many)]


async def burst(engine: LocalEngine, given: Sequence[str]) -> tuple[dict[str, float], list[float]]:
    """Three streams alone, then with eight long texts that come together: gaps as multiples of the median gap alone, and when each long answer began."""
    long = long_texts(engine, BURST, LONG)
    alone: list[list[float]] = [[] for _ in range(STREAMS)]
    await asyncio.gather(*(ask(engine, text, 40, moments) for text, moments in zip(given, alone, strict=False)))
    usual = [after - before for moments in alone for before, after in pairwise(moments[2:])]
    median = statistics.median(usual)
    streams: list[list[float]] = [[] for _ in range(STREAMS)]
    running = [asyncio.create_task(ask(engine, text, 2000, moments)) for text, moments in zip(given, streams, strict=False)]
    while min(map(len, streams)) < 5:
        await asyncio.sleep(0.02)
    began, answers = time.perf_counter(), [list[float]() for _ in range(BURST)]
    await asyncio.gather(*(ask(engine, text, 4, moments) for text, moments in zip(long, answers, strict=True)))
    ended = time.perf_counter()
    for stream in running:
        stream.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    gaps = [after - before for moments in streams for before, after in pairwise(moments[1:]) if after > began and before < ended]
    quantiles = {"longest": max(gaps), "p99": float(np.quantile(gaps, 0.99)), "median": statistics.median(gaps)}
    found = {f"{name} gap / median gap alone": value / median for name, value in quantiles.items()}
    return {**found, "p99 gap alone / median gap alone": float(np.quantile(usual, 0.99)) / median}, sorted(m[1] - began for m in answers)


async def memory(engine: LocalEngine, given: Sequence[str]) -> float:
    """How much the peak of the process grows by one very long request beside 31 short ones, as a share of the request's own keys and values."""

    async def peak(long: Sequence[str]) -> int:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's counter begins anew
        short = [ask(engine, text, 48, []) for text in given[:SHORT]]
        await asyncio.gather(*short, *(ask(engine, text, 4, []) for text in long))
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) << 10

    (text,) = long_texts(engine, 1, VERY_LONG)
    await peak([])
    before, after = await peak([]), await peak([text])
    return (after - before) / (VERY_LONG * engine.core.kv.cache.slot_bytes)


async def measure() -> Facts:
    model, given = gemma(), texts(64)
    found = Facts()
    with tempfile.TemporaryDirectory() as folder:
        work.tasks(Path(folder), model, 1, "p-tuning-v2", work.PREFIX)
        async with LocalEngine(model, folder, prefix_caching=False) as engine:
            await burst(engine, given)  # warm: the engine has measured its steps
            gaps, began = await burst(engine, given)
            bars = {"longest gap / median gap alone": 5.0, "p99 gap / median gap alone": 3.0}
            for name, value in gaps.items():
                found[f"3 answers beside 8 texts of {LONG:,} tokens: {name}"] = fact(value, at_most=bars.get(name))
            found["first of the 8 answers / last of them, from their arrival"] = fact(began[0] / began[-1], at_most=0.5)
            share = await memory(engine, given)
            found[f"peak memory that a request of {VERY_LONG:,} tokens adds beside 31 short ones / its keys and values"] = fact(
                share, at_most=1.1
            )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    run("serve_burst", __doc__, measure, argv)


if __name__ == "__main__":
    main()
