"""The prompt of a chat: a conversation in the base model's chat format, or what a task reads of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from foreword.errors import DataError
from foreword.server.chat_format import ChatFormat, chat_tokens
from foreword.server.chat_schemas import ChatCompletionRequest, Message
from foreword.server.http_errors import HTTPError, shorten
from foreword.server.server_state import ServerState
from foreword.server.tool_calls import forced
from foreword.serving.engine import TaskCard
from foreword.tasks.conversation import conversation_text


def conversation_prompt(state: ServerState, body: ChatCompletionRequest, card: TaskCard | None) -> str | list[int]:
    """Token ids for the base model, a text for a task; raises HTTPError for a conversation that the model does not accept."""
    if card is not None:
        return _task_text(state, body, card)
    state.base.check_writes()
    check_messages(state, body.messages)
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or []] if body.tool_choice != "none" else []
    go_on = bool(body.continue_final_message)
    how = ChatFormat(tools, body.chat_template_kwargs, body.add_generation_prompt is not False, go_on)
    if go_on and body.messages[-1].role != "assistant":
        raise HTTPError(
            400, f"`continue_final_message` needs a last message of role assistant, but its role is {body.messages[-1].role}; leave it out."
        )
    return list(chat_tokens(state.base, [turn_of(message) for message in body.messages], how))


def check_messages(state: ServerState, messages: Sequence[Message]) -> None:
    """Raise HTTPError for more messages, or longer ones, than the model or the server takes."""
    if len(messages) > state.base.shape.positions:
        raise HTTPError(
            400,
            f"The conversation has {len(messages)} messages, but {state.base.shape.positions} tokens fit in {state.base.name}; send fewer.",
            param="messages",
        )
    longest = max(len(message.text) for message in messages)
    if longest > state.limits.text_chars:
        raise HTTPError(
            400, f"A message has {longest} characters, but at most {state.limits.text_chars} are allowed; shorten it.", param="messages"
        )


def turn_of(message: Message) -> dict[str, Any]:
    """A message as chat templates read it; raises HTTPError for arguments of a call that are no JSON object."""
    turn: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.role == "tool" and message.name is not None:
        turn["name"] = message.name
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)}}
            for call in message.tool_calls
        ]
    return turn


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPError(
            400, f"`arguments` of a tool call is '{shorten(text, 60)}', but it must be a JSON object; correct it.", param="messages"
        )
    return found


def _task_text(state: ServerState, body: ChatCompletionRequest, card: TaskCard) -> str:
    """What a task reads; the log says once for each task that other messages are not read."""
    for field, given in {
        "chat_template_kwargs": body.chat_template_kwargs,
        "continue_final_message": body.continue_final_message,
        "add_generation_prompt": body.add_generation_prompt is False,
        "tools": body.tools and body.tool_choice != "none" and not forced(body),
    }.items():
        if given:
            raise HTTPError(400, f"The task `{card.name}` reads no chat format, so `{field}` does not apply; leave it out.", param=field)
    turns = [("system" if message.role == "developer" else message.role, message.text) for message in body.messages]
    try:
        text, left_out = conversation_text(turns, card.conversation)
    except DataError as error:
        raise HTTPError(400, str(error), param="messages") from error
    if left_out:
        state.note_once(
            card.name, f"The task reads a conversation as '{card.conversation}'; other messages, such as the system's, have no effect."
        )
    return text
