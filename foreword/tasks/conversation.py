"""How a task that reads one text reads a conversation, which chat clients send: the last user message, with or without the system's, or all of it."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.errors import DataError, UsageError
from foreword.task_kinds import CONVERSATIONS

LAST_USER = CONVERSATIONS[0]  # a task is trained on single texts, and this is one, whatever stands before it
Turn = tuple[str, str]  # role and text


def check_conversation(conversation: str, columns: Sequence[str]) -> None:
    """Raise UsageError for a way to read a conversation that does not exist, or that a task of several columns cannot have."""
    if conversation not in CONVERSATIONS:
        raise UsageError(f"conversation '{conversation}' is not known; choose one of {', '.join(CONVERSATIONS)}.")
    if conversation != LAST_USER and len(columns) != 1:
        raise UsageError(
            f"conversation is '{conversation}', but a task that reads {', '.join(columns) or 'nothing'} reads no conversation; leave it out."
        )


def to_dict(conversation: str) -> dict[str, str]:
    """The setting as JSON; nothing for the default, so that older versions read the task too."""
    return {} if conversation == LAST_USER else {"conversation": conversation}


def conversation_text(turns: Sequence[Turn], conversation: str = LAST_USER) -> tuple[str, bool]:
    """The text that a task reads of a conversation, and whether that leaves out other turns.

    - `last-user`: the last message, which is a user's.
    - `system-in-front`: the system's messages and the last message, with empty lines between.
    - `whole`: one line `role: text` for each message; a user's message alone is only its text.

    Raises DataError for a conversation that does not end with a user's message.
    """
    role, last = turns[-1] if turns else ("nobody", "")
    if role != "user":
        raise DataError(f"a conversation ends with a message of role {role}, but a task answers a user; end with a message of role user.")
    system = [text for role, text in turns if role == "system"]
    if conversation == "whole":
        return last if len(turns) == 1 else "\n".join(f"{role}: {text}" for role, text in turns), False
    if conversation == "system-in-front":
        return "\n\n".join([*system, last]), len(turns) > len(system) + 1
    return last, len(turns) > 1
