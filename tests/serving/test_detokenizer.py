"""The detokenizer: pieces that join to the text, of which nothing that was sent changes later."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import tiny
import tiny_tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from foreword.backbone.tokenizer import TextTokenizer
from foreword.serving.detokenizer import Detokenizer
from foreword.serving.stop_strings import StopStrings


def decode(tokens: Sequence[int]) -> str:
    """A tokenizer of bytes."""
    return bytes(tokens).decode("utf-8", "replace")


def pieces(text: str, stop: Sequence[str] = (), *, strip: bool = False) -> tuple[list[str], bool]:
    """What is sent after each byte, and at the end; and whether a stop string ended it."""
    detokenizer, sent = Detokenizer(decode, StopStrings(stop), strip=strip), list[str]()
    for byte in text.encode():
        if detokenizer.update(byte):
            return [*sent, detokenizer.new_text(finished=True)], True
        sent.append(detokenizer.new_text())
    return [*sent, detokenizer.new_text(finished=True)], False


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(text=st.text(st.sampled_from("ab é\n😀"), max_size=12), strip=st.booleans())
def test_pieces_join_to_the_text(text: str, strip: bool) -> None:
    sent, stopped = pieces(text, ["no such"], strip=strip)
    assert "".join(sent) == (text.strip() if strip else text) and not stopped


def test_part_of_a_character_and_white_space_at_the_end_wait() -> None:
    assert pieces("aé") == (["a", "", "é", ""], False)
    assert pieces(" a  b ", strip=True) == (["", "a", "", "", "  b", "", ""], False)


def test_a_stop_string_ends_the_text_and_its_beginning_waits() -> None:
    assert pieces("a ENDb", ["END"]) == (["a", " ", "", "", ""], True)
    assert pieces("a ENd", ["END"]) == (["a", " ", "", "", "ENd", ""], False)


@cache
def byte_fallback() -> TextTokenizer:
    """As Llama's and Gemma's: words that begin with a low line, a token for each byte, a first space that is taken off."""
    words = ["<unk>", "<s>", "\u2581", "\u2581\u2581", "\u2581a", "a", "\u00e9", "\U0001f600", "\ufffd", ".", "\n"]
    vocabulary = {word: index for index, word in enumerate([*words, *(f"<0x{byte:02X}>" for byte in range(256))])}
    core = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    core.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    core.add_special_tokens(["<unk>", "<s>"])
    return TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>"))


TOKENIZERS = {
    "byte-level": lambda: TextTokenizer(tiny.tokenizer()),
    "byte fallback": byte_fallback,
    "unigram": lambda: TextTokenizer(tiny_tokenizers.xlm_roberta()),
    "word pieces": lambda: TextTokenizer(tiny_tokenizers.bert()),
}


def of(tokenizer: TextTokenizer, *, strip: bool) -> Detokenizer:
    return Detokenizer(tokenizer.decode, StopStrings(()), strip=strip, byte_tokens=tokenizer.byte_ids, skipped=tokenizer.special_ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.data(), strip=st.booleans())
def test_pieces_of_any_tokens_join_to_the_whole_decoded_at_once(name: str, data: st.DataObject, strip: bool) -> None:
    tokenizer = TOKENIZERS[name]()
    size = len(tokenizer.inner)
    few = st.lists(st.integers(0, size - 1), min_size=1, max_size=6).flatmap(lambda some: st.lists(st.sampled_from(some), max_size=90))
    texts = st.text(st.sampled_from("ab \u00e9\n\U0001f600\U0001f468\u200d\U0001f469."), max_size=30)
    drawn = data.draw(st.lists(st.integers(0, size - 1), max_size=60) | few | texts)
    tokens = tokenizer.encode(drawn) if isinstance(drawn, str) else drawn
    detokenizer, sent = of(tokenizer, strip=strip), list[str]()
    for token in tokens:
        assert not detokenizer.update(token)
        sent.append(detokenizer.new_text())
    sent.append(detokenizer.new_text(finished=True))
    whole = tokenizer.decode(tokens)
    assert "".join(sent) == (whole.strip() if strip else whole)


@pytest.mark.parametrize("name", ["byte-level", "unigram"])
def test_a_token_costs_the_decoding_of_a_few_tokens(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    sizes: list[int] = []

    def decode(tokens: Sequence[int]) -> str:
        sizes.append(len(tokens))
        return tokenizer.decode(tokens)

    tokens = tokenizer.encode("a joy to watch \U0001f600 ") * 40
    lone = [token for token in range(len(tokenizer.inner)) if tokenizer.decode([token]) == "\ufffd"][:1] * 300  # never a whole character
    detokenizer = Detokenizer(decode, StopStrings(["no such"]), strip=True, skipped=tokenizer.special_ids)
    for token in (*tokens, *lone):
        detokenizer.update(token)
    assert max(sizes) <= 60 and len(sizes) <= 4 * (len(tokens) + len(lone))


def test_special_tokens_are_text_where_they_are_asked_for() -> None:
    tokenizer = TextTokenizer(tiny.tokenizer())
    detokenizer = Detokenizer(lambda ids: tokenizer.decode(ids, skip_special_tokens=False), StopStrings(()), strip=False)
    for token in (tiny.EOS, *tokenizer.encode("a"), tiny.EOS):
        detokenizer.update(token)
    assert detokenizer.new_text(finished=True) == "<eos>a<eos>"


def test_text_of_the_least_number_of_tokens_is_not_searched_for_a_stop_string() -> None:
    detokenizer, found = Detokenizer(decode, StopStrings(["b"]), strip=False), list[tuple[bool, str]]()
    for index, byte in enumerate(b"abab"):
        found.append((detokenizer.update(byte, searched=index >= 2), detokenizer.new_text()))
    assert found == [(False, "a"), (False, "b"), (False, "a"), (True, "")]


def test_a_stop_string_that_waited_as_bytes_is_not_sent_at_the_end() -> None:
    tokenizer = byte_fallback()
    detokenizer = Detokenizer(tokenizer.decode, StopStrings(["END"]), strip=False, byte_tokens=tokenizer.byte_ids)
    for byte in b"a END b":
        assert not detokenizer.update(tokenizer.inner.get_vocab()[f"<0x{byte:02X}>"])
    assert detokenizer.new_text(finished=True) == "a "
