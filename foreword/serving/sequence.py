"""A sequence: one request under way, as a plain record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix
from foreword.serving.detokenizer import Detokenizer
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.prefix_cache import Block, Root
from foreword.serving.request import Event, Request
from foreword.serving.sampling import Sampler
from foreword.serving.slot_table import SlotTable


@final
@dataclass(eq=False)
class Sequence:
    """`prompt` is what prefill still has to read, `shared` what is read from the pool before it, `tokens` the answer so far.

    `kv_len` counts the tokens in its row of the KV cache, the first of which has the position `offset`.
    """

    request: Request
    task: LoadedTask | None
    prompt: Row
    num_prompt_tokens: int
    max_tokens: int
    eos_tokens: frozenset[int]
    sampler: Sampler
    detokenizer: Detokenizer
    emit: Callable[[Event], None]
    shared: SlotTable = field(default_factory=SlotTable)
    blocks: list[Block] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    kv_len: int = 0
    offset: int = 0

    @property
    def soft_tokens(self) -> EmbeddingPrefix | None:
        """Vectors that are merged into the prompt."""
        return self.task.soft if self.task else None

    @property
    def root(self) -> Root:
        """What stands before the prompt's text: the prefix of its task, or nothing."""
        return self.task.key if self.task and self.shared.slots else None

    @property
    def cacheable(self) -> tuple[int, ...]:
        """The tokens that another request may begin with too: those before the first soft token, and never all, as the last one is read for the answer."""
        return self.prompt.ids[: self.prompt.at[0]] if self.prompt.at else self.prompt.ids[:-1]

    @property
    def num_output_tokens(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens)

    def read_from_cache(self, blocks: list[Block]) -> None:
        """Read the beginning of the prompt from cached blocks, which leaves the rest to prefill."""
        slots = tuple(slot for block in blocks for slot in block.slots)
        self.prompt = Row(self.prompt.ids[len(slots) :], tuple(index - len(slots) for index in self.prompt.at))
        self.blocks, self.shared = blocks, self.shared + self.shared.followed_by(slots)
