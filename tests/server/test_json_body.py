"""Reading JSON: what is counted, and in linear time; the rest of what is refused is sent over HTTP in test_odd_bodies.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.server.admission import Limits
from foreword.server.http_errors import HTTPError
from foreword.server.json_body import check_values, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('",[]{}:\\ab', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('",[]{}\\ab', max_size=4), inner, max_size=4),
    max_leaves=20,
)


def size(value: Any) -> int:
    """The values in a value, itself included; an empty list or object counts as if it held one."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 1 if inner is None else 1 + max(1, sum(map(size, inner)))


@settings(deadline=None, derandomize=True, database=None, max_examples=200)
@given(value=VALUES)
def test_values_are_counted_and_strings_are_not_read_as_values(value: Any) -> None:
    count, body = size(value), json.dumps(value).encode()
    assert read_json(body, Limits(values=count)) == value
    if count > 1:
        with pytest.raises(HTTPError) as caught:
            read_json(body, Limits(values=count - 1))
        assert caught.value.status == 413
        assert str(caught.value) == f"The body has {count} values, but at most {count - 1} are allowed; send fewer at once."


@pytest.mark.parametrize("body", [b'"' + b'\\",' * 500_000, b'"\\' * 700_000, b'"",' * 500_000, b'"a' * 700_001, b"\\" * 1_400_000])
def test_no_body_takes_longer_than_its_length(body: bytes) -> None:
    with pytest.raises(HTTPError):  # quadratic time would be minutes
        read_json(body, Limits(values=1000))


def test_many_fields_of_which_one_comes_twice() -> None:
    pairs = ",".join(f'"a{index}":1' for index in range(50_000))
    with pytest.raises(HTTPError) as caught:
        read_json(f'{{"metadata":{{{pairs},"a7":2}}}}'.encode(), Limits())
    assert str(caught.value) == "The body gives `a7` twice in one object; give it once."


def test_names_in_messages_are_short_and_printable() -> None:
    for name in ("\ud800" * 500, "x" * 500):
        with pytest.raises(HTTPError) as caught:
            check_values(float("inf") if name[0] == "x" else 1, name)
        assert len(str(caught.value)) < 250 and str(caught.value).isprintable() and caught.value.param is not None


def test_numbers_of_64_bits_and_64_levels_are_taken() -> None:
    deep: Any = 1
    for _ in range(64):
        deep = [deep]
    check_values([2**63 - 1, -(2**63), 1.7e308, True, None, deep[0]], "x")
    for value in (2**63, -(2**63) - 1, float("nan"), [deep]):
        with pytest.raises(HTTPError):
            check_values(value, "x")
