"""The request log: one JSON object per line. Users' texts and answers are left out by default."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, final


@final
class Log:
    """Passes lines to `write`, by default to standard error; `texts` includes users' texts and answers."""

    def __init__(self, write: Callable[[str], object] | None = None, *, texts: bool = False) -> None:
        self._write, self.texts = write or _to_stderr, texts

    def __call__(self, event: str, **facts: Any) -> None:
        """One line; facts that are None are left out."""
        known = {name: round(fact, 6) if isinstance(fact, float) else fact for name, fact in facts.items() if fact is not None}
        self._write(line(event, known) + "\n")


@final
class JsonLines(logging.Formatter):
    """Log records of libraries, in the same format."""

    def format(self, record: logging.LogRecord) -> str:
        trace = {} if record.exc_info is None else {"trace": self.formatException(record.exc_info)}
        return line("library", {"level": record.levelname.lower(), "message": record.getMessage(), **trace})


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def line(event: str, facts: dict[str, Any]) -> str:
    """An event as JSON, with the time in UTC."""
    return json.dumps(
        {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}, ensure_ascii=True, default=str
    )


def config() -> dict[str, Any]:
    """For uvicorn and the engine: their warnings and errors as JSON lines on standard error, no line for each request of its own."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {"lines": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "loggers": {name: {"handlers": ["lines"], "level": "WARNING", "propagate": False} for name in ("uvicorn", "foreword")},
    }
