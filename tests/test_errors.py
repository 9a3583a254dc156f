"""Errors that advise an option name it as their reader knows it."""

from __future__ import annotations

import pickle

from foreword.errors import CapacityError, DataError, UsageError
from foreword.server.http_errors import error_of


def test_an_option_is_named_for_each_reader() -> None:
    error = DataError("a text needs 9 tokens, but 8 fit; shorten it.", option="truncate")
    for found in (error, pickle.loads(pickle.dumps(error))):
        assert str(found) == "a text needs 9 tokens, but 8 fit; shorten it, or pass --truncate."
        assert found.request_message == "a text needs 9 tokens, but 8 fit; shorten it, or set `truncate` to true."
        assert (error_of(found).status, error_of(found).message) == (400, found.request_message)


def test_an_error_without_one_is_its_message() -> None:
    error = UsageError("n is 0, but it must be at least 1.")
    assert str(error) == error.request_message == "n is 0, but it must be at least 1."
    assert str(UsageError()) == "" and error_of(CapacityError("full.")).status == 503
