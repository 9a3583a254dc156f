"""The thread that runs the model: it accepts work between steps, loads tasks into memory, and sends events."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar, final

from foreword.errors import CapacityError, ForewordError, ServingError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.adapter_loader import AdapterLoader
from foreword.serving.engine_core import EngineCore
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.registry import Registry
from foreword.serving.request import END, Done, Event, Failed, Request

Events = Sequence[tuple[str, Event]]
Result = TypeVar("Result")

STOPPED = "the engine is closed and accepts no more requests; use a new one."
_LOG = logging.getLogger("foreword")


@dataclass(frozen=True)
class Counts:
    """What the core counts at one moment. The thread makes a new one after its work, so that others never read what it changes."""

    running: int = 0
    waiting: int = 0
    resident: int = 0
    prefix_bytes: int = 0
    memory_bytes: int = 0
    free_bytes: int = 0  # with what can be evicted
    steps: int = 0
    evictions: int = 0
    preemptions: int = 0
    by_task: dict[str, int] = field(default_factory=dict)


@final
class EngineThread:
    """Owns a core, which only functions given to `call` may use. `on_events` gets the events of a step at once, with their requests' ids.

    Every request gets exactly one END, and the future of every call is done, whatever fails and whenever the thread ends.
    An error fails the requests concerned; the thread ends, and `on_fault` says why, only if the core is no longer whole after it.
    """

    def __init__(
        self,
        core: EngineCore,
        loader: AdapterLoader,
        registry: Registry,
        on_events: Callable[[Events], None],
        on_fault: Callable[[str], None],
    ) -> None:
        self.core, self.loader, self.registry = core, loader, registry
        self.on_events, self.on_fault = on_events, on_fault
        self.counts = Counts()
        self._inbox: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._outbox: list[tuple[str, Event]] = []
        self._open: set[str] = set()  # requests without an END
        self.installing: dict[AdapterKey, int] = {}  # bytes of tasks that will be in memory before the next step
        self._loading: set[AdapterKey] = set()
        self._ready: dict[AdapterKey, LoadedTask] = {}
        self._failed_before = False  # whether the step before this one failed as a whole
        self.ended: str | None = None  # why no more calls are taken
        self._end_lock = threading.Lock()  # a call comes before the end, or is answered with it; also for `installing`
        self._thread = threading.Thread(target=self._run, name="foreword-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop after the calls that were given before."""
        self._inbox.put(None)
        self._thread.join()

    def call(self, work: Callable[[], Result]) -> Future[Result]:
        """Call a function between two steps. The future has its result or its error, ServingError where the thread has ended before."""
        done: Future[Result] = Future()
        done.set_running_or_notify_cancel()  # it cannot be taken back
        with self._end_lock:
            if self.ended is None:
                self._inbox.put((done, work))
                return done
        done.set_exception(ServingError(self.ended))
        return done

    def add(self, request: Request, key: AdapterKey | None) -> None:
        """Add a request; its events come from now on. A structure that it asks for is compiled elsewhere first, which may take seconds."""
        if request.sampling.structured:
            self.call(lambda: self._open.add(request.id))
            prepared = self.core.input_processor.structured_output.prepare(request.sampling)
            prepared.add_done_callback(lambda _: self._add(request, key, prepared=True))
        else:
            self._add(request, key)

    def _add(self, request: Request, key: AdapterKey | None, *, prepared: bool = False) -> None:
        def work() -> None:
            if prepared and request.id not in self._open:
                return  # cancelled meanwhile
            self._open.add(request.id)
            try:
                self.core.add(request, key, lambda event: self._emit(request.id, event))
            except Exception as error:
                self._emit(request.id, Failed("engine", f"the request was not taken ({describe(error)})."))
                raise

        self.call(work)

    def cancel(self, request_id: str) -> None:
        """End a request; its place is free before the next step."""

        def work() -> None:
            try:
                self.core.cancel(request_id)
                self._emit(request_id, Done("cancelled", 0, 0))  # if it has not ended: it was not yet added
            except Exception as error:
                self._emit(request_id, Failed("engine", f"the request was not cancelled ({describe(error)})."))
                raise

        self.call(work)

    def install(self, task: LoadedTask, *, pinned: bool = False) -> Future[bool]:
        """Install a task; False if it must wait until running requests have ended. The future's error is CapacityError if that would not help."""
        with self._end_lock:
            self.installing[task.key] = task.num_bytes

        def work() -> bool:
            try:
                self.core.install(task, pinned=pinned)
            except CapacityError:
                if not self.core.running:
                    raise
                return False
            finally:
                self._count()  # before, so that no byte is forgotten in between
                with self._end_lock:
                    self.installing.pop(task.key, None)
            return True

        return self.call(work)

    def has_room(self, num_bytes: int) -> bool:
        """Whether so many bytes fit beside what is in use, and the tasks being installed."""
        with self._end_lock:
            return sum(self.installing.values()) + num_bytes <= self.counts.free_bytes

    def _run(self) -> None:
        problem = STOPPED
        try:
            while self._run_calls():
                self._load_missing()
                if self.core.has_work:
                    self._step()
                self._publish()
        except BaseException as error:  # whatever the error, no caller may wait forever
            problem = f"the engine has stopped ({describe(error)}); restart it."
            _LOG.exception("the engine has stopped")
        self._end(problem)
        if problem is not STOPPED:
            self.on_fault(problem)

    def _end(self, problem: str) -> None:
        """Answer all calls that came too late, and whoever waits for a read."""
        with self._end_lock:
            self.ended = problem
        self.loader.stop(problem)
        while not self._inbox.empty():
            if (entry := self._inbox.get()) is not None:
                entry[0].set_exception(ServingError(problem))

    def _run_calls(self) -> bool:
        """Make the calls of other threads; wait for one if there is nothing else to do. False once the thread must stop."""
        idle = not self.core.has_work and not self._ready
        while True:
            try:
                entry = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if entry is None:
                self._publish()
                return False
            self._make(*entry)
            idle = False

    def _make(self, done: Future[Any], work: Callable[[], Any]) -> None:
        """Make one call, whose error is its caller's."""
        try:
            found = work()
        except ForewordError as error:
            done.set_exception(error)
        except BaseException as error:
            done.set_exception(error)
            self._survive(error)
        else:
            self._count()  # whoever waits for the call sees what it did
            done.set_result(found)

    def _step(self) -> None:
        """Run one step. The core fails what one request does wrong; an error that leaves it fails all that had begun, and a second one in a row ends the thread."""
        try:
            self.core.step()
            self._failed_before = False
        except Exception as error:
            if self._failed_before:
                raise
            self._failed_before = True
            waiting = {entry.request.id for entry in self.core.scheduler.waiting}
            for request_id in self._open - waiting:
                self._emit(request_id, Failed("engine", f"the step failed ({describe(error)})."))
                self.core.cancel(request_id)
            self._survive(error)

    def _survive(self, error: BaseException) -> None:
        """Go on after an error, unless it was no Exception or the core is not whole."""
        if not isinstance(error, Exception):
            raise error
        _LOG.warning("the engine goes on after an error", exc_info=error)
        self.core.check()

    def _load_missing(self) -> None:
        """Start reading the tasks that requests wait for, and install those that have been read and fit."""
        missing = self.core.scheduler.missing_tasks[: self.core.scheduler.max_sequences]
        self._ready = {key: task for key, task in self._ready.items() if key in missing}
        for key in missing:
            if key in self._ready:
                self._install(key)
            elif key not in self._loading:
                self._loading.add(key)
                self.loader.read(key).add_done_callback(lambda found, key=key: self.call(lambda: self._loaded(key, found)) and None)

    def _install(self, key: AdapterKey) -> None:
        try:
            self.core.install(self._ready[key])
        except CapacityError as error:
            if self.core.running:
                return  # it waits until others were evicted
            self.core.scheduler.waiting.fail(key, Failed("capacity", error.request_message))
        except Exception as error:
            self.core.scheduler.waiting.fail(key, Failed("engine", f"the task '{key.task}' was not loaded ({describe(error)})."))
            self._survive(error)
        del self._ready[key]

    def _loaded(self, key: AdapterKey, found: Future[LoadedTask]) -> None:
        self._loading.discard(key)
        error = found.exception()
        if error is None:
            task = found.result()
            self.core.scheduler.waiting.rename(key, task.key)
            self._ready[task.key] = task
        elif isinstance(error, ServingError):  # the engine's trouble, which may pass
            kind = "capacity" if isinstance(error, CapacityError) else "engine"
            self.core.scheduler.waiting.fail(key, Failed(kind, error.request_message))
        else:
            message = error.request_message if isinstance(error, ForewordError) else str(error)
            self.registry.mark_broken(key, message)
            self.core.scheduler.waiting.fail(key, Failed("task", message))

    def _emit(self, request_id: str, event: Event) -> None:
        if request_id in self._open:
            self._outbox.append((request_id, event))
            if isinstance(event, END):
                self._open.discard(request_id)

    def _publish(self) -> None:
        """Send the events of a step together, as waking the event loop costs more than a token, after what was counted."""
        self._count()
        if self._outbox:
            events, self._outbox = self._outbox, []
            self.on_events(events)

    def _count(self) -> None:
        core, running, budget = self.core, self.core.running, self.core.kv.budget
        self.counts = Counts(
            running=len(running),
            waiting=len(core.scheduler.waiting),
            resident=len(core.adapters.tasks),
            prefix_bytes=core.adapters.cache.num_bytes,
            memory_bytes=budget.used,
            free_bytes=budget.total - budget.used + sum(each.evictable() for each in budget.evictors),
            steps=core.num_steps,
            evictions=core.adapters.num_evictions,
            preemptions=core.scheduler.num_preemptions,
            by_task=dict(Counter(request.task or core.model.name for request in running)),
        )


def describe(error: BaseException) -> str:
    """An error's type and text, for a message."""
    return f"{type(error).__name__}: {error}"
