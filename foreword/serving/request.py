"""What an engine is asked and what it answers: plain data, in the order in which a client meets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from foreword.serving.sampling import SamplingParams

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Request:
    """One example for one task; the task None is the frozen model itself, which goes on from the example's `text`.

    `truncate` cuts a text that is too long, which is refused otherwise. `ids` are tokens for the frozen model instead of a text: a
    conversation in its chat format, whose markers no text can hold. `tenant` is who asks: the engine takes turns among tenants.
    `pooling` asks an encoder for the embedding of its text.
    """

    id: str
    task: str | None
    example: Mapping[str, str]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    truncate: bool = False
    ids: tuple[int, ...] = ()
    tenant: str = ""
    pooling: Literal["mean", "first"] | None = None


@dataclass(frozen=True)
class PromptLogprobs:
    """The text's own tokens with their template, before the first `Token` where they are asked for; virtual tokens are never part of it.

    `top[i]` maps the likeliest tokens at place i to log-probabilities. A token without a distribution before it, the first or one of a compiled prompt, has None and {}.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    top: tuple[Mapping[int, float], ...]


@dataclass(frozen=True)
class Token:
    """One more token: its `text` is what the answer grows by, empty while a character lacks bytes; `top` maps tokens to log-probabilities."""

    text: str
    token: int
    logprob: float | None = None
    top: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A whole answer of a task that writes no text: `text` is what people read, `value` what programs do, `scores` a share for each label."""

    text: str
    value: object = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """The end of an answer; virtual tokens are not counted. `waited` is seconds until its first step, where the engine knows."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    waited: float | None = None


@dataclass(frozen=True)
class Failed:
    """The end of a request without an answer: the caller's mistake, an unknown task, insufficient capacity, or an error of the engine."""

    kind: Literal["request", "task", "capacity", "engine"]
    message: str


Event = PromptLogprobs | Token | Answer | Done | Failed
END = (Done, Failed)
