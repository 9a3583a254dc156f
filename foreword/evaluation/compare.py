"""Methods × seeds on the same data, splits and budget: which runs are missing; each runs in its own process and is saved at once."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from foreword import errors
from foreword.errors import ModelError, UsageError
from foreword.evaluation.example_results import EXAMPLES
from foreword.evaluation.results_file import Results, Row
from foreword.evaluation.run_config import RunConfig
from foreword.evaluation.subprocess_pool import Job, Outcome, Work
from foreword.learning_rates import main_part, rate_of
from foreword.methods import WRITTEN
from foreword.recipe import Recipe
from foreword.shape import Kind

Event = dict[str, Any]
MOST_RATES = 9  # the factor between neighbouring rates
KEPT = ("done", "diverged")  # outcomes that a repetition would not change


@dataclass(frozen=True)
class Run:
    """One training; `rate` None is the method's own learning rate."""

    method: str
    seed: int
    rate: float | None = None

    @property
    def name(self) -> str:
        return f"{self.method}, seed {self.seed}" + ("" if self.rate is None else f", rate {self.rate:g}")

    @property
    def folder(self) -> str:
        rate = "" if self.rate is None else f"-rate-{self.rate:g}"
        return f"{self.method.replace('+', '_')}-seed-{self.seed}{rate}"

    @classmethod
    def of(cls, row: Row) -> Run:
        """The run a row belongs to."""
        return cls(row["method"], row["seed"], row["rate"])


def rates(recipe: Recipe, count: int, task: str, kind: Kind) -> list[float | None]:
    """The first `count` of: the method's own rate, 3 times it, a third, 9 times, a ninth …"""
    own = rate_of(main_part(recipe), task, kind)
    powers = [0, *(power for size in range(1, count) for power in (size, -size))][:count]
    return [None if power == 0 else float(f"{own * 3.0**power:.2g}") for power in powers]


