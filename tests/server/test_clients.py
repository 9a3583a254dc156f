"""Frameworks of others against a real server: two turns, streams, usage, structured output, async. OpenAI's own client has test_openai.py.

They need other versions of shared packages than the tests, so they run in an environment of their own, which `scripts/setup --clients` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from server.given import Served, predicted

PYTHON = Path(os.environ.get("FOREWORD_CLIENTS", f"{sys.prefix}-clients")) / "bin/python"
FOLDER = Path(__file__).parent / "clients"
FILM = ({"good": True}, {"good": False})

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason=f"{PYTHON} is missing; run scripts/setup --clients")


def run(served: Served, name: str) -> dict[str, Any]:
    """What a client printed. It reaches nothing but the server: a price map or a tokenizer from elsewhere would fail."""
    closed = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")} | {"no_proxy": "127.0.0.1"}
    own = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false", "PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    command = [PYTHON, FOLDER / f"{name}_client.py", f"{served.url}/v1", "writer"]
    found = subprocess.run(command, env=closed | own, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["langchain", "llama_index", "litellm"])
def test_a_chat_client(served: Served, name: str) -> None:
    found = run(served, name)
    answer = predicted("writer", "a film").text
    assert found["first"] == found["streamed"] == found["async"] == answer and found["second"] == predicted("writer", "and now").text
    assert found["film"] in FILM and found["usage"] > 0
    assert found.get("stream_usage", found["usage"]) == found["usage"]
    assert found.get("completion", answer) == answer


def test_instructor(served: Served) -> None:
    found = run(served, "instructor")
    assert all(found[name] in FILM for name in ("film", "second", "streamed", "tools", "async")) and found["usage"] > 0
