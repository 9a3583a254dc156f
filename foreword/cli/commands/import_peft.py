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
from foreword.task_kinds import TASK_KINDS

if TYPE_CHECKING:
    from foreword.adapters.adapter import Adapter
    from foreword.tasks.base import Task


@expand(task="Task")
def import_(
    folder: Annotated[str, typer.Argument(metavar="PEFT_DIR", help="Folder saved by PEFT.")],
    model: Annotated[str, typer.Option("--model", help="The base model of the PEFT adapter.", rich_help_panel="Model")],
    out: Annotated[Path, typer.Option("--out", help="Output folder.")],
    task: TaskOptions,
    labels: Annotated[str | None, typer.Option("--labels", help="Comma-separated labels (classify).", rich_help_panel="Task")] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Convert a soft prompt or a LoRA saved by PEFT to an adapter.

    PEFT does not save a template or labels, so describe the task with the options below. By default the adapter
    generates text after the column input, without a template.

    [bold]Example:[/bold] foreword import peft-folder --model google/gemma-3-270m --out prompts/sentiment --labels negative,positive
    """
    check_target(out, overwrite=force)
    warm_up()
    from foreword.adapters.peft_import_export import import_folder

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
    """The task from the options, or None without any; raises UsageError for one that needs training examples."""
    from foreword.tasks.registry import task_class

    names = labels.split(",") if labels else []
    made = {kind.name: kind.made_from for kind in TASK_KINDS.values() if kind.made_from != "examples"}
    task = options.task or next(name for name, source in made.items() if (source == "labels") == bool(names))
    labelled = made.get(task) == "labels"
    if labelled != bool(names):
        raise UsageError(
            f"task '{task}' came {'without' if labelled else 'with'} --labels; only a classifier has labels; add or remove them."
        )
    if task not in made:
        *others, last = made
        raise UsageError(f"task '{task}' needs training examples, which import does not have; choose {', '.join(others)} or {last}.")
    settings = options.settings(TASK_KINDS[task])
    if not names and options == TaskOptions():
        return None
    return task_class(task)(names, **settings) if names else task_class(task)(**settings)


def _document(adapter: Adapter, out: Path, model: str) -> dict[str, Any]:
    return {
        "adapter": str(out),
        "method": adapter.method,
        "task": adapter.task["kind"],
        "model": model,
        "num_parameters": adapter.num_parameters,
        "bytes": (out / TENSORS).stat().st_size,
    }
