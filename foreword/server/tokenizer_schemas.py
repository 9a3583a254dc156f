"""Request and response schemas of /tokenize, /detokenize and /version, which are vLLM's."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, model_validator

from foreword.server.chat_schemas import Message
from foreword.server.request_schemas import Body


class TokenizeRequest(Body):
    """`POST /tokenize`: a text, or messages in the base model's chat format."""

    model: str = Field(description="a task's name, or the base model's; all have the base model's tokenizer")
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1)
    add_special_tokens: bool = Field(True, description="begin a text with the tokens that open it")
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("an object with either a prompt or messages")
        return self


class DetokenizeRequest(Body):
    """`POST /detokenize`"""

    model: str = Field(description="a task's name, or the base model's; all have the base model's tokenizer")
    tokens: list[int]


class TokenizeResponse(BaseModel):
    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class DetokenizeResponse(BaseModel):
    prompt: str


class VersionResponse(BaseModel):
    version: str
