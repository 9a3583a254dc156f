"""Structured output, answers that follow a JSON schema, an expression, a choice or a grammar: which tokens may come next, by llguidance, which vLLM and SGLang use too."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from foreword.backbone.model_info import ModelInfo
from foreword.errors import UsageError
from foreword.serving.grammar_check import check_compiles
from foreword.serving.sampling import STRUCTURES, SamplingParams

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

LEXER_FUEL = 100_000  # llguidance's own limit is ten times as high, and lets one token of a giant repetition take half a second
MAX_COMPILED = 32  # an application's own schema is compiled once


@final
class Grammar:
    """The state of one answer: which tokens are allowed after those that were accepted."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    @property
    def terminated(self) -> bool:
        """Whether the answer is complete and nothing may follow."""
        return self._matcher.is_stopped()

    def allowed_tokens(self) -> Bool[Tensor, " V"]:
        """A mark for each token; those behind the tokenizer's last are never allowed. Raises UsageError where the answer has become too complex to follow."""
        mask = self._matcher.compute_bitmask()
        self._check()
        bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")[: self._vocabulary]
        return torch.from_numpy(np.pad(bits, (0, self._vocabulary - len(bits))).astype(bool))

    def accept_token(self, token: int) -> None:
        """Take the next token of the answer. Raises UsageError for one that is not allowed."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UsageError(f"the answer cannot follow its structure any longer ({_problem(self._matcher)}); simplify the structure.")


@final
class StructuredOutputManager:
    """Grammars for a model's tokenizer. Safe for threads.

    Compiling takes from a few tenths of a second to some seconds, so an engine calls `prepare` in another thread before a request joins; then `grammar` is fast.
    """

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._read: LLTokenizer | None = None
        self._compiled: OrderedDict[tuple[str, str], Future[LLMatcher]] = OrderedDict()  # the newest, mistakes too
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="foreword-grammar")

    def prepare(self, params: SamplingParams) -> Future[None]:
        """Compile what an answer must follow, if anything, in another thread; what is wrong with it, `grammar` says."""

        def compile_it() -> None:
            if params.structured:
                self._matcher(params).exception()

        return self._threads.submit(compile_it)

    def grammar(self, params: SamplingParams) -> Grammar | None:
        """The beginning of an answer, None where any may follow. Raises UsageError for what is no schema, expression or grammar, or one it cannot follow."""
        if not params.structured:
            return None
        found = self._matcher(params)
        error = found.exception()
        if error is not None:
            raise error.with_traceback(None)  # it may be raised again
        return Grammar(found.result().deep_copy(), self.info.shape.vocabulary)

    def _matcher(self, params: SamplingParams) -> Future[LLMatcher]:
        """The beginning of a grammar, which only one of several threads compiles."""
        name, text = next((name, str(value)) for name in STRUCTURES if (value := getattr(params, name)) is not None)
        made: Future[LLMatcher] = Future()
        with self._lock:
            found = self._compiled.setdefault((name, text), made)
            self._compiled.move_to_end((name, text))
            if len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        if found is made:
            try:
                made.set_result(self._compile(params, name))
            except Exception as error:  # the caller's mistake, which all who wait for this grammar made
                made.set_exception(error)
        return found

    def _compile(self, params: SamplingParams, name: str) -> LLMatcher:
        tokenizer = self._tokenizer()
        from llguidance import LLMatcher, LLParserLimits

        compiled = _compiled(params)
        check_compiles(compiled, name, LEXER_FUEL)
        matcher = LLMatcher(tokenizer, compiled, log_level=0, limits=LLParserLimits(initial_lexer_fuel=LEXER_FUEL, verbose_errors=False))
        if not matcher.is_error():
            matcher.compute_bitmask()  # the first is the most expensive
        if matcher.is_error():
            raise UsageError(
                f"{name} cannot be followed ({_problem(matcher)}); simplify the {'schema' if name == 'json_schema' else name}."
            )
        return matcher

    def _tokenizer(self) -> LLTokenizer:
        try:
            from llguidance.hf import from_tokenizer
        except ImportError as error:
            raise UsageError(
                "answers of a given structure need the package 'llguidance', which is not installed; run pip install 'foreword[serve]'."
            ) from error
        with self._reading:
            if self._read is None:
                self._read = from_tokenizer(self.info.tokenizer.inner)  # type: ignore[arg-type]  # a fast tokenizer, which loading checks
            return self._read


def _compiled(params: SamplingParams) -> str:
    """What the answer must follow in its form for the matcher. No white space that says nothing is allowed in JSON."""
    from llguidance import LLMatcher

    if params.json_schema is not None:
        try:
            return LLMatcher.grammar_from_json_schema(params.json_schema, defaults={"whitespace_flexible": False})
        except ValueError as error:
            raise UsageError(f"json_schema is not valid JSON ({error}); give a JSON schema.") from error
    if params.regex is not None:
        return LLMatcher.grammar_from_regex(params.regex)
    if params.choice is not None:
        return LLMatcher.grammar_from_regex("|".join(map(re.escape, params.choice)))
    assert params.grammar is not None, "one of the four is given"
    return LLMatcher.grammar_from_lark(params.grammar)


def _problem(matcher: LLMatcher) -> str:
    """What the matcher says, in one line of bounded length."""
    words = " ".join(matcher.get_error().split())
    return words if len(words) <= 300 else words[:299] + "…"
