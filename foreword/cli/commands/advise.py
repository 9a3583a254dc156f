"""`foreword advise`: what a method costs on a model and which to try first, before anything is spent. Neither torch nor weights are needed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from foreword.advisor.inputs import Inputs
from foreword.advisor.workload import BYTES
from foreword.cli.support import output
from foreword.cli.support.config_reader import ShapeOptions, flag, read_config
from foreword.cli.support.dataclass_options import expand
from foreword.cli.support.options import AsJson
from foreword.errors import UsageError
from foreword.methods import BASELINES
from foreword.task_kinds import TASK_KINDS

if TYPE_CHECKING:
    from foreword.advisor.advise import Advice, Pick
    from foreword.advisor.architecture import Architecture

_NAME = "advise"
_WITH_LORA = tuple(name for name, make in BASELINES.items() if make().lora)
_LEGEND = "Cache: keys and values in a sequence, if copied. Compute: added to reading a text."


@expand(situation="Task, data and resources", shape="Model dimensions, instead of --model")
def advise_(
    situation: Inputs,
    shape: ShapeOptions,
    model: Annotated[str | None, typer.Option("--model", help="Folder with config.json, or a hub id in the local cache.")] = None,
    model_parameters: Annotated[
        int | None, typer.Option("--model-parameters", min=1, help="Number of parameters of the model, if known.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Compute what each method costs on a model, and recommend one with reasons.

    Needs only the model's config: no weights and no data.

    [bold]Example:[/bold] foreword advise --model google/gemma-3-270m --task classify --examples 1000 --tasks 1000
    """
    from foreword.advisor.advise import advise
    from foreword.advisor.architecture import read_architecture

    config, refused, notes = _config(model, shape)
    situation = _settled(situation, config)
    network = read_architecture(config)
    if model_parameters is not None:
        network = replace(network, parameters=model_parameters, active=min(network.active, model_parameters))
    elif model is None and shape.intermediate is None:
        notes.append("the MLP's width is taken as 8/3 of the hidden width; give --intermediate or --model-parameters for exact weights.")
    advice = advise(network, situation, refused=refused)
    advice = replace(advice, warnings=(*notes, *advice.warnings))
    if json:
        output.document(_document(advice, network, situation, model))
        return
    _page(advice, network, situation, model)


def _config(model: str | None, shape: ShapeOptions) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """The config, the sites its family does not keep, and what to know of the family."""
    from foreword.families.registry import FAMILIES, REFUSED, family_of

    if model is None:
        return shape.config(), {}, []
    if shape.given:
        raise UsageError(
            f"{flag(next(iter(shape.given)))} and --model were both given, but the config of the model says it; leave one of them out."
        )
    config = read_config(model)
    family = str(config["model_type"])
    if family in REFUSED:
        family_of(family)  # raises the sentence for it
    if family not in FAMILIES:
        return (
            config,
            {},
            [f"model type '{family}' is not supported; these are sizes only, it cannot be trained."],
        )
    row = FAMILIES[family]
    return config, {site: row.why_not for site in ("input", "kv") if site not in row.sites}, []


def _settled(situation: Inputs, config: dict[str, Any]) -> Inputs:
    """With the checkpoint's precision where none was asked for."""
    if situation.dtype is not None:
        return situation
    stored = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return replace(situation, dtype=stored if stored in BYTES else "bfloat16")


def _document(advice: Advice, network: Architecture, situation: Inputs, model: str | None) -> dict[str, Any]:
    from foreword.advisor.memory_estimate import base_bytes

    base = {
        "name": model,
        "family": network.shape.family,
        "kind": network.shape.kind,
        "num_parameters": network.parameters,
        "bytes": base_bytes(network, situation.load().dtype),
        "dtype": situation.load().dtype,
        "layers": network.depth,
        "positions": None if network.shape.positions >= 1 << 30 else network.shape.positions,
    }
    task = _task(situation, network)
    return {
        "recommended": None if advice.recommended is None else _pick_document(advice.recommended, model, situation, task),
        "alternatives": [_pick_document(pick, model, situation, task) for pick in advice.alternatives],
        "sizing": {"model": base, "methods": [size.to_dict() for size in advice.sizing]},
        "warnings": list(advice.warnings),
    }


