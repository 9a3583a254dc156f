"""A task ready to be served: its adapter read, its prompt compiled where that can be, what stands in memory for it."""

from __future__ import annotations

from dataclasses import dataclass

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
from foreword.tasks.registry import task_from_dict
from foreword.tasks.templated import TemplateTask


@dataclass(frozen=True, eq=False)
class Resident:
    """One version of a task. A leading prompt is a `prefix` [K, P, D] by layer that swallows the first `swallowed` tokens of every row;
    soft tokens inside or behind the text stay `soft`. `learned` is the whole of it, for tasks that write no text.
    """

    key: Key
    task: Task
    how: Reading
    model: FrozenModel
    learned: Learned
    prefix: KVPrefix | None = None
    soft: EmbeddingPrefix | None = None
    swallowed: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the prefix as it is stored."""
        if self.prefix is None:
            return 0
        width = sum(kv.width for kv in self.model.shape.kv)
        return self.prefix.length * width * torch.finfo(self.model.dtype).bits // 8

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
        plain = cls(key, task, how, view, learned)
        tokens = learned.tokens
        if isinstance(tokens, KVPrefix):
            return cls(key, task, how, view, learned, prefix=tokens)
        if not isinstance(tokens, EmbeddingPrefix) or not isinstance(task, TemplateTask) or model.shape.kind != "causal":
            return plain
        if not task.template.leading or "kv" not in family_of(model.shape.family).sites:
            return cls(key, task, how, view, learned, soft=tokens)
        head = task.template.render(dict.fromkeys(task.columns, ""), view.tokenizer, how.soft)
        prefix, swallowed = compile_prompt(view, tokens, head)
        return cls(key, task, how, view, learned, prefix=prefix, swallowed=swallowed)

    def rest(self, row: Row) -> Row:
        """What of a row is still to be read once the prefix stands."""
        if self.prefix is None or self.soft is not None:
            return row
        return Row(row.ids[self.swallowed :])
