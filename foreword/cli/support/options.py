"""What commands can be asked: options shared by several of them, and those of a method and a task as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.support.shell_completion import adapter_names, choices
from foreword.errors import DataError, UsageError
from foreword.methods import BASELINES, DEFAULT_METHOD, METHODS, named
from foreword.prompts.template import Template
from foreword.recipe import LoraSpec, Recipe
from foreword.specs import INIT_KINDS, Init, Layers, PromptSpec

if TYPE_CHECKING:
    from foreword.backbone.model_info import ModelInfo
    from foreword.tasks.base import Task
    from foreword.tasks.data.reader import Rows

KINDS = ("classify", "classify-head", "multi-label", "regress", "tag", "qa", "choice", "probe", "generate", "seq2seq")
POOLINGS = ("auto", "first", "last", "mean")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MODEL = "Model"
TRAINABLE = (*METHODS, *(name for name in BASELINES if not name.endswith("-shot")))

AdapterPath = Annotated[str, typer.Argument(metavar="ADAPTER", help="Folder of the adapter.", autocompletion=adapter_names)]
BaseModel = Annotated[str | None, typer.Option("--model", help="Base model, if not the one recorded.", rich_help_panel=MODEL)]
Dtype = Annotated[
    str,
    typer.Option("--dtype", help=f"Precision: {', '.join(DTYPES)}.", rich_help_panel=MODEL, autocompletion=choices(DTYPES)),
]
Device = Annotated[
    str | None, typer.Option("--device", help="For example cpu or cuda:1; by default a GPU if there is one.", rich_help_panel=MODEL)
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="A=B,…", help="Read column B of the data as A, for example text=sentence,label=y.", rich_help_panel="Data"
    ),
]
Stream = Annotated[
    int | None,
    typer.Option(
        "--stream", metavar="N", help="Read DATA as a stream, no further than for N examples in random order.", rich_help_panel="Data"
    ),
]
Truncate = Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long, instead of refusing them.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Texts computed together.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, all else on standard error.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an adapter that is there already.")]


def _option(default: Any, help: str, complete: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": help, "complete": choices(complete) if complete else None})


@dataclass(frozen=True)
class MethodOptions:
    """What to train, and what its parts can be told."""

    method: str = _option(DEFAULT_METHOD, f"One of {', '.join(TRAINABLE)}, or a sum such as {DEFAULT_METHOD}+lora.", TRAINABLE)
    length: int | None = _option(None, f"Number of virtual tokens; by default {METHODS[DEFAULT_METHOD]().length}.")
    init: str = _option("default", f"KIND or KIND:PATH, where the first values come from: {', '.join(INIT_KINDS)}.", INIT_KINDS)
    init_text: str | None = _option(None, "Words to start from; by default the task's own.")
    layers: str = _option("all", "Layers that get keys and values: all, last:N, or indices such as 0,2,5.")
    parts: str = _option("all", "Parts of an encoder–decoder that get keys and values: all, or some of encoder,decoder,cross.")
    dropout: float = _option(0.0, "Share of the prompt's numbers dropped while training.")
    lora_r: int | None = _option(None, "Rank of LoRA.")
    lora_alpha: float | None = _option(None, "Scale of LoRA: its product is multiplied by alpha / r.")
    lora_targets: str | None = _option(None, "Layers that get LoRA: attention, all-linear, or names such as q_proj,v_proj.")
    lora_rslora: bool = _option(False, "Divide LoRA's alpha by the root of r.")
    lora_path: str | None = _option(None, "Saved LoRA to start from: a folder of PEFT's or of Foreword's.")
    lora_frozen: bool = _option(False, "Keep that LoRA as it is, and train a prompt on top of it.")
    quantize: str | None = _option(None, "Load the base in nf4 (4 bits) or int8.", ("nf4", "int8"))

    def recipe(self) -> Recipe:
        """What is trained; raises UsageError for anything that cannot be, options of a part that the method lacks among it."""
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
                    f"--{name.replace('_', '-')} came with method '{self.method}', which has no {part.removeprefix('a ')}; leave it out."
                )

    def _prompt(self, spec: PromptSpec) -> PromptSpec:
        length = spec.length if self.length is None else self.length
        parts = self.parts if self.parts == "all" else tuple(self.parts.split(","))
        return replace(spec, length=length, init=self._init(), layers=self._layers(), dropout=self.dropout, parts=parts)

    def _lora(self, spec: LoraSpec) -> LoraSpec:
        targets = spec.targets if self.lora_targets is None else self.lora_targets
        if isinstance(targets, str) and targets not in ("attention", "all-linear"):
            targets = tuple(targets.split(","))
        return LoraSpec(
            r=self.lora_r or spec.r,
            alpha=spec.alpha if self.lora_alpha is None else self.lora_alpha,
            targets=targets,
            rslora=self.lora_rslora,
            path=self.lora_path,
            frozen=self.lora_frozen,
        )

    def _init(self) -> Init:
        kind, _, path = self.init.partition(":")
        if self.init_text is not None and kind not in ("default", "text", "kv_of_text"):
            raise UsageError(f"--init-text came with --init {kind}, which takes no words; leave one of them out, or use --init text.")
        return Init(kind, text=self.init_text, path=path or None)

    def _layers(self) -> Layers:
        if self.layers == "all" or self.layers.startswith("last:"):
            return self.layers
        try:
            return tuple(int(index) for index in self.layers.split(","))
        except ValueError:
            raise UsageError(f"--layers '{self.layers}' cannot be read; give all, last:N or indices such as 0,2,5.") from None


@dataclass(frozen=True)
class TaskOptions:
    """What the model is asked to do; whatever is left out is guessed from the data."""

    task: str | None = _option(None, f"One of {', '.join(KINDS)}; by default guessed from the columns.", KINDS)
    template: str | None = _option(None, r"Where fields and soft tokens stand, for example '{soft}{text}\nLabel: {answer}'.")
    description: str | None = _option(None, "The task in words; the prompt starts from them.")
    words: str | None = _option(None, "Words for the labels, comma-separated in the order of the sorted labels (classify).")
    max_new_tokens: int | None = _option(None, "Longest answer in tokens (generate).")
    pooling: str | None = _option(None, f"What a head on a whole text reads: {', '.join(POOLINGS)}.", POOLINGS)
    chat: bool = _option(False, "Read the template as a user's message of the model's chat format.")

    def build(self, kind: str, labels: tuple[str, ...] | None) -> Task:
        """The task, with `labels` if it is to classify; raises UsageError for options of the other kind, and for a kind made from examples."""
        from foreword.tasks.registry import task_from_dict

        if kind not in ("classify", "generate", "seq2seq"):
            raise UsageError(f"task '{kind}' is made from examples, and here are none; choose classify, generate or seq2seq.")
        given: dict[str, Any] = {"kind": kind, "template": self.source(kind)}
        if self.description is not None:
            given["description"] = self.description
        if kind == "classify":
            self._refuse("--max-new-tokens", self.max_new_tokens, kind, "writes no text")
            given |= {"labels": list(labels or ()), "words": self.words.split(",") if self.words else []}
        else:
            self._refuse("--words", self.words, kind, "has no label words")
            given |= {} if self.max_new_tokens is None else {"max_new_tokens": self.max_new_tokens}
        return task_from_dict(given)

    def kind(self, columns: tuple[str, ...]) -> str:
        """The task's kind: as asked, else by the answer's column where a template names the others, else by all columns."""
        from foreword.tasks.registry import KINDS, kind_of

        if self.task is not None and self.task not in KINDS:
            raise UsageError(f"task '{self.task}' is not known; choose one of {', '.join(KINDS)}.")
        if self.task is None and self.template is not None:
            for kind, task in KINDS.items():
                if task.target in columns:
                    return kind
        return self.task or kind_of(columns)

    def source(self, kind: str) -> str:
        """The template asked for, or the kind's own."""
        from foreword.tasks.registry import KINDS

        return KINDS[kind].template.source if self.template is None else self.template.replace("\\n", "\n").replace("\\t", "\t")

    def _refuse(self, flag: str, value: object, kind: str, why: str) -> None:
        if value is not None:
            raise UsageError(f"{flag} came for a {kind} task, which {why}; leave it out.")