def _pick_document(pick: Pick, model: str | None, situation: Inputs, task: str) -> dict[str, Any]:
    settings = [{"about": choice.about, "reason": choice.reason, "source": choice.source} for choice in pick.choices]
    return {
        "method": pick.method,
        **pick.settings,
        "reasons": [{"about": "method", "reason": rule.reason, "source": rule.source} for rule in pick.reasons] + settings,
        "against": [{"reason": rule.reason, "source": rule.source} for rule in pick.against],
        "command": _command(pick, model, situation, task),
    }


def _page(advice: Advice, network: Architecture, situation: Inputs, model: str | None) -> None:
    from foreword.advisor.memory_estimate import base_bytes

    screen, weights = output.screen(), base_bytes(network, situation.load().dtype)
    name = model or "the given shape"
    screen.print(f"{name}: {network.shape.kind}, {network.parameters:,} numbers, {output.size(weights)} in {situation.load().dtype}")
    output.show(_files(advice, situation))
    screen.print(f"\nTraining: memory of a step of {situation.batch_size} × {situation.text_tokens} tokens. {_LEGEND}", style="dim")
    output.show(_costs(advice))
    for number, pick in enumerate(advice.picks):
        screen.print(f"\n{'Or' if number else 'Try first'}: {_settings(pick)}")
        for sentence in _sentences(pick, whole=not number):
            screen.print(sentence)
    for warning in advice.warnings:
        output.say(f"note: {warning}")
    command = advice.recommended and _command(advice.recommended, model, situation, _task(situation, network))
    if command:
        screen.print(f"\nNext:\n  {command}")


def _files(advice: Advice, situation: Inputs) -> Table:
    """What each method trains and keeps."""
    table = _table("numbers trained", "kept", "a task's file", f"all {output.count(situation.tasks, 'task')}")
    for size in advice.sizing:
        kept = (
            f"{size.numbers.trained:,}",
            f"{size.numbers.stored:,}",
            output.size(size.bytes_per_task),
            output.size(size.bytes_all_tasks),
        )
        table.add_row(size.method, *kept, style="dim" if size.excluded else "")
    return table


def _costs(advice: Advice) -> Table:
    """What each method takes from training and from a request."""
    table = _table("training", "cache", "context left", "compute")
    for size in advice.sizing:
        cache = output.size(size.cache_bytes_per_sequence) if size.cache_bytes_per_sequence else "–"
        left = "no limit" if size.context_left is None else f"{size.context_left:,}"
        row = (output.size(size.memory.total), cache, left, f"+{100 * size.added_compute:.1f} %")
        table.add_row(size.method, *row, style="dim" if size.excluded else "")
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("method", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _settings(pick: Pick) -> str:
    """A method and its settings in words."""
    settings = pick.settings
    length = f", {output.count(int(settings['length']), 'virtual token')}" if "length" in settings else ""
    rate = f"learning rate {settings['learning_rate']:g}{' of the RMS' if 'length' in settings else ''}"
    return f"{pick.method}{length}, {rate}, {settings['steps']:,} steps{', gradient checkpointing' if 'gradient_checkpointing' in settings else ''}"


def _sentences(pick: Pick, *, whole: bool) -> Iterator[str]:
    """Why, what speaks against it, and where the settings come from; of an alternative the first two alone."""
    for rule in pick.reasons:
        yield f"  because {rule.reason} [{rule.source}]"
    for rule in pick.against if whole else pick.against[:1]:
        yield f"  against: {rule.reason} [{rule.source}]"
    for choice in pick.choices if whole else ():
        yield f"  {choice.about.replace('_', ' ')}: {choice.reason} [{choice.source}]"


def _task(situation: Inputs, network: Architecture) -> str:
    """The kind to train: encoders answer with a head."""
    kind = TASK_KINDS[situation.task]
    return kind.with_head if network.shape.kind == "encoder" and kind.with_head else kind.name


def _command(pick: Pick, model: str | None, situation: Inputs, task: str) -> str | None:
    """The command line that tries it; of a shape alone there is none."""
    if model is None:
        return None
    words = [
        "foreword",
        "train",
        "DATA",
        "--model",
        model,
        "--task",
        task,
        "--method",
        pick.method,
        "--out",
        f"prompts/{situation.task}",
    ]
    length = ["--length", str(pick.settings["length"])] if "length" in pick.settings else []
    if pick.method in _WITH_LORA and situation.lora_r != Inputs.lora_r:
        length += ["--lora-r", str(situation.lora_r)]
    saving = ["--gradient-checkpointing"] if "gradient_checkpointing" in pick.settings else []
    return shlex.join([*words, *length, "--steps", str(pick.settings["steps"]), *saving])


advise_.__name__ = _NAME
