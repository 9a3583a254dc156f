"""The input processor: from a request to a sequence, with its prompt as tokens and its limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import final

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import DataError, ForewordError, UsageError
from foreword.prompts.template import Row
from foreword.serving.detokenizer import Detokenizer
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.prompt_scores import PromptScores
from foreword.serving.request import Event, Request
from foreword.serving.sampling import SamplingParams
from foreword.serving.sampling_state import SamplingState
from foreword.serving.sequence import Sequence
from foreword.serving.stop_strings import StopStrings
from foreword.serving.structured_output import StructuredOutputManager
from foreword.tasks.base import EvalFeature
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
            self._check_ids(request)
            return self._sequence(request, task, emit)
        except ForewordError:
            raise
        except Exception as error:  # whatever a request holds, it is the request's mistake
            raise _unreadable(error) from error

    def eval_feature(self, request: Request, task: LoadedTask, max_answer_tokens: int | None = None) -> EvalFeature:
        """A request's example as a task reads it: all of its tokenising. Safe for threads; raises ForewordError, and nothing else."""
        try:
            check_whole_characters(request.example)
            found, _ = task.task.eval_feature(
                request.example, task.model.info, task.length_budget, truncate=request.truncate, max_answer_tokens=max_answer_tokens
            )
        except ForewordError:
            raise
        except Exception as error:
            raise _unreadable(error) from error
        return found

    def _check_ids(self, request: Request) -> None:
        """Raise UsageError for token ids that the vocabulary does not have."""
        vocabulary, params = self.model.shape.vocabulary, request.sampling
        for name, ids in {"the text": request.ids, "logit_bias": params.logit_bias, "stop_token_ids": params.stop_token_ids}.items():
            wrong = next((token for token in ids if not (isinstance(token, int) and 0 <= token < vocabulary)), None)
            if wrong is not None:
                raise UsageError(f"{name} names token {wrong!r}, but the vocabulary has {vocabulary} tokens; give ids below that.")

    def _sequence(self, request: Request, task: LoadedTask | None, emit: Callable[[Event], None]) -> Sequence:
        params, tokenizer = request.sampling, self.model.tokenizer
        if task is None:
            row, max_tokens = self._base_prompt(request)
            prompt, eos = row, frozenset() if tokenizer.eos is None else frozenset({tokenizer.eos})
        else:
            assert isinstance(task.task, StreamingTask), "tasks of other kinds go to pooling"
            max_tokens = task.task.max_new_tokens if params.max_tokens is None else params.max_tokens
            row = self.eval_feature(request, task, max_tokens).rows[0]
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
        check_whole_characters(request.example)
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


def check_whole_characters(example: Mapping[str, str]) -> None:
    """Raise DataError for half of a character (a lone surrogate, which JSON can write), as no tokenizer reads it."""
    for name, text in example.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"'{name}' has half of a character ({text[error.start]!a}) at place {error.start}, but a text has whole ones; remove it."
            ) from error


def _unreadable(error: Exception) -> DataError:
    return DataError(f"the request cannot be read ({type(error).__name__}: {error}); give plain texts and whole numbers.")
