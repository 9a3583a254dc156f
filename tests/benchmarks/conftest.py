"""The benchmarks on a tiny model, so that they cannot rot. They are scripts that import each other, so their folder goes on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Gemma 3 on disk, as both sides load it."""
    import tiny

    path = tmp_path_factory.mktemp("model")
    tiny.network("gemma3_text").save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return str(path)
