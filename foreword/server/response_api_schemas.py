"""Request and response schemas of OpenAI's Responses API, as far as it is text in and text out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from foreword.server.chat_schemas import ChatCompletionRequest, Message
from foreword.server.request_schemas import Body, ModelRequest, NamedSchema, ResponseFormat, StreamOptions
from foreword.server.unsupported_fields import OF_MESSAGES, OF_RESPONSES


class InputPart(Body):
    type: Literal["input_text", "output_text", "text"]
    text: str
    unsupported = OF_MESSAGES


class InputMessage(Body):
    """A message, also as this API gave it out."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputPart]
    type: Literal["message"] = "message"
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    unsupported = OF_MESSAGES

    def message(self) -> Message:
        """The same in a chat."""
        content = self.content if isinstance(self.content, str) else [{"type": "text", "text": part.text} for part in self.content]
        return Message.model_validate({"role": self.role, "content": content})


class TextFormat(Body):
    """As `response_format` of a chat, with the schema's envelope opened."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    name: str | None = None
    description: str | None = None
    strict: bool | None = None

    def response_format(self) -> ResponseFormat:
        """The same in a chat."""
        named = None if self.schema_ is None else NamedSchema(schema=self.schema_, name=self.name)
        return ResponseFormat(type=self.type, json_schema=named)


class TextConfig(Body):
    format: TextFormat | None = None


class ResponsesRequest(ModelRequest):
    """`POST /v1/responses`: a chat of one answer; nothing is stored."""

    input: str | Annotated[list[InputMessage], Field(min_length=1)] = Field(description="a text, or the messages of a conversation")
    instructions: str | None = Field(None, description="a system message in front")
    max_output_tokens: int | None = Field(None, description="maximum number of tokens of the answer; by default that of the task, or 64")
    temperature: float | None = None
    top_p: float | None = None
    text: TextConfig | None = Field(None, description="text, any JSON object, or a JSON schema")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    unsupported = OF_RESPONSES

    def chat(self) -> ChatCompletionRequest:
        """The same as a chat."""
        said = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else [each.message() for each in self.input]
        system = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        wanted = self.text.format if self.text is not None else None
        same = {name: getattr(self, name) for name in ("model", "truncate", "temperature", "top_p")}
        rest = {"max_tokens": self.max_output_tokens, "response_format": None if wanted is None else wanted.response_format()}
        return ChatCompletionRequest.model_validate({**same, **rest, "messages": [*system, *said]})


class ResponsesResponse(BaseModel):
    """One answer; `output` holds one message of one text."""

    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: Literal["completed", "incomplete", "in_progress"]
    output: list[Any]
    parallel_tool_calls: bool
    tool_choice: str
    tools: list[Any]
    usage: dict[str, Any] | None
