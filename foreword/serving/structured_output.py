"""Answers that are JSON of a schema: which tokens may come next, by llguidance, which vLLM and SGLang use too."""

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
class Guide:
    """The state of one answer: `allowed` tokens after those that were `take`n."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    @property
    def ended(self) -> bool:
        """Whether the answer is whole and nothing may follow."""
        return self._matcher.is_stopped()

    def allowed(self) -> Bool[Tensor, " V"]:
        """A mark for each token; those behind the tokenizer's last are never allowed."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")[: self._vocabulary]
        return torch.from_numpy(np.pad(bits, (0, self._vocabulary - len(bits))).astype(bool))

    def take(self, token: int) -> None:
        self._matcher.consume_token(token)


@final
class Schemas:
    """Guides for a model's tokenizer, which is read when the first is asked for."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        try:
            from llguidance.hf import from_tokenizer
        except ImportError as error:
            raise UsageError("answers by a JSON schema need llguidance; install foreword[serve].") from error
        return from_tokenizer(self.info.tokenizer.inner)  # type: ignore[arg-type]  # a fast tokenizer, which loading checks

    def guide(self, schema: str) -> Guide:
        """The beginning of an answer, without white space that says nothing. Raises UsageError for what is no schema, or one it cannot follow."""
        tokenizer = self._tokenizer
        from llguidance import LLMatcher

        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})
        except ValueError as error:
            raise UsageError(f"json_schema is no JSON ({error}); give a JSON schema.") from error
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            problem = " ".join(matcher.get_error().split())
            raise UsageError(f"json_schema cannot be followed ({problem}); simplify the schema.")
        return Guide(matcher, self.info.shape.vocabulary)
