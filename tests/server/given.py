"""A store with a task of every kind on a tiny chat model, what each should answer, and a real server around it."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import tiny
from contract.given import prompt, spec

from foreword.adapters.adapter import HEAD, Adapter
from foreword.adapters.safetensors_file import KEY
from foreword.backbone.frozen_model import FrozenModel
from foreword.evaluation.evaluate import Reader
from foreword.prompts.head import Head
from foreword.recipe import Recipe
from foreword.server.admission import Limits
from foreword.server.app import create_app
from foreword.server.auth import Keys
from foreword.server.request_log import Log
from foreword.server.served_model import Base
from foreword.server.server_state import ServerState
from foreword.server.uvicorn_server import Server, listen, url_of
from foreword.serving.engine import Engine
from foreword.serving.local_engine import LocalEngine
from foreword.tasks.base import Prediction, Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify
from foreword.tasks.multilabel import MultiLabel
from foreword.tasks.qa import QA
from foreword.tasks.regress import Regress
from foreword.tasks.tag import Tag
from foreword.tasks.template_task import TemplateTask, for_site

BASE = "tiny-llama"
WRITERS = {
    "writer": ("p-tuning-v2", 3, Generate(max_new_tokens=9)),
    "long": ("prefix-tuning", 6, Generate(max_new_tokens=60)),
    "suffix": ("prompt-tuning", 2, Generate("{input}\n{soft}:{answer}", max_new_tokens=7)),
    "pairs": ("p-tuning-v2", 3, Generate("{question} of {context}:{answer}", max_new_tokens=5)),
    "entails": ("p-tuning-v2", 3, Classify(("good", "bad"), "{premise} so {claim} is {answer}")),
    "sentiment": ("p-tuning-v2", 3, Classify(("good", "bad"), "{text} is {answer}")),
}
HEADED: dict[str, Task] = {
    "topic": HeadClassify(("sport", "war", "art")),
    "topics": MultiLabel(("sport", "war", "art"), threshold=0.4),
    "stars": Regress(),
    "names": Tag(("O", "B-PER", "I-PER")),
    "answers": QA(unanswerable=False),
}


@cache
def model() -> FrozenModel:
    return tiny.build("llama", chat=True)


@cache
def adapter(name: str, seed: int = 0) -> Adapter:
    """An adapter of one of the tasks; other seeds are other versions of it."""
    frozen = model()
    if name in WRITERS:
        method, length, task = WRITERS[name]
        made = spec(method, length)
        fitted: Task = for_site(task, made) if isinstance(task, TemplateTask) else task
    else:
        made = spec("p-tuning-v2", 2)
        fitted = HEADED[name].for_model(frozen.info, made)
    tensors = {KEY: prompt(frozen, made, len(name) + seed).bake()}
    if fitted.head is not None:
        head = Head(fitted.head, frozen.shape.hidden, seed=3)
        tensors |= {HEAD + key: value for key, value in head.state_dict().items()}
    return Adapter(Recipe.of(made), frozen.shape, tensors, fitted.to_dict(), BASE, frozen.fingerprint, frozen.tokenizer_fingerprint)


def store(folder: Path) -> Path:
    """All tasks as adapters on disk."""
    for name in (*WRITERS, *HEADED):
        adapter(name).save(folder / name)
    return folder


def predicted(name: str, example: str | Mapping[str, str], seed: int = 0) -> Prediction:
    """What `predict` says."""
    columns = reader(name, seed).task.columns
    given = {columns[0]: example} if isinstance(example, str) else example
    return _predicted(name, tuple(given.items()), seed)


@cache
def reader(name: str, seed: int = 0) -> Reader:
    return Reader.of(model(), adapter(name, seed))


@cache
def _predicted(name: str, example: tuple[tuple[str, str], ...], seed: int) -> Prediction:
    return reader(name, seed).predict([dict(example)])[0]


@dataclass
class Served:
    """A server under way in a thread of its own."""

    url: str
    state: ServerState
    engine: Any
    log: io.StringIO
    _loop: asyncio.AbstractEventLoop
    _running: Server
    _thread: threading.Thread
    errors: list[BaseException] = field(default_factory=list)

    def stop(self) -> None:
        """Begin to stop, as a signal would."""
        self._loop.call_soon_threadsafe(self._running.stop)

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()

    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def serve(
    folder: Path,
    *,
    keys: Keys | None = None,
    limits: Limits | None = None,
    texts: bool = False,
    drain: float = 5.0,
    root_path: str = "",
    origins: Sequence[str] = (),
    **engine: Any,
) -> Served:
    """A server over a store; end it with stop() and join()."""
    made = LocalEngine(model(), str(folder), **engine)
    return serve_engine(made, keys=keys, limits=limits, texts=texts, drain=drain, root_path=root_path, origins=origins)


def serve_engine(
    engine: Engine,
    *,
    keys: Keys | None = None,
    limits: Limits | None = None,
    texts: bool = False,
    drain: float = 5.0,
    root_path: str = "",
    origins: Sequence[str] = (),
) -> Served:
    """A server over any engine, which the application starts."""
    ready, found, log = threading.Event(), list[Served](), io.StringIO()
    made = listen("127.0.0.1", 0)

    async def run() -> None:
        state = ServerState(engine, Base.of(engine.info), keys=keys, limits=limits, log=Log(log.write, texts=texts), keep_alive=0.5)
        running = Server(create_app(state, root_path=root_path, origins=origins), state, made, drain_seconds=drain)
        found.append(Served(url_of(made), state, engine, log, asyncio.get_running_loop(), running, threading.current_thread()))
        await running.run(ready.set)

    def thread() -> None:
        try:
            asyncio.run(run())
        finally:
            made.close()
            ready.set()

    threading.Thread(target=thread, daemon=True).start()
    assert ready.wait(60) and found, "the server did not start"
    return found[0]


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def message(self) -> str:
        """The sentence of a refusal, whose shape is checked by the way."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["code"] == self.status
        return error["message"]


def ask(url: str, path: str, body: object = None, *, method: str | None = None, **headers: str) -> Reply:
    """One request; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(url + path, data, fields, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return Reply(response.status, dict(response.headers), response.read().decode())
    except urllib.error.HTTPError as error:
        return Reply(error.code, dict(error.headers), error.read().decode())


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what must come true; fails where it does not."""
    event = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        event.wait(0.01)
    raise AssertionError("it never came true")
