"""One answer under way: what it reads, the tokens so far, the text that has been sent, and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from torch import Tensor

from foreword.backbone.frozen import FrozenModel
from foreword.errors import DataError
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.model_runner import Stored
from foreword.serving.prefix_cache import Block, Root
from foreword.serving.request import Done, Event, Reason, Request, Token
from foreword.serving.sampling import Sampler
from foreword.serving.structured_output import Guide, Schemas
from foreword.tasks.generate import Generate

DEFAULT_TOKENS = 64  # of an answer without a task, where the request names none


@final
class Sequence:
    """The state of one answer; `stored`, `length` and `offset` say where its keys and values are."""

    def __init__(
        self,
        request: Request,
        task: LoadedTask | None,
        model: FrozenModel,
        row: Row,
        prompt_tokens: int,
        limit: int,
        emit: Callable[[Event], None],
        guide: Guide | None = None,
    ) -> None:
        self.request, self.task, self.row, self.emit = request, task, row, emit
        self.soft: EmbeddingPrefix | None = task.soft if task else None
        self.stored, self.length, self.offset = Stored(), 0, 0
        self.blocks: list[Block] = []
        self.tokens: list[int] = []
        self._decode, self._prompt_tokens, self._limit = model.tokenizer.decode, prompt_tokens, limit
        eos = model.tokenizer.eos
        self._ends = task.task.stop(model.info) if task and isinstance(task.task, Generate) else ({eos} if eos is not None else set())
        self._plain = request.sampling.plain
        self._guide = guide
        self._sampler = Sampler(request.sampling, row.ids, guide)
        self._text = self._sent = ""

    @property
    def root(self) -> Root:
        """What stands before the row's text: the prefix of its task, or nothing."""
        return self.task.key if self.task and self.stored.places else None

    @property
    def common(self) -> tuple[int, ...]:
        """The tokens that another request may begin with too: those before the first soft token, and never all of a row, whose end is read for the answer."""
        return self.row.ids[: self.row.at[0]] if self.row.at else self.row.ids[:-1]

    def skip(self, blocks: list[Block], stored: Stored) -> None:
        """Leave out tokens at the beginning that are read from memory."""
        count = sum(len(block.tokens) for block in blocks)
        self.row = Row(self.row.ids[count:], tuple(place - count for place in self.row.at))
        self.blocks, self.stored = blocks, self.stored + stored

    def grow(self, likeliest: int, logits: Tensor) -> bool:
        """Take the next token from logits [V], whose argmax is known; True if the answer has ended."""
        token, logprob, top = (likeliest, None, {}) if self._plain else self._sampler.choose(logits)
        if token in self._ends:
            self.finish("stop")
            return True
        self.tokens.append(token)
        text = self._decode(self.tokens)
        self._text = text.lstrip() if self.task else text
        cut = min((place for stop in self.request.sampling.stop if (place := self._text.find(stop)) >= 0), default=None)
        if cut is not None:
            self._text = self._text[:cut]
            self.finish("stop")
            return True
        self._send(self._ready(), token, logprob, top)
        if self._guide is not None and self._guide.ended:
            self.finish("stop")
            return True
        if len(self.tokens) == self._limit:
            self.finish("length")
            return True
        return False

    def finish(self, reason: Reason) -> None:
        """Send what was held back, unless nobody waits for it, and the end."""
        rest = self._text.rstrip() if self.task else self._text
        if len(rest) > len(self._sent) and reason != "cancelled":
            self._send(rest, self.tokens[-1], None, {})
        self.emit(Done(reason, self._prompt_tokens, len(self.tokens)))

    def _ready(self) -> str:
        """The text so far without what may still change: part of a character, the beginning of a stop string, white space at the end of a task's answer."""
        text = self._text.rstrip() if self.task else self._text
        text = text.rstrip("\ufffd")
        for stop in self.request.sampling.stop:
            held = next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
            text = text[: len(text) - held]
        return text

    def _send(self, text: str, token: int, logprob: float | None, top: dict[int, float]) -> None:
        new = text[len(self._sent) :]
        self.emit(Token(new, token, logprob, top))
        self._sent = max(self._sent, text, key=len)


def open_sequence(
    request: Request, task: LoadedTask | None, model: FrozenModel, schemas: Schemas, emit: Callable[[Event], None]
) -> Sequence:
    """A request as a sequence that may be read; raises DataError for a text that is too long or empty, UsageError for a schema that cannot be."""
    asked, schema = request.sampling.max_tokens, request.sampling.json_schema
    guide = None if schema is None else schemas.guide(schema)
    if task is None:
        if model.shape.kind != "causal":
            raise DataError(f"{model.name} is no causal model, so it cannot go on from a text; ask one of its tasks.")
        text = request.example.get("text", "")
        ids = request.ids or (*model.tokenizer.opening, *model.tokenizer.encode(text))
        limit = asked or DEFAULT_TOKENS
        if not ids:
            raise DataError("a request holds no token, so there is nothing to go on from; give a text.")
        if len(ids) + limit > model.shape.positions:
            raise DataError(
                f"a text needs {len(ids) + limit} tokens with its answer, but {model.shape.positions} fit in {model.name}; shorten it, or ask for fewer tokens."
            )
        return Sequence(request, None, model, Row(ids), len(ids), limit, emit, guide)
    assert isinstance(task.task, Generate), "other tasks are answered whole"
    limit = asked or task.task.max_new_tokens
    eval_feature, _ = task.task.eval_feature(request.example, task.model.info, task.length_budget, truncate=request.truncate, room=limit)
    row = eval_feature.rows[0]
    return Sequence(request, task, task.model, task.rest(row), len(row.ids), limit, emit, guide)
