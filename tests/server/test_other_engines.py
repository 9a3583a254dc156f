"""An engine that lives elsewhere: the server needs what `ModelInfo` says of the base model, and no weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import tiny
from server.given import ask, serve_engine

from foreword.backbone.loading.load_info import load_info
from foreword.backbone.model_info import ModelInfo
from foreword.serving.engine import Engine, Stats, TaskCard
from foreword.serving.request import Done, Event, Failed, Request, Token


class Elsewhere:
    """Knows a base model by its info, and answers with the tokens of the text that it is asked."""

    def __init__(self, info: ModelInfo) -> None:
        self._info = info
        self.calls: list[str] = []

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def start(self) -> None:
        self.calls.append("start")

    async def close(self, drain_seconds: float = 0.0) -> None:
        self.calls.append("close")

    def submit(self, request: Request) -> AsyncIterator[Event]:
        return self._events(request)

    async def _events(self, request: Request) -> AsyncIterator[Event]:
        if not self.healthy:
            yield Failed("engine", "the engine is not running; start it first.")
            return
        ids = request.ids or tuple(self.info.tokenizer.encode(request.example["text"]))
        for index in ids:
            yield Token(self.info.tokenizer.inner.decode([index]), index)
        yield Done("stop", len(ids), len(ids))

    def cancel(self, request_id: str) -> None:
        self.calls.append(f"cancel {request_id}")

    async def load(self, name: str, *, pinned: bool = False) -> TaskCard:
        raise NotImplementedError

    async def unload(self, name: str) -> None:
        raise NotImplementedError

    def tasks(self) -> Sequence[TaskCard]:
        return ()

    def card(self, name: str) -> TaskCard | None:
        return None

    def stats(self) -> Stats:
        return Stats(*(0,) * 11)

    @property
    def healthy(self) -> bool:
        return self.calls[-1:] != ["close"] and "start" in self.calls


@pytest.fixture
def info(tmp_path: Path) -> ModelInfo:
    """A base model whose weights are not on this machine."""
    tiny.config("llama").save_pretrained(tmp_path / "base")
    tiny.tokenizer(chat=True).save_pretrained(tmp_path / "base")
    return load_info(tmp_path / "base")


def test_an_engine_without_weights_is_served(info: ModelInfo) -> None:
    engine = Elsewhere(info)
    assert isinstance(engine, Engine)
    served = serve_engine(engine)
    try:
        assert engine.calls == ["start"] and ask(served.url, "/health").status == 200
        found = ask(served.url, "/v1/completions", {"model": info.name, "prompt": "a joy to watch"}).json
        assert found["choices"][0]["text"] == "a joy to watch"
        assert found["usage"]["prompt_tokens"] == len(info.tokenizer.encode("a joy to watch"))
        chat = ask(served.url, "/v1/chat/completions", {"model": info.name, "messages": [{"role": "user", "content": "a joy"}]}).json
        assert chat["choices"][0]["message"]["content"] == "<bos><user>a joy<eos>\n<model>"
        beyond = ask(served.url, "/v1/completions", {"model": info.name, "prompt": [info.shape.vocabulary]})
        assert beyond.message == f"A list of token ids needs at least one, each from 0 to {info.shape.vocabulary - 1}."
    finally:
        served.stop()
        served.join()
    assert engine.calls[0] == "start" and set(engine.calls[1:]) == {"close"}, "the application starts and closes it"


def test_the_server_imports_no_frozen_model() -> None:
    code = """
import importlib, pkgutil, sys
import foreword.server
for module in pkgutil.iter_modules(foreword.server.__path__):
    importlib.import_module(f"foreword.server.{module.name}")
print(sorted({"foreword.backbone.frozen_model", "foreword.backbone.loading.load_model", "foreword.serving.local_engine"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"
