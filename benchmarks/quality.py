"""Accuracy on real sentences, Foreword's defaults against PEFT's best of three rates: see benchmarks/README.md. Stop it at any time."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import models
import store
import torch
from provenance import provenance
from runs import Run, run_of, wanted
from trainers import Setting, run_one
from transformers.utils.logging import disable_progress_bar

from foreword.backbone.loading.load_model import wrap
from foreword.demo.corpora import Split, rotten_tomatoes
from foreword.tasks.data.reader import digest

SEEDS = (0, 1, 2)
Train = Callable[[Run], dict[str, Any]]
Wanted = Callable[[Sequence[dict[str, Any]]], Iterator[Run]]  # all runs, as those in the file tell


def describe(setting: Setting) -> dict[str, Any]:
    """What results must share to stand in one file."""
    plan = setting.plan(0)
    return {
        "data": {part: f"{len(rows)} examples, {digest(rows)}" for part, rows in setting.split._asdict().items()},
        "task": setting.task.to_dict(),
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "num_virtual_tokens": setting.length,
    }


def go_on(
    path: Path, setting: dict[str, Any], birth: dict[str, Any], train: Train, *, plan: Wanted, only: str, again: bool, minutes: float
) -> bool:
    """Do the runs that are missing, keeping each at once; False when the time ran out before the last. Raises ValueError for another setting's file."""
    begun, longest, redone = time.monotonic(), 0.0, set[Run]()
    while (run := missing(store.read(path).get("runs", []), plan, only, again, redone)) is not None:
        if time.monotonic() - begun + longest > 60 * minutes:
            return False
        print(f"{run.name} …", file=sys.stderr, flush=True)
        started = time.monotonic()
        result = train(run)
        longest = max(longest, time.monotonic() - started)
        redone.add(run)
        keep(path, setting, birth, run, result)
        print(f"{run.name}: valid {result['valid']['accuracy']['value']:.3f}, test {result['test']['accuracy']['value']:.3f}", flush=True)
    return True


def missing(found: Sequence[dict[str, Any]], plan: Wanted, only: str, again: bool, redone: set[Run]) -> Run | None:
    """The next run: the first that is asked for and not in the file, or, to do runs again, not done by this process."""
    done = redone if again else {run_of(one) for one in found}
    return next((run for run in plan(found) if fnmatch(run.name, only) and run not in done), None)


def keep(path: Path, setting: dict[str, Any], birth: dict[str, Any], run: Run, result: dict[str, Any]) -> None:
    """Add a result to the file, in place of an earlier one of the same run."""
    document = store.read(path)
    check(path, document, setting)
    sessions = document.get("sessions", [])
    if birth not in sessions:
        sessions.append(birth)
    runs = [one for one in document.get("runs", []) if run_of(one) != run]
    runs.append({**result, "session": sessions.index(birth)})
    store.write(path, {"setting": setting, "sessions": sessions, "runs": runs})


def check(path: Path, document: dict[str, Any], setting: dict[str, Any]) -> None:
    if document and document["setting"] != setting:
        raise ValueError(f"'{path.name}' holds runs of another setting (data, task or steps); give another --out, or move it away.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/quality.py", description=__doc__)
    parser.add_argument("--budget-minutes", type=float, default=float("inf"), help="begin no run that may end later than this")
    parser.add_argument("--only", default="*", help="runs whose name matches this pattern, such as 'foreword/*/seed0' (default *)")
    parser.add_argument("--again", action="store_true", help="do runs that are in the file again, replacing them")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads (default: as torch chooses)")
    parser.add_argument("--list", action="store_true", help="only print the runs, in order, and which are done")
    parser.add_argument("--fresh", action="store_true", help="evaluate on 2,000 other sentences, for differences smaller than 500 can show")
    parser.add_argument("--out", type=Path, help="results file to add to (default quality.json, with --fresh quality_fresh.json)")
    args = parser.parse_args(argv)
    args.out = args.out or store.RESULTS / ("quality_fresh.json" if args.fresh else "quality.json")
    swept = store.read(store.RESULTS / "quality.json").get("runs", []) if args.fresh else None
    plan = partial(wanted, seeds=SEEDS, swept=swept)
    if args.list:
        _list(store.read(args.out).get("runs", []), plan, args.only)
        return
    torch.set_num_threads(args.threads)
    disable_progress_bar()
    birth = provenance(SEEDS, args.threads)
    setting = gemma_setting(fresh=args.fresh)
    try:
        check(args.out, store.read(args.out), describe(setting))
    except ValueError as error:
        parser.error(str(error))
    model = wrap(models.network(setting.source), models.tokenizer(setting.source), name=setting.source)
    whole = go_on(
        args.out,
        describe(setting),
        birth,
        lambda run: run_one(run, setting, model),
        plan=plan,
        only=args.only,
        again=args.again,
        minutes=args.budget_minutes,
    )
    print("all runs are done" if whole else "time is up; the same command goes on with the next run", file=sys.stderr)


def gemma_setting(*, fresh: bool = False) -> Setting:
    from foreword.demo.gemma import prepare

    split = rotten_tomatoes(train=3200, valid=200, test=500)
    return Setting(str(prepare()), split._replace(test=fresh_sentences(split)) if fresh else split)


def fresh_sentences(split: Split) -> list[dict[str, str]]:
    """2,000 sentences that were used neither for training nor for choosing anything: behind the 1,000 on which defaults were chosen (LOG.md)."""
    texts = {example["text"] for part in split for example in part}
    rest = [example for example in rotten_tomatoes(train=7800, valid=0, test=500).train if example["text"] not in texts]
    return rest[1000:3000]


def _list(found: Sequence[dict[str, Any]], plan: Wanted, only: str) -> None:
    done = {run_of(one) for one in found}
    for run in plan(found):
        if fnmatch(run.name, only):
            print("done   " if run in done else "missing", run.name)


if __name__ == "__main__":
    main()
