"""`foreword import`: a soft prompt that PEFT saved becomes an adapter."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from foreword.adapters.folder import TENSORS, check_target
from foreword.cli import output
from foreword.cli.expand import expand
from foreword.cli.opening import open_model
from foreword.cli.options import AsJson, Device, Dtype, Force, TaskOptions, in_chat
from foreword.errors import UsageError


@expand(task="Task")
def import_(
    folder: Annotated[str, typer.Argument(metavar="PEFT_DIR", help="Folder that PEFT saved.")],
    model: Annotated[str, typer.Option("--model", help="The base model it was trained on.", rich_help_panel="Model")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new adapter.")],
    task: TaskOptions,
    labels: Annotated[str | None, typer.Option("--labels", help="Comma-separated labels (classify).", rich_help_panel="Task")] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Bring in a soft prompt that PEFT saved.

    PEFT keeps no template and no labels: say what the prompt is for, else it writes on behind the bare column input.

    [bold]Example:[/bold] foreword import peft-folder --model google/gemma-3-270m --out prompts/sentiment --labels negative,positive
    """
    check_target(out, overwrite=force)
    names = tuple(labels.split(",")) if labels else None
    asked = any((task.task, task.template, task.description, task.words, task.max_new_tokens, task.chat, names))
    kind = task.task or ("classify" if names else "generate")
    if (kind == "classify") != bool(names):
        raise UsageError(
            f"task '{kind}' came {'without' if kind == 'classify' else 'with'} --labels; a classifier needs them, a writer of texts has none."
        )
    meant = task.build(kind, names) if asked else None
    from foreword.adapters.peft import import_peft

    frozen = open_model(model, dtype=dtype, device=device)
    if meant is not None and task.chat:
        meant = in_chat(meant, frozen)
    adapter = import_peft(folder, frozen, task=None if meant is None else meant.to_dict())
    adapter.save(out, overwrite=force)
    facts = {
        "adapter": str(out),
        "method": adapter.spec.method,
        "task": adapter.task["kind"],
        "model": model,
        "num_parameters": adapter.flat.numel(),
        "bytes": (out / TENSORS).stat().st_size,
    }
    if json:
        output.document(facts)
        return
    screen = output.screen()
    screen.print(f"{out}: {adapter.spec.method}, {output.count(adapter.spec.length, 'virtual token')}, {adapter.flat.numel():,} numbers")
    screen.print(f"Next:\n  foreword show {shlex.quote(str(out))}")
