"""Responses of chats with tools: an answer's text is read when it is complete, as a call or as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final
from uuid import uuid4

from foreword.server.chat_schemas import ChatCompletionRequest
from foreword.server.inflight_requests import RequestOutput
from foreword.server.responses import ChatBuilder, Json
from foreword.server.tool_calls import forced, forced_call, written_calls
from foreword.serving.request import Token


@final
class ToolCallBuilder:
    """`chat.completion` with `tool_calls`. A stream sends nothing before the answer is complete, because only then it is known what it is."""

    whole, chunk, prefix = ChatBuilder.whole, ChatBuilder.chunk, ChatBuilder.prefix

    def __init__(self, plain: ChatBuilder, body: ChatCompletionRequest) -> None:
        self._plain, self._body = plain, body
        self._held: dict[int, str] = {}

    def choice(self, index: int, found: RequestOutput) -> Json:
        made = self._plain.choice(index, found)
        delta, reason = self._read(found.text, made["finish_reason"])
        return {**made, "message": {**made["message"], "content": None, **delta}, "finish_reason": reason}

    def first(self, index: int) -> Json | None:
        return self._plain.first(index)

    def piece(self, index: int, text: str, tokens: Sequence[Token], offset: int) -> Json | None:
        self._held[index] = self._held.get(index, "") + text
        return None

    def last(self, index: int, reason: str) -> Json:
        delta, reason = self._read(self._held.pop(index, ""), reason)
        for number, call in enumerate(delta.get("tool_calls", [])):
            call["index"] = number
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}

    def _read(self, text: str, reason: str) -> tuple[Json, str]:
        """The fields of a message, and the reason of its end."""
        content, calls = ("", [forced_call(self._body, text)]) if forced(self._body) else written_calls(self._body, text)
        if not calls:
            return {"content": content}, reason
        made = [
            {"id": f"call_{uuid4().hex[:24]}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in calls
        ]
        said: Json = {"content": content} if content else {}
        return {**said, "tool_calls": made}, "tool_calls" if reason == "stop" else reason
