"""Watches a store for adapters that are new, replaced or gone, whatever goes wrong with one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import final

from foreword.errors import ForewordError
from foreword.serving.registry import Registry, Version

_LOG = logging.getLogger("foreword")


@final
class StoreWatcher:
    """Scans a registry every so many seconds. `replace` is called for each task whose version changed or that has gone, with the one before.

    `num_failures` counts what failed; the log says what it was, once for each message in a row.
    """

    def __init__(self, registry: Registry, seconds: float, replace: Callable[[str, Version], Awaitable[None]]) -> None:
        self.registry, self.seconds, self.replace = registry, seconds, replace
        self.num_failures = 0
        self._said: str | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    @property
    def alive(self) -> bool:
        """Whether it watches."""
        return self._task is not None and not self._task.done()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.seconds)
            try:
                await self._look()
            except Exception as error:  # tasks in memory are still served, and the next look may succeed
                self._failed(error)
            else:
                self._said = None

    async def _look(self) -> None:
        before = {name: entry.version for name, entry in self.registry}
        changed = await asyncio.to_thread(self.registry.scan)
        for name in changed:
            if (old := before.get(name)) is not None:
                try:
                    await self.replace(name, old)
                except Exception as error:
                    self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.num_failures += 1
        message = str(error) if isinstance(error, ForewordError) else f"{type(error).__name__}: {error}"
        if message != self._said:
            _LOG.warning("the store was not read: %s", message)
        self._said = message
