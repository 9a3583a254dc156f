"""A structure that takes long to compile holds up its own request only, and can be cancelled meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import tiny
from serving.given import predicted, store

from foreword.serving.local_engine import LocalEngine
from foreword.serving.request import Done, Event, Request, Token
from foreword.serving.sampling import SamplingParams

SHAPED = SamplingParams(choice=("yes", "no"), max_tokens=8)


async def events_of(engine: LocalEngine, request: Request) -> list[Event]:
    return [event async for event in engine.submit(request)]


def test_neighbours_go_on_while_a_structure_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(store(tmp_path))) as engine:
            manager, release = engine.core.input_processor.structured_output, threading.Event()
            matcher = manager._matcher
            monkeypatch.setattr(manager, "_matcher", lambda params: (release.wait(30), matcher(params))[1])
            shaped = asyncio.create_task(events_of(engine, Request("shaped", None, {"text": "x"}, SHAPED)))
            left = asyncio.create_task(events_of(engine, Request("left", None, {"text": "x"}, SHAPED)))
            await asyncio.sleep(0)
            plain = await events_of(engine, Request("plain", "prefix", {"input": "a film"}))
            assert "".join(event.text for event in plain if isinstance(event, Token)) == predicted("llama", "prefix", "a film")
            engine.cancel("left")
            assert await left == [Done("cancelled", 0, 0)] and not shaped.done()
            release.set()
            text = "".join(event.text for event in await shaped if isinstance(event, Token))
            assert text in ("yes", "no")
            again = await events_of(engine, Request("left", None, {"text": "x"}, SHAPED))
            assert isinstance(again[-1], Done) and again[-1].reason == "stop"

    asyncio.run(asyncio.wait_for(talk(), 60))
