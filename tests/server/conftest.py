"""One server for all tests that only ask; a store of their own for those that change it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from server.given import Served, serve, store


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a task of every kind; read it only."""
    return store(tmp_path_factory.mktemp("prompts"))


@pytest.fixture(scope="session")
def served(folder: Path) -> Iterator[Served]:
    """A server without keys."""
    found = serve(folder)
    yield found
    found.stop()
    found.join()


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[OpenAI]:
    """OpenAI's own client."""
    with OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0) as found:
        yield found
