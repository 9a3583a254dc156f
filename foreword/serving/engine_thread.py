"""The thread that runs the model: it accepts work between steps, loads tasks into memory, and sends events."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import final

from foreword.errors import CapacityError, ForewordError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.adapter_loader import AdapterLoader
from foreword.serving.engine_core import EngineCore
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.registry import Registry
from foreword.serving.request import Event, Failed, Request

Call = Callable[[], None]
Events = Sequence[tuple[str, Event]]


@final
class EngineThread:
    """Owns a core, which only functions given to `call_soon` may use. `on_events` gets the events of a step at once, with their requests' ids."""

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
        self._inbox: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._outbox: list[tuple[str, Event]] = []
        self._loading: set[AdapterKey] = set()
        self._ready: dict[AdapterKey, LoadedTask] = {}
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

    def call_soon(self, call: Call) -> None:
        """Call a function between two steps."""
        self._inbox.put(call)

    def add(self, request: Request, key: AdapterKey | None) -> None:
        self.call_soon(lambda: self.core.add(request, key, lambda event: self._outbox.append((request.id, event))))

    def _run(self) -> None:
        try:
            while self._run_calls():
                self._load_missing()
                if self.core.has_work:
                    self.core.step()
                self._send()
        except Exception as error:  # whatever the error, no caller may wait forever
            self.on_fault(f"the engine has stopped ({type(error).__name__}: {error}); restart it.")

    def _run_calls(self) -> bool:
        """Make the calls of other threads; wait for one if there is nothing else to do. False once the thread must stop."""
        idle = not self.core.has_work and not self._ready
        while True:
            try:
                call = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if call is None:
                self._send()
                return False
            call()
            idle = False

    def _load_missing(self) -> None:
        """Start reading the tasks that requests wait for, and install those that have been read and fit."""
        missing = self.core.scheduler.missing_tasks[: self.core.scheduler.max_sequences]
        self._ready = {key: task for key, task in self._ready.items() if key in missing}
        for key in missing:
            if key in self._ready:
                self._install(key)
            elif key not in self._loading:
                self._loading.add(key)
                self.loader.read(key).add_done_callback(lambda found, key=key: self.call_soon(lambda: self._loaded(key, found)))

    def _install(self, key: AdapterKey) -> None:
        try:
            self.core.install(self._ready[key])
        except CapacityError as error:
            if self.core.running:
                return  # it waits until others were evicted
            self.core.scheduler.waiting.fail(key, Failed("capacity", error.request_message))
        del self._ready[key]

    def _loaded(self, key: AdapterKey, found: Future[LoadedTask]) -> None:
        self._loading.discard(key)
        if found.cancelled():
            return
        error = found.exception()
        if error is None:
            task = found.result()
            self.core.scheduler.waiting.rename(key, task.key)
            self._ready[task.key] = task
            return
        message = (
            error.request_message
            if isinstance(error, ForewordError)
            else f"its adapter could not be read ({type(error).__name__}: {error})."
        )
        self.registry.mark_broken(key, message)
        self.core.scheduler.waiting.fail(key, Failed("task", message))

    def _send(self) -> None:
        """Send the events of a step together: waking the event loop costs more than a token."""
        if self._outbox:
            events, self._outbox = self._outbox, []
            self.on_events(events)
