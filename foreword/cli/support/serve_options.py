"""What the commands around a server share, and their options as data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import typer

from foreword.errors import UsageError

URL, PORT = "http://127.0.0.1:8000", 8000
KEY_VARIABLE, URL_VARIABLE = "FOREWORD_API_KEY", "FOREWORD_URL"

# How every client says which server it asks.
Url = Annotated[str, typer.Option("--url", envvar=URL_VARIABLE, help="Where the server is.")]
Key = Annotated[str | None, typer.Option("--key", envvar=KEY_VARIABLE, help="API key, if the server wants one.")]


@contextmanager
def needed() -> Iterator[None]:
    """Raise UsageError where what serving needs is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic"):
            raise UsageError(
                f"a server needs the package '{error.name}', which is not installed; run pip install 'foreword[serve]'."
            ) from error
        raise


def option(default: Any, help: str, least: float | None = None) -> Any:
    """A field of an option with its help and its least value."""
    return field(default=default, metadata={"help": help, "least": least})


@dataclass(frozen=True)
class Checked:
    """Options whose least values are kept."""

    def __post_init__(self) -> None:
        for each in fields(self):
            least, value = each.metadata["least"], getattr(self, each.name)
            if least is not None and value is not None and value < least:
                raise UsageError(f"--{each.name.replace('_', '-')} is {value}, but it must be at least {least}.")


@dataclass(frozen=True)
class Access(Checked):
    """Who may ask."""

    keys: str | None = option(None, "File of API keys, a line each as `foreword make-key` prints them.")
    insecure: bool = option(False, "Let other machines in without keys.")
    log_texts: bool = option(False, "Let texts and answers into the log.")


@dataclass(frozen=True)
class Amounts(Checked):
    """How much is taken at once."""

    max_sequences: int = option(32, "Answers that grow together.", 1)
    max_queued: int = option(4096, "Answers that may wait; further requests get 503.", 1)
    max_queued_tokens: int = option(1_000_000, "Tokens of texts that may wait.", 1)
    max_answers: int = option(1024, "Answers of one request.", 1)
    max_body: int = option(4, "Largest request in MB.", 1)
    max_text: int = option(200_000, "Characters of a text.", 1)
    drain_seconds: float = option(30.0, "How long answers may go on after SIGTERM.", 0)


@dataclass(frozen=True)
class InMemory(Checked):
    """Which tasks stand ready."""

    prefix_memory: int = option(1024, "Memory for the prompts of tasks in MB; the least recently used leave first.", 1)
    load: str | None = option(None, "Tasks to have ready at once: names with commas between, or all; others load when asked.")
    watch: float = option(2.0, "Seconds between looks for new adapters; 0 for never.", 0)


@dataclass(frozen=True)
class Drawing(Checked):
    """How an answer is written; what is None is left to the server."""

    max_tokens: int | None = option(None, "Longest answer in tokens; by default the task's own.")
    temperature: float | None = option(None, "0 is greedy, the default; more is more varied.")
    seed: int | None = option(None, "Makes drawn answers repeatable.")

    def fields(self) -> dict[str, int | float]:
        """Those that were given."""
        return {name: value for name, value in vars(self).items() if value is not None}
