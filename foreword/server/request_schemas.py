"""Request schemas. Every field is either supported, known to be harmless, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, WithJsonSchema, model_validator

from foreword.server.bounded_schema import BoundedSchema
from foreword.server.unsupported_fields import OF_MESSAGES, UNSUPPORTED, requests_nothing
from foreword.serving.sampling import SamplingParams

Columns = Annotated[dict[str, str | list[str]], Field(description="the columns of a task's template by name")]
Input = str | Columns
Inputs = Annotated[list[Any], WithJsonSchema(TypeAdapter(list[Input]).json_schema())]  # each is validated by itself
Seed = Annotated[int, Field(ge=-(2**62), le=2**62)]


class Body(BoundedSchema):
    """A body, or an object within one."""

    unsupported: ClassVar[Mapping[str, tuple[object, ...]]] = UNSUPPORTED

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, given: Any) -> Any:
        """Drop null for fields of this schema, and unsupported fields that request nothing."""
        if not isinstance(given, dict):
            return given
        known, unsupported = cls.model_fields, cls.unsupported
        return {
            name: value
            for name, value in given.items()
            if (value is not None if name in known else not requests_nothing(name, value, unsupported))
        }


class StreamOptions(Body):
    include_usage: bool = Field(False, description="end the stream with a chunk with the usage")
    include_obfuscation: bool | None = None


class NamedSchema(Body):
    """OpenAI's envelope of a JSON schema; the schema is always enforced, strict or not."""

    schema_: dict[str, Any] = Field(alias="schema")
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @property
    def schema_text(self) -> str | None:
        """The JSON schema that an answer must follow. Raises RecursionError for one that is too deep."""
        if self.type == "text":
            return None
        return json.dumps({"type": "object"} if self.json_schema is None else self.json_schema.schema_)


class ModelRequest(Body):
    """The model, and fields for other servers' operators, which do not change answers."""

    model: str = Field(description="a task's name, or the base model's")
    truncate: bool = Field(False, description="truncate texts that are too long; by default they are refused")
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class GenerationRequest(ModelRequest):
    """Sampling fields and the format of the response."""

    max_tokens: int | None = Field(None, description="maximum number of tokens of an answer; by default that of the task, or 64")
    temperature: float | None = Field(None, description="0 by default (greedy, as in `foreword predict`)")
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = Field(None, description="only 0 is supported; use repetition_penalty")
    presence_penalty: float | None = Field(None, description="only 0 is supported; use repetition_penalty")
    stop: str | list[str] | None = None
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=64)] | None = None
    logit_bias: dict[str, float] | None = Field(None, description="token ids and the values added to their logits")
    response_format: ResponseFormat | None = Field(None, description="text, any JSON object, or a JSON schema")
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`"""

    prompt: str | list[str] | list[int] | list[list[int]] | Columns | list[Columns] = Field(
        description="a text, an object with the task's columns, or token ids (base model); or a list of these"
    )
    logprobs: int | None = Field(None, description="number of alternatives to report for each token")
    best_of: int | None = Field(None, description="only 1, or the same as n")


class TextPart(Body):
    type: Literal["text"]
    text: str
    unsupported = OF_MESSAGES


class Message(Body):
    """A message, also as this API or another gave it out: empty fields of an answer are taken."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = Field(None, description="null only for an assistant that said nothing")
    name: str | None = None
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


class ChatCompletionRequest(GenerationRequest):
    """`POST /v1/chat/completions`. The base model reads the conversation in its chat format; a task reads it as it was trained to, by default its last message."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, description="the same as max_tokens")
    logprobs: bool | None = None
    top_logprobs: int | None = None


class Classification(ModelRequest):
    """`POST /v1/classify`"""

    input: Input | list[Input] = Field(description="a text, an object with the task's columns, or a list of these")


class Tagging(ModelRequest):
    """`POST /v1/tag`"""

    input: str | list[str | list[str]] = Field(description="a sentence, or a list of sentences, each a text or a list of words")


class Question(Body):
    question: str
    context: str


class Questions(ModelRequest):
    """`POST /v1/qa`"""

    input: Question | list[Question] = Field(description="a question with its context, or a list of these")


class Batch(Body):
    """`POST /v1/batch`: every input is read by every model. One that fails fails alone."""

    apart = frozenset(("input", "model"))

    model: str | list[str] = Field(description="a task's name, or a list of names")
    input: Input | Inputs = Field(description="a text, an object with columns, or a list of these")
    truncate: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None


class TaskName(Body):
    """`POST /v1/tasks/load`, `POST /v1/tasks/unload`"""

    name: str


def to_sampling_params(body: GenerationRequest | Batch, *, logprobs: int | None = None, draw: int = 0) -> SamplingParams:
    """The sampling parameters of a body; the n-th of several answers has the seed + n. Raises UsageError for values that are not valid."""
    names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(body, name, None)) is not None}
    if isinstance(body, ChatCompletionRequest) and body.max_completion_tokens is not None:
        given["max_tokens"] = body.max_completion_tokens
    if "seed" in given:
        given["seed"] += draw
    if body.stop is not None:
        given["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    if isinstance(body, GenerationRequest) and body.response_format is not None:
        given["json_schema"] = body.response_format.schema_text
    bias = body.logit_bias if isinstance(body, GenerationRequest) else None
    return SamplingParams(**given, logprobs=logprobs, logit_bias={int(token): value for token, value in (bias or {}).items()})
