"""Response schemas for the OpenAPI page."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class ErrorInfo(BaseModel):
    message: str
    type: str
    param: str | None
    code: int


class Error(BaseModel):
    """Every error: one sentence, a type, the field at fault, the status."""

    error: ErrorInfo


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ModelCard(BaseModel):
    """`root` is where a task's adapter is, `parent` its base model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int
    permission: list[Any]


class ModelCards(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]


class Task(BaseModel):
    """A task as the engine has it: `state` is known, loading, resident or broken, then with its `problem`."""

    name: str
    kind: str
    columns: list[str]
    base: str
    root: str
    state: str
    digest: str
    num_bytes: int
    problem: str | None
    conversation: str


class Tasks(BaseModel):
    tasks: list[Task]


class Choice(BaseModel):
    """`value` and `scores` are there for tasks that write no text."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str | None
    value: Any = None
    scores: dict[str, float | None] | None = None


class CompletionResponse(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ChatMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[Any] | None = None


class ChatChoice(BaseModel):
    index: int
    message: ChatMessage
    logprobs: dict[str, Any] | None
    finish_reason: str | None
    value: Any = None
    scores: dict[str, float | None] | None = None


class ChatCompletionResponse(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Labelled(BaseModel):
    """`label` is the likeliest; `labels` all that hold, of a multi-label task; `value` the number of a regression."""

    index: int
    label: str
    scores: dict[str, float | None]
    labels: list[str] | None = None
    value: float | None = None


class Tagged(BaseModel):
    """A tag for each word; ? for a word that did not fit."""

    index: int
    tags: list[str]


class Answered(BaseModel):
    """The answer, where it begins in the context (null for none), and its log-odds against "not here"."""

    index: int
    answer: str
    start: int | None
    log_odds: float | None


class Labels(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Labelled]
    usage: Usage


class Tags(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Tagged]
    usage: Usage


class Answers(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Answered]
    usage: Usage


class Item(BaseModel):
    """One model's answer to one input, or the `error` it failed with."""

    index: int
    model: str
    input: int
    text: str | None = None
    finish_reason: str | None = None
    value: Any = None
    scores: dict[str, float | None] | None = None
    error: ErrorInfo | None = None


class Items(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    data: list[Item]
    usage: Usage


class State(BaseModel):
    """`ready` or the reason why not."""

    status: str
