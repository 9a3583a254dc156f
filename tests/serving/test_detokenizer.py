"""The detokenizer: pieces that join to the text, of which nothing that was sent changes later."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.serving.detokenizer import Detokenizer
from foreword.serving.stop_strings import StopStrings


def decode(tokens: Sequence[int]) -> str:
    """A tokenizer of bytes."""
    return bytes(tokens).decode("utf-8", "replace")


def pieces(text: str, stop: Sequence[str] = (), *, strip: bool = False) -> tuple[list[str], bool]:
    """What is sent after each byte, and at the end; and whether a stop string ended it."""
    detokenizer, tokens, sent = Detokenizer(decode, StopStrings(stop), strip=strip), list[int](), list[str]()
    for byte in text.encode():
        tokens.append(byte)
        if detokenizer.update(tokens):
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
