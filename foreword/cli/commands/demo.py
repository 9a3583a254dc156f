"""`foreword demo`: real texts, a real model, one small machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foreword.cli.support import output, progress
from foreword.cli.support.options import AsJson


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the demo's adapters.")] = Path("foreword-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps and texts: shows that it runs, not how good it gets.")] = False,
    json: AsJson = False,
) -> None:
    """Train and compare soft prompts on real texts with a real model, on this machine.

    Needs the packages of [bold]pip install "foreword\\[demo]"[/bold] and no network.

    [bold]Example:[/bold] foreword demo --quick
    """
    from foreword.demo.run_demo import run

    found = run(out=out, quick=quick, console=output.screen(stderr=json), display=progress.trainings)
    if json:
        output.document(found)
