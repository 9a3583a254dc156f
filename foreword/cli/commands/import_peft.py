"""`foreword import`: a soft prompt or a LoRA that PEFT saved becomes an adapter."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.adapters.folder import TENSORS, check_target
from foreword.cli.support import output
from foreword.cli.support.dataclass_options import expand
from foreword.cli.support.loaders import open_model, warm_up
from foreword.cli.support.options import AsJson, Device, Dtype, Force, TaskOptions, in_chat
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.adapters.adapter import Adapter
    from foreword.tasks.base import Task


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
    """Bring in a soft prompt or a LoRA that PEFT saved.

    PEFT keeps no template and no labels: say what the prompt is for, else it writes on behind the bare column input.

    [bold]Example:[/bold] foreword import peft-folder --model google/gemma-3-270m --out prompts/sentiment --labels negative,positive
    """
    check_target(out, overwrite=force)
    warm_up()
    from foreword.adapters.import_export import import_folder

    meant = _meant(task, labels)
    frozen = open_model(model, dtype=dtype, device=device)
    if meant is not None and task.chat:
        meant = in_chat(meant, frozen.info)
    adapter = import_folder(folder, frozen, task=None if meant is None else meant.to_dict())
    adapter.save(out, overwrite=force)
    if json:
        output.document(_document(adapter, out, model))
        return
    screen = output.screen()
    length = f"{output.count(adapter.spec.length, 'virtual token')}, " if adapter.recipe.prompt else ""
    screen.print(f"{out}: {adapter.method}, {length}{adapter.num_parameters:,} numbers")
    screen.print(f"Next:\n  foreword show {shlex.quote(str(out))}")


def _meant(options: TaskOptions, labels: str | None) -> Task | None:
    """The task described, or None where nothing was said; raises UsageError for labels without a classifier and a classifier without labels."""
    names = tuple(labels.split(",")) if labels else None
    kind = options.task or ("classify" if names else "generate")
    if (kind == "classify") != bool(names):
        raise UsageError(
            f"task '{kind}' came {'without' if kind == 'classify' else 'with'} --labels; a classifier needs them, a writer of texts has none."
        )
    return options.build(kind, names) if names or options != TaskOptions() else None


def _document(adapter: Adapter, out: Path, model: str) -> dict[str, Any]:
    return {
        "adapter": str(out),
        "method": adapter.method,
        "task": adapter.task["kind"],
        "model": model,
        "num_parameters": adapter.num_parameters,
        "bytes": (out / TENSORS).stat().st_size,
    }
