"""The prompt of a chat: a conversation in the base model's chat format, or what a task reads of it."""

from __future__ import annotations

from foreword.errors import DataError
from foreword.server.http_errors import HTTPError
from foreword.server.request_schemas import ChatCompletionRequest
from foreword.server.server_state import ServerState
from foreword.serving.engine import TaskCard
from foreword.tasks.conversation import conversation_text


def conversation_prompt(state: ServerState, body: ChatCompletionRequest, card: TaskCard | None) -> str | list[int]:
    """Token ids for the base model, a text for a task; raises HTTPError for a conversation that the model does not accept."""
    if card is not None:
        return _task_text(state, body, card)
    state.base.check_writes()
    if len(body.messages) > state.base.shape.positions:
        raise HTTPError(
            400,
            f"The conversation has {len(body.messages)} messages, but {state.base.shape.positions} tokens fit in {state.base.name}; send fewer.",
            param="messages",
        )
    longest = max(len(message.text) for message in body.messages)
    if longest > state.limits.text_chars:
        raise HTTPError(
            400, f"A message has {longest} characters, but at most {state.limits.text_chars} are allowed; shorten it.", param="messages"
        )
    return list(state.base.conversation([{"role": message.role, "content": message.text} for message in body.messages]))


def _task_text(state: ServerState, body: ChatCompletionRequest, card: TaskCard) -> str:
    """What a task reads; the log says once for each task that other messages are not read."""
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
