"""Options shared by several commands, and those of a method and a task as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.support.shell_completion import adapter_names, choices
from foreword.errors import UsageError
from foreword.methods import BASELINES, DEFAULT_METHOD, METHODS, named
from foreword.prompts.template import Template
from foreword.recipe import LoraSpec, Recipe
from foreword.specs import INIT_KINDS, Init, Layers, PromptSpec
from foreword.task_kinds import CONVERSATIONS, TASK_KINDS, TaskKind

if TYPE_CHECKING:
    from foreword.backbone.model_info import ModelInfo
    from foreword.tasks.base import Task
    from foreword.tasks.data.reader import Rows

POOLINGS = ("auto", "first", "last", "mean")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MODEL = "Model"
# Why an option does not apply to a kind of task that does not have it.
_NOT_FOR = {
    "template": "reads texts in the tokenizer's own format",
    "chat": "reads texts in the tokenizer's own format",
    "words": "has no label words",
    "max_new_tokens": "writes no text",
    "pooling": "has no head on one state of a text",
    "conversation": "does not read one plain text",
}
TRAINABLE = (*METHODS, *(name for name in BASELINES if not name.endswith("-shot")))

AdapterPath = Annotated[str, typer.Argument(metavar="ADAPTER", help="Folder of the adapter.", autocompletion=adapter_names)]
BaseModel = Annotated[
    str | None, typer.Option("--model", help="Base model; by default the one recorded in the adapter.", rich_help_panel=MODEL)
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype", help=f"Precision of the base model: {', '.join(DTYPES)}.", rich_help_panel=MODEL, autocompletion=choices(DTYPES)
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", help="Device, for example cpu or cuda:1; by default a GPU if available.", rich_help_panel=MODEL)
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="A=B,…", help="Use column B of the data as A, for example text=sentence,label=y.", rich_help_panel="Data"
    ),
]
Stream = Annotated[
    int | None,
    typer.Option("--stream", metavar="N", help="Read DATA as a stream and stop after N examples, in random order.", rich_help_panel="Data"),
]
Truncate = Annotated[bool, typer.Option("--truncate", help="Truncate texts that are too long; by default they are refused.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Texts per batch.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and messages on standard error.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing adapter.")]


def _option(default: Any, help: str, complete: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": help, "complete": choices(complete) if complete else None})


@dataclass(frozen=True)
class MethodOptions:
    """Options of the method."""

    method: str = _option(DEFAULT_METHOD, f"One of {', '.join(TRAINABLE)}, or a combination such as {DEFAULT_METHOD}+lora.", TRAINABLE)
    length: int | None = _option(None, f"Number of virtual tokens; by default {METHODS[DEFAULT_METHOD]().length}.")
    init: str | None = _option(
        None, f"Initial values, KIND or KIND:PATH: {', '.join(INIT_KINDS)}; by default those of the method.", INIT_KINDS
    )
    init_text: str | None = _option(None, "Text for the initial values; by default the words of the task.")
    layers: str | None = _option(
        None, "Layers that get keys and values: all, last:N, or indices such as 0,2,5; by default those of the method."
    )
    parts: str | None = _option(
        None, "Parts of an encoder–decoder that get keys and values: all, or some of encoder,decoder,cross; by default those of the method."
    )
    dropout: float | None = _option(None, "Dropout probability on the prompt's values during training; by default that of the method.")
    lora_r: int | None = _option(None, "Rank of LoRA.")
    lora_alpha: float | None = _option(None, "Alpha of LoRA: its update is scaled by alpha / r.")
    lora_targets: str | None = _option(None, "Modules that get LoRA: attention, all-linear, or names such as q_proj,v_proj.")
    lora_rslora: bool = _option(False, "Rank-stabilised LoRA: scale by alpha / sqrt(r).")
    lora_path: str | None = _option(None, "Saved LoRA to start from: a folder of PEFT or Foreword.")
    lora_frozen: bool = _option(False, "Freeze the LoRA of --lora-path; only the prompt is trained.")
    quantize: str | None = _option(None, "Quantise the base model: nf4 (4 bits) or int8.", ("nf4", "int8"))

    def recipe(self) -> Recipe:
        """The recipe; raises UsageError for options that are not valid or do not apply to the method."""
        found = named(self.method)
        if found.prompt is None:
            self._refuse("a soft prompt", "length", "init", "init_text", "layers", "parts", "dropout")
        if found.lora is None:
            self._refuse("LoRA", "lora_r", "lora_alpha", "lora_targets", "lora_rslora", "lora_path", "lora_frozen")
        if self.quantize not in (None, "nf4", "int8"):
            raise UsageError(f"--quantize '{self.quantize}' is not known; choose nf4 or int8.")
        prompt = found.prompt and self._prompt(found.prompt)
        lora = found.lora and self._lora(found.lora)
        return replace(found, prompt=prompt, lora=lora, quantize=self.quantize or found.quantize)

    def _refuse(self, part: str, *names: str) -> None:
        """Raise UsageError for the first of these options that was given."""
        defaults = MethodOptions()
        for name in names:
            if getattr(self, name) != getattr(defaults, name):
                raise UsageError(
                    f"--{name.replace('_', '-')} does not apply to method '{self.method}', which has no {part.removeprefix('a ')}; leave it out."
                )

    def _prompt(self, spec: PromptSpec) -> PromptSpec:
        given: dict[str, Any] = {name: getattr(self, name) for name in ("length", "dropout") if getattr(self, name) is not None}
        if self.init is not None or self.init_text is not None:
            given["init"] = self._init(self.init or "default")
        if self.layers is not None:
            given["layers"] = self._layers(self.layers)
        if self.parts is not None:
            given["parts"] = self.parts if self.parts == "all" else tuple(self.parts.split(","))
        return replace(spec, **given)

    def _lora(self, spec: LoraSpec) -> LoraSpec:
        targets = spec.targets if self.lora_targets is None else self.lora_targets
        if isinstance(targets, str) and targets not in ("attention", "all-linear"):
            targets = tuple(targets.split(","))
        return replace(
            spec,
            r=self.lora_r or spec.r,
            alpha=spec.alpha if self.lora_alpha is None else self.lora_alpha,
            targets=targets,
            rslora=self.lora_rslora or spec.rslora,
            path=self.lora_path or spec.path,
            frozen=self.lora_frozen or spec.frozen,
        )

    def _init(self, init: str) -> Init:
        kind, _, path = init.partition(":")
        if self.init_text is not None and kind not in ("default", "text", "kv_of_text"):
            raise UsageError(
                f"--init-text does not apply to --init {kind}, which takes no text; leave one of them out, or use --init text."
            )
        return Init(kind, text=self.init_text, path=path or None)

    @staticmethod
    def _layers(layers: str) -> Layers:
        if layers == "all" or layers.startswith("last:"):
            return layers
        try:
            return tuple(int(index) for index in layers.split(","))
        except ValueError:
            raise UsageError(f"--layers '{layers}' is not valid; use all, last:N or indices such as 0,2,5.") from None


@dataclass(frozen=True)
class TaskOptions:
    """Options of the task; missing ones are inferred from the data."""

    task: str | None = _option(None, f"One of {', '.join(TASK_KINDS)}; by default inferred from the columns.", tuple(TASK_KINDS))
    template: str | None = _option(None, r"Template with fields and soft tokens, for example '{soft}{text}\nLabel: {answer}'.")
    description: str | None = _option(None, "Description of the task; it initialises the prompt.")
    words: str | None = _option(None, "Label words, comma-separated, in the order of the sorted labels (classify).")
    max_new_tokens: int | None = _option(None, "Maximum length of an output in tokens (generate, seq2seq).")
    pooling: str | None = _option(None, f"Pooling of a head on the whole text: {', '.join(POOLINGS)}.", POOLINGS)
    conversation: str | None = _option(
        None, f"What a server's chat requests give it: {', '.join(CONVERSATIONS)}; by default {CONVERSATIONS[0]}.", CONVERSATIONS
    )
    chat: bool = _option(False, "Put the template into a user message of the model's chat format.")

    def kind(self, columns: tuple[str, ...]) -> str:
        """The task's kind: as asked, else by the answer's column where a template names the others, else by all columns."""
        from foreword.tasks.registry import kind_of

        if self.task is not None and self.task not in TASK_KINDS:
            raise UsageError(f"task '{self.task}' is not known; choose one of {', '.join(TASK_KINDS)}.")
        if self.task is None and self.template is not None:
            for kind in TASK_KINDS.values():
                if kind.target in columns:
                    return kind.name
        return self.task or kind_of(columns)

    def settings(self, kind: TaskKind) -> dict[str, Any]:
        """The options that were given, as arguments of the task's class; raises UsageError for those of other kinds."""
        for name, why in _NOT_FOR.items():
            if getattr(self, name) not in (None, False) and name not in kind.options:
                raise UsageError(f"--{name.replace('_', '-')} does not apply to a {kind.name} task, which {why}; leave it out.")
        names = [name for name in ("description", *kind.options) if name != "chat"]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if "template" in given:
            given["template"] = Template.parse(given["template"].replace("\\n", "\n").replace("\\t", "\t"))
        if "words" in given:
            given["words"] = given["words"].split(",") if given["words"] else []
        return given


def in_chat(task: Task, info: ModelInfo) -> Task:
    """The task, read through the model's chat format."""
    from foreword.tasks.template_task import TemplateTask

    assert isinstance(task, TemplateTask), "--chat is refused for tasks without a template"
    return task.with_template(Template.parse(info.tokenizer.chat(task.template.source)))


def check_columns(rows: Rows, task: Task, source: str) -> None:
    """Raise DataError unless every row has the task's columns."""
    from foreword.tasks.data.reader import need

    need(rows, [*task.columns, task.target], source)


def parse_columns(text: str | None) -> Mapping[str, str]:
    """`--columns` as a mapping from our names to the data's; raises UsageError for anything but pairs."""
    pairs = [pair.partition("=") for pair in text.split(",")] if text else []
    if any(not ours or not theirs for ours, _, theirs in pairs) or len({ours for ours, _, _ in pairs}) != len(pairs):
        raise UsageError(f"--columns '{text}' cannot be read; give pairs such as text=sentence,label=y, each name once.")
    return {ours: theirs for ours, _, theirs in pairs}
