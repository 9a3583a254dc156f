"""Preprocessing, from a validated body to engine requests, one for each answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from foreword.server.admission import Limits
from foreword.server.chat_prompt import conversation_prompt
from foreword.server.chat_schemas import ChatCompletionRequest
from foreword.server.echo import Echo
from foreword.server.http_errors import HTTPError, shorten
from foreword.server.request_schemas import CompletionRequest
from foreword.server.sampling_fields import to_sampling_params
from foreword.server.server_state import ServerState
from foreword.serving.engine import TaskCard
from foreword.serving.request import Request
from foreword.serving.sampling import SamplingParams

Prompt = str | Mapping[str, str | list[str]] | list[int]


@dataclass(frozen=True)
class EngineRequest:
    """The request for one answer: `input` is the index of its input, `tokens` the number of tokens of its text, `echo` what stands before the answer."""

    request: Request
    card: TaskCard | None
    model: str
    input: int
    tokens: int
    echo: Echo | None = None


def preprocess(
    state: ServerState, request_id: str, body: CompletionRequest | ChatCompletionRequest, card: TaskCard | None
) -> list[EngineRequest]:
    """The engine requests of a completion or a chat: every prompt n times."""
    logprobs = body.logprobs if isinstance(body, CompletionRequest) else (body.top_logprobs or 0) if body.logprobs else None
    prompts = [conversation_prompt(state, body, card)] if isinstance(body, ChatCompletionRequest) else _prompts(body.prompt)
    sampling_params = [to_sampling_params(body, logprobs=logprobs, draw=draw) for draw in range(body.n or 1)]
    made = engine_requests(state, request_id, [(body.model, card)], prompts, sampling_params, truncate=body.truncate)
    if isinstance(body, CompletionRequest) and body.echo:
        return [replace(each, echo=_echo(state, prompts[each.input])) for each in made]
    return made


def _echo(state: ServerState, prompt: Prompt) -> Echo:
    """A prompt as it came; raises HTTPError for an object with columns."""
    if isinstance(prompt, str):
        return Echo(prompt, tuple(state.base.tokenizer.encode(prompt)))
    if isinstance(prompt, list):
        return Echo(state.base.text(prompt), tuple(prompt))
    raise HTTPError(400, "`echo` repeats a text or token ids, but an object with columns came; leave out echo.", param="echo")


def engine_requests(
    state: ServerState,
    request_id: str,
    models: Sequence[tuple[str, TaskCard | None]],
    prompts: Sequence[Prompt],
    sampling_params: Sequence[SamplingParams],
    *,
    truncate: bool = False,
) -> list[EngineRequest]:
    """One for each model, prompt and draw; raises HTTPError for too many or too long inputs, and for inputs that do not fit the task."""
    check_count(state.limits, prompts, len(models) * len(sampling_params))
    made: list[EngineRequest] = []
    for name, card in models:
        for index, prompt in enumerate(prompts):
            example, ids = _example(prompt, name, card, state)
            tokens = len(ids) or sum(state.base.estimate(text) for text in example.values())
            if not truncate:
                for text in (prompt,) if isinstance(prompt, str) else prompt.values() if isinstance(prompt, Mapping) else ():
                    if isinstance(text, str):  # a list of words becomes JSON, whose tokens nobody reads
                        state.base.check_fits(text)
            for draw in sampling_params:
                request = Request(f"{request_id}-{len(made)}", card and card.name, example, draw, truncate, ids)
                made.append(EngineRequest(request, card, name, index, tokens))
    return made


def check_count(limits: Limits, prompts: Sequence[object], answers: int) -> None:
    """Raise HTTPError for no prompt, or too many, each with so many answers."""
    if not prompts:
        raise HTTPError(400, "The request has no input; give at least one.")
    count = len(prompts) * answers
    if count > limits.answers:
        raise HTTPError(400, f"The request asks for {count} answers, but at most {limits.answers} are allowed; ask for fewer.")


def _example(given: Prompt, name: str, card: TaskCard | None, state: ServerState) -> tuple[dict[str, str], tuple[int, ...]]:
    """The input of an engine: columns of an example, or tokens for the base model."""
    if isinstance(given, list):
        if not given or not all(0 <= token < state.base.shape.vocabulary for token in given):
            raise HTTPError(
                400, f"A list of token ids needs at least one, each from 0 to {state.base.shape.vocabulary - 1}.", param="prompt"
            )
        if card is None:
            state.base.check_writes()
            return {}, tuple(given)
        given = _text_of(given, name, state)
    if card is None:
        state.base.check_writes()
    elif card.problem and not card.columns:
        return {}, ()  # the engine reports the error, for this request only
    columns = ("text",) if card is None else card.columns
    if isinstance(given, str):
        if len(columns) != 1:
            raise HTTPError(
                400, f"The task `{name}` reads {_listed(columns)}, but one text came; give an object with these columns.", param="input"
            )
        given = {columns[0]: given}
    if set(given) != set(columns):
        came = _listed([shorten(key, 40) for key in given])
        raise HTTPError(400, f"`{name}` reads {_listed(columns)}, but {came} came; give exactly these columns.", param="input")
    example = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in given.items()}
    longest = max(map(len, example.values()), default=0)
    if longest > state.limits.text_chars:
        raise HTTPError(
            400, f"A text has {longest} characters, but at most {state.limits.text_chars} are allowed; shorten it.", param="input"
        )
    return example, ()


def _text_of(ids: list[int], name: str, state: ServerState) -> str:
    """The text of token ids, for a task, whose template adds what opens a text; raises HTTPError where they are not a text's tokens."""
    opening = list(state.base.tokenizer.opening)
    plain = ids[len(opening) :] if opening and ids[: len(opening)] == opening else ids
    text = state.base.text(plain)
    if state.base.tokenizer.encode(text) != plain:
        raise HTTPError(400, f"The task `{name}` reads text, but these token ids are not those of a text; give a text.", param="prompt")
    return text


def _prompts(prompt: object) -> list[Prompt]:
    """One prompt, or several."""
    if isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt):
        return list(prompt)
    return [prompt] if prompt != [] else []  # type: ignore[list-item]  # the schema has checked what it is


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