def in_chat(task: Task, info: ModelInfo) -> Task:
    """The task, read through the model's chat format."""
    from foreword.tasks.template_task import TemplateTask

    assert isinstance(task, TemplateTask), "--chat is refused for tasks without a template"
    return task.with_template(Template.parse(info.tokenizer.chat(task.template.source)))


def check_columns(rows: Rows, task: Task, source: str) -> None:
    """Raise DataError unless every row has the task's columns."""
    from foreword.tasks.data.reader import need

    need(rows, [*task.columns, task.target], source)


def labels_of(rows: Rows, source: str) -> tuple[str, ...]:
    """The sorted labels of the data; raises DataError for a missing or an empty one."""
    from foreword.tasks.data.reader import need

    for number, row in enumerate(need(rows, ["label"], source), 1):
        if not row["label"].strip():
            raise DataError(f"row {number} of '{source}' has an empty label; fill it or remove the row.")
    return tuple(sorted({row["label"] for row in rows}))


def parse_columns(text: str | None) -> Mapping[str, str]:
    """`--columns` as a mapping from our names to the data's; raises UsageError for what is no pair."""
    pairs = [pair.partition("=") for pair in text.split(",")] if text else []
    if any(not ours or not theirs for ours, _, theirs in pairs) or len({ours for ours, _, _ in pairs}) != len(pairs):
        raise UsageError(f"--columns '{text}' cannot be read; give pairs such as text=sentence,label=y, each name once.")
    return {ours: theirs for ours, _, theirs in pairs}
