"""The input processor: from a request to a sequence, with its prompt as tokens and its limits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import final

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import DataError, ForewordError
from foreword.prompts.template import Row
from foreword.serving.detokenizer import Detokenizer
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.prompt_scores import PromptScores
from foreword.serving.request import Event, Request
from foreword.serving.request_check import check_request, unreadable
from foreword.serving.sampling import SamplingParams
from foreword.serving.sampling_state import SamplingState
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
        """A sequence that can be prefilled. Safe for threads, and slow for long texts and for grammars, so it is best called outside the engine's thread.

        Raises ForewordError, and nothing else, for a request that cannot be answered.
        """
        try:
            check_request(request, self.model.info)
            return self._sequence(request, task, emit)
        except ForewordError:
            raise
        except Exception as error:  # whatever a request holds, it is the request's mistake
            raise unreadable(error) from error

    def _sequence(self, request: Request, task: LoadedTask | None, emit: Callable[[Event], None]) -> Sequence:
        params, tokenizer = request.sampling, self.model.tokenizer
        if task is None:
            row, max_tokens = self._base_prompt(request)
            prompt, eos = row, frozenset() if tokenizer.eos is None else frozenset({tokenizer.eos})
        else:
            assert isinstance(task.task, StreamingTask), "tasks of other kinds go to pooling"
            max_tokens = task.task.max_new_tokens if params.max_tokens is None else params.max_tokens
            eval_feature, _ = task.task.eval_feature(
                request.example, task.model.info, task.length_budget, truncate=request.truncate, max_answer_tokens=max_tokens
            )
            row = eval_feature.rows[0]
            prompt, eos = task.without_compiled(row), task.task.stop(task.model.info)
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos)
        return Sequence(
            request,
            task,
            self.model if task is None else task.model,
            prompt,
            len(row.ids),
            max_tokens,
            ends,
            SamplingState(params, prompt.ids, end_tokens=ends, grammar=self.structured_output.grammar(params)),
            self._detokenizer(params, strip=task is not None),
            emit,
            None if params.prompt_logprobs is None else PromptScores(row.ids, prompt, params.prompt_logprobs),
        )

    def _detokenizer(self, params: SamplingParams, *, strip: bool) -> Detokenizer:
        tokenizer, skip = self.model.tokenizer, params.skip_special_tokens
        decode = tokenizer.decode if skip else partial(tokenizer.decode, skip_special_tokens=False)
        skipped = tokenizer.special_ids if skip else ()
        return Detokenizer(decode, StopStrings(params.stop), strip=strip, byte_tokens=tokenizer.byte_ids, skipped=skipped)

    def _base_prompt(self, request: Request) -> tuple[Row, int]:
        """The prompt of a request to the model itself, and how many tokens may follow."""
        model = self.model
        if model.shape.kind != "causal":
            raise DataError(f"{model.name} is not a causal model, so it cannot continue a text; use one of its tasks.")
        ids = request.ids or (*model.tokenizer.opening, *model.tokenizer.encode(request.example.get("text", "")))
        max_tokens = DEFAULT_MAX_TOKENS if request.sampling.max_tokens is None else request.sampling.max_tokens
        if not ids:
            raise DataError("a request has no token to continue from; give a text.")
        if len(ids) + max_tokens > model.shape.positions:
            raise DataError(
                f"a text needs {len(ids) + max_tokens} tokens with its answer, but {model.shape.positions} fit in {model.name}; "
                "shorten it, or ask for fewer tokens."
            )
        return Row(ids), max_tokens
