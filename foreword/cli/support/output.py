"""Output of commands: results on standard output (one JSON document, or tables), everything else on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 4096  # no width limit in a pipe, where lines must not be wrapped


def screen(*, stderr: bool = False) -> Console:
    """A console on the present stream; plain text without wrapping if it is not a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else PLAIN_WIDTH, highlight=False, markup=False, emoji=False)


def document(content: Mapping[str, Any]) -> None:
    """One JSON document on one line; numbers that are not finite become null."""
    print(json.dumps(_plain(content), ensure_ascii=not _is_unicode(), allow_nan=False), flush=True)


def is_main() -> bool:
    """Whether this process prints: launchers of several processes number them by RANK."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """A line for the user on standard error, printed once if a launcher started several processes."""
    if is_main():
        print(text, file=sys.stderr, flush=True)


def fail(error: object) -> None:
    """Print the sentence of an error."""
    say(f"foreword: error: {error}")


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Print names on the left, what they are on the right."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    show(table)


def show(table: Table) -> None:
    """Print a table; a pipe gets no spaces at the ends of lines."""
    console = screen()
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() if not console.is_terminal else line for line in drawn.get().splitlines()), flush=True)


def score_text(score: Mapping[str, float]) -> str:
    """A score with its standard error and n."""
    return f"{score['value']:.3f} ± {score['stderr']:.3f} (n {int(score['n']):,})"


def size(num_bytes: int) -> str:
    """Bytes as people read them."""
    if num_bytes < 1000:
        return count(num_bytes, "byte")
    power = 1 if num_bytes < 1e6 else 2 if num_bytes < 1e9 else 3
    return f"{num_bytes / 1000**power:.1f} {('kB', 'MB', 'GB')[power - 1]}"


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def count(number: int, noun: str) -> str:
    """`1 text`, `2 texts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
