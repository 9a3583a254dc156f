"""Options that the server's commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import typer

from foreword.errors import UsageError

URL, PORT = "http://127.0.0.1:8000", 8000
KEY_VARIABLE, URL_VARIABLE = "FOREWORD_API_KEY", "FOREWORD_URL"

# The server, for all clients.
Url = Annotated[str, typer.Option("--url", envvar=URL_VARIABLE, help="URL of the server.")]
Key = Annotated[str | None, typer.Option("--key", envvar=KEY_VARIABLE, help="API key, if the server requires one.")]


@contextmanager
def needed() -> Iterator[None]:
    """Raise UsageError if a package for serving is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic"):
            raise UsageError(
                f"a server needs the package '{error.name}', which is not installed; run pip install 'foreword[serve]'."
            ) from error
        raise


def option(default: Any, help: str, least: float | None = None, *, secret: bool = False) -> Any:
    """A field of an option with its help and its minimum; one that is secret is never printed."""
    return field(default=default, metadata={"help": help, "least": least}, repr=not secret)


@dataclass(frozen=True)
class Checked:
    """Options with checked minimums."""

    def __post_init__(self) -> None:
        for each in fields(self):
            least, value = each.metadata["least"], getattr(self, each.name)
            if least is not None and value is not None and value < least:
                raise UsageError(f"--{each.name.replace('_', '-')} is {value}, but it must be at least {least}.")


@dataclass(frozen=True)
class Access(Checked):
    """Options of access."""

    keys: str | None = option(None, "File of API keys, one line per key, as printed by `foreword make-key`.")
    api_key: list[str] | None = option(
        None,
        "An API key with all rights; may be repeated. Other users can see it in a list of processes: FOREWORD_API_KEY hides it.",
        secret=True,
    )
    insecure: bool = option(False, "Allow requests from other machines without API keys.")
    log_texts: bool = option(False, "Log input texts and answers.")


@dataclass(frozen=True)
class Network(Checked):
    """Options of HTTP."""

    allow_origin: list[str] | None = option(None, "Origin of web pages that may send requests, or *; may be repeated.")
    root_path: str = option("", "Prefix under which a proxy serves the API, such as /llm.")
    ssl_certfile: str | None = option(None, "PEM file of a certificate, with its chain, for HTTPS.")
    ssl_keyfile: str | None = option(None, "PEM file of the certificate's private key.")

    @property
    def prefix(self) -> str:
        """The root path as HTTP servers write it: "", or "/llm"."""
        return f"/{path}" if (path := self.root_path.strip("/")) else ""


@dataclass(frozen=True)
class Amounts(Checked):
    """Options of limits."""

    max_sequences: int = option(32, "Maximum number of answers in one batch.", 1)
    max_queued: int = option(4096, "Maximum number of waiting answers; further requests get 503.", 1)
    max_queued_tokens: int = option(1_000_000, "Maximum number of waiting text tokens; further requests get 503.", 1)
    max_answers: int = option(1024, "Maximum number of answers per request.", 1)
    max_body: int = option(4, "Maximum size of a request body in MB.", 1)
    max_values: int = option(200_000, "Maximum number of values in a request body.", 16)
    max_text: int = option(200_000, "Maximum number of characters per text.", 1)
    drain_seconds: float = option(30.0, "Time for running requests to finish after SIGTERM.", 0)


@dataclass(frozen=True)
class InMemory(Checked):
    """Options of the engine's memory."""

    memory: int | None = option(
        None, "Memory in MB for tasks, cached texts and running answers together; by default half of what is free, at most 4096.", 1
    )
    load: str | None = option(None, "Tasks to load at the start: comma-separated names, or all. Others are loaded at their first request.")
    pack_weights: bool = option(
        True,
        "On a CPU in bfloat16, keep a second copy of the weights, in the order in which products read them fastest (if memory allows).",
    )
    watch: float = option(2.0, "Seconds between checks for new adapters; 0 disables them.", 0)


@dataclass(frozen=True)
class Drawing(Checked):
    """Sampling options; None leaves them to the server."""

    max_tokens: int | None = option(None, "Maximum length of an answer in tokens; by default that of the task.")
    temperature: float | None = option(None, "Sampling temperature; by default 0 (greedy).")
    seed: int | None = option(None, "Seed for sampling.")

    def fields(self) -> dict[str, int | float]:
        """The options that were given."""
        return {name: value for name, value in vars(self).items() if value is not None}
