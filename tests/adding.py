"""The blocks of docs/adding.md, and its commands typed on a tiny model."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs/adding.md"
MODEL = "google/gemma-3-270m"


def block(name: str) -> str:
    """The one block whose first line says this behind its language."""
    (found,) = re.findall(rf"^```\w+ {re.escape(name)}\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return found


def commands(section: str, model: Path) -> Iterator[list[str]]:
    """The words of a section's commands, the program's name aside, with another model."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (console,) = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for line in console.replace(MODEL, str(model)).splitlines():
        program, *words = shlex.split(line)
        assert program == "foreword"
        yield words
