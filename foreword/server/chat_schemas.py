"""Request schemas of chats: messages, tools, and how the base model's chat format is applied."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, model_validator

from foreword.server.request_schemas import Body, GenerationRequest
from foreword.server.unsupported_fields import OF_MESSAGES


class TextPart(Body):
    type: Literal["text"]
    text: str
    unsupported = OF_MESSAGES


class CalledFunction(Body):
    name: str
    arguments: str = Field(description="a JSON object as a text")


class ToolCall(Body):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | None = None


class Message(Body):
    """A message, also as this API or another gave it out: empty fields of an answer are taken."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = Field(None, description="null only for an assistant that said nothing")
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    parsed: Any = Field(None, description="what OpenAI's client has made of the content; not read")
    unsupported = OF_MESSAGES

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message with content, as its role is {self.role}")
        return self

    @property
    def text(self) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)


class Function(Body):
    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="a JSON schema; none is an object without properties")
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function

    @property
    def schema_text(self) -> str:
        """The JSON schema of the arguments. Raises RecursionError for one that is too deep."""
        nothing = {"type": "object", "properties": {}, "additionalProperties": False}
        return json.dumps(nothing if self.function.parameters is None else self.function.parameters)


class NamedFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class ChatCompletionRequest(GenerationRequest):
    """`POST /v1/chat/completions`. The base model reads the conversation in its chat format; a task reads it as it was trained to, by default its last message."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, description="the same as max_tokens")
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Tool] | None = Field(None, description="functions that the model may call; the base model's chat format must take them")
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = Field(None, description="by default auto where there are tools")
    parallel_tool_calls: bool | None = Field(None, description="only one tool is called in an answer that must call one")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="more arguments of the base model's chat template")
    add_generation_prompt: bool | None = Field(None, description="lead over to an answer; true by default")
    continue_final_message: bool | None = Field(None, description="go on with the last message, an assistant's")
