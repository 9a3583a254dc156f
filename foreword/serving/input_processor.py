"""The input processor: from a request to a sequence, with its prompt as tokens and its limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import DataError
from foreword.prompts.template import Row
from foreword.serving.detokenizer import Detokenizer
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.request import Event, Request
from foreword.serving.sampling import Sampler
from foreword.serving.sequence import Sequence
from foreword.serving.stop_strings import StopStrings
from foreword.serving.structured_output import StructuredOutputManager
from foreword.tasks.streaming_task import StreamingTask

DEFAULT_MAX_TOKENS = 64  # maximum for the base model, if the request has none


@final
class InputProcessor:
    """Makes sequences for one model."""

    def __init__(self, model: FrozenModel) -> None:
        self.model = model
        self.structured_output = StructuredOutputManager(model.info)

    def sequence(self, request: Request, task: LoadedTask | None, emit: Callable[[Event], None]) -> Sequence:
        """A sequence that can be prefilled. Raises DataError for a text that is too long or empty, UsageError for a schema that is not supported."""
        params = request.sampling
        grammar = None if params.json_schema is None else self.structured_output.grammar(params.json_schema)
        if task is None:
            prompt, num_prompt_tokens, max_tokens = self._base_prompt(request)
            eos = self.model.tokenizer.eos
            eos_tokens = frozenset() if eos is None else frozenset({eos})
        else:
            assert isinstance(task.task, StreamingTask), "tasks of other kinds go to pooling"
            max_tokens = params.max_tokens or task.task.max_new_tokens
            eval_feature, _ = task.task.eval_feature(
                request.example, task.model.info, task.length_budget, truncate=request.truncate, max_answer_tokens=max_tokens
            )
            row = eval_feature.rows[0]
            prompt, num_prompt_tokens = task.without_compiled(row), len(row.ids)
            eos_tokens = frozenset(task.task.stop(task.model.info))
        return Sequence(
            request,
            task,
            self.model if task is None else task.model,
            prompt,
            num_prompt_tokens,
            max_tokens,
            eos_tokens,
            Sampler(params, prompt.ids, grammar),
            Detokenizer(self.model.tokenizer.decode, StopStrings(params.stop), strip=task is not None),
            emit,
        )

    def _base_prompt(self, request: Request) -> tuple[Row, int, int]:
        """The prompt of a request to the model itself, its number of tokens, and how many may follow."""
        model = self.model
        if model.shape.kind != "causal":
            raise DataError(f"{model.name} is not a causal model, so it cannot continue a text; use one of its tasks.")
        ids = request.ids or (*model.tokenizer.opening, *model.tokenizer.encode(request.example.get("text", "")))
        max_tokens = request.sampling.max_tokens or DEFAULT_MAX_TOKENS
        if not ids:
            raise DataError("a request has no token to continue from; give a text.")
        if len(ids) + max_tokens > model.shape.positions:
            raise DataError(
                f"a text needs {len(ids) + max_tokens} tokens with its answer, but {model.shape.positions} fit in {model.name}; "
                "shorten it, or ask for fewer tokens."
            )
        return Row(ids), len(ids), max_tokens
