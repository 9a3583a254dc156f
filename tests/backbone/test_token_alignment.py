"""One or two texts, and lists of words, in the tokenizer's own format: against what the tokenizer itself makes of them."""

from __future__ import annotations

import pytest
import tiny
import tiny_tokenizers
from transformers import PreTrainedTokenizerFast

from foreword.backbone.token_alignment import NOWHERE, Encoded
from foreword.backbone.tokenizer import TextTokenizer
from foreword.errors import DataError

STYLES = {"bert": tiny_tokenizers.bert, "roberta": tiny_tokenizers.roberta, "xlm_roberta": tiny_tokenizers.xlm_roberta}
FRAMES = {  # opening, closing
    "bert": ((2,), (3,)),
    "roberta": ((0,), (2,)),
    "xlm_roberta": ((0,), (2,)),
}
A, B = "A joy, to watch", "Café: é naïve 東京 dull"
WORDS = ["A", "joy", "東京", "of", "naïve", "dull-ish", ".", "10 000"]
styles = pytest.mark.parametrize("style", STYLES)


def of(style: str) -> TextTokenizer:
    return TextTokenizer(STYLES[style](), closing=True)


def check_form(made: Encoded, inner: PreTrainedTokenizerFast, budget: int) -> None:
    assert len(made.ids) == len(made.types) == len(made.text) == len(made.spans) <= budget
    for index, text, span in zip(made.ids, made.text, made.spans, strict=True):
        assert (text == -1) == (span == NOWHERE)
        assert text == -1 or index == inner.unk_token_id or index not in inner.all_special_ids


@styles
def test_whole_texts_are_as_the_tokenizer_writes_them(style: str) -> None:
    text, inner = of(style), STYLES[style]()
    assert (text.opening, text.closing) == FRAMES[style]
    for texts in ((A, None), (A, B), ("", B)):
        made = text.pair(*texts, 99)
        truth = inner(*(part for part in texts if part is not None), return_token_type_ids=True)
        assert list(made.ids) == truth["input_ids"] and list(made.types) == truth["token_type_ids"] and not made.cut
        assert [None if place == -1 else place for place in made.text] == truth.sequence_ids(0)
        check_form(made, inner, 99)


@styles
@pytest.mark.parametrize("second", [B, None])
@pytest.mark.parametrize("only_second", [False, True])
def test_every_budget_keeps_beginnings_and_the_frame(style: str, second: str | None, only_second: bool) -> None:
    text, inner = of(style), STYLES[style]()
    whole = text.pair(A, second, 99)
    before = 99
    for budget in range(len(whole.ids) + 1, whole.text.count(0) + 5, -1):
        made = text.pair(A, second, budget, only_second=only_second)
        check_form(made, inner, budget)
        assert made.cut == (budget < len(whole.ids)) and len(made.ids) <= before
        before = len(made.ids)
        for place, full in enumerate((A, second)[: 1 if second is None else 2]):
            ours, theirs = ([span for span, of in zip(e.spans, e.text, strict=True) if of == place] for e in (made, whole))
            assert ours == theirs[: len(ours)], f"a beginning of {full}"
            end = max((span[1] for span in ours), default=0)
            assert all(span[0] >= end for span in theirs[len(ours) :]), "no part of a character"
        assert not only_second or second is None or made.text.count(0) == whole.text.count(0)


def test_the_longer_text_is_cut_first() -> None:
    text = of("bert")
    for first, second, budget, kept in (("a a a a a", "a", 7, (3, 1)), ("a", "a a a a", 6, (1, 2)), ("a a a a", "a a a a", 8, (3, 2))):
        made = text.pair(first, second, budget)
        assert (made.text.count(0), made.text.count(1)) == kept and made.cut


def test_a_budget_that_leaves_nothing_is_refused() -> None:
    text = of("bert")
    for second, only, budget, message in (
        (None, False, 2, "0 tokens of text fit between the special tokens, but 1 at least are needed; shorten the prompt."),
        ("a", False, 4, "1 tokens of text fit between the special tokens, but 2 at least are needed; shorten the prompt."),
        (
            "a a",
            True,
            6,
            "the first of two texts has 3 tokens, but 3 fit with the second, which alone may be cut; shorten the first or the prompt.",
        ),
    ):
        with pytest.raises(DataError) as caught:
            text.pair("a a a", second, budget, only_second=only)
        assert str(caught.value) == message


@styles
def test_spans_are_the_characters_of_the_text(style: str) -> None:
    made = of(style).pair("a film of it", "that goes on", 99)
    for place, text in enumerate(("a film of it", "that goes on")):
        spans = [span for span, of in zip(made.spans, made.text, strict=True) if of == place]
        assert "".join(text[begin:end] for begin, end in spans).replace(" ", "") == text.replace(" ", "")


@styles
def test_words_have_their_pieces_in_order(style: str) -> None:
    text, inner = of(style), STYLES[style]()
    made = text.words(WORDS, 199)
    check_form(made, inner, 199)
    assert list(made.ids) == inner(" ".join(WORDS))["input_ids"] and not made.cut
    inside = [span for span in made.spans if span != NOWHERE]
    assert inside == sorted(inside) and {word for word, _ in inside} == set(range(len(WORDS)))
    for word in range(len(WORDS)):
        pieces = [piece for of, piece in inside if of == word]
        assert pieces == list(range(len(pieces)))
    short = text.words(WORDS, 9)
    assert short.cut and len(short.ids) <= 9 and short.ids[-1:] == text.closing
    assert short.spans[1:-1] == made.spans[1 : len(short.ids) - 1]


def test_a_byte_level_space_belongs_to_the_word_behind_it() -> None:
    made = of("roberta").words(["a", "joy"], 99)
    pieces = STYLES["roberta"]().convert_ids_to_tokens(list(made.ids))
    assert pieces == ["<s>", "a", "Ġ", "jo", "y", "</s>"]
    assert made.spans == (NOWHERE, (0, 0), (1, 0), (1, 1), (1, 2), NOWHERE)


def test_a_word_the_tokenizer_drops_has_no_token() -> None:
    made = of("bert").words(["a", "\u200b", "film"], 99)
    assert {word for word, _ in made.spans} == {-1, 0, 2}


@styles
def test_a_text_cannot_write_special_tokens(style: str) -> None:
    text, inner = of(style), STYLES[style]()
    for special in inner.all_special_tokens:
        check_form(text.pair(f"a {special} b", special, 99), inner, 99)
        check_form(text.words(["a", special], 99), inner, 99)
        assert not {*text.encode(f"a {special}")} & {*inner.all_special_ids} - {inner.unk_token_id}


def test_causal_texts_are_parted_by_a_line_break_and_never_closed() -> None:
    for bos in (True, False):
        text = TextTokenizer(tiny.tokenizer(bos=bos))
        made = text.pair("a joy", "dull", 99)
        begin = (tiny.BOS,) * bos
        assert made.ids == (*begin, *text.encode("a joy"), *text.encode("\n"), *text.encode("dull")) and set(made.types) == {0}
        assert made.text == (*(-1 for _ in begin), 0, 0, 0, 0, -1, *(1 for _ in text.encode("dull")))
        assert text.pair("a", None, 99).ids == (*begin, *text.encode("a"))
        assert text.words(["a", "joy"], 3 + bos).ids == (*begin, *text.encode("a joy")[:3])
