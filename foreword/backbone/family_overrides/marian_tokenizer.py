"""Marian's tokenizer, the one slow tokenizer that is read: two SentencePiece models over one vocabulary, for sources and for answers."""

from __future__ import annotations

from transformers import MarianTokenizer, PreTrainedTokenizerBase

from foreword.backbone.token_alignment import SpecialTokens, TokenizedText


def is_marian(inner: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer is Marian's own, without a tokenizer.json."""
    return isinstance(inner, MarianTokenizer)


def tokenized(inner: PreTrainedTokenizerBase, text: str) -> TokenizedText:
    """Tokens of a source; it has no offsets, so the text is divided evenly, which is accurate enough for truncation."""
    ids = inner(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ends = [len(text) * place // len(ids) for place in range(len(ids) + 1)] if ids else []
    return TokenizedText(ids, list(zip(ends, ends[1:], strict=False)))


def answer(inner: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Tokens of a text that the decoder is to write."""
    return inner(text_target=text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def special_tokens(inner: PreTrainedTokenizerBase) -> SpecialTokens:
    """The end token after a source."""
    closing = inner.build_inputs_with_special_tokens([])  # type: ignore[attr-defined]  # of slow tokenizers, as Marian's is
    return SpecialTokens((), (), tuple((index, 0) for index in closing), (0,))
