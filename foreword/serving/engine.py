"""What every engine can do, however it runs: requests in, events out, tasks by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from foreword.backbone.model_info import ModelInfo
from foreword.serving.request import Event, Request

TaskState = Literal["known", "loading", "resident", "broken"]


@dataclass(frozen=True)
class TaskCard:
    """A task an engine knows: `kind` of its task, `columns` it reads, `digest` of its newest version, where it comes from and what went wrong."""

    name: str
    kind: str
    base: str
    root: str
    state: TaskState
    columns: tuple[str, ...] = ()
    digest: str = ""
    num_bytes: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Stats:
    """An engine at one moment; counts since it began are named `num_…_total`."""

    running: int
    waiting: int
    tasks: int
    resident: int
    prefix_bytes: int
    prefix_budget: int
    steps_total: int
    loads_total: int
    evictions_total: int
    by_task: dict[str, int] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """Submits requests and keeps tasks; safe to call from one event loop while the engine works elsewhere."""

    @property
    def info(self) -> ModelInfo:
        """The base model, wherever its weights are."""
        ...

    async def start(self) -> None:
        """Begin to take requests; nothing happens where the engine runs already. Raises AdapterError where its tasks cannot be read."""
        ...

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more requests, let those under way end for so long, cancel the rest, and stop. May be called again, and before `start`."""
        ...

    def submit(self, request: Request) -> AsyncIterator[Event]:
        """The events of a request, which begins now; leaving the iteration early cancels it."""
        ...

    def cancel(self, request_id: str) -> None:
        """End a request."""
        ...

    async def load(self, name: str, *, pinned: bool = False) -> TaskCard:
        """Have a task ready in memory, to stay there if pinned; its newest version if the store has another now.

        Raises AdapterError for what cannot be read, CapacityError where there is no room.
        """
        ...

    async def unload(self, name: str) -> None:
        """Forget a task's memory; requests under way end first. Raises AdapterError for an unknown name."""
        ...

    def tasks(self) -> Sequence[TaskCard]:
        """All tasks, by name."""
        ...

    def card(self, name: str) -> TaskCard | None:
        """One task as it stands now, None for a name that the engine does not know. Asked for every request, so never slow."""
        ...

    def stats(self) -> Stats:
        """What is going on."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether the engine takes requests."""
        ...
