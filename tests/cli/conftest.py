"""A tiny model saved to a folder, a data file, and adapters trained on them by the command itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli.given import QUICK, ROWS, Foreword, save_tiny, write
from typer.testing import CliRunner, Result

from foreword.cli.main import app


@pytest.fixture(scope="session")
def foreword() -> Foreword:
    """The command, in this process: `foreword("show", path).exit_code`."""

    def run(*words: str | Path, **how: object) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words], prog_name="foreword", **how)  # type: ignore[arg-type]
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as transformers saves it."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def weightless(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A model's config alone: whoever gets as far as loading weights fails with another sentence."""
    folder = tmp_path_factory.mktemp("weightless")
    shutil.copy(model / "config.json", folder)
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "reviews.jsonl", ROWS)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, foreword: Foreword, model: Path, reviews: Path) -> Path:
    """A classifier; read it only."""
    out = tmp_path_factory.mktemp("prompts") / "sentiment"
    assert foreword("train", reviews, "--model", model, "--out", out, *QUICK).exit_code == 0
    return out


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory, foreword: Foreword, model: Path) -> Path:
    """A writer of texts; read it only."""
    folder = tmp_path_factory.mktemp("writer")
    data = write(folder / "pairs.jsonl", [{"input": row["text"], "output": row["label"]} for row in ROWS])
    options = ("--max-new-tokens", "5", *QUICK)
    assert foreword("train", data, "--model", model, "--out", folder / "writer", *options).exit_code == 0
    return folder / "writer"


@pytest.fixture
def broken(tmp_path: Path, trained: Path) -> Path:
    """A copy of the classifier whose tensors lost their last byte."""
    copy = tmp_path / "broken"
    shutil.copytree(trained, copy)
    tensors = copy / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    return copy
