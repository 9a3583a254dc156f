"""What serving costs beside answers: loading, switching and replacing tasks, and the memory they take. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import serve_work as work
import store
import torch
from provenance import provenance
from serve import MEMORY_BYTES, gemma, texts
from serve_work import Ask
from transformers.utils.logging import disable_progress_bar

from foreword.adapters.adapter import Adapter
from foreword.serving.local_engine import LocalEngine

TASKS = 200
Facts = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Shop:
    """An engine, its store, and another version of every task."""

    engine: LocalEngine
    shop: Path
    spare: Path
    names: Sequence[str]


async def timed_loads(shop: Shop, names: Sequence[str]) -> list[float]:
    """Seconds for each task from its folder to its place in memory."""
    found = []
    for name in names:
        begun = time.perf_counter()
        await shop.engine.load(name)
        found.append(time.perf_counter() - begun)
    return found


async def forgotten(shop: Shop, names: Sequence[str]) -> None:
    for name in names:
        await shop.engine.unload(name)


async def loading(shop: Shop) -> Facts:
    """Loads on a quiet engine, and while 16 answers grow; the wait between tokens with loads against the wait without."""
    await timed_loads(shop, shop.names)  # the pool is as large as it gets
    await forgotten(shop, shop.names)
    quiet = np.quantile(await timed_loads(shop, shop.names), 0.99)
    await forgotten(shop, shop.names[16:])
    asks = [Ask(name, text, tokens=64) for name, text in zip(shop.names[:16], texts(16), strict=True)]
    await work.serve(shop.engine, asks)
    ratios, busy = [], list[float]()
    for _ in range(5):
        alone = await work.serve(shop.engine, asks)
        growing = asyncio.create_task(work.serve(shop.engine, asks))
        busy += await timed_loads(shop, shop.names[16:48])
        beside = await growing
        await forgotten(shop, shop.names[16:48])
        ratios.append(float(np.median(beside.between) / np.median(alone.between)))
    return {
        "p99 of a load from disk, quiet, milliseconds": fact(1000 * float(quiet), at_most=20),
        "p99 of a load from disk while 16 answers grow, milliseconds": fact(1000 * float(np.quantile(busy, 0.99))),
        "median wait between tokens with 32 loads beside / without": fact(float(np.median(ratios))),
    }


async def switching(shop: Shop) -> Facts:
    """32 answers of one task against 32 of as many, after each task has been used: what it costs that a request names another task."""
    given = texts(32)
    one = [Ask("t0", text) for text in given]
    many = [Ask(name, text) for name, text in zip(shop.names, given, strict=False)]
    await timed_loads(shop, shop.names[:32])
    ratios = []
    for _ in range(6):
        pair = [await work.serve(shop.engine, asks) for asks in (one, many)]
        ratios.append(pair[1].seconds / pair[0].seconds)
    return {"time of 32 answers of 32 tasks / of one task": fact(float(np.median(ratios[1:])), at_most=1.05)}


async def replacing(shop: Shop) -> Facts:
    """Requests without a pause while their tasks are replaced on disk and loaded anew, again and again."""
    names, given = shop.names[:8], texts(8)
    stop, answered, failed = asyncio.Event(), 0, 0

    async def client(index: int) -> None:
        nonlocal answered, failed
        while not stop.is_set():
            try:
                await work.serve(shop.engine, [Ask(names[index], given[index])])
                answered += 1
            except RuntimeError:
                failed += 1

    clients = [asyncio.create_task(client(index)) for index in range(len(names))]
    replaced = 0
    for turn in range(6):
        for name in names:
            source = shop.spare if turn % 2 == 0 else shop.shop.with_name("first")
            await asyncio.to_thread(lambda name=name, source=source: Adapter.load(source / name).save(shop.shop / name, overwrite=True))
            await shop.engine.load(name)
            replaced += 1
    stop.set()
    await asyncio.gather(*clients)
    return {
        f"requests that failed, of {answered + failed}, while {replaced} versions were replaced": fact(failed, at_most=0),
    }


async def memory(shop: Shop) -> Facts:
    """What stands in memory for all tasks, and what 32 answers of one task add to it."""
    await timed_loads(shop, shop.names)
    stats = shop.engine.stats()
    before = stats.prefix_bytes
    await work.serve(shop.engine, [Ask("t0", text) for text in texts(32)])
    return {
        f"bytes in memory / bytes of the {stats.resident} prefixes": fact(stats.memory_bytes / before, at_most=1.1),
        "prefix bytes that 32 answers of one task add": fact(shop.engine.stats().prefix_bytes - before, at_most=0),
    }


def fact(found: float, *, at_most: float | None = None) -> dict[str, Any]:
    """A figure and what was asked of it."""
    return {
        "found": round(found, 4),
        "asked": "–" if at_most is None else f"at most {at_most:g}",
        "met": None if at_most is None else found <= at_most,
    }


async def measure() -> Facts:
    model = gemma()
    with tempfile.TemporaryDirectory() as folder:
        first, shop, spare = (Path(folder, name) for name in ("first", "shop", "spare"))
        names = work.tasks(first, model, TASKS, "p-tuning-v2", work.PREFIX)
        work.tasks(shop, model, TASKS, "p-tuning-v2", work.PREFIX)
        work.tasks(spare, model, 8, "p-tuning-v2", work.PREFIX, first=1000)
        async with LocalEngine(model, str(shop), memory_bytes=MEMORY_BYTES) as engine:
            place, found = Shop(engine, shop, spare, names), Facts()
            for part in (loading, switching, replacing):
                print(f"{part.__name__} …", file=sys.stderr, flush=True)
                found |= await part(place)
        async with LocalEngine(
            model, str(shop), memory_bytes=MEMORY_BYTES, prefix_caching=False
        ) as engine:  # texts that come again would be in memory too
            return found | await memory(replace(place, engine=engine))


def run(name: str, about: str | None, measure: Callable[[], Coroutine[Any, Any, Facts]], argv: Sequence[str] | None) -> None:
    """The command line of a benchmark of facts: `name` is its script's and its results file's."""
    parser = argparse.ArgumentParser(prog=f"benchmarks/{name}.py", description=about)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads (default: all cores)")
    parser.add_argument("--out", type=Path, default=store.RESULTS / f"{name}.json", help="results file")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    disable_progress_bar()
    birth = provenance([0], args.threads)
    found = asyncio.run(measure())
    store.write(args.out, {"facts": found, "provenance": birth})
    for fact_name, each in found.items():
        print(f"{fact_name}: {each['found']:g} (asked: {each['asked']})")


def main(argv: Sequence[str] | None = None) -> None:
    run("serve_operations", __doc__, measure, argv)


if __name__ == "__main__":
    main()
