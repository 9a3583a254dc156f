"""The interface of all engines: requests in, events out, tasks by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from foreword.backbone.model_info import ModelInfo
from foreword.serving.request import Event, Request
from foreword.task_kinds import CONVERSATIONS

TaskState = Literal["known", "loading", "resident", "broken"]


@dataclass(frozen=True)
class TaskCard:
    """A task of an engine: its `kind`, the `columns` it reads, the `digest` of its newest version, its source and its problem, if any, and how it reads a `conversation`."""

    name: str
    kind: str
    base: str
    root: str
    state: TaskState
    columns: tuple[str, ...] = ()
    digest: str = ""
    num_bytes: int = 0
    problem: str | None = None
    conversation: str = CONVERSATIONS[0]


@dataclass(frozen=True)
class Stats:
    """An engine at one moment; counts since it began are named `num_…_total`."""

    running: int
    waiting: int
    tasks: int
    resident: int
    prefix_bytes: int
    memory_bytes: int
    memory_budget: int
    steps_total: int
    loads_total: int
    evictions_total: int
    preemptions_total: int
    scan_failures_total: int = 0
    by_task: dict[str, int] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """Submits requests and keeps tasks; safe to call from one event loop while the engine works elsewhere."""

    @property
    def info(self) -> ModelInfo:
        """The base model without its weights."""
        ...

    async def start(self) -> None:
        """Begin to accept requests; does nothing if the engine is running. Raises AdapterError where its tasks cannot be read."""
        ...

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Accept no more requests, wait for running ones up to `drain_seconds`, cancel the rest, and stop. May be called again, and before `start`."""
        ...

    def submit(self, request: Request) -> AsyncIterator[Event]:
        """The events of a request, which begins now; leaving the iteration early cancels it."""
        ...

    def cancel(self, request_id: str) -> None:
        """End a request."""
        ...

    async def load(self, name: str, *, pinned: bool = False) -> TaskCard:
        """Load a task into memory, to stay there if pinned; its newest version, if the store has a new one.

        Raises AdapterError for adapters that cannot be read, CapacityError if the budget is in use.
        """
        ...

    async def unload(self, name: str) -> None:
        """Remove a task from memory; its running requests finish first. Raises AdapterError for an unknown name."""
        ...

    def tasks(self) -> Sequence[TaskCard]:
        """All tasks, by name."""
        ...

    def card(self, name: str) -> TaskCard | None:
        """The present state of one task, None for an unknown name. Called for every request, so it must be fast."""
        ...

    def stats(self) -> Stats:
        """The present counts."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether the engine accepts requests."""
        ...