@final
class Comparison:
    """The runs of `recipes` × `seeds`, all methods on one seed before the next. With `tune` > 1 every trained method is tried with as many rates
    on the first seed, and the one with the best validation score is used for all seeds."""

    def __init__(self, setting: RunConfig, recipes: Mapping[str, Recipe], seeds: int, out: Path, *, tune: int = 1) -> None:
        """Raises UsageError for values that are not valid, and for a folder with other contents."""
        if seeds < 1:
            raise UsageError(f"the number of seeds is {seeds}, but it must be at least 1; 3 or more show how far runs differ.")
        if not 1 <= tune <= MOST_RATES:
            raise UsageError(f"{tune} learning rates were asked for, but 1 to {MOST_RATES} can be tried; 3 is common.")
        self.setting, self.recipes, self.seeds, self.out, self.tune = setting, dict(recipes), seeds, out, tune
        self.results = Results(out)
        self.refused: dict[str, str] = {}
        self.kind: Kind = "causal"  # of the base model, after `look`
        self._tried: set[Run] = set()

    def look(self, work: Work) -> None:
        """Check the model, the data and every recipe before any run; raises ForewordError for errors of all methods, UsageError for a
        results file of another setting and when every method is refused."""
        recipes = {name: recipe.to_dict() for name, recipe in self.recipes.items()}
        job = {"do": "look", "setting": self.setting.to_dict(), "recipes": recipes, "written": list(WRITTEN)}
        found = work(job, lambda event: None)
        if found["status"] == "refused":
            raise getattr(errors, found["error"], UsageError)(found["reason"])
        if found["status"] != "done":
            raise ModelError(f"model '{self.setting.model}' could not be loaded in a new process ({found['reason'].rstrip('.')}).")
        self.refused, self.kind = dict(found["refused"]), found["kind"]
        self.results.bind(self.setting.facts() | found["facts"])
        self._check_recipes()
        self.check_any()

    def _check_recipes(self) -> None:
        """Raise UsageError if a method's earlier rows have other options."""
        for row in self.results.rows:
            recipe = self.recipes.get(row["method"])
            if recipe is not None and row["status"] in KEPT and row["recipe"] != json.loads(json.dumps(recipe.to_dict())):
                raise UsageError(
                    f"'{self.results.path}' holds runs of {row['method']} with other options; repeat the options of those runs, or give another --out."
                )

    def check_any(self) -> None:
        """Raise UsageError if every method is refused."""
        if set(self.refused) == set(self.recipes):
            reasons = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in self.refused.items())
            raise UsageError(f"no method of {', '.join(self.recipes)} can do this ({reasons}).")

    def missing(self) -> list[Run]:
        """Runs still to be done, in order; with tuning, those of further seeds appear once the first seed's are done."""
        done = self._done()
        return [run for run in self._wanted(done) if run not in done and run not in self._tried]

    def total(self) -> int:
        """How many runs there are in all."""
        several = [name for name in self.recipes if name not in self.refused]
        return sum(len(self._trials(name)) + (self.seeds - 1) * (not self._fixed(name)) for name in several)

    def finished(self) -> int:
        """How many of them are done, in this process or an earlier one."""
        done = self._done()
        return sum(run in done or run in self._tried for run in self._wanted(done))

    def rows(self) -> list[Row]:
        """The rows that count: of the chosen rate where several were tried, and one for each method that is refused."""
        done = self._done()
        found = [done[run] for run in self._wanted(done) if run in done and run in self._counted(done)]
        failed = [
            row for row in self.results.rows if row["status"] == "failed" and row["method"] in self.recipes and row["seed"] < self.seeds
        ]
        return found + failed + [self._row(Run(name, 0), {"status": "refused", "reason": why}) for name, why in self.refused.items()]

    def go_on(self, work: Work, listener: Callable[[Run, Event], None], *, minutes: float = math.inf) -> bool:
        """Do the missing runs and save each at once; False if the time limit would end before the next run, estimated by the longest one."""
        begun, longest = time.monotonic(), 0.0
        while missing := self.missing():
            if time.monotonic() - begun + longest > 60 * minutes:
                return False
            run, started = missing[0], time.monotonic()
            listener(run, {"event": "begin"})
            outcome = work(self._job(run), lambda event, run=run: listener(run, event))
            longest = max(longest, time.monotonic() - started)
            self._keep(run, outcome)
            listener(run, {**outcome, "event": "outcome"})
        self.check_any()
        return True

    def _keep(self, run: Run, outcome: Outcome) -> None:
        self._tried.add(run)
        if outcome["status"] == "refused":
            self.refused[run.method] = outcome["reason"]
            return
        self.results.keep(self._row(run, outcome), asdict(run))

    def _row(self, run: Run, outcome: Outcome) -> Row:
        """A run as a row of the results."""
        kept = {key: value for key, value in outcome.items() if key not in ("event", "error")}
        named = {"method": run.method, "task": self.setting.task["kind"], "model": self.setting.model, "seed": run.seed, "rate": run.rate}
        return {"adapter": None, "examples": None, **named, "recipe": self.recipes[run.method].to_dict(), "scores": {}, **kept}

    def _job(self, run: Run) -> Job:
        return {
            "do": "run",
            "setting": self.setting.to_dict(),
            "recipe": self.recipes[run.method].to_dict(),
            "written": run.method in WRITTEN,
            "seed": run.seed,
            "rate": run.rate,
            "adapter": str(self.out / run.folder),
            "examples": str(self.out / EXAMPLES / f"{run.folder}.jsonl"),
        }

    def _done(self) -> dict[Run, Row]:
        return {Run.of(row): row for row in self.results.rows if row["status"] in KEPT and row["method"] in self.recipes}

    def _fixed(self, method: str) -> bool:
        """Whether every seed gives the same result: a written prompt without examples."""
        return method in WRITTEN and not self.recipes[method].shots

    def _trials(self, method: str) -> list[Run]:
        """The runs of the first seed."""
        return [Run(method, 0, rate) for rate in ([None] if method in WRITTEN else self._rates(method))]

    def _rates(self, method: str) -> list[float | None]:
        return rates(self.recipes[method], self.tune, self.setting.task["kind"], self.kind)

    def _chosen(self, method: str, done: Mapping[Run, Row]) -> Run | None:
        """The trial with the best validation score, the earlier of two alike; None while one is missing."""
        trials = self._trials(method)
        if not all(run in done for run in trials):
            return None
        return max(trials, key=lambda run: _monitor(done[run]))

    def _counted(self, done: Mapping[Run, Row]) -> set[Run]:
        chosen = {name: self._chosen(name, done) for name in self.recipes}
        return {run for run in done if (best := chosen[run.method]) is not None and run.rate == best.rate and run.seed < self.seeds}

    def _wanted(self, done: Mapping[Run, Row]) -> Iterator[Run]:
        able = [name for name in self.recipes if name not in self.refused]
        for name in able:
            yield from self._trials(name)
        for seed in range(1, self.seeds):
            for name in able:
                if not self._fixed(name) and (best := self._chosen(name, done)):
                    yield Run(name, seed, best.rate)


def _monitor(row: Row) -> float:
    value = row.get("monitor")
    return -math.inf if value is None else float(value)
