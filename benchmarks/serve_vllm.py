"""The embedded engine against vLLM: 32 requests at once, each of another learned prefix, on the same cores in turn: see benchmarks/README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import models
import numpy as np
import serve_work as work
import store
import torch
from provenance import provenance
from safetensors.torch import save_file
from transformers.utils.logging import disable_progress_bar

from foreword.adapters.store import AdapterStore
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import wrap
from foreword.demo.corpora import rotten_tomatoes
from foreword.demo.gemma import prepare
from foreword.prompts.tokens import KVPrefix
from foreword.serving.local_engine import LocalEngine
from foreword.serving.request import Done, Failed, Request, Token
from foreword.serving.sampling import SamplingParams

CHILD = Path(__file__).with_name("serve_vllm_child.py")
MANY = 32
_IDS = count()


def gemma() -> FrozenModel:
    """Gemma-3-270M that never ends an answer by itself, as vLLM is told to ignore the end too."""
    source = str(prepare())
    tokenizer = models.tokenizer(source)
    tokenizer.eos_token = "<unused98>"
    return wrap(models.network(source), tokenizer, name="gemma-3-270m")


def texts() -> list[str]:
    """Real sentences of about thirty tokens, enough that no round sees one again."""
    found = rotten_tomatoes(train=8000, valid=0, test=0).train
    return [example["text"] for example in found if 100 <= len(example["text"]) <= 160]


class Ours:
    """The embedded engine in this process, in an event loop that runs while it is asked."""

    def __init__(self, model: FrozenModel, folder: Path, names: Sequence[str]) -> None:
        self.loop = asyncio.new_event_loop()
        self.engine = LocalEngine(model, str(folder), max_sequences=MANY)
        self.names = names
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        await self.engine.start()
        for name in self.names:
            await self.engine.load(name)

    def run(self, given: Sequence[str], tokens: int) -> dict[str, Any]:
        used = time.process_time()
        found = self.loop.run_until_complete(self._serve(given, tokens))
        return {**found, "cpu_seconds": time.process_time() - used}

    async def _serve(self, given: Sequence[str], tokens: int) -> dict[str, Any]:
        found: dict[str, Any] = {"first": [], "between": [], "answers": [[] for _ in given]}
        begun = time.perf_counter()
        await asyncio.gather(*(self._client(number, text, tokens, found) for number, text in enumerate(given)))
        found["seconds"] = time.perf_counter() - begun
        return found

    async def _client(self, number: int, text: str, tokens: int, found: dict[str, Any]) -> None:
        request = Request(str(next(_IDS)), self.names[number], {"input": text}, SamplingParams(max_tokens=tokens))
        last = started = time.perf_counter()
        ids = found["answers"][number]
        async for event in self.engine.submit(request):
            now = time.perf_counter()
            if isinstance(event, Failed):
                raise RuntimeError(f"a request failed: {event.message}")
            if isinstance(event, Token) and len(ids) < tokens:
                ids.append(event.token)
                (found["first"] if last is started else found["between"]).append(now - last)
                last = now
            if isinstance(event, Done) and len(ids) != event.completion_tokens:
                raise RuntimeError(f"a request wrote {event.completion_tokens} tokens, of which {len(ids)} came.")

    def close(self) -> None:
        self.loop.run_until_complete(self.engine.close())
        self.loop.close()


class Theirs:
    """vLLM in processes of its own, which are stopped while the other side runs.

    The libraries that vLLM asks for, for speed (`libiomp5`, `libtcmalloc_minimal`), are loaded where its environment has them.
    """

    def __init__(self, python: Path, told: dict[str, Any], threads: int) -> None:
        cores = sorted(os.sched_getaffinity(0))[:threads]
        wanted = (python.parent.parent / "lib" / name for name in ("libtcmalloc_minimal.so.4", "libiomp5.so"))
        self.preloaded = [str(library) for library in wanted if library.exists()]
        settings = {
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),  # by default a core is left out
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(CHILD.parent),
            "LD_PRELOAD": ":".join(self.preloaded),
        }
        self.child = subprocess.Popen(
            [str(python), str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**{key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}, **settings},
            process_group=0,
        )
        self.versions: dict[str, str] = self.ask(told)["versions"]

    def run(self, asks: Sequence[dict[str, Any]], tokens: int) -> dict[str, Any]:
        used = self.cpu_seconds()
        found = self.ask({"asks": asks, "tokens": tokens})
        return {**found, "cpu_seconds": self.cpu_seconds() - used}

    def ask(self, told: dict[str, Any]) -> dict[str, Any]:
        assert self.child.stdin is not None and self.child.stdout is not None
        os.killpg(self.child.pid, signal.SIGCONT)
        print(json.dumps(told), file=self.child.stdin, flush=True)
        if not (line := self.child.stdout.readline()):
            raise RuntimeError(f"vLLM's process ended with status {self.child.wait()}; its last lines above say why.")
        os.killpg(self.child.pid, signal.SIGSTOP)
        return json.loads(line)

    def cpu_seconds(self) -> float:
        """What all its processes have used so far."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # a process that has ended meanwhile
                fields = path.read_text("utf-8").rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12]) if int(fields[2]) == self.child.pid else 0
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        assert self.child.stdin is not None
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGCONT)
        self.child.stdin.close()
        try:
            self.child.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)


