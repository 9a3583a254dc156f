"""Runs an application under uvicorn, from the socket to a graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from typing import final

import uvicorn
from fastapi import FastAPI

from foreword.errors import UsageError
from foreword.server.auth import Keys
from foreword.server.request_log import config
from foreword.server.server_state import ServerState
from foreword.server.tls import Certificate

BACKLOG = 2048
HEADER_BYTES = 32 << 10  # of all headers together
SHUTDOWN_SECONDS = 2  # seconds for responses that are written already, once all answers have ended


def check_address(host: str, keys: Keys, *, insecure: bool) -> None:
    """Raise UsageError for an address that other machines can reach if no key is needed."""
    if keys or insecure or _is_loopback(host):
        return
    raise UsageError(
        f"--host {host} accepts other machines, but no API keys are set; give --keys FILE (see `foreword make-key`), "
        "or --insecure to allow requests without a key."
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises UsageError if the address is not available. Port 0 chooses a free one."""
    made = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        if made is not None:
            made.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"the server cannot listen on {host}:{port} ({reason}); choose another --host or --port.") from error
    made.setblocking(False)
    return made


def url_of(made: socket.socket, *, tls: bool = False) -> str:
    """The URL for a client on this machine."""
    host, port = made.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{shown}:{port}"


@final
class Server:
    """A running server. `stop` shuts it down gracefully: new requests are refused, running ones may finish; a second `stop` ends it at once."""

    def __init__(
        self, app: FastAPI, state: ServerState, made: socket.socket, *, drain_seconds: float, certificate: Certificate | None = None
    ) -> None:
        self._state, self._socket, self._drain_seconds = state, made, drain_seconds
        settings = uvicorn.Config(
            app,
            log_config=config(),
            access_log=False,
            server_header=False,
            lifespan="on",
            ws="none",
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            ssl_certfile=None if certificate is None else certificate.certfile,
            ssl_keyfile=None if certificate is None else certificate.keyfile,
        )
        self._server = uvicorn.Server(settings)
        self._stopping, self._at_once = asyncio.Event(), asyncio.Event()

    def stop(self) -> None:
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until stopped. `started` is called when requests are accepted; at the end the engine is closed, which cancels requests that did not finish in time."""
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.01)
        with _signals(self.stop):
            if not serving.done():
                started()
            stopped = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            await self._drain()
            await self._state.engine.close()
            self._server.should_exit = True
            await serving

    async def _drain(self) -> None:
        """Wait for running answers, up to the time limit."""
        state = self._state
        state.draining = True
        state.log("draining", answers=state.admission.active, seconds=self._drain_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                while state.admission.active and not self._at_once.is_set():
                    await asyncio.sleep(0.02)
        self._server.force_exit = self._at_once.is_set()
        state.log("stopped", answers=state.admission.active or None)


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT stop the server, where signals can be handled (in the main thread)."""
    loop, heard = asyncio.get_running_loop(), list[signal.Signals]()
    for each in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(
            ValueError, RuntimeError, NotImplementedError
        ):  # another thread, or a system without signal handlers in event loops
            loop.add_signal_handler(each, stop)
            heard.append(each)
    try:
        yield
    finally:
        for each in heard:
            loop.remove_signal_handler(each)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
