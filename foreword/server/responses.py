"""OpenAI's two response formats, complete and in chunks, built from the same events."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final, runtime_checkable

from starlette.responses import Response

from foreword.server.inflight_requests import RequestOutput
from foreword.server.served_model import Base
from foreword.serving.request import Token

Json = dict[str, Any]


@runtime_checkable
class ResponseBuilder(Protocol):
    """Abstract: builds the responses of one endpoint."""

    whole: str
    chunk: str
    prefix: str

    def choice(self, index: int, found: RequestOutput) -> Json: ...
    def first(self, index: int) -> Json | None: ...
    def piece(self, index: int, text: str, tokens: Sequence[Token], offset: int) -> Json | None: ...
    def last(self, index: int, reason: str) -> Json: ...


@final
class CompletionBuilder:
    """`text_completion`"""

    whole = chunk = "text_completion"
    prefix = "cmpl"

    def __init__(self, base: Base, *, logprobs: bool) -> None:
        self._base, self._logprobs = base, logprobs

    def choice(self, index: int, found: RequestOutput) -> Json:
        assert found.done is not None
        echo = found.ask.echo
        text = found.text if echo is None else echo.text + found.text
        logs = self._logs(found.tokens, 0)
        if logs is not None and echo is not None and found.prompt is not None:
            logs = self._logs(found.tokens, 0, echo.tokens(found.prompt))
        return {"index": index, "text": text, "logprobs": logs, "finish_reason": found.done.reason, **extra(found)}

    def first(self, index: int) -> Json | None:
        return None

    def piece(self, index: int, text: str, tokens: Sequence[Token], offset: int) -> Json:
        return {"index": index, "text": text, "logprobs": self._logs(tokens, offset), "finish_reason": None}

    def last(self, index: int, reason: str) -> Json:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": reason}

    def _logs(self, tokens: Sequence[Token], offset: int, echoed: Sequence[Token] = ()) -> Json | None:
        """The echoed tokens of a prompt, whose first may have no log-probability, and those of the answer that have one."""
        if not self._logprobs:
            return None
        found: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for place, token in enumerate((*echoed, *tokens)):
            piece = self._base.piece(token.token)
            if token.logprob is not None or place < len(echoed):
                best = {self._base.piece(other): value for other, value in sorted(token.top.items(), key=lambda item: item[1])}
                found["tokens"].append(piece)
                found["token_logprobs"].append(token.logprob)
                found["top_logprobs"].append(None if token.logprob is None else {**best, piece: token.logprob})
                found["text_offset"].append(offset)
            offset += len(piece if place < len(echoed) else token.text)
        return found


@final
class ChatBuilder:
    """`chat.completion`"""

    whole, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def __init__(self, base: Base, *, logprobs: bool) -> None:
        self._base, self._logprobs = base, logprobs

    def choice(self, index: int, found: RequestOutput) -> Json:
        assert found.done is not None
        message = {"role": "assistant", "content": found.text, "refusal": None}
        logs = self._logs(found.tokens)
        return {"index": index, "message": message, "logprobs": logs, "finish_reason": found.done.reason, **extra(found)}

    def first(self, index: int) -> Json | None:
        return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}

    def piece(self, index: int, text: str, tokens: Sequence[Token], offset: int) -> Json:
        return {"index": index, "delta": {"content": text}, "logprobs": self._logs(tokens), "finish_reason": None}

    def last(self, index: int, reason: str) -> Json:
        return {"index": index, "delta": {}, "logprobs": None, "finish_reason": reason}

    def _logs(self, tokens: Sequence[Token]) -> Json | None:
        if not self._logprobs:
            return None
        likely = [token for token in tokens if token.logprob is not None]
        return {
            "content": [{**self._one(token.token, token.logprob), "top_logprobs": self._top(token.top)} for token in likely],
            "refusal": None,
        }

    def _top(self, top: Mapping[int, float]) -> list[Json]:
        return [self._one(token, value) for token, value in sorted(top.items(), key=lambda item: -item[1])]

    def _one(self, token: int, logprob: float | None) -> Json:
        piece = self._base.piece(token)
        return {"token": piece, "logprob": logprob, "bytes": None if "\ufffd" in piece else list(piece.encode())}


def extra(found: RequestOutput) -> Json:
    """Additional fields of tasks with labels."""
    if found.answer is None:
        return {}
    value = found.answer.value
    return {"scores": dict(found.answer.scores)} if value is None else {"value": value, "scores": dict(found.answer.scores)}


def usage(found: Sequence[RequestOutput]) -> Json:
    """Numbers of prompt and generated tokens; an input with several answers is counted once."""
    read: dict[tuple[str, int], int] = {}
    num_written = 0
    for each in found:
        if each.done is not None:
            read[each.ask.model, each.ask.input] = each.done.prompt_tokens
            num_written += each.done.completion_tokens
    return {
        "prompt_tokens": sum(read.values()),
        "completion_tokens": num_written,
        "total_tokens": sum(read.values()) + num_written,
    }


def json_response(document: Json) -> Response:
    """A response of a document as JSON."""
    return Response(json_text(document), media_type="application/json")


def json_text(document: Json) -> str:
    """A document as JSON on one line; numbers that are not finite become null."""
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
