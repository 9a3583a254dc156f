"""Structured output, answers that are JSON of a schema: which tokens may come next, by llguidance, which vLLM and SGLang use too."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from foreword.backbone.model_info import ModelInfo
from foreword.errors import UsageError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


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
        """A mark for each token; those behind the tokenizer's last are never allowed."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")[: self._vocabulary]
        return torch.from_numpy(np.pad(bits, (0, self._vocabulary - len(bits))).astype(bool))

    def accept_token(self, token: int) -> None:
        """Take the next token of the answer."""
        self._matcher.consume_token(token)


@final
class StructuredOutputManager:
    """Grammars for a model's tokenizer, which is read when the first is asked for."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        try:
            from llguidance.hf import from_tokenizer
        except ImportError as error:
            raise UsageError(
                "answers by a JSON schema need the package 'llguidance', which is not installed; run pip install 'foreword[serve]'."
            ) from error
        return from_tokenizer(self.info.tokenizer.inner)  # type: ignore[arg-type]  # a fast tokenizer, which loading checks

    def grammar(self, schema: str) -> Grammar:
        """The beginning of an answer, without white space that says nothing. Raises UsageError for what is no schema, or one it cannot follow."""
        tokenizer = self._tokenizer
        from llguidance import LLMatcher

        try:
            compiled = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})
        except ValueError as error:
            raise UsageError(f"json_schema is not valid JSON ({error}); give a JSON schema.") from error
        matcher = LLMatcher(tokenizer, compiled, log_level=0)
        if matcher.is_error():
            problem = " ".join(matcher.get_error().split())
            raise UsageError(f"json_schema is not supported ({problem}); simplify the schema.")
        return Grammar(matcher, self.info.shape.vocabulary)
