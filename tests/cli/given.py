"""What the tests of the command share: rows, quick settings, and a tiny model in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from typer.testing import Result

Foreword = Callable[..., Result]
GOOD = ("a joy to watch", "it was great", "good, maybe yes", "the film is a joy")
BAD = ("a dull mess", "it was terrible", "bad, no", "the film goes on and on")
ROWS = [{"text": f"{text} {i}", "label": label} for i in range(5) for label, texts in (("good", GOOD), ("bad", BAD)) for text in texts]
QUICK = (
    *("--method", "prompt-tuning", "--length", "4", "--tracker", "none"),
    *("--steps", "4", "--eval-every", "2", "--batch-size", "4"),
)


def save_tiny(folder: Path, **changes: object) -> Path:
    """A tiny Llama and its tokenizer in a folder."""
    import tiny

    tiny.network("llama", **changes).save_pretrained(folder)
    tiny.tokenizer(chat=True).save_pretrained(folder)
    return folder


def write(path: Path, rows: Sequence[object]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path
