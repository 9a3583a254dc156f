"""From one row per run to one line per method: means over seeds with their errors, sorted by quality."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

from foreword.errors import UsageError

Row = Mapping[str, Any]
LOWER = ("loss", "mae", "mse", "rmse")  # metrics for which lower is better


@dataclass(frozen=True)
class Estimate:
    """A metric of a method: `value` is the mean over its runs, one per seed.

    `test_stderr` is the standard error from the size of the test set, √(mean of the runs' squared standard errors): all seeds answer the same
    examples, so more seeds do not make it smaller. `spread` is the standard deviation between seeds, None for one run. `stderr`, the ± of the
    table, holds both: √(test_stderr² + spread² / seeds), the uncertainty about the mean on fresh examples after training with fresh seeds.
    """

    value: float
    stderr: float
    test_stderr: float
    spread: float | None
    n: int
    seeds: int


@final
@dataclass(frozen=True)
class Line:
    """A method: its estimates by metric, its costs as means over seeds (`peak_memory` the highest), and what went wrong, if anything.

    `latency` has the median ratio over runs and the widest quartiles. `rate` is the learning rate chosen, None for the method's own.
    """

    method: str
    scores: dict[str, Estimate]
    runs: int = 0
    diverged: int = 0
    failed: int = 0
    reason: str | None = None
    rate: float | None = None
    num_parameters: int | None = None
    num_trained: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    peak_memory: int | None = None
    latency: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(scores: Sequence[Mapping[str, Any]]) -> Estimate | None:
    """One metric over runs; None if no run has a value, or one of them has none."""
    values = [score["value"] for score in scores]
    if not values or None in values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    test = math.sqrt(statistics.fmean([(score["stderr"] or 0.0) ** 2 for score in scores]))
    return Estimate(
        value=statistics.fmean(values),
        stderr=math.hypot(test, (spread or 0.0) / math.sqrt(len(values))),
        test_stderr=test,
        spread=spread,
        n=scores[0]["n"],
        seeds=len(values),
    )


def lines(rows: Sequence[Row], metric: str) -> list[Line]:
    """One line per method, the best first; methods without a score stand last, in the order given."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = [_line(method, [row for row in rows if row["method"] == method]) for method in methods]
    sign = 1 if metric in LOWER else -1
    return sorted(found, key=lambda line: sign * line.scores[metric].value if metric in line.scores else math.inf)


def check_metric(rows: Sequence[Row], metric: str) -> None:
    """Raise UsageError for a metric that no row has, once there are scores."""
    known = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    if known and metric not in known:
        raise UsageError(f"metric '{metric}' is not among {', '.join(known)}; choose one of them.")


def _line(method: str, rows: Sequence[Row]) -> Line:
    done = [row for row in rows if row["status"] == "done"]
    names = list(dict.fromkeys(name for row in done for name in row["scores"]))
    estimates = {name: estimate([row["scores"][name] for row in done if name in row["scores"]]) for name in names}
    return Line(
        method=method,
        scores={name: one for name, one in estimates.items() if one is not None},
        runs=len(done),
        diverged=sum(row["status"] == "diverged" for row in rows),
        failed=sum(row["status"] == "failed" for row in rows),
        reason=next((row["reason"] for row in rows if row.get("reason")), None),
        rate=rows[0]["rate"],
        **_costs(done),
    )


def _costs(done: Sequence[Row]) -> dict[str, Any]:
    """The costs of a method's runs; empty if none finished."""
    if not done:
        return {}
    first, peaks = done[0], [row["peak_memory"] for row in done if row["peak_memory"] is not None]
    times = [row["latency"] for row in done]
    return {
        "num_parameters": first["num_parameters"],
        "num_trained": first["num_trained"],
        "bytes": round(statistics.fmean(row["bytes"] for row in done)),
        "seconds": statistics.fmean(row["seconds"] for row in done),
        "peak_memory": max(peaks, default=None),
        "latency": {
            "ratio": statistics.median(one["ratio"] for one in times),
            "low": min(one["low"] for one in times),
            "high": max(one["high"] for one in times),
        },
    }
