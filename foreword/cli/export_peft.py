"""`foreword export`: an adapter as a folder that PEFT reads, with the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from foreword.cli import output
from foreword.cli.opening import open_adapter, open_model, warm_up
from foreword.cli.options import AdapterPath, AsJson, Device, Dtype, Force


def export(
    adapter: AdapterPath,
    out: Annotated[Path, typer.Option("--out", help="Folder for PEFT.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Base model, where the export needs to run it.", rich_help_panel="Model")
    ] = None,
    as_: Annotated[
        Literal["cartridge"] | None, typer.Option("--as", help="cartridge: keys and values under this name of PEFT's, not as a prefix.")
    ] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Write an adapter as a folder that PEFT reads.

    A prompt that stands behind the beginning-of-sequence token becomes keys and values, for which --model is run once.

    [bold]Example:[/bold] foreword export prompts/sentiment --out peft-folder --model google/gemma-3-270m
    """
    warm_up()
    from foreword.adapters.peft import export_peft

    found = open_adapter(adapter)
    frozen = None if model is None else open_model(model, dtype=dtype, device=device)
    made = export_peft(found, out, frozen, peft_type=as_ and as_.upper(), overwrite=force)
    if json:
        output.document({"adapter": adapter, "folder": str(made.path), "peft_type": made.peft_type, "note": made.note})
        return
    screen = output.screen()
    screen.print(f"{made.path}: {made.peft_type}")
    screen.print(made.note)
