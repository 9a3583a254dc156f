"""Prometheus metrics: counters and times by task, and the state of the engine at the moment of reading. Each server has its own registry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from foreword.server.admission import Admission
from foreword.serving.engine import Engine
from foreword.serving.request import Answer, Event, Failed, PromptLogprobs, Token

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # few: every task has its own
BETWEEN = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
Metered = Counter | Histogram


@final
class Metrics:
    """All metrics; `task` is a known task or the base model, never an arbitrary name from a client."""

    def __init__(self, engine: Engine, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        made = {"labelnames": ("task",), "namespace": "foreword", "registry": self.registry}
        self.requests = Counter("requests", "Answers by outcome.", ("task", "outcome"), namespace="foreword", registry=self.registry)
        self.prompt_tokens = Counter("prompt_tokens", "Prompt tokens processed, without virtual tokens.", **made)
        self.completion_tokens = Counter("completion_tokens", "Generated tokens.", **made)
        self.first = Histogram(
            "time_to_first_token_seconds", "Time from a request to its first token, or to its whole answer.", buckets=SECONDS, **made
        )
        self.between = Histogram("inter_token_latency_seconds", "Time from one token to the next.", buckets=BETWEEN, **made)
        self.whole = Histogram("e2e_request_latency_seconds", "Time from a request to the end of its answer.", buckets=SECONDS, **made)
        self.queue = Histogram("request_queue_time_seconds", "Time from a request to its first step.", buckets=SECONDS, **made)
        self.http = Counter("http_responses", "Responses.", ("path", "status"), namespace="foreword", registry=self.registry)
        self.registry.register(EngineCollector(engine, admission))
        ProcessCollector(registry=self.registry)

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


@final
class EngineCollector(Collector):
    """The state of the engine at the moment of reading."""

    def __init__(self, engine: Engine, admission: Admission) -> None:
        self._engine, self._admission = engine, admission

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats()
        gauges = {
            "num_requests_running": ("Sequences in generation.", stats.running),
            "num_requests_waiting": ("Requests that wait for a slot, or for their task.", stats.waiting),
            "queued_answers": ("Answers that have not started.", self._admission.waiting),
            "queued_tokens": ("Tokens in the texts of answers that have not started.", self._admission.waiting_tokens),
            "tasks": ("Tasks in the store.", stats.tasks),
            "tasks_resident": ("Tasks in memory.", stats.resident),
            "prefix_bytes": ("Bytes used by prefixes.", stats.prefix_bytes),
            "memory_budget_bytes": ("Maximum number of bytes for tasks, cached texts and running answers together.", stats.memory_budget),
            "memory_bytes": ("Bytes in use of the memory budget.", stats.memory_bytes),
            "healthy": ("1 while the engine accepts requests.", int(self._engine.healthy)),
        }
        counters = {
            "steps": ("Engine steps.", stats.steps_total),
            "task_loads": ("Tasks loaded into memory.", stats.loads_total),
            "task_evictions": ("Tasks evicted from memory.", stats.evictions_total),
            "preemptions": ("Running answers that gave up their memory and were computed again.", stats.preemptions_total),
        }
        for name, (help, value) in gauges.items():
            yield GaugeMetricFamily(f"foreword_{name}", help, value=value)
        for name, (help, value) in counters.items():
            yield CounterMetricFamily(f"foreword_{name}", help, value=value)
        by_task = GaugeMetricFamily("foreword_num_requests_by_task", "Requests in the engine by task.", labels=["task"])
        for task, count in stats.by_task.items():
            by_task.add_metric([task], count)
        yield by_task


@final
@dataclass
class RequestTimer:
    """The times of one answer."""

    metrics: Metrics
    task: str
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    last: float | None = None

    def __post_init__(self) -> None:
        self.began = self.clock()

    def observe(self, event: Event) -> None:
        """Record the time of an event."""
        if isinstance(event, PromptLogprobs):
            return
        now = self.clock()
        if isinstance(event, Token | Answer):
            if self.last is None:
                self.metrics.first.labels(self.task).observe(now - self.began)
            elif isinstance(event, Token):
                self.metrics.between.labels(self.task).observe(now - self.last)
            self.last = now
            return
        outcome = f"refused_{event.kind}" if isinstance(event, Failed) else event.reason
        self.metrics.requests.labels(self.task, outcome).inc()
        self.metrics.whole.labels(self.task).observe(now - self.began)
        if not isinstance(event, Failed):
            self.metrics.prompt_tokens.labels(self.task).inc(event.prompt_tokens)
            self.metrics.completion_tokens.labels(self.task).inc(event.completion_tokens)
            if event.waited is not None:
                self.metrics.queue.labels(self.task).observe(event.waited)
