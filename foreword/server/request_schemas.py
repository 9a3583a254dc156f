"""Request schemas. Every field is either supported, known to be harmless, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, WithJsonSchema, model_validator

from foreword.server.bounded_schema import BoundedSchema
from foreword.server.unsupported_fields import UNSUPPORTED, requests_nothing

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


class StructuredOutputs(Body):
    """vLLM's envelope of what an answer must follow; one of them."""

    schema_: dict[str, Any] | str | None = Field(None, alias="json", description="a JSON schema")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


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
    frequency_penalty: float | None = Field(None, description="subtracted from a token's logit for each time that the answer has it")
    presence_penalty: float | None = Field(None, description="subtracted from the logits of all tokens that the answer has")
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = Field(None, description="tokens that end an answer")
    min_tokens: int | None = Field(None, description="number of tokens before which nothing ends an answer")
    ignore_eos: bool | None = Field(None, description="go on behind the end-of-sequence token")
    skip_special_tokens: bool | None = Field(None, description="leave special tokens out of the text; true by default")
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=64)] | None = None
    logit_bias: dict[str, float] | None = Field(None, description="token ids and the values added to their logits")
    response_format: ResponseFormat | None = Field(None, description="text, any JSON object, or a JSON schema")
    structured_outputs: StructuredOutputs | None = Field(None, description="vLLM's form of the same, also for a regex, a choice, a grammar")
    guided_json: dict[str, Any] | str | None = Field(None, description="a JSON schema")
    guided_regex: str | None = Field(None, description="a regular expression")
    guided_choice: list[str] | None = Field(None, description="texts, one of which is the answer")
    guided_grammar: str | None = Field(None, description="a grammar in Lark's format, as llguidance reads it")
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`"""

    prompt: str | list[str] | list[int] | list[list[int]] | Columns | list[Columns] = Field(
        description="a text, an object with the task's columns, or token ids of a text; or a list of these"
    )
    echo: bool | None = Field(
        None, description="put the prompt before the answer, with `logprobs` also its tokens; max_tokens may be 0 then"
    )
    logprobs: int | None = Field(None, description="number of alternatives to report for each token")
    best_of: int | None = Field(None, description="only 1, or the same as n")


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
