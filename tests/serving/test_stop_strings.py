"""Stop strings: where an answer is cut, and what of its end waits."""

from __future__ import annotations

import pytest

from foreword.serving.stop_strings import StopStrings


@pytest.mark.parametrize(
    ("strings", "text", "found", "sent"),
    [
        ([], "a b", None, "a b"),
        (["\n"], "a\nb\n", 1, "a\nb\n"),
        (["END", "b"], "a b END", 2, "a b END"),
        (["END"], "a E", None, "a "),
        (["END"], "a EN", None, "a "),
        (["END"], "EN a", None, "EN a"),
        (["ENDE", "xEN"], "a xE", None, "a "),
    ],
)
def test_the_first_stop_string_cuts_and_its_beginning_waits(strings: list[str], text: str, found: int | None, sent: str) -> None:
    stop = StopStrings(strings)
    assert stop.find(text) == found and stop.without_partial(text) == sent