def export(model: FrozenModel, source: Path, names: Sequence[str], target: Path) -> int:
    """Write the prefixes as the connector reads them, in the model's precision; their length."""
    length = 0
    for name in names:
        tokens = AdapterStore(str(source)).load(name).adapter_state().tokens
        assert isinstance(tokens, KVPrefix)
        tokens, length = tokens.cast(model.device, model.dtype), tokens.length
        layers = sorted(tokens.keys)
        save_file(
            {side: torch.stack([of[layer] for layer in layers]) for side, of in (("keys", tokens.keys), ("values", tokens.values))},
            target / f"{name}.safetensors",
        )
    return length


def ids(model: FrozenModel, text: str) -> list[int]:
    """The tokens that the engine reads of a text: its task's, without the prefix."""
    return [*model.tokenizer.opening, *model.tokenizer.encode(work.written(text))]


def _ratio(one: dict[str, dict[str, Any]], of: str) -> float:
    """How many times as long vLLM took as this engine: both wrote the same number of tokens."""
    return one["theirs"][of] / one["ours"][of]


def facts(rounds: Sequence[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """Tokens a second, and waits over all rounds."""

    def waits(name: str) -> list[float]:
        return np.quantile([wait for one in rounds for wait in one[name]], (0.5, 0.9, 0.99)).round(4).tolist()

    return {
        "tokens_per_second": spread([MANY * tokens / one["seconds"] for one in rounds]),
        "seconds_to_first_token_p50_p90_p99": waits("first"),
        "seconds_between_tokens_p50_p90_p99": waits("between"),
        "cpu_seconds": spread([one["cpu_seconds"] for one in rounds]),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    low, median, high = np.quantile(values, (0, 0.5, 1)).tolist()
    return {"median": median, "least": low, "most": high}


def measure(ours: Ours, theirs: Theirs, model: FrozenModel, tokens: int, rounds: int) -> dict[str, Any]:
    """Rounds of both sides in turn, after one of each that is not counted; a ratio is that of tokens a second, round by round."""
    given, seen = texts(), []
    for number in range(rounds + 1):
        part = given[MANY * number : MANY * (number + 1)]
        asks = [{"task": name, "ids": ids(model, text)} for name, text in zip(ours.names, part, strict=True)]
        one = {"ours": ours.run(part, tokens), "theirs": theirs.run(asks, tokens)}
        for side, found in one.items():
            if (wrote := sum(map(len, found["answers"]))) != MANY * tokens:
                raise RuntimeError(f"{side} wrote {wrote} tokens, but {MANY * tokens} were asked for.")
        seen.append(one)
        print(f"round {number}: {_ratio(one, 'seconds'):.2f}, cpu {_ratio(one, 'cpu_seconds'):.2f}", file=sys.stderr, flush=True)
    seen = seen[1:]
    same = [a == b for one in seen for a, b in zip(one["ours"]["answers"], one["theirs"]["answers"], strict=True)]
    first = [a[0] == b[0] for one in seen for a, b in zip(one["ours"]["answers"], one["theirs"]["answers"], strict=True)]
    ratio = spread([_ratio(one, "seconds") for one in seen])
    return {
        "ratios": {"foreword / vLLM": {"asked": 0.9, "met": ratio["median"] >= 0.9, **ratio}},
        "sides": {
            "foreword": facts([one["ours"] for one in seen], tokens),
            "vLLM": facts([one["theirs"] for one in seen], tokens),
        },
        "times_less_cpu": spread([_ratio(one, "cpu_seconds") for one in seen]),
        "equal_answers": float(np.mean(same)),
        "equal_first_tokens": float(np.mean(first)),
    }


def case(ours: Ours, theirs: Theirs, model: FrozenModel, tokens: int, args: argparse.Namespace) -> None:
    """Measure, write and print one number of new tokens."""
    birth = provenance([0], args.threads)
    birth["preloaded"] = [Path(library).name for library in theirs.preloaded]
    birth["versions"] |= {f"vLLM's {name}": version for name, version in theirs.versions.items()}
    found = measure(ours, theirs, model, tokens, args.rounds)
    name = f"{MANY} tasks, {tokens} new tokens"
    about = f"{MANY} requests at once, each of another task, {tokens} new tokens."
    document = store.read(args.out)
    document.setdefault("cases", {})[name] = {"about": about, **found, "provenance": birth}
    store.write(args.out, document)
    ratio = found["ratios"]["foreword / vLLM"]
    print(f"{name}: foreword / vLLM = {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})", flush=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/serve_vllm.py", description=__doc__)
    parser.add_argument("--vllm-python", type=Path, required=True, help="the interpreter of an environment with vLLM")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of both sides in turn (default 5)")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[16, 64], help="new tokens of each request; a case for each (default 16 64)"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads (default: all cores)")
    parser.add_argument("--block-size", type=int, default=32, help="tokens in a KV block of vLLM (default 32)")
    parser.add_argument(
        "--out", type=Path, default=store.RESULTS / "serve_vllm.json", help="results file; cases measured again are replaced"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    disable_progress_bar()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no stopped process stays behind
    model = gemma()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as prefixes:
        names = work.tasks(Path(folder), model, MANY, "p-tuning-v2", work.PREFIX)
        told = {
            "model": str(prepare()),
            "folder": prefixes,
            "length": export(model, Path(folder), names, Path(prefixes)),
            "max_model_len": 2048,
            "max_sequences": MANY,
            "block_size": args.block_size,
        }
        ours = Ours(model, Path(folder), names)
        theirs = Theirs(args.vllm_python, told, args.threads)
        try:
            for tokens in args.tokens:
                case(ours, theirs, model, tokens, args)
        finally:
            theirs.close()
            ours.close()


if __name__ == "__main__":
    main()
