"""`foreword list`: the adapters of a folder, without reading their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from foreword.cli.support import output
from foreword.cli.support.options import AsJson

if TYPE_CHECKING:
    from foreword.adapters.store import Card


def list_adapters(
    folder: Annotated[
        str, typer.Argument(metavar="[FOLDER]", help="Folder of adapters, or URL of a store such as s3://bucket/prompts.")
    ] = "prompts",
    json: AsJson = False,
) -> None:
    """List the adapters of a folder with task, method, size and score.

    [bold]Example:[/bold] foreword list prompts
    """
    from foreword.adapters.store import AdapterStore

    store = AdapterStore(folder)
    cards = store.list()
    if json:
        output.document({"folder": folder, "adapters": [_document(f"{store.url}/{card.name}", card) for card in cards]})
        return
    if not cards:
        output.say(f"no adapters in '{folder}'.")
        return
    whole = [card for card in cards if card.problem is None]
    if whole:
        output.show(_table(whole))
    for card in cards:
        if card.problem is not None:
            output.say(f"note: {card.problem}")


def _document(path: str, card: Card) -> dict[str, object]:
    if card.problem is not None:
        return {"adapter": path, "problem": card.problem}
    return {
        "adapter": path,
        "method": card.method,
        "task": card.kind,
        "model": card.base,
        "num_virtual_tokens": card.length,
        "bytes": card.num_bytes,
        "scores": card.scores,
    }


def _table(cards: Sequence[Card]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("name", "task", "method", "base"):
        table.add_column(name, overflow="fold")
    for name in ("P", "size", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    for card in cards:
        first = next(iter(card.scores.values()), None)
        score = "" if first is None else f"{first['value']:.3f} ± {first['stderr']:.3f}"
        table.add_row(card.name, card.kind, card.method, _short(card.base), str(card.length), output.size(card.num_bytes), score)
    return table


def _short(base: str) -> str:
    """A hub id whole, of a folder its last part."""
    return base if base.count("/") < 2 and not base.startswith((".", "/")) else base.rstrip("/").rpartition("/")[2]
