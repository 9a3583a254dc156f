"""Load test of a server: requests in a closed loop or at Poisson times, and the latency of each answer."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from foreword.errors import ServingError
from foreword.task_kinds import find_kind

if TYPE_CHECKING:
    from foreword.cli.support.client import Client

PERCENTILES = (50, 90, 99)
Body = dict[str, Any]


@dataclass
class RequestTimes:
    """One request, in seconds: to the first token, between tokens, to the end; from the time it was due. `problem` if it failed."""

    whole: float = 0.0
    first: float | None = None
    between: list[float] = field(default_factory=list)
    tokens: int = 0
    problem: str | None = None


def arrival_times(many: int, rate: float | None, seed: int) -> list[float]:
    """When each request is due: Poisson arrivals, `rate` a second on average; all at once without a rate."""
    drawn, now, found = random.Random(seed), 0.0, list[float]()
    for _ in range(many):
        now += drawn.expovariate(rate) if rate else 0.0
        found.append(now)
    return found


def send_requests(
    client: Client, asks: Sequence[tuple[str, Body]], dues: Sequence[float], at_once: int, tick: Callable[[int], None]
) -> tuple[list[RequestTimes], float]:
    """Send all, (kind, body) each when due and at most `at_once` together; the times of each, and seconds from the first to the last.

    With a rate, the wait for a free connection counts: a slow server must not reduce its own load.
    """
    stop = threading.Event()
    begun = time.perf_counter()
    closed = dues[-1] == 0

    def one(ask: tuple[str, Body], due: float) -> RequestTimes:
        stop.wait(max(0.0, begun + due - time.perf_counter()))
        if stop.is_set():
            return RequestTimes(problem="stopped")
        times = _ask(client, *ask, time.perf_counter() if closed else begun + due)
        tick(1)
        return times

    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(one, ask, due) for ask, due in zip(asks, dues, strict=True)]
        try:
            found = [each.result() for each in waiting]
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found, time.perf_counter() - begun


def _ask(client: Client, kind: str, body: Body, due: float) -> RequestTimes:
    times = RequestTimes()
    try:
        if find_kind(kind).answers == "text":
            last = due
            for event in client.events("/v1/completions", body | {"stream": True, "stream_options": {"include_usage": True}}):
                if event.get("usage"):
                    times.tokens = event["usage"]["completion_tokens"]
                if any(choice["text"] for choice in event["choices"]):
                    now = time.perf_counter()
                    if times.first is None:
                        times.first = now - due
                    else:
                        times.between.append(now - last)
                    last = now
        else:
            item = client.post("/v1/batch", body)["data"][0]
            times.problem = item["error"]["message"] if "error" in item else None
    except ServingError as error:
        times.problem = str(error)
    times.whole = time.perf_counter() - due
    return times


def summary(times: Sequence[RequestTimes], seconds: float) -> dict[str, Any]:
    """Throughput, and percentiles of the times in seconds; None where there are none."""
    good = [each for each in times if each.problem is None]
    problems: dict[str, int] = {}
    for each in times:
        if each.problem is not None:
            problems[each.problem] = problems.get(each.problem, 0) + 1
    return {
        "requests": len(times),
        "failed": len(times) - len(good),
        "seconds": seconds,
        "requests_per_second": len(good) / seconds,
        "tokens_per_second": sum(each.tokens for each in good) / seconds,
        "first_token": percentiles([each.first for each in good if each.first is not None]),
        "between_tokens": percentiles([wait for each in good for wait in each.between]),
        "whole_answer": percentiles([each.whole for each in good]),
        "problems": problems,
    }


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """`p50`, `p90`, `p99`; None of nothing."""
    if not values:
        return None
    import numpy as np

    return {f"p{share}": float(np.percentile(values, share)) for share in PERCENTILES}
