"""Result files: JSON, written whole or not at all, so that a run can be stopped at any time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def read(path: Path) -> dict[str, Any]:
    """What was written, or nothing where there is no file yet."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(temporary, path)
