"""The base model's chat format: messages as tokens. What clients write is plain text and can never become special tokens of the format."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.prompts.template import Template
from foreword.server.http_errors import HTTPError, shorten
from foreword.server.served_model import Base

_OPEN, _CLOSE = (
    "\ue000",
    "\ue001",
)  # placeholders for messages while a chat template is applied: private-use characters, which no template changes


@dataclass(frozen=True)
class ChatFormat:
    """How the chat template is applied: `tools` as JSON, more `arguments` of the template, whether it leads over to an answer, or goes on with the last message."""

    tools: Sequence[Mapping[str, Any]] = ()
    arguments: Mapping[str, Any] | None = None
    lead_over: bool = True
    go_on: bool = False


def chat_tokens(base: Base, messages: Sequence[Mapping[str, Any]], how: ChatFormat = ChatFormat()) -> tuple[int, ...]:
    """Messages (role, content, and what belongs to calls of tools) as tokens of the model's chat format; raises HTTPError for a model without one."""
    inner = base.tokenizer.inner
    if not inner.chat_template:
        raise HTTPError(400, f"The model `{base.name}` has no chat format; use /v1/completions, or one of its tasks.", param="model")
    _check(base, messages, how)
    turns = [
        {**message, "content": f"{_OPEN}{index}{_CLOSE}" if message["content"] or "tool_calls" not in message else ""}
        for index, message in enumerate(messages)
    ]
    laid_out = _laid_out(base, turns, how)
    if how.go_on:
        laid_out = laid_out[: laid_out.rindex(_CLOSE) + 1]
    first = str(inner.bos_token) if inner.bos_token and laid_out.startswith(str(inner.bos_token)) else ""
    source = laid_out.removeprefix(first).replace("{", "{{").replace("}", "}}")
    source = re.sub(f"{_OPEN}([0-9]+){_CLOSE}", r"{m\1}", source)
    marker = "{bos}" if first and base.tokenizer.bos is not None else first
    body = source.rstrip(" ")  # a template moves its last spaces to the answer, a chat format keeps them
    values = {f"m{index}": message["content"] for index, message in enumerate(messages)}
    template = Template.parse(f"{marker}{body}{{spaces}}{{answer}}", bos=marker == "{bos}")
    return template.render({**values, "spaces": source[len(body) :]}, base.tokenizer, 0).ids


def _laid_out(base: Base, turns: Sequence[Mapping[str, Any]], how: ChatFormat) -> str:
    """The text of the chat template."""
    try:
        return str(
            base.tokenizer.inner.apply_chat_template(
                [dict(turn) for turn in turns],
                tools=[dict(tool) for tool in how.tools] or None,
                tokenize=False,
                add_generation_prompt=how.lead_over and not how.go_on,
                **(how.arguments or {}),
            )
        )
    except Exception as error:  # a chat template is code of the model's authors and may raise any exception
        raise HTTPError(
            400,
            f"The chat format of `{base.name}` does not accept these messages ({error}); change their roles or order.",
            param="messages",
        ) from error


def _check(base: Base, messages: Sequence[Mapping[str, Any]], how: ChatFormat) -> None:
    """Raise HTTPError for what a chat template would write as it is and could read as its own: special tokens in tools and arguments, arguments that are not the template's."""
    inner = base.tokenizer.inner
    for name in how.arguments or {}:
        if name in inspect.signature(inner.apply_chat_template).parameters or name == "messages":
            raise HTTPError(
                400,
                f"`chat_template_kwargs` gives `{shorten(name)}`, which is set by the server; leave it out.",
                param="chat_template_kwargs",
            )
    if how.tools and "tools" not in str(inner.chat_template):
        raise HTTPError(400, f"The chat format of `{base.name}` takes no tools; leave them out, or use `response_format`.", param="tools")
    calls = [{key: value for key, value in message.items() if key not in ("role", "content")} for message in messages]
    for field, value in {"tools": list(how.tools), "chat_template_kwargs": how.arguments, "messages": calls}.items():
        written = json.dumps(value, ensure_ascii=False)
        special = next((piece for piece in base.tokenizer.split_specials(written) if not isinstance(piece, str)), None)
        if special is not None or _OPEN in written:
            what = _OPEN if special is None else base.piece(special)
            raise HTTPError(400, f"`{field}` holds {what!r}, which is a special token of `{base.name}`; leave it out.", param=field)
