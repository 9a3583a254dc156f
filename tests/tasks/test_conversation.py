"""How a task reads a conversation, and where that is stored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foreword.errors import DataError, UsageError
from foreword.tasks.conversation import conversation_text
from foreword.tasks.generate import Generate
from foreword.tasks.registry import task_from_dict
from foreword.tasks.regress import Regress


def test_the_text_of_a_conversation() -> None:
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    assert conversation_text(turns) == ("c", True) and conversation_text(turns[-1:]) == ("c", False)
    assert conversation_text(turns, "system-in-front") == ("s\n\nc", True)
    assert conversation_text([turns[0], turns[3]], "system-in-front") == ("s\n\nc", False)
    assert conversation_text(turns, "whole")[1] is False
    for wrong in (turns[:3], []):
        with pytest.raises(DataError):
            conversation_text(wrong)


def test_the_setting_is_stored_only_where_it_is_not_the_default() -> None:
    for task in (Generate(), Regress()):
        assert "conversation" not in task.to_dict()
        other = replace(task, conversation="whole")
        assert task_from_dict(other.to_dict()) == other and other.to_dict()["conversation"] == "whole"
    with pytest.raises(UsageError) as caught:
        Generate(conversation="first")
    assert str(caught.value) == "conversation 'first' is not known; choose one of last-user, system-in-front, whole."
    with pytest.raises(UsageError) as several:
        Generate("{question} {context}:{answer}", conversation="whole")
    assert str(several.value) == "conversation is 'whole', but a task that reads question, context reads no conversation; leave it out."
