"""A task ready to be served: its adapter read, its prompt compiled where that can be, what stands in memory for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from foreword.adapters.adapter import Adapter
from foreword.backbone.compile import compile_prompt
from foreword.backbone.families import check_site, family_of
from foreword.backbone.frozen import FrozenModel
from foreword.backbone.learned import Learned
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix
from foreword.serving.prefixes import Key
from foreword.tasks.base import Reading, Task, reading
from foreword.tasks.generate import Generate
from foreword.tasks.registry import task_from_dict


@dataclass(frozen=True, eq=False)
class Resident:
    """One version of a task. A leading prompt is a `prefix` [K, P, D] by layer that swallows the first `swallowed` tokens of every row;
    soft tokens inside or behind the text stay `soft`. `learned` is the whole of it, for tasks that write no text. `weight_bytes` are those of
    LoRA or other weights of its own, which make `model` a view of the base.
    """

    key: Key
    task: Task
    how: Reading
    model: FrozenModel
    learned: Learned
    prefix: KVPrefix | None = None
    soft: EmbeddingPrefix | None = None
    swallowed: int = 0
    weight_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes that this task takes: its prefix as the arena stores it, else what was learned, as it is; and weights of its own."""
        return self.weight_bytes + self._prompt_bytes

    @property
    def _prompt_bytes(self) -> int:
        if self.prefix is not None and self.writes:
            width = sum(kv.width for kv in self.model.shape.kv)
            return self.prefix.length * width * torch.finfo(self.model.dtype).bits // 8
        tokens, head = self.learned.tokens, self.learned.head
        tensors = (
            []
            if tokens is None
            else [tokens.vectors]
            if isinstance(tokens, EmbeddingPrefix)
            else [*tokens.keys.values(), *tokens.values.values()]
        )
        return sum(tensor.nbytes for tensor in (*tensors, *(head.parameters() if head else ())))

    @property
    def writes(self) -> bool:
        """Whether the task's answers are written token by token."""
        return isinstance(self.task, Generate) and self.model.shape.kind == "causal"

    def light(self) -> Resident:
        """The same without a prefix that stands in the arena."""
        return replace(self, prefix=None, learned=Learned(None, self.learned.head)) if self.prefix is not None and self.writes else self

    @classmethod
    def of(cls, model: FrozenModel, adapter: Adapter, key: Key) -> Resident:
        """Make an adapter ready. Raises FingerprintError or ModelError for one of another base, or for a site the family refuses."""
        adapter.check(model)
        check_site(adapter.recipe.prompt, model.shape)
        task, how, view, learned = (
            task_from_dict(adapter.task),
            reading(adapter.recipe.prompt, model),
            adapter.model(model),
            adapter.learned(),
        )
        own = sum(tensor.nbytes for name, tensor in adapter.tensors.items() if view is not model and name.startswith(("lora.", "full.")))
        plain = cls(key, task, how, view, learned, weight_bytes=own)
        tokens = learned.tokens
        if isinstance(tokens, KVPrefix):  # cast here once, not for each batch
            tokens = tokens.cast(model.device, model.dtype)
            return replace(plain, prefix=tokens, learned=replace(learned, tokens=tokens))
        if not isinstance(tokens, EmbeddingPrefix) or not isinstance(task, Generate) or model.shape.kind != "causal":
            return plain
        if not task.template.leading or "kv" not in family_of(model.shape.family).sites:
            return replace(plain, soft=tokens)
        head = task.template.render(dict.fromkeys(task.columns, ""), view.tokenizer, how.soft)
        prefix, swallowed = compile_prompt(view, tokens, head)
        return replace(plain, prefix=prefix, swallowed=swallowed)

    def rest(self, row: Row) -> Row:
        """What of a row is still to be read once the prefix stands."""
        return Row(row.ids[self.swallowed :]) if self.swallowed else row
