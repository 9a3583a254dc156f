"""The state of one server, passed to all its parts: engine, base model, keys, limits, metrics, log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final
from uuid import uuid4

from foreword.server.admission import Admission, Limits
from foreword.server.auth import ANONYMOUS, Caller, Keys
from foreword.server.http_errors import model_not_found
from foreword.server.metrics import Metrics
from foreword.server.request_log import Log
from foreword.server.served_model import Base
from foreword.server.worker_threads import WorkerThreads
from foreword.serving.engine import Engine, TaskCard


@dataclass
class RequestContext:
    """One HTTP request: its id, its caller, and its facts for the log."""

    id: str = field(default_factory=lambda: uuid4().hex)
    caller: Caller = ANONYMOUS
    began: float = field(default_factory=time.monotonic)
    num_bytes: int = 0  # of the body
    status: int = 0
    model: str | None = None
    outcome: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    answers: int | None = None
    texts: list[str] | None = None
    said: list[str] | None = None


@final
class ServerState:
    """Passed as an argument, never imported. `draining` refuses new requests while the running ones finish."""

    def __init__(
        self,
        engine: Engine,
        base: Base,
        *,
        keys: Keys | None = None,
        limits: Limits | None = None,
        log: Log | None = None,
        keep_alive: float = 15.0,
    ) -> None:
        self.engine, self.base = engine, base
        self.keys, self.limits, self.log = keys or Keys({}), limits or Limits(), log or Log()
        self.admission = Admission(self.limits)
        self.metrics = Metrics(engine, self.admission)
        self.keep_alive = keep_alive  # seconds without events after which a stream sends a keep-alive comment
        self.threads = WorkerThreads()
        self.created = int(time.time())
        self.draining = False
        self._noted: set[str] = set()

    def find(self, name: str, caller: Caller) -> TaskCard | None:
        """The task of this name, None for the base model; raises HTTPError (404) for a name that does not exist or that this caller may not use."""
        card = self.engine.card(name) if caller.sees(name) else None
        if card is None and not (name == self.base.name and caller.sees(name)):
            raise model_not_found(name)
        return card

    def visible(self, caller: Caller) -> Sequence[TaskCard]:
        """The tasks that a caller may use."""
        return [card for card in self.engine.tasks() if caller.sees(card.name)]

    def note_once(self, task: str, message: str) -> None:
        """A line in the log that a task needs only once."""
        if task not in self._noted:
            self._noted.add(task)
            self.log("note", task=task, message=message)

    @property
    def ready(self) -> bool:
        """Whether new requests are accepted."""
        return self.engine.healthy and not self.draining
