"""The inputs of the advice besides the model; every field is an option of `foreword advise`, with this help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from foreword.advisor.workload import BATCH_SIZE, BYTES, Load
from foreword.errors import UsageError
from foreword.task_kinds import TASK_KINDS, kind_on

if TYPE_CHECKING:
    from foreword.advisor.parameters import Head
    from foreword.shape import Kind

KNOWLEDGE = ("near", "far")
SERVING = ("any", "shared", "bare")
_WRITTEN, _CHOSEN = 64, 1  # tokens of an answer


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Inputs:
    """Task, data, number of tasks, serving, and what a training step is made of."""

    task: str = _option("classify", f"Kind of task: one of {', '.join(TASK_KINDS)}.")
    examples: int = _option(1000, "Number of training examples per task.")
    tasks: int = _option(1, "Number of tasks that share one base model.")
    labels: int = _option(2, "Number of labels per task.")
    knowledge: str = _option("near", "near: the base model knows what the task needs; far: it does not.")
    serving: str = _option("any", "any; shared: many tasks in one batch; bare: no extra tokens or time compared with the base model.")
    memory: float | None = _option(None, "Memory for training in GB; by default unlimited.")
    length: int | None = _option(None, "Number of virtual tokens; by default it depends on the task.")
    lora_r: int = _option(8, "Rank of LoRA.")
    lora_targets: str | None = _option(
        None,
        "Modules that get LoRA: attention (queries and values), all-linear, or some of q,k,v,o,gate,up,down; by default those of the method.",
    )
    also: str | None = _option(None, "Further methods to compute, comma-separated; also combinations such as METHOD+lora.")
    text_tokens: int = _option(128, "Tokens per text.")
    answer_tokens: int | None = _option(None, "Tokens per answer; by default 64 for generated texts, else 1.")
    batch_size: int = _option(BATCH_SIZE, "Examples per step.")
    dtype: str | None = _option(None, f"Precision of the frozen model: {', '.join(BYTES)}; by default that of the checkpoint.")
    gradient_checkpointing: bool = _option(False, "Estimate memory with gradient checkpointing.")
    cpu: bool = _option(False, "Estimate memory for training on a CPU, where attention is not fused.")

    def __post_init__(self) -> None:
        for name, allowed in (("task", TASK_KINDS), ("knowledge", KNOWLEDGE), ("serving", SERVING), ("dtype", BYTES)):
            value = getattr(self, name)
            if value not in allowed and (name, value) != ("dtype", None):
                raise UsageError(f"{name} '{value}' is not known; choose one of {', '.join(allowed)}.")
        for name in ("examples", "tasks", "labels", "length", "lora_r", "text_tokens", "answer_tokens", "batch_size"):
            value = getattr(self, name)
            least = 2 if name == "labels" else 1
            if value is not None and (type(value) is not int or value < least):
                raise UsageError(f"{name} is {value!r}, but it must be a whole number of at least {least}.")
        if self.memory is not None and not 0 < self.memory < float("inf"):
            raise UsageError(f"memory is {self.memory:g}, but it must be above 0, in GB.")

    def facts(self) -> dict[str, str | int | bool]:
        """The facts for rules, except those of the model."""
        return {name: getattr(self, name) for name in ("task", "examples", "tasks", "knowledge", "serving")}

    def load(self) -> Load:
        """The workload of a training step."""
        usual = _WRITTEN if TASK_KINDS[self.task].answers == "text" else _CHOSEN
        answer = usual if self.answer_tokens is None else self.answer_tokens
        return Load(self.batch_size, self.text_tokens, answer, self.dtype or "bfloat16", self.gradient_checkpointing, fused=not self.cpu)

    def head(self, kind: Kind) -> Head | None:
        """The head that the task needs on a model of this kind."""
        from foreword.advisor.parameters import Head  # imported only when needed

        task = kind_on(self.task, kind)
        outputs = self.labels if task.head_outputs == "labels" else task.head_outputs
        return Head(outputs, bias=kind != "causal" or task.biased_on_causal) if outputs else None

    def targets(self) -> str | tuple[str, ...] | None:
        """LoRA's targets as a `LoraSpec` has them, None for the method's own."""
        if self.lora_targets is None or self.lora_targets in ("attention", "all-linear"):
            return self.lora_targets
        return tuple(self.lora_targets.split(","))
