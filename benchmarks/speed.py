"""Training speed and peak memory, Foreword against PEFT, in turn in one run: see benchmarks/README.md."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from types import TracebackType
from typing import Any

import models
import numpy as np
import store
import worker
from provenance import provenance
from sides import SIDES, Case, Work

GEMMA = "gemma-3-270m"
CASES = (
    Case("prompt tuning", "prompt-tuning", GEMMA, faster=3.0, memory=0.6),
    Case("prompt tuning, PEFT told which logits to keep", "prompt-tuning", GEMMA, keep=True),
    Case("prefix tuning", "prefix-tuning", GEMMA, faster=2.5),
    Case("prefix tuning without projection", "p-tuning-v2", GEMMA, faster=2.5),
    Case("prompt tuning, small vocabulary", "prompt-tuning", models.SMALL),
    Case("prefix tuning, small vocabulary", "prefix-tuning", models.SMALL),
)
BATCH, TOKENS, LABELS = 8, 128, 2


class Remote:
    """A side in its own process: loaded, idle until asked."""

    def __init__(self, side: str, case: Case, work: Work, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.side = side
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=worker.serve, args=(theirs, side, case, work, threads), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, *request: Any) -> Any:
        try:
            self.pipe.send(request)
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the process of {self.side} ended early; its own message stands above.") from error

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pipe.close()  # which ends the process
        self.process.join(timeout=60)


def measure(case: Case, work: Work, *, rounds: int, steps: int, warmup: int, threads: int) -> dict[str, Any]:
    """Rounds of `steps` steps of each side in turn, after both are warm."""
    first, second = SIDES
    with Remote(first, case, work, threads) as ours, Remote(second, case, work, threads) as theirs:
        both = {first: ours, second: theirs}
        for remote in both.values():
            remote.ask("steps", warmup)
        seen: list[dict[str, Any]] = []
        for _ in range(rounds):
            seen.append({name: remote.ask("steps", steps) for name, remote in both.items()})
            seen[-1]["peak_flops"] = ours.ask("peak", work.num_tokens)
        site = (case.length, 0) if case.spec.site == "input" else (0, case.length)
        flops = ours.ask("needed", *site) * steps
        memory = {name: remote.ask("memory") for name, remote in both.items()}
    return summary(case, work, seen, memory, flops, steps)


def summary(
    case: Case, work: Work, seen: Sequence[dict[str, Any]], memory: dict[str, dict[str, int]], flops: float, steps: int
) -> dict[str, Any]:
    """Medians and quartiles over rounds; the ratio is taken round by round, so that what slows the machine slows both sides."""
    first, second = SIDES
    tokens = work.num_tokens * steps
    above = {name: facts["peak"] - facts["idle"] for name, facts in memory.items()}
    ratio = spread([one[second]["seconds"] / one[first]["seconds"] for one in seen])
    peak_share = memory[first]["peak"] / memory[second]["peak"]
    return {
        "asked": {"times_faster": case.faster, "peak_memory_share": case.memory},
        "met": ratio["median"] >= case.faster and (case.memory is None or peak_share <= case.memory),
        "tokens_per_second": {name: spread([tokens / one[name]["seconds"] for one in seen]) for name in SIDES},
        "times_faster": ratio,
        "times_less_cpu": spread([one[second]["cpu_seconds"] / one[first]["cpu_seconds"] for one in seen]),
        "memory": {name: {**facts, "above_idle": above[name]} for name, facts in memory.items()},
        "peak_memory_share": peak_share,
        "above_idle_share": above[first] / max(1, above[second]),
        "share_of_peak": spread([flops / one[first]["seconds"] / one["peak_flops"] for one in seen]),
        "peak_flops": spread([one["peak_flops"] for one in seen]),
        "needed_flops_per_step": flops / steps,
        "rounds": list(seen),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    low, lower, median, upper, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper, "least": low, "most": high}


def text_work(source: str, *, rows: int = BATCH, tokens: int = TOKENS, labels: int = LABELS) -> Work:
    """Real sentences one after another, cut into rows of equal length; numbers in turn for the random model, which knows no words."""
    if source == models.SMALL:
        ids = [3 + i % 1900 for i in range(rows * tokens)]
        return Work(tuple(tuple(ids[r * tokens : (r + 1) * tokens]) for r in range(rows)), labels)
    from foreword.demo.corpora import rotten_tomatoes

    reader = models.tokenizer(source)
    text = " ".join(example["text"] for example in rotten_tomatoes(train=0, valid=0, test=200).test)
    ids = reader(text, add_special_tokens=False)["input_ids"]
    first = [reader.bos_token_id] if reader.bos_token_id is not None else []
    size = tokens - len(first)
    return Work(tuple((*first, *ids[r * size : (r + 1) * size]) for r in range(rows)), labels)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/speed.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of both sides in turn (default 9)")
    parser.add_argument("--steps", type=int, default=2, help="steps of a side in a round (default 2)")
    parser.add_argument("--warmup", type=int, default=2, help="steps of each side before the first round (default 2)")
    parser.add_argument("--threads", type=int, default=worker_threads(), help="threads of each side (default: all cores)")
    parser.add_argument("--only", default="*", help="cases whose name matches this pattern (default *)")
    parser.add_argument("--out", type=Path, default=store.RESULTS / "speed.json", help="results file; cases measured again are replaced")
    args = parser.parse_args(argv)
    chosen = [case for case in CASES if fnmatch(case.name, args.only)]
    if not chosen:
        parser.error(f"no case matches '{args.only}'; the cases are: {'; '.join(case.name for case in CASES)}.")
    for case in chosen:
        print(f"{case.name} …", file=sys.stderr, flush=True)
        found = run(case, args.rounds, args.steps, args.warmup, args.threads)
        document = store.read(args.out)
        document.setdefault("cases", {})[case.name] = found
        store.write(args.out, document)
        print(line(case.name, found), flush=True)


def run(case: Case, rounds: int, steps: int, warmup: int, threads: int) -> dict[str, Any]:
    """One case with its setting and where it was measured."""
    source = gemma_folder() if case.model == GEMMA else case.model
    work = text_work(source)
    birth = provenance([0], threads)
    found = measure(replace(case, model=source), work, rounds=rounds, steps=steps, warmup=warmup, threads=threads)
    batch = {"batch_size": len(work.rows), "text_tokens": len(work.rows[0]), "labels_per_row": work.labels, "steps_per_round": steps}
    return {"case": asdict(case), "setting": batch, **found, "provenance": birth}


def gemma_folder() -> str:
    from foreword.demo.gemma import prepare

    return str(prepare())


def worker_threads() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def line(name: str, found: dict[str, Any]) -> str:
    ratio, speed = found["times_faster"], found["tokens_per_second"]
    return (
        f"{name}: {speed['foreword']['median']:.0f} against {speed['peft']['median']:.0f} tokens/s, "
        f"{ratio['median']:.2f} times ({ratio['least']:.2f} to {ratio['most']:.2f}), "
        f"{found['peak_memory_share']:.2f} of the peak memory, {found['share_of_peak']['median']:.0%} of the matrix-product peak"
    )


if __name__ == "__main__":
    main()
