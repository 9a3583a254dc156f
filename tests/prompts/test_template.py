"""Templates: read, filled, cut; a field can never say more than words."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.backbone.tokenizer import TextTokenizer
from foreword.errors import DataError, TemplateError
from foreword.prompts.template import Bos, Field, Row, Soft, Template, Words

TEXT = TextTokenizer(tiny.tokenizer())
BARE = TextTokenizer(tiny.tokenizer(bos=False))
ENCODE = TEXT.encode


@pytest.mark.parametrize(
    ("source", "parts", "space"),
    [
        ("{soft}{text} It was {answer}", (Bos(), Soft(None), Field("text"), Words(" It was")), " "),
        ("{bos}{text}{answer}", (Bos(), Field("text")), ""),
        ("{soft}{bos}{text}{answer}", (Soft(None), Bos(), Field("text")), ""),
        ("A {soft:2}b{soft:10}{x_1}?  {answer}", (Bos(), Words("A "), Soft(2), Words("b"), Soft(10), Field("x_1"), Words("?")), "  "),
        ("{text} {answer}", (Bos(), Field("text")), " "),
        ("{text}{soft}{answer}", (Bos(), Field("text"), Soft(None)), ""),
        ("{answer}", (Bos(),), ""),
        ("{{soft}} and }}{{{text}}}{answer}", (Bos(), Words("{soft} and }{"), Field("text"), Words("}")), ""),
        ("a\n{text}\n{answer}", (Bos(), Words("a\n"), Field("text"), Words("\n")), ""),
    ],
)
def test_parts(source: str, parts: tuple[object, ...], space: str) -> None:
    template = Template.parse(source)
    assert (template.parts, template.space, template.source) == (parts, space, source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{text}", "has {answer} 0 times or not last, but it must end with one {answer}; move it."),
        ("{answer}{text}", "has {answer} 1 times or not last, but it must end with one {answer}; move it."),
        ("{answer}.", "has {answer} 1 times or not last, but it must end with one {answer}; move it."),
        ("{answer}{text}{answer}", "has {answer} 2 times or not last, but it must end with one {answer}; move it."),
        ("a } {answer}", "has a lone '}'; write it twice for a literal brace."),
        ("a { b {answer}", "has a lone '{'; write it twice for a literal brace."),
        ("{soft:0}{answer}", "has '{soft:0}', but soft: must be followed by a whole number of at least 1, as in {soft:3}."),
        ("{soft:x}{answer}", "has '{soft:x}', but soft: must be followed by a whole number of at least 1, as in {soft:3}."),
        ("{soft:-1}{answer}", "has '{soft:-1}', but soft: must be followed by a whole number of at least 1, as in {soft:3}."),
        ("{soft:²}{answer}", "has '{soft:²}', but soft: must be followed by a whole number of at least 1, as in {soft:3}."),
        ("{}{answer}", "has '{}', which is not a field; use a column name, {soft:N}, {bos} or {answer}."),
        ("{1st}{answer}", "has '{1st}', which is not a field; use a column name, {soft:N}, {bos} or {answer}."),
        ("{a.b}{answer}", "has '{a.b}', which is not a field; use a column name, {soft:N}, {bos} or {answer}."),
        ("{soft}{text}{soft}{answer}", "has more than one bare {soft} or {bos}; give numbers as in {soft:3}, and one {bos} at most."),
        ("{bos}{text}{bos}{answer}", "has more than one bare {soft} or {bos}; give numbers as in {soft:3}, and one {bos} at most."),
    ],
)
def test_what_cannot_be_read_is_refused(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(source)
    assert str(caught.value) == f"template '{source}' {message}"


def test_what_a_template_says_of_itself() -> None:
    template = Template.parse("{soft:1}{b} and {a} or {b}{soft}{answer}")
    assert template.fields == ("b", "a") and template.has_soft and not template.leading
    assert Template.parse("{soft}: {text}{answer}").leading
    assert Template.parse("Say {soft} {answer}").leading
    assert Template.parse("{text}{answer}").leading and not Template.parse("{text}{answer}").has_soft


@pytest.mark.parametrize(
    ("source", "length", "counts"),
    [("{soft}{answer}", 4, [4]), ("{soft:1}{soft}{soft:2}{answer}", 7, [1, 4, 2]), ("{soft:3}{answer}", 3, [3])],
)
def test_soft_tokens_are_shared_out(source: str, length: int, counts: list[int]) -> None:
    assert Template.parse(source).soft_counts(length) == counts


@pytest.mark.parametrize(
    ("source", "length", "places"),
    [
        ("{soft:3}{answer}", 4, "3"),
        ("{soft:3}{soft}{answer}", 3, "at least 4"),
        ("{soft}{answer}", 0, "at least 1"),
        ("{text}{answer}", 2, "0"),
    ],
)
def test_soft_tokens_that_do_not_add_up(source: str, length: int, places: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(source).render({"text": "a"}, TEXT, length)
    assert str(caught.value) == (
        f"template '{source}' places {places} soft tokens, but the prompt has {length}; make them agree or use a bare {{soft}}."
    )


@pytest.mark.parametrize(
    ("source", "at"),
    [
        ("{soft}{text}{answer}", (1, 1, 1)),
        ("{soft}{bos}{text}{answer}", (0, 0, 0)),
        ("{soft:1}{bos}{soft:1}{text}{soft}{answer}", (0, 1, 1 + len(ENCODE("a joy")))),
        ("{text}{soft}{answer}", (1 + len(ENCODE("a joy")),) * 3),
    ],
)
def test_places_of_soft_tokens(source: str, at: tuple[int, ...]) -> None:
    row = Template.parse(source).render({"text": "a joy"}, TEXT, 3, [7, 8])
    ids = (tiny.BOS, *ENCODE("a joy"))
    assert row == Row((*ids, 7, 8), at, (-100,) * len(ids) + (7, 8), (0.0,) * len(ids) + (1.0, 1.0))
    assert row.num_tokens == len(ids) + 2 + 3


def test_words_and_fields_meet_as_in_plain_text() -> None:
    row = Template.parse("A {x}film, {y}.{answer}").render({"x": "dull ", "y": "a mess"}, TEXT, 0)
    assert row.ids == (tiny.BOS, *ENCODE("A dull film, a mess."))
    split = Template.parse("A dull {soft:1} film{answer}").render({}, TEXT, 1)
    assert split.ids == (tiny.BOS, *ENCODE("A dull "), *ENCODE(" film")) and split.at == (1 + len(ENCODE("A dull ")),)


@pytest.mark.parametrize(
    ("tokenizer", "bos", "source", "ids"),
    [
        (TEXT, True, "{text}{answer}", (tiny.BOS, *ENCODE("hi"))),
        (TEXT, False, "{text}{answer}", tuple(ENCODE("hi"))),
        (TEXT, False, "{bos}{text}{answer}", (tiny.BOS, *ENCODE("hi"))),
        (TEXT, True, "{text}{bos}{answer}", (*ENCODE("hi"), tiny.BOS)),
        (BARE, True, "{text}{answer}", tuple(ENCODE("hi"))),
        (BARE, True, "{bos}{text}{answer}", tuple(ENCODE("hi"))),
    ],
)
def test_the_beginning_of_sequence_token(tokenizer: TextTokenizer, bos: bool, source: str, ids: tuple[int, ...]) -> None:
    assert Template.parse(source, bos=bos).render({"text": "hi"}, tokenizer, 0).ids == ids


SPECIAL = st.sampled_from([*tiny.SPECIALS, "<bo", "s>", "{bos}", "{soft}", "{answer}", " ", "a", "\n", "é", "東"])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(SPECIAL, max_size=8).map("".join))
def test_a_field_never_becomes_a_special_token(text: str) -> None:
    row = Template.parse("<user>{text}<eos>{answer}").render({"text": text}, TEXT, 0)
    assert row.ids[:2] == (tiny.BOS, tiny.SPECIALS.index("<user>")) and row.ids[-1] == tiny.EOS
    assert all(index >= len(tiny.SPECIALS) for index in row.ids[2:-1])
    assert tiny.tokenizer().decode(row.ids[2:-1]) == text


def test_a_special_token_across_words_and_a_field_is_only_text() -> None:
    row = Template.parse("a <bo{text}{answer}").render({"text": "s> b"}, TEXT, 0)
    assert row.ids == (tiny.BOS, *ENCODE("a <bos> b")) and row.ids.count(tiny.BOS) == 1


def test_a_missing_column_is_named() -> None:
    for values, has in (({"a": "x", "b": "y"}, "a, b"), ({}, "none")):
        with pytest.raises(DataError) as caught:
            Template.parse("{text}{answer}").render(values, TEXT, 0)
        assert (
            str(caught.value) == f"the template needs the column 'text', but the example has {has}; rename a column or change the template."
        )


LONG = "a dull mess of a film that goes on and on, and on"


@pytest.mark.parametrize("text", [LONG, "東京" * 8, "🙂" * 6, "naïve café " * 4, "x" * 40])
def test_a_long_field_is_cut_at_its_end(text: str) -> None:
    template = Template.parse("{soft}{title}: {text} It was {answer}")
    full = template.render({"title": "A", "text": text}, TEXT, 4, [9])
    for budget in range(full.num_tokens - 1, full.num_tokens - len(ENCODE(text)) + 3, -1):
        row, cut = template.fit({"title": "A", "text": text}, TEXT, 4, [9], budget)
        assert cut and budget - 4 <= row.num_tokens <= budget, "no more than one character of four tokens is lost too many"
        assert row.labels[-1] == 9 and row.at == full.at
        words = TEXT.decode(row.ids[:-1])
        kept = words.removeprefix("A: ").removesuffix(" It was")
        assert words == f"A: {kept} It was" and text.startswith(kept)


def test_what_fits_is_left_alone() -> None:
    template = Template.parse("{text}{answer}")
    row = template.render({"text": LONG}, TEXT, 0, [9])
    assert template.fit({"text": LONG}, TEXT, 0, [9], row.num_tokens) == (row, False)


@pytest.mark.parametrize(("source", "values"), [("{soft}{text} a b c {answer}", {"text": "hi"}), ("{soft} a b c {answer}", {})])
def test_what_cannot_be_cut_enough_is_refused(source: str, values: dict[str, str]) -> None:
    template = Template.parse(source)
    need = template.render(values, TEXT, 6, [9]).num_tokens
    with pytest.raises(DataError) as caught:
        template.fit(values, TEXT, 6, [9], 7)
    assert str(caught.value) == (
        f"an example needs {need} tokens with its template and answer, but 7 fit; shorten the template, the prompt or the answer."
    )
