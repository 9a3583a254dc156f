"""A sequence: one request under way, as a plain record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from foreword.backbone.frozen_model import FrozenModel
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix
from foreword.serving.detokenizer import Detokenizer
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.prefix_cache import Block, Root
from foreword.serving.prompt_scores import PromptScores
from foreword.serving.request import Event, Request
from foreword.serving.sampling_state import SamplingState
from foreword.serving.slot_table import SlotTable


@final
@dataclass(eq=False)
class Sequence:
    """`prompt` is the text after the task's prefix, `tokens` the answer so far. `inputs` are both in one line; soft token j is -1 - j there.

    The first `num_computed` inputs have their keys and values in the slots of `table`, `blocks` of which the prefix cache knows.
    """

    request: Request
    task: LoadedTask | None
    model: FrozenModel
    prompt: Row
    num_prompt_tokens: int
    max_tokens: int
    eos_tokens: frozenset[int]
    sampling: SamplingState
    detokenizer: Detokenizer
    emit: Callable[[Event], None]
    prompt_scores: PromptScores | None = None
    tokens: list[int] = field(default_factory=list)
    inputs: list[int] = field(init=False)
    soft: EmbeddingPrefix | None = field(init=False)  # vectors that are merged into the prompt
    table: SlotTable = field(default_factory=SlotTable)
    blocks: list[Block] = field(default_factory=list)
    num_computed: int = 0
    next_prompt_logits: int | None = field(
        init=False
    )  # where the prompt's log-probabilities are asked for: the first input whose logits are still to come
    preempted: bool = False
    alone: bool = False  # a step with it and others failed: its next one has nothing else

    def __post_init__(self) -> None:
        self.inputs = merged_inputs(self.prompt)
        self.soft = self.task.soft if self.task else None
        self.next_prompt_logits = None if self.prompt_scores is None else 0

    @property
    def root(self) -> Root:
        """What makes keys and values of the same text differ from other tasks': a prefix, or weights of its own."""
        return self.task.key if self.task and (self.table.prefix.slots or self.model.base) else None

    @property
    def num_cacheable(self) -> int:
        """How many inputs another request may begin with too: those before the first soft token."""
        return self.prompt.at[0] if self.prompt.at else len(self.inputs)

    @property
    def cacheable(self) -> list[int]:
        """The inputs that are looked up in the prefix cache; never all, as the last one is read for the next token."""
        return self.inputs[: min(self.num_cacheable, len(self.inputs) - 1)]

    @property
    def reads_cache(self) -> bool:
        """Whether cached texts help: not where every token of the prompt needs its logits."""
        return self.next_prompt_logits is None

    @property
    def decoding(self) -> bool:
        """Whether only the newest token is not computed yet."""
        return bool(self.tokens) and self.num_computed == len(self.inputs) - 1

    @property
    def num_output_tokens(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens)

    def append(self, token: int) -> None:
        """The next token of the answer."""
        self.tokens.append(token)
        self.inputs.append(token)


def merged_inputs(row: Row) -> list[int]:
    """Token ids and soft tokens in one line: soft token j is -1 - j."""
    inputs: list[int] = []
    done = 0
    for number, place in enumerate(row.at):
        inputs.extend(row.ids[done:place])
        inputs.append(-1 - number)
        done = place
    inputs.extend(row.ids[done:])
    return inputs
