"""From the fields of a body to sampling parameters: what an answer must follow may come in four forms, and only one of them."""

from __future__ import annotations

import json
from typing import Any

from foreword.errors import UsageError
from foreword.server.chat_schemas import ChatCompletionRequest
from foreword.server.request_schemas import Batch, CompletionRequest, GenerationRequest
from foreword.server.tool_calls import tool_schema
from foreword.serving.sampling import SamplingParams

SAME = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "seed")
VLLM = ("min_tokens", "ignore_eos", "skip_special_tokens")
ANY_OBJECT = json.dumps({"type": "object"})


def to_sampling_params(body: GenerationRequest | Batch, *, logprobs: int | None = None, draw: int = 0) -> SamplingParams:
    """The sampling parameters of a body; the n-th of several answers has the seed + n. Raises UsageError for values that are not valid."""
    given: dict[str, Any] = {name: value for name in (*SAME, *VLLM) if (value := getattr(body, name, None)) is not None}
    if isinstance(body, ChatCompletionRequest) and body.max_completion_tokens is not None:
        given["max_tokens"] = body.max_completion_tokens
    if "seed" in given:
        given["seed"] += draw
    if body.stop is not None:
        given["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    if isinstance(body, GenerationRequest):
        given["stop_token_ids"] = tuple(body.stop_token_ids or ())
        given["logit_bias"] = {int(token): value for token, value in (body.logit_bias or {}).items()}
        given |= {name: value for _, name, value in structures_of(body)}
    if isinstance(body, CompletionRequest) and body.echo and (logprobs is not None or body.max_tokens == 0):
        given["prompt_logprobs"] = logprobs or 0
    return SamplingParams(**given, logprobs=logprobs)


def structures_of(body: GenerationRequest) -> list[tuple[str, str, Any]]:
    """What the answer must follow: the field, the name of the sampling parameter, its value. Raises UsageError for more than one, RecursionError for one that is too deep."""
    found: list[tuple[str, str, Any]] = []
    if body.response_format is not None and body.response_format.type != "text":
        found.append(("response_format", "json_schema", body.response_format.schema_text))
    outer = body.structured_outputs
    inner = {} if outer is None else {"json": outer.schema_, "regex": outer.regex, "choice": outer.choice, "grammar": outer.grammar}
    if outer is not None and outer.json_object:
        found.append(("structured_outputs", "json_schema", ANY_OBJECT))
    for prefix, kinds in (
        ("structured_outputs", inner),
        ("guided", {kind: getattr(body, f"guided_{kind}") for kind in ("json", "regex", "choice", "grammar")}),
    ):
        for kind, value in kinds.items():
            if value is not None:
                field = prefix if prefix != "guided" else f"guided_{kind}"
                found.append((field, "json_schema" if kind == "json" else kind, _plain(value)))
    if isinstance(body, ChatCompletionRequest) and (schema := tool_schema(body)) is not None:
        found.append(("tool_choice", "json_schema", schema))
    if len(found) > 1:
        names = " and ".join(dict.fromkeys(field for field, _, _ in found))
        raise UsageError(f"{names} came with more than one structure, but an answer follows only one; leave out the others.")
    return found


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else tuple(value) if isinstance(value, list) else value
