"""From what clients send to what an engine is asked: one request for each answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foreword.errors import ForewordError
from foreword.server.http_errors import Refusal, refusal_of, shortened
from foreword.server.schemas import Batch, Chat, Completion, Writing, sampling
from foreword.server.state import RequestLog, ServerState
from foreword.serving.engine import TaskCard
from foreword.serving.request import Request
from foreword.serving.sampling import Sampling
from foreword.task_kinds import find_kind

Given = str | Mapping[str, str | list[str]] | list[int]
NEUTRAL: dict[str, tuple[object, ...]] = {"temperature": (0, 0.0), "top_p": (1, 1.0), "n": (1,), "stop": ([],), "logit_bias": ({},)}
SCHEMA_CHARS = 50_000
ONLY_WHERE_WRITTEN = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop", "n", "logit_bias", "logprobs", "top_logprobs")


@dataclass(frozen=True)
class PreparedRequest:
    """One answer to be had: `input` says to which input it belongs, `tokens` how many its text has."""

    request: Request
    card: TaskCard | None
    model: str
    input: int
    tokens: int


def written(state: ServerState, request_log: RequestLog, body: Completion | Chat) -> list[PreparedRequest]:
    """The answers of a completion or a chat: every prompt n times."""
    card = state.find(body.model, request_log.caller)
    _check_writing(body, card, state)
    draws = body.n or 1
    logprobs = body.logprobs if isinstance(body, Completion) else (body.top_logprobs or 0) if body.logprobs else None
    givens = _messages(body, card, state) if isinstance(body, Chat) else _prompts(body.prompt)
    try:
        drawn = [sampling(body, logprobs=logprobs, draw=draw) for draw in range(draws)]
    except ForewordError as error:
        raise refusal_of(error) from error
    return prepare_requests(state, request_log, [(body.model, card)], givens, drawn, truncate=body.truncate)


def batched(state: ServerState, request_log: RequestLog, body: Batch, inputs: Sequence[Given]) -> list[PreparedRequest]:
    """Every input read by every model; raises Refusal where a model does not exist."""
    names = [body.model] if isinstance(body.model, str) else body.model
    cards = [(name, state.find(name, request_log.caller)) for name in names]
    if not cards:
        raise Refusal(400, "`model` is an empty list; name at least one task.", param="model")
    try:
        drawn = [sampling(body)]
    except ForewordError as error:
        raise refusal_of(error) from error
    for name, card in cards:
        if card and not find_kind(card.kind).streams:
            _refuse_drawing(name, card, body)
    return prepare_requests(state, request_log, cards, inputs, drawn, truncate=body.truncate)


def prepare_requests(
    state: ServerState,
    request_log: RequestLog,
    models: Sequence[tuple[str, TaskCard | None]],
    givens: Sequence[Given],
    drawn: Sequence[Sampling],
    *,
    truncate: bool = False,
) -> list[PreparedRequest]:
    """One Ask for each model, input and draw, charged to the caller; raises Refusal for what is too much, or does not fit the task."""
    if not givens:
        raise Refusal(400, "The request holds no input; give at least one.")
    count = len(models) * len(givens) * len(drawn)
    if count > state.limits.answers:
        raise Refusal(400, f"The request asks for {count} answers, but at most {state.limits.answers} are given at once; ask for fewer.")
    made: list[PreparedRequest] = []
    for name, card in models:
        for place, given in enumerate(givens):
            example, ids = _example(given, name, card, state)
            tokens = len(ids) or sum(state.base.count(text) for text in example.values())
            for draw in drawn:
                request = Request(f"{request_log.id}-{len(made)}", card and card.name, example, draw, truncate, ids)
                made.append(PreparedRequest(request, card, name, place, tokens))
    state.keys.charge(request_log.caller, count)
    request_log.model, request_log.answers = ",".join(name for name, _ in models[:8]), count
    if state.log.texts:
        request_log.texts = [json.dumps(ask.request.example, ensure_ascii=False) for ask in made]
    return made


def _example(given: Given, name: str, card: TaskCard | None, state: ServerState) -> tuple[dict[str, str], tuple[int, ...]]:
    """What an engine reads: columns of an example, or tokens for the base model."""
    if isinstance(given, list):
        if card is not None:
            raise Refusal(400, f"Tokens came for the task `{name}`, which reads text; give a text.", param="prompt")
        if not given or not all(0 <= token < state.base.shape.vocabulary for token in given):
            raise Refusal(400, f"Tokens must be at least one, each from 0 to {state.base.shape.vocabulary - 1}.", param="prompt")
        state.base.check_writes()
        return {}, tuple(given)
    if card is None:
        state.base.check_writes()
    elif card.problem and not card.columns:
        return {}, ()  # the engine says what is wrong with it, to this request alone
    columns = ("text",) if card is None else card.columns
    if isinstance(given, str):
        if len(columns) != 1:
            raise Refusal(
                400, f"The task `{name}` reads {_named(columns)}, but one text came; give an object with these columns.", param="input"
            )
        given = {columns[0]: given}
    if set(given) != set(columns):
        came = _named([shortened(key, 40) for key in given])
        raise Refusal(400, f"`{name}` reads {_named(columns)}, but {came} came; give exactly these columns.", param="input")
    example = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in given.items()}
    longest = max(map(len, example.values()), default=0)
    if longest > state.limits.text_chars:
        raise Refusal(400, f"A text has {longest} characters, but at most {state.limits.text_chars} are read; shorten it.", param="input")
    return example, ()


def _prompts(prompt: object) -> list[Given]:
    """One prompt, or several."""
    if isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt):
        return list(prompt)
    return [prompt] if prompt != [] else []  # type: ignore[list-item]  # the schema has checked what it is


def _messages(body: Chat, card: TaskCard | None, state: ServerState) -> list[Given]:
    """A task reads one message of a user, the base model a conversation."""
    if card is None:
        state.base.check_writes()
        longest = max(len(message.text) for message in body.messages)
        if longest > state.limits.text_chars:
            raise Refusal(
                400, f"A message has {longest} characters, but at most {state.limits.text_chars} are read; shorten it.", param="messages"
            )
        return [list(state.base.conversation([{"role": message.role, "content": message.text} for message in body.messages]))]
    if len(body.messages) != 1 or body.messages[0].role != "user":
        raise Refusal(
            400,
            f"The task `{body.model}` reads one message of a user, but {_named([message.role for message in body.messages])} came; send it alone.",
            param="messages",
        )
    return [body.messages[0].text]


def _check_writing(body: Completion | Chat, card: TaskCard | None, state: ServerState) -> None:
    """Raise Refusal for what is not honoured, here or by this task."""
    for name in ("frequency_penalty", "presence_penalty"):
        if getattr(body, name):
            raise Refusal(400, f"`{name}` is not honoured here; leave it out, or use `repetition_penalty`.", param=name)
    _check_format(body)
    if body.stream_options is not None and not body.stream:
        raise Refusal(400, "`stream_options` came without `stream`; leave it out, or set stream.", param="stream_options")
    for token in body.logit_bias or {}:
        if not token.isdecimal() or not token.isascii() or len(token) > 9 or int(token) >= state.base.shape.vocabulary:
            vocabulary = state.base.shape.vocabulary
            raise Refusal(
                400,
                f"`logit_bias` names the token '{shortened(token, 40)}', but tokens are numbers below {vocabulary}.",
                param="logit_bias",
            )
    if isinstance(body, Chat) and body.max_tokens is not None and body.max_completion_tokens is not None:
        raise Refusal(400, "`max_tokens` and `max_completion_tokens` came together; give one of them.", param="max_tokens")
    if isinstance(body, Chat) and body.top_logprobs is not None and not body.logprobs:
        raise Refusal(400, "`top_logprobs` came without `logprobs`; leave it out, or set logprobs.", param="top_logprobs")
    if card is not None and not find_kind(card.kind).streams:
        _refuse_drawing(body.model, card, body)
    elif (body.n or 1) > 1 and not body.temperature:
        raise Refusal(400, f"`n` is {body.n}, but greedy answers are all alike; give a temperature above 0, or leave n out.", param="n")


def _check_format(body: Completion | Chat) -> None:
    """Raise Refusal for a response format that says too little, or too much."""
    wanted = body.response_format
    if wanted is None:
        return
    if (wanted.type == "json_schema") != (wanted.json_schema is not None):
        raise Refusal(
            400, "`response_format` needs a `json_schema` where its type is json_schema, and only there.", param="response_format"
        )
    try:
        size = len(wanted.schema_text or "")
    except RecursionError:
        size = SCHEMA_CHARS + 1
    if size > SCHEMA_CHARS:
        raise Refusal(
            400, f"The JSON schema is too large or too deep; at most {SCHEMA_CHARS} characters are read.", param="response_format"
        )


def _refuse_drawing(name: str, card: TaskCard, body: Writing | Batch) -> None:
    """Where no token is drawn, fields that say how have no meaning; the task's own settings decide how long its texts are."""
    names = (*ONLY_WHERE_WRITTEN, *(("max_tokens", "max_completion_tokens") if find_kind(card.kind).answers == "text" else ()))
    wanted = body.response_format if isinstance(body, Writing) else None
    if wanted is not None and wanted.type != "text":
        names = (*names, "response_format")
    for field in names:
        value = getattr(body, field, None)
        if value is not None and value is not False and value not in NEUTRAL.get(field, ()):
            raise Refusal(400, f"The task `{name}` ({card.kind}) draws no tokens, so `{field}` has no meaning; leave it out.", param=field)


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
