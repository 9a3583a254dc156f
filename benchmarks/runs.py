"""Which training runs the quality benchmark needs, in the order in which they say most, and which of them are still missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foreword.methods import METHODS

Found = Sequence[dict[str, Any]]

# PEFT's variant of a method, the one that starts from our text where PEFT can, and the absolute rates it is tried with: those of PEFT's own examples
# and published comparison (1e-3 to 3e-2 on embeddings, and on keys and values), the papers' through an encoder (1e-4 P-tuning, 5e-5 prefix
# tuning) and larger ones, as 200 steps are few.
RATES: dict[str, dict[str, tuple[float, ...]]] = {
    "prompt-tuning": {"text": (1e-3, 1e-2, 3e-2)},
    "p-tuning": {"mlp": (1e-4, 1e-3, 1e-2)},
    "prefix-tuning": {"projection": (5e-5, 5e-4, 5e-3)},
    "p-tuning-v2": {"text": (1e-3, 1e-2, 3e-2)},
}
LIKELY = (1, 0, 2)  # the middle rate first


@dataclass(frozen=True)
class Run:
    """One training: Foreword's have no rate, as its defaults are what is measured."""

    system: str
    method: str
    variant: str
    rate: float | None
    seed: int

    @property
    def name(self) -> str:
        rate = "default" if self.rate is None else f"{self.rate:g}"
        return f"{self.system}/{self.method}/{self.variant}/{rate}/seed{self.seed}"


def run_of(found: dict[str, Any]) -> Run:
    """The run a result belongs to."""
    return Run(**{name: found[name] for name in asdict(Run("", "", "", None, 0))})


def sweep(method: str, seed: int) -> list[Run]:
    """Every PEFT variant of a method at every rate, the likeliest rate first."""
    return [Run("peft", method, variant, rates[i], seed) for i in LIKELY for variant, rates in RATES[method].items()]


def best(found: Found, method: str, seed: int) -> Run | None:
    """PEFT's best variant and rate on the first seed, by what chooses our best prompt too; None until all of its sweep has been run."""
    results = {run_of(one): one for one in found}
    tried = sweep(method, seed)
    if not all(run in results for run in tried):
        return None
    values = {run: results[run]["monitor"] for run in tried}
    return max(tried, key=lambda run: values[run] if math.isfinite(values[run]) else -math.inf)  # a diverged run may have no number


def wanted(found: Found, seeds: Sequence[int], swept: Found | None = None) -> Iterator[Run]:
    """All runs, the methods in turn: ours on the first seed, PEFT's rates on it, then the other seeds of ours and of PEFT's best.

    With `swept`, the runs of another file, its rates are not tried again: ours and PEFT's best there on every seed.
    """
    first = seeds[0]
    if swept is None:
        yield from (Run("foreword", method, "default", None, first) for method in METHODS)
        yield from (run for turn in zip(*(sweep(method, first) for method in METHODS), strict=True) for run in turn)
    for seed in seeds[1:] if swept is None else seeds:
        for method in METHODS:
            yield Run("foreword", method, "default", None, seed)
            if chosen := best(found if swept is None else swept, method, first):
                yield Run("peft", method, chosen.variant, chosen.rate, seed)
