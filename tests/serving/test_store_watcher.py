"""The watch of a store goes on whatever it meets, says in the log what that was, and counts it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import tiny
from serving.given import adapter, predicted
from serving.test_local_engine import answer, live, text_of

from foreword.adapters.store import AdapterStore
from foreword.errors import AdapterError
from foreword.serving.local_engine import LocalEngine
from foreword.serving.registry import Registry, Version
from foreword.serving.store_watcher import StoreWatcher


async def until(true: object) -> None:
    """Wait until a function of no arguments is true."""
    assert callable(true)
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def test_it_goes_on_after_any_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    adapter("llama", "prefix").save(tmp_path / "prefix")
    registry, seen = Registry(AdapterStore(tmp_path)), list[str]()
    registry.scan()
    errors: list[Exception] = [AdapterError("the disk is away"), AdapterError("the disk is away"), MemoryError("no more"), KeyError("lost")]
    scan = registry.scan
    monkeypatch.setattr(registry, "scan", lambda: [*scan()] if not errors else (_ for _ in ()).throw(errors.pop(0)))

    async def replace(name: str, old: Version) -> None:
        seen.append(name)
        raise RuntimeError("not now")

    async def scene() -> None:
        watcher = StoreWatcher(registry, 0.01, replace)
        assert not watcher.alive
        watcher.start()
        await until(lambda: not errors and watcher.num_failures == 4)
        adapter("llama", "prefix", 7).save(tmp_path / "prefix", overwrite=True)
        await until(lambda: seen == ["prefix"] and watcher.num_failures == 5)
        await asyncio.sleep(0.05)
        assert watcher.alive
        watcher.stop()
        await asyncio.sleep(0)
        assert not watcher.alive

    live(scene())
    said = [record.getMessage() for record in caplog.records if record.name == "foreword"]
    assert said == [
        f"the store was not read: {why}"
        for why in ("the disk is away", "MemoryError: no more", "KeyError: 'lost'", "RuntimeError: not now")
    ]


def test_an_odd_folder_that_comes_later_is_its_own_problem(tmp_path: Path) -> None:
    adapter("llama", "prefix").save(tmp_path / "prefix")

    async def scene() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(tmp_path), watch=0.01) as engine:
            adapter("llama", "label").save(tmp_path / "label")
            manifest = tmp_path / "label" / "foreword.json"
            found = json.loads(manifest.read_text())
            del found["task"]["labels"]
            manifest.write_text(json.dumps(found))
            await until(lambda: (card := engine.card("label")) is not None and card.problem is not None)
            adapter("llama", "longer").save(tmp_path / "longer")
            await until(lambda: engine.card("longer") is not None)
            assert engine.healthy and engine.stats().scan_failures_total == 0
            assert text_of(await answer(engine, "1", "longer", "x")) == predicted("llama", "longer", "x")

    live(scene())


def test_an_engine_whose_watch_has_ended_is_not_healthy(tmp_path: Path) -> None:
    adapter("llama", "prefix").save(tmp_path / "prefix")

    async def scene() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(tmp_path), watch=0.01) as engine:
            assert engine.healthy and engine.watcher is not None
            engine.watcher.stop()
            await until(lambda: not engine.healthy)
            assert text_of(await answer(engine, "1", "prefix", "x")) == predicted("llama", "prefix", "x")

    live(scene())
