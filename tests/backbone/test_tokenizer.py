"""The tokenizer as templates see it."""

from __future__ import annotations

import pytest
import tiny
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from foreword.backbone.tokenizer import TextTokenizer
from foreword.errors import ModelError
from foreword.prompts.template import Template

TEXT = TextTokenizer(tiny.tokenizer())
CHAT = TextTokenizer(tiny.tokenizer(chat=True))
USER, MODEL = tiny.SPECIALS.index("<user>"), tiny.SPECIALS.index("<model>")


def test_special_ids() -> None:
    assert (TEXT.bos, TEXT.eos, TEXT.pad) == (tiny.BOS, tiny.EOS, tiny.PAD)
    assert TextTokenizer(tiny.tokenizer(bos=False)).bos is None, "a tokenizer that has BOS, but puts it nowhere"
    bare = TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer(bos=False).backend_tokenizer))
    assert (bare.bos, bare.eos, bare.pad) == (None, None, 0)


@pytest.mark.parametrize("text", ["a joy to watch", "", " ", "<bos> a <eos><pad>", "<user>", "東京 🙂 naïve\n"])
def test_text_is_only_text(text: str) -> None:
    ids = TEXT.encode(text)
    assert all(index >= len(tiny.SPECIALS) for index in ids)
    assert TEXT.decode(ids) == text


def test_decoding_leaves_special_tokens_out() -> None:
    assert TEXT.decode([tiny.BOS, *TEXT.encode("a joy"), tiny.EOS]) == "a joy"


@pytest.mark.parametrize(
    ("words", "pieces"),
    [("a joy", ["a joy"]), ("<user>a<eos>\n", [USER, "a", tiny.EOS, "\n"]), ("<eos>", [tiny.EOS]), ("", []), ("<eos", ["<eos"])],
)
def test_words_may_name_special_tokens(words: str, pieces: list[str | int]) -> None:
    assert TEXT.split_specials(words) == pieces


@pytest.mark.parametrize("text", ["a dull mess of a film", "東京東京", "a🙂b🙂", "x" * 9])
def test_cutting_keeps_the_beginning_and_whole_characters(text: str) -> None:
    count = len(TEXT.encode(text))
    kept = [TEXT.cut(text, n) for n in range(count + 2)]
    assert kept[0] == "" and kept[count] == kept[count + 1] == text
    for n, beginning in enumerate(kept):
        assert text.startswith(beginning) and len(TEXT.encode(beginning)) <= n
        longer = text[: len(beginning) + 1]
        assert beginning == text or len(TEXT.encode(longer)) > n or len(TEXT.encode(longer)) <= len(TEXT.encode(beginning)) + 1
    assert [len(beginning) for beginning in kept] == sorted(len(beginning) for beginning in kept)


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        TextTokenizer(ByT5Tokenizer())
    assert str(caught.value) == (
        "tokenizer ByT5Tokenizer is a slow one, but offsets need a fast tokenizer; load the model with its tokenizer.json."
    )


def test_a_template_in_the_chat_format() -> None:
    source = CHAT.chat("{soft}{text}\nGood? {answer}")
    assert source == "{bos}<user>{soft}{text}\nGood?<eos>\n<model>{answer}"
    row = Template.parse(source).render({"text": "a <eos> joy"}, CHAT, 2, [9])
    encode = CHAT.encode
    assert row.ids == (tiny.BOS, USER, *encode("a <eos> joy\nGood?"), tiny.EOS, *encode("\n"), MODEL, 9)
    assert row.at == (2, 2)


def test_the_chat_format_of_the_tokenizer_itself_gives_the_same_tokens() -> None:
    turn = [{"role": "user", "content": "a joy\nGood?"}]
    truth = tiny.tokenizer(chat=True).apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    row = Template.parse(CHAT.chat("{text}\nGood? {answer}")).render({"text": "a joy"}, CHAT, 0)
    assert list(row.ids) == truth


def with_format(chat: str, *, bos: bool = True) -> TextTokenizer:
    return TextTokenizer(
        PreTrainedTokenizerFast(
            tokenizer_object=tiny.tokenizer(bos=bos).backend_tokenizer, bos_token="<bos>", eos_token="<eos>", chat_template=chat
        )
    )


def test_a_chat_format_with_braces_and_without_bos() -> None:
    braces = with_format("<user>{{ '{\"tools\": {}} ' + messages[0]['content'] | trim }}<model>")
    source = braces.chat(" {text} {answer}")
    assert source == '<user>{{"tools": {{}}}} {text}<model>{answer}'
    ids = Template.parse(source, bos=False).render({"text": "hi"}, braces, 0).ids
    assert ids == (USER, *TEXT.encode('{"tools": {}} hi'), MODEL)


def test_a_bos_that_only_the_chat_format_puts_stays() -> None:
    only = with_format("<bos><user>{{ messages[0]['content'] }}<eos>", bos=False)
    row = Template.parse(only.chat("{text}{answer}")).render({"text": "hi"}, only, 0)
    assert only.bos is None and row.ids[0] == tiny.BOS and row.ids.count(tiny.BOS) == 1


def test_a_tokenizer_without_a_chat_format() -> None:
    with pytest.raises(ModelError) as caught:
        TEXT.chat("{text}{answer}")
    assert str(caught.value) == (
        "the tokenizer has no chat template, but one was asked for; leave --chat out or use an instruction-tuned model."
    )
