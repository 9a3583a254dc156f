"""`foreword export`: an adapter as a folder that PEFT reads, or two, with the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from foreword.cli.support import output
from foreword.cli.support.loaders import open_adapter, open_model, warm_up
from foreword.cli.support.options import AdapterPath, AsJson, Device, Dtype, Force


def export(
    adapter: AdapterPath,
    out: Annotated[Path, typer.Option("--out", help="Output folder.")],
    model: Annotated[str | None, typer.Option("--model", help="Base model, if the export needs it.", rich_help_panel="Model")] = None,
    as_: Annotated[
        Literal["cartridge"] | None,
        typer.Option("--as", help="cartridge: write keys and values as PEFT's CARTRIDGE, not as a prefix."),
    ] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Convert an adapter to PEFT's format.

    A prompt that is placed after the beginning-of-sequence token is converted to keys and values, which needs --model.
    A prompt with LoRA is written as two folders, prompt and lora, inside --out.

    [bold]Example:[/bold] foreword export prompts/sentiment --out peft-folder --model google/gemma-3-270m
    """
    warm_up()
    from foreword.adapters.peft_import_export import export_folders

    found = open_adapter(adapter)
    frozen = None if model is None else open_model(model, dtype=dtype, device=device)
    made = export_folders(found, out, frozen, peft_type=as_ and as_.upper(), overwrite=force)
    if json:
        parts = [{"folder": str(part.path), "peft_type": part.peft_type, "note": part.note} for part in made]
        output.document({"adapter": adapter, **(parts[0] if len(parts) == 1 else {"folders": parts})})
        return
    screen = output.screen()
    for part in made:
        screen.print(f"{part.path}: {part.peft_type}")
    screen.print(made[0].note)
