"""Cross-origin requests: which web pages may send requests from a browser."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from foreword.errors import UsageError

_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s*]+")


def check_origins(origins: Sequence[str]) -> None:
    """Raise UsageError for what is no origin."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise UsageError(f"--allow-origin '{origin}' is not an origin; give one such as https://example.org, without a path, or *.")


def allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of these origins send requests. A browser asks before a request, without a key, so this comes before every other middleware."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("*",),
        expose_headers=("x-request-id", "retry-after"),
    )
