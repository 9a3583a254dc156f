"""What the README and the pages tell a reader to type works, word for word, on a tiny model; and their links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from children import child
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "LOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = [
    ROOT / "docs/serve.md",
    ROOT / "docs/adding.md",
]  # whose examples need a server (tests/server), or add to the package (test_adding*.py)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```\w+ (\S+\.\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")
STEPS = "steps=300"
MODELS = {"google/gemma-3-270m": "model", "sentence-transformers/all-MiniLM-L6-v2": "encoder", "google-t5/t5-small": "pairs"}

REVIEWS = [("a joy to watch", "positive"), ("a dull mess", "negative"), ("great film", "positive"), ("it was terrible", "negative")]
CAPITALS = [("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Japan", "Tokyo")]


def blocks(language: str) -> list[object]:
    """Every block of a language, as pytest parameters named after page and place."""
    return [
        pytest.param(match.group(2), id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        if page not in ELSEWHERE
        for number, match in enumerate(BLOCK.finditer(page.read_text("utf-8")), 1)
        if match.group(1) == language
    ]


def commands(block: str) -> list[list[str]]:
    """The `foreword` commands of a shell block, split into words."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("foreword ")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name or show, as the working directory; "model" is a tiny Llama, "encoder" a BERT, "pairs" a T5."""
    import tiny
    import tiny_encoders
    import tiny_seq2seq

    tiny.network("llama", num_hidden_layers=6).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    tiny_encoders.network("bert").save_pretrained(tmp_path / "encoder")
    tiny_encoders.tokenizer("bert").save_pretrained(tmp_path / "encoder")
    tiny_seq2seq.network("t5").save_pretrained(tmp_path / "pairs")
    tiny_seq2seq.tokenizer("t5").save_pretrained(tmp_path / "pairs")
    for page in PAGES:
        for name, content in FILE.findall(page.read_text("utf-8")):
            (tmp_path / name).write_text(content * 4, "utf-8")
    reviews = [json.dumps({"text": text, "label": label}) for text, label in REVIEWS * 4]
    (tmp_path / "reviews.jsonl").write_text("\n".join(reviews), "utf-8")
    (tmp_path / "test.jsonl").write_text("\n".join(reviews[:4]), "utf-8")
    capitals = [json.dumps({"country": country, "output": output}) for country, output in CAPITALS * 4]
    (tmp_path / "capitals.jsonl").write_text("\n".join(capitals), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def local(text: str, place: Path) -> str:
    """The text with tiny models in the place of real ones."""
    for name, folder in MODELS.items():
        text = text.replace(name, str(place / folder))
    return text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text("utf-8")) if not link.startswith(("http://", "https://"))]
    assert [link for link in links if not (page.parent / link).exists()] == []


# Of trainers that are not ours: no accelerator here, and TRL by its own older name of an option.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument", "ignore:`gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("block", blocks("python"))
def test_python_examples_run(block: str, place: Path) -> None:
    assert STEPS in block, f"an example says {STEPS}, so that this test can take fewer"
    names: dict[str, object] = {}
    exec(compile(local(block, place).replace(STEPS, "steps=4"), "example", "exec"), names)
    result: Any = names["result"]  # of `fit`, or of a trainer
    assert getattr(result, "steps", None) == 4 or result.global_step == 4
    assert len(list((place / "prompts").glob("*/foreword.json"))) == 1


@pytest.mark.timeout(300)  # a command that does not end says so
@pytest.mark.parametrize("block", [block for block in blocks("sh") if commands(block.values[0])])  # type: ignore[attr-defined]
def test_shell_examples_run(block: str, place: Path) -> None:
    from foreword.cli.main import app

    with ExitStack() as servers:
        environment: dict[str, str] = {}
        for words in commands(block):
            arguments = [local(word, place) for word in words[1:]]
            if arguments[0] == "serve":
                environment["FOREWORD_URL"] = servers.enter_context(served(arguments))
                continue
            more = ["--steps", "4"] if arguments[0] in ("train", "compare") else []
            found = CliRunner().invoke(app, [*arguments, *more], env=environment)
            assert found.exit_code == 0, f"{shlex.join(words)}: {found.output}"


@contextmanager
def served(arguments: Sequence[str]) -> Iterator[str]:
    """A server in a process of its own, on a free port; it is killed at the end."""
    with child([sys.executable, "-m", "foreword", *arguments, "--port", "0"]) as process:
        assert process.stderr is not None
        lines = [line for line, _ in zip(process.stderr, range(3), strict=False)]
        yield lines[0].split(" at ")[1].split()[0]
