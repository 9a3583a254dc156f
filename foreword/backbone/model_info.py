"""A base model without its weights: enough to turn examples into rows, check adapters, format chats and count tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import final

from foreword.backbone.fingerprint import fingerprint_tokenizer
from foreword.backbone.tokenizer import TextTokenizer
from foreword.errors import ModelError
from foreword.shape import ModelShape


@final
@dataclass(frozen=True, eq=False)
class ModelInfo:
    """Name, shape, tokenizer with its chat format, fingerprints and quantization (nf4, int8, or None for plain numbers) of a base model.

    `FrozenModel.info` is that of a loaded model, `load_info` reads one from a checkpoint. `read_fingerprint` is called once, when the
    fingerprint is first asked for. `decoder_opening` is what an encoder–decoder's decoder reads before every answer, () where its config does not say.
    """

    name: str
    shape: ModelShape
    tokenizer: TextTokenizer
    read_fingerprint: Callable[[], str]
    quantization: str | None = None
    decoder_opening: tuple[int, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Which checkpoint this is: what adapters of this base record."""
        return self.read_fingerprint()

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """Which tokenizer this is."""
        return fingerprint_tokenizer(self.tokenizer.inner)

    @property
    def answer_opening(self) -> tuple[int, ...]:
        """`decoder_opening` of an encoder–decoder; raises ModelError where its config names no start token."""
        if not self.decoder_opening:
            raise ModelError(
                f"model '{self.name}' has no decoder_start_token_id, which begins every answer; set it in its generation_config.json."
            )
        return self.decoder_opening

    def frequent_tokens(self, count: int) -> list[int]:
        """Up to `count` ordinary word pieces in the order of the vocabulary, which for merged vocabularies is the order of frequency."""
        inner = self.tokenizer.inner
        skip = set(inner.all_special_ids) | set(inner.added_tokens_decoder)
        found: list[int] = []
        for index in range(min(len(inner), self.shape.vocabulary)):
            if len(found) == count:
                break
            if index not in skip and any(c.isalpha() for c in inner.decode([index])):
                found.append(index)
        return found
