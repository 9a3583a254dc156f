"""Request validation beyond the schema: fields that cannot be combined, or that this task does not support."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.server.chat_schemas import ChatCompletionRequest
from foreword.server.http_errors import HTTPError, shorten
from foreword.server.request_schemas import Batch, CompletionRequest, GenerationRequest
from foreword.server.sampling_fields import structures_of
from foreword.serving.engine import TaskCard
from foreword.task_kinds import find_kind

NEUTRAL: dict[str, tuple[object, ...]] = {
    "temperature": (0, 0.0),
    "top_p": (1, 1.0),
    "n": (1,),
    "stop": ([],),
    "logit_bias": ({},),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "skip_special_tokens": (True,),
    "tool_choice": ("auto", "none"),
}
SCHEMA_CHARS = 50_000
SAMPLING_FIELDS = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"),
    *("stop", "stop_token_ids", "min_tokens", "ignore_eos", "skip_special_tokens", "n", "logit_bias", "logprobs", "top_logprobs", "echo"),
    *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "tool_choice"),
)


def check_generation(body: CompletionRequest | ChatCompletionRequest, card: TaskCard | None, vocabulary: int) -> None:
    """Raise HTTPError for fields that the server or this task does not support."""
    _check_format(body)
    if body.stream_options is not None and not body.stream:
        raise HTTPError(400, "`stream_options` needs `stream`; leave it out, or set stream.", param="stream_options")
    for token in body.logit_bias or {}:
        if not token.isdecimal() or not token.isascii() or len(token) > 9 or int(token) >= vocabulary:
            raise HTTPError(
                400,
                f"`logit_bias` names the token '{shorten(token, 40)}', but token ids are numbers below {vocabulary}; correct it.",
                param="logit_bias",
            )
    for token in body.stop_token_ids or []:
        if not 0 <= token < vocabulary:
            raise HTTPError(
                400, f"`stop_token_ids` has {token}, but token ids are numbers below {vocabulary}; correct it.", param="stop_token_ids"
            )
    if isinstance(body, ChatCompletionRequest):
        _check_chat(body)
    elif body.echo and body.stream:
        raise HTTPError(400, "`echo` cannot be streamed; leave out one of `echo` and `stream`.", param="echo")
    elif body.best_of not in (None, 1, body.n):
        raise HTTPError(400, f"`best_of` is {body.best_of}, but only n answers are written; leave it out.", param="best_of")
    if card is not None and not find_kind(card.kind).streams:
        _check_no_sampling(body.model, card, body)
    elif (body.n or 1) > 1 and not body.temperature:
        raise HTTPError(
            400, f"`n` is {body.n}, but all greedy answers are the same; give a temperature above 0, or leave n out.", param="n"
        )


def _check_chat(body: ChatCompletionRequest) -> None:
    """Raise HTTPError for fields that contradict each other, and for alternatives of tokens that are not reported."""
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise HTTPError(
            400,
            f"`max_tokens` is {body.max_tokens}, but `max_completion_tokens` is {body.max_completion_tokens}; give one of them.",
            param="max_tokens",
        )
    if body.add_generation_prompt and body.continue_final_message:
        raise HTTPError(
            400, "`add_generation_prompt` and `continue_final_message` are both true; give one of them.", param="continue_final_message"
        )
    if body.top_logprobs and not body.logprobs:
        raise HTTPError(400, "`top_logprobs` needs `logprobs`; leave it out, or set logprobs.", param="top_logprobs")


def _check_format(body: GenerationRequest) -> None:
    """Raise HTTPError for an incomplete or contradictory structure of the answer, or one that is too large."""
    wanted = body.response_format
    if wanted is not None and (wanted.type == "json_schema") != (wanted.json_schema is not None):
        raise HTTPError(
            400, "`response_format` needs a `json_schema` where its type is json_schema, and only there.", param="response_format"
        )
    try:
        sizes = {field: len(value) if isinstance(value, str) else sum(map(len, value)) for field, _, value in structures_of(body)}
    except RecursionError:
        sizes = {"response_format": SCHEMA_CHARS + 1}
    for field, size in sizes.items():
        if size > SCHEMA_CHARS:
            raise HTTPError(400, f"The JSON schema is too large or too deep; give one of at most {SCHEMA_CHARS} characters.", param=field)


def _check_no_sampling(name: str, card: TaskCard, body: GenerationRequest | Batch) -> None:
    """Raise HTTPError for sampling fields of a task that samples no tokens; the length of its texts is a setting of the task."""
    names = (*SAMPLING_FIELDS, *(("max_tokens", "max_completion_tokens") if find_kind(card.kind).answers == "text" else ()))
    wanted = body.response_format if isinstance(body, GenerationRequest) else None
    if wanted is not None and wanted.type != "text":
        names = (*names, "response_format")
    for field in names:
        value = getattr(body, field, None)
        if value is not None and value is not False and value not in NEUTRAL.get(field, ()):
            raise HTTPError(
                400, f"The task `{name}` ({card.kind}) samples no tokens, so `{field}` does not apply; leave it out.", param=field
            )


def check_batch(body: Batch, cards: Sequence[tuple[str, TaskCard | None]]) -> None:
    """Raise HTTPError for fields that one of the tasks does not support."""
    for name, card in cards:
        if card and not find_kind(card.kind).streams:
            _check_no_sampling(name, card, body)
