"""What a schema cannot say: fields that do not go together, or that a task has no use for."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.server.chat_schemas import ChatCompletionRequest
from foreword.server.http_errors import HTTPError
from foreword.server.request_schemas import Batch, CompletionRequest
from foreword.server.request_validation import check_batch, check_generation
from foreword.serving.engine import TaskCard

WRITER = TaskCard("writer", "generate", "base", "writer", "known", ("text",))
LABELS = TaskCard("topic", "classify-head", "base", "topic", "known", ("text",))
TEXT: dict[str, Any] = {"model": "writer", "prompt": "x"}
TALK: dict[str, Any] = {"model": "writer", "messages": [{"role": "user", "content": "x"}]}


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


@pytest.mark.parametrize(
    ("body", "card", "param"),
    [
        (CompletionRequest(**TEXT, stream_options={"include_usage": True}), WRITER, "stream_options"),
        (CompletionRequest(**TEXT, logit_bias={"٣": 1.0}), WRITER, "logit_bias"),
        (CompletionRequest(**TEXT, logit_bias={"9" * 30: 1.0}), None, "logit_bias"),
        (CompletionRequest(**TEXT, n=2, temperature=0.0), WRITER, "n"),
        (CompletionRequest(**TEXT, **schema({"enum": ["x" * 50_000]})), WRITER, "response_format"),
        (CompletionRequest(**TEXT, response_format={"type": "json_object"}), LABELS, "response_format"),
        (CompletionRequest(**TEXT, stop=["x"]), LABELS, "stop"),
        (ChatCompletionRequest(**TALK, top_logprobs=2), WRITER, "top_logprobs"),
    ],
)
def test_fields_that_cannot_be_honoured_are_refused_by_name(
    body: CompletionRequest | ChatCompletionRequest, card: TaskCard | None, param: str
) -> None:
    with pytest.raises(HTTPError) as caught:
        check_generation(body, card, 320)
    assert (caught.value.status, caught.value.param) == (400, param) and f"`{param}`" in caught.value.message.replace(
        "JSON schema", f"`{param}`"
    )


def test_values_that_change_nothing_are_taken() -> None:
    check_generation(CompletionRequest(**TEXT, temperature=0.0, top_p=1.0, n=1, stop=[], logit_bias={}), LABELS, 320)
    check_generation(CompletionRequest(**TEXT, n=2, temperature=0.5, **schema({"type": "object"})), WRITER, 320)
    check_generation(CompletionRequest(**TEXT, logit_bias={"319": -100.0}), None, 320)


def test_a_batch_is_checked_for_each_of_its_tasks() -> None:
    body = Batch(model=["writer", "topic"], input="x", temperature=0.5)
    check_batch(body, [("writer", WRITER), ("base", None)])
    with pytest.raises(HTTPError) as caught:
        check_batch(body, [("writer", WRITER), ("topic", LABELS)])
    assert str(caught.value) == "The task `topic` (classify-head) samples no tokens, so `temperature` does not apply; leave it out."
