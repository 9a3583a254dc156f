"""A task ready for serving: its adapter, its prompt compiled if possible, and its tensors in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foreword.adapters.adapter import Adapter
from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.kv_cache import slot_bytes
from foreword.backbone.prompt_to_kv import compile_prompt
from foreword.families.registry import check_site, family_of
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix
from foreword.serving.adapter_cache import AdapterKey
from foreword.tasks.base import LengthBudget, Task, budget_for
from foreword.tasks.registry import task_from_dict
from foreword.tasks.streaming_task import StreamingTask


@dataclass(frozen=True, eq=False)
class LoadedTask:
    """One version of a task. A leading prompt is a `prefix` [K, P, D] by layer, which holds the first `num_compiled` tokens of every row;
    soft tokens inside or behind the text stay `soft`. `adapter_state` is the whole of it, for tasks that generate no text. `weight_bytes` are those of
    LoRA or other weights of its own, which make `model` a view of the base.
    """

    key: AdapterKey
    task: Task
    length_budget: LengthBudget
    model: FrozenModel
    adapter_state: AdapterState
    prefix: KVPrefix | None = None
    soft: EmbeddingPrefix | None = None
    num_compiled: int = 0
    weight_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of this task in memory: its prefix as the shared pool stores it, else the prompt and head themselves; and its own weights."""
        return self.weight_bytes + self._prompt_bytes

    @property
    def _prompt_bytes(self) -> int:
        if self.prefix is not None and self.generates:
            return self.prefix.length * slot_bytes(self.model.shape, self.model.dtype)
        tokens, head = self.adapter_state.tokens, self.adapter_state.head
        tensors = (
            []
            if tokens is None
            else [tokens.vectors]
            if isinstance(tokens, EmbeddingPrefix)
            else [*tokens.keys.values(), *tokens.values.values()]
        )
        return sum(tensor.nbytes for tensor in (*tensors, *(head.parameters() if head else ())))

    @property
    def generates(self) -> bool:
        """Whether the task's answers are written token by token."""
        return isinstance(self.task, StreamingTask) and self.model.shape.kind == "causal"

    def without_prefix(self) -> LoadedTask:
        """The same without the prefix, which is in the shared pool."""
        return (
            replace(self, prefix=None, adapter_state=AdapterState(None, self.adapter_state.head))
            if self.prefix is not None and self.generates
            else self
        )

    @classmethod
    def of(cls, model: FrozenModel, adapter: Adapter, key: AdapterKey) -> LoadedTask:
        """Make an adapter ready. Raises FingerprintError or ModelError for one of another base, or for a site that the family does not support."""
        adapter.check(model.info)
        check_site(adapter.recipe.prompt, model.shape)
        task, length_budget, view, adapter_state = (
            task_from_dict(adapter.task),
            budget_for(adapter.recipe.prompt, model.info),
            adapter.model(model),
            adapter.adapter_state().to(model.device),
        )
        own = sum(tensor.nbytes for name, tensor in adapter.tensors.items() if view is not model and name.startswith(("lora.", "full.")))
        plain = cls(key, task, length_budget, view, adapter_state, weight_bytes=own)
        tokens = adapter_state.tokens
        if isinstance(tokens, KVPrefix):  # cast here once, not for each batch
            tokens = tokens.cast(model.device, model.dtype)
            return replace(plain, prefix=tokens, adapter_state=replace(adapter_state, tokens=tokens))
        if not isinstance(tokens, EmbeddingPrefix) or not isinstance(task, StreamingTask) or model.shape.kind != "causal":
            return plain
        if not task.template.leading or "kv" not in family_of(model.shape.family).sites:
            return replace(plain, soft=tokens)
        head = task.template.render(dict.fromkeys(task.columns, ""), view.tokenizer, length_budget.soft_tokens)
        prefix, num_compiled = compile_prompt(view, tokens, head)
        return replace(plain, prefix=prefix, num_compiled=num_compiled)

    def without_compiled(self, row: Row) -> Row:
        """The part of a row after the tokens that the prefix includes."""
        return Row(row.ids[self.num_compiled :]) if self.num_compiled else row
