"""`foreword demo`: real texts, a real model, one small machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foreword.cli.support import output, progress
from foreword.cli.support.options import AsJson


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the adapters.")] = Path("foreword-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Use fewer steps and texts: a quick check, with lower scores.")] = False,
    json: AsJson = False,
) -> None:
    """Train three soft prompts for Gemma-3-270M on real texts, and compare them with written prompts.

    Needs [bold]pip install "foreword\\[demo]"[/bold], but no network.

    [bold]Example:[/bold] foreword demo --quick
    """
    from foreword.demo.run_demo import run

    found = run(out=out, quick=quick, console=output.screen(stderr=json), display=progress.trainings)
    if json:
        output.document(found)
