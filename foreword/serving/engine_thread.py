"""The thread that runs the model: it takes work in between steps, brings tasks into memory, and hands events over."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import final

from foreword.errors import CapacityError, ForewordError
from foreword.serving.adapter_cache import Key
from foreword.serving.adapter_loader import Loader
from foreword.serving.engine_core import EngineCore
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.registry import Registry
from foreword.serving.request import Event, Failed, Request

Work = Callable[[], None]
Events = Sequence[tuple[str, Event]]


@final
class EngineThread:
    """Owns a core: nothing else may touch it but what was given to `tell`. `deliver` gets the events of a step at once, with their requests' ids."""

    def __init__(
        self, core: EngineCore, loader: Loader, registry: Registry, deliver: Callable[[Events], None], broken: Callable[[str], None]
    ) -> None:
        self.core, self.loader, self.registry = core, loader, registry
        self.deliver, self.broken = deliver, broken
        self._inbox: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._outbox: list[tuple[str, Event]] = []
        self._coming: set[Key] = set()
        self._ready: dict[Key, LoadedTask] = {}
        self._thread = threading.Thread(target=self._run, name="foreword-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """End after the work that was told before."""
        self._inbox.put(None)
        self._thread.join()

    def tell(self, work: Work) -> None:
        """Have something done between two steps."""
        self._inbox.put(work)

    def add(self, request: Request, key: Key | None) -> None:
        self.tell(lambda: self.core.add(request, key, lambda event: self._outbox.append((request.id, event))))

    def _run(self) -> None:
        try:
            while self._take_in():
                self._bring()
                if self.core.busy:
                    self.core.step()
                self._send()
        except Exception as error:  # whatever it is, nobody may wait for ever
            self.broken(f"the engine has stopped ({type(error).__name__}: {error}); restart it.")

    def _take_in(self) -> bool:
        """Do what others asked for; wait for them where there is nothing else to do. False at the end."""
        idle = not self.core.busy and not self._ready
        while True:
            try:
                work = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if work is None:
                self._send()
                return False
            work()
            idle = False

    def _bring(self) -> None:
        """See to tasks that requests wait for: begin to read them, and install what has been read as far as there is room."""
        wanted = self.core.wanted[: self.core.max_sequences]
        self._ready = {key: task for key, task in self._ready.items() if key in wanted}
        for key in wanted:
            if key in self._ready:
                self._install(key)
            elif key not in self._coming:
                self._coming.add(key)
                self.loader.read(key).add_done_callback(lambda found, key=key: self.tell(lambda: self._arrived(key, found)))

    def _install(self, key: Key) -> None:
        try:
            self.core.install(self._ready[key])
        except CapacityError as error:
            if self.core.under_way:
                return  # it waits until others have left
            self.core.refuse(key, Failed("capacity", str(error)))
        del self._ready[key]

    def _arrived(self, key: Key, found: Future[LoadedTask]) -> None:
        self._coming.discard(key)
        if found.cancelled():
            return
        error = found.exception()
        if error is None:
            task = found.result()
            self.core.rename(key, task.key)
            self._ready[task.key] = task
            return
        message = str(error) if isinstance(error, ForewordError) else f"its adapter could not be read ({type(error).__name__}: {error})."
        self.registry.spoil(key, message)
        self.core.refuse(key, Failed("task", message))

    def _send(self) -> None:
        """Hand over the events of a step at once: waking the event loop costs more than a token."""
        if self._outbox:
            events, self._outbox = self._outbox, []
            self.deliver(events)
