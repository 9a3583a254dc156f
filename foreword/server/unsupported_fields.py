"""Fields that clients send and this server does not support: what requests nothing is taken, everything else is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# OpenAI's and vLLM's fields of requests, with their default values; empty values (null, false, "", [], {}) request nothing anywhere.
# A field that one endpoint supports may stand here for the others.
UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "add_generation_prompt": (),
    "allowed_token_ids": (),
    "audio": (),
    "background": (),
    "bad_words": (),
    "chat_template": (),
    "chat_template_kwargs": (),
    "continue_final_message": (),
    "documents": (),
    "echo": (),
    "function_call": ("auto", "none"),
    "functions": (),
    "include_stop_str_in_output": (),
    "length_penalty": (1, 1.0),
    "logits_processors": (),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "prediction": (),
    "prompt_logprobs": (),
    "prompt_cache_retention": ("in-memory", "in_memory"),
    "reasoning_effort": ("medium", "none"),
    "spaces_between_special_tokens": (True,),
    "suffix": (),
    "tool_choice": ("auto", "none"),
    "tools": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}

# Fields of a message or of a part of it, which clients send back as they got them, from this server or from another.
OF_MESSAGES: Mapping[str, tuple[object, ...]] = {
    "annotations": (),
    "audio": (),
    "cache_control": (),
    "function_call": (),
    "images": (),
    "logprobs": (),
    "phase": (),
    "provider_specific_fields": (),
    "reasoning": (),
    "reasoning_content": (),
    "reasoning_details": (),
    "refusal": (),
    "thinking_blocks": (),
}

# Of the Responses API. Nothing is stored, so nothing goes on from what was stored; the rest are tools and their results.
OF_RESPONSES: Mapping[str, tuple[object, ...]] = {
    **UNSUPPORTED,
    "context_management": (),
    "conversation": (),
    "include": (),
    "max_tool_calls": (),
    "previous_response_id": (),
    "prompt": (),
    "reasoning": (),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
OF_EMBEDDINGS: Mapping[str, tuple[object, ...]] = {"add_special_tokens": (True,), "dimensions": (), "truncate_prompt_tokens": ()}
ALL_UNSUPPORTED = frozenset((*OF_RESPONSES, *OF_MESSAGES, *OF_EMBEDDINGS))


def is_empty(value: Any) -> bool:
    """Whether a value requests nothing: null, false, an empty text, an empty list, or an object that holds only such values."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            left.extend(found.values())
        elif not (found is None or found is False or found in ("", [])):
            return False
    return True


def requests_nothing(name: str, value: Any, unsupported: Mapping[str, tuple[object, ...]]) -> bool:
    """Whether a field is one of these and has a value that requests nothing."""
    return name in unsupported and (is_empty(value) or value in unsupported[name])
