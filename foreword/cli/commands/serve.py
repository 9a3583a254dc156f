"""`foreword serve`: all tasks of a store behind one address."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.support import output
from foreword.cli.support.dataclass_options import expand
from foreword.cli.support.loaders import base_of_store, open_model
from foreword.cli.support.options import Device, Dtype
from foreword.cli.support.serve_options import KEY_VARIABLE, PORT, Access, Amounts, InMemory, Network, needed
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.adapters.store import AdapterStore
    from foreword.backbone.frozen_model import FrozenModel
    from foreword.server.admission import Limits
    from foreword.server.auth import Keys
    from foreword.server.server_state import ServerState
    from foreword.server.tls import Certificate
    from foreword.serving.local_engine import LocalEngine

SHOWN = 8  # tasks named in the banner


@expand(access="Access", network="HTTP", amounts="Limits", memory="Memory")
def serve(
    folder: Annotated[str, typer.Argument(metavar="STORE", help="Folder of adapters, or URL of a store such as s3://bucket/prompts.")],
    access: Access,
    network: Network,
    amounts: Amounts,
    memory: InMemory,
    model: Annotated[str | None, typer.Option("--model", help="Base model; by default the one recorded in the adapters.")] = None,
    model_name: Annotated[str | None, typer.Option("--model-name", help="Name of the base model in requests.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 accepts other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 chooses a free one.")] = PORT,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Serve all adapters of a store over HTTP, on one frozen model.

    The `model` of a request is the name of a task or of the base model. OpenAI's clients work unchanged. Logs are JSON lines on standard error.
    After SIGTERM, running requests finish. FOREWORD_API_KEY can set one API key.

    [bold]Example:[/bold] foreword serve prompts --model google/gemma-3-270m
    """
    import asyncio

    from foreword.adapters.store import AdapterStore

    with needed():
        from foreword.server.auth import read_keys
        from foreword.server.cors import check_origins
        from foreword.server.tls import read_certificate
        from foreword.server.uvicorn_server import check_address, listen
    keys = read_keys(access.keys, os.environ.get(KEY_VARIABLE), access.api_key or ())
    check_address(host, keys, insecure=access.insecure)
    check_origins(network.allow_origin or ())
    certificate = read_certificate(network.ssl_certfile, network.ssl_keyfile)
    store = AdapterStore(folder)
    name, quantize = base_of_store(store, model)
    made = listen(host, port)  # before the model is loaded, so that a port in use is reported at once
    with made:
        frozen = open_model(name, dtype=dtype, device=device, quantize=quantize)
        asyncio.run(_run(frozen, model_name, store, made, keys, certificate, access, network, amounts, memory))


async def _run(
    frozen: FrozenModel,
    model_name: str | None,
    store: AdapterStore,
    made: socket.socket,
    keys: Keys,
    certificate: Certificate | None,
    access: Access,
    network: Network,
    amounts: Amounts,
    memory: InMemory,
) -> None:
    """Everything within the event loop."""
    from foreword.server.app import create_app
    from foreword.server.request_log import Log
    from foreword.server.served_model import Base
    from foreword.server.server_state import ServerState
    from foreword.server.uvicorn_server import Server, url_of

    engine = _engine(frozen, store, amounts, memory)
    await engine.start()
    try:
        base = Base.of(engine.info, model_name)
        if engine.card(base.name) is not None:
            raise UsageError(
                f"the base model's name '{base.name}' is also that of a task of the store, but a request names one of them; give --model-name another."
            )
        for task in _names(engine, memory.load):
            await engine.load(task)
        state = ServerState(engine, base, keys=keys, limits=_limits(amounts), log=Log(texts=access.log_texts))
        app = create_app(state, root_path=network.prefix, origins=network.allow_origin or ())
        running = Server(app, state, made, drain_seconds=amounts.drain_seconds, certificate=certificate)
        await running.run(lambda: _say(state, url_of(made, tls=certificate is not None), access.keys))
    finally:
        await engine.close()


def _engine(frozen: FrozenModel, store: AdapterStore, amounts: Amounts, memory: InMemory) -> LocalEngine:
    from foreword.serving.local_engine import LocalEngine

    return LocalEngine(
        frozen,
        store,
        max_sequences=amounts.max_sequences,
        max_waiting=amounts.max_queued + amounts.max_answers,
        memory_bytes=None if memory.memory is None else memory.memory << 20,
        pack_weights=memory.pack_weights,
        watch=memory.watch,
    )


def _limits(amounts: Amounts) -> Limits:
    from foreword.server.admission import Limits

    return Limits(
        body_bytes=amounts.max_body << 20,
        values=amounts.max_values,
        text_chars=amounts.max_text,
        answers=amounts.max_answers,
        queued=amounts.max_queued,
        queued_tokens=amounts.max_queued_tokens,
    )


def _names(engine: LocalEngine, load: str | None) -> Sequence[str]:
    """Tasks to have ready at once."""
    if load == "all":
        return [card.name for card in engine.tasks() if card.problem is None]
    return [name.strip() for name in load.split(",")] if load else []


def _say(state: ServerState, url: str, keys_path: str | None) -> None:
    """Print the banner."""
    from foreword.server.auth import writable_by_others

    cards = state.engine.tasks()
    whole = [card for card in cards if card.problem is None]
    broken = [card for card in cards if card.problem is not None]
    output.say(f"serving {output.count(len(whole), 'task')} on {state.base.name} at {url} (docs: {url}/docs)")
    output.say("  tasks: " + (_listed([card.name for card in whole]) or "none yet"))
    for card in broken:
        output.say(f"  note: {card.problem}")
    if keys_path is not None and writable_by_others(keys_path):
        output.say(f"  note: other users can change '{keys_path}' and add keys of their own; run chmod go-w '{keys_path}'.")
    output.say("  keys:  " + (output.count(len(state.keys), "key") if state.keys else "none; everybody who reaches this address may ask"))
    for card in whole[:1]:
        text = json.dumps({"model": card.name, "input": dict.fromkeys(card.columns, "…")}, ensure_ascii=False)
        key = " -H 'Authorization: Bearer KEY'" if state.keys else ""
        output.say(f"  try:   curl {url}/v1/batch -H 'Content-Type: application/json'{key} -d '{text}'")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
