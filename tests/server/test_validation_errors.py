"""pydantic's findings as one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from foreword.server.chat_schemas import ChatCompletionRequest
from foreword.server.request_schemas import Body, Classification, CompletionRequest
from foreword.server.validation_errors import error_of_body


@pytest.mark.parametrize(
    ("cls", "given", "sentence", "param"),
    [
        (CompletionRequest, {"prompt": "x"}, "`model` is missing; give it.", "model"),
        (
            CompletionRequest,
            {"model": 1, "prompt": "x"},
            "`model` should be a valid string, but 1 came; correct it, or see /docs.",
            "model",
        ),
        (
            CompletionRequest,
            {"model": "a", "prompt": "x", "x\ny": 1},
            "`x�y` is not a field of this request; leave it out, or see /docs.",
            "x�y",
        ),
        (
            ChatCompletionRequest,
            {"model": "a", "messages": []},
            "`messages` should be a list with at least 1 item, but [] came; correct it, or see /docs.",
            "messages",
        ),
        (
            ChatCompletionRequest,
            {"model": "a", "messages": [{"role": "user"}]},
            '`messages[0]` should be a message with content, as its role is user, but {"role": "user"} came; correct it, or see /docs.',
            "messages",
        ),
        (
            ChatCompletionRequest,
            {"model": "a", "messages": [3]},
            "`messages[0]` should be an object, but 3 came; correct it, or see /docs.",
            "messages",
        ),
        (
            Classification,
            {"model": "a", "input": 1},
            "`input` should be a valid string or a valid dictionary or a valid list, but 1 came; correct it, or see /docs.",
            "input",
        ),
        (
            CompletionRequest,
            {"model": "a", "prompt": "x", "n": 65},
            "`n` should be less than or equal to 64, but 65 came; correct it, or see /docs.",
            "n",
        ),
        (CompletionRequest, [], "The body is not a JSON object; send one, with the header `Content-Type: application/json`.", None),
    ],
)
def test_the_first_fault_is_one_sentence(cls: type[Body], given: Any, sentence: str, param: str | None) -> None:
    with pytest.raises(ValidationError) as caught:
        cls.model_validate(given)
    error = error_of_body(caught.value.errors())
    assert (error.message, error.param, error.status) == (sentence, param, 400)
