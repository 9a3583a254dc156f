"""Tools in chats: the JSON schema of a call that must be made, and the calls in a text that the base model has written in its own format."""

from __future__ import annotations

import json
import re
from typing import Any

from foreword.server.chat_schemas import ChatCompletionRequest, NamedTool, Tool
from foreword.server.http_errors import HTTPError, shorten

_TAGGED = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)  # Hermes, Qwen
Call = tuple[str, str]  # the function's name, and its arguments as JSON


def forced(body: ChatCompletionRequest) -> bool:
    """Whether the answer must be a call."""
    return body.tool_choice == "required" or isinstance(body.tool_choice, NamedTool)


def named_tool(body: ChatCompletionRequest) -> Tool | None:
    """The tool that must be called, if there is only one; raises HTTPError for one that the request does not have."""
    tools = body.tools or []
    if isinstance(body.tool_choice, NamedTool):
        name = body.tool_choice.function.name
        found = next((tool for tool in tools if tool.function.name == name), None)
        if found is None:
            raise HTTPError(400, f"`tool_choice` names '{shorten(name)}', which is not one of the tools; correct it.", param="tool_choice")
        return found
    if not tools:
        raise HTTPError(400, "`tool_choice` is required, but there are no tools; give some.", param="tool_choice")
    return tools[0] if len(tools) == 1 else None


def tool_schema(body: ChatCompletionRequest) -> str | None:
    """The JSON schema of an answer that must be a call: the arguments, or an object with `name` and `arguments` where several tools may be called."""
    if not forced(body):
        return None
    one = named_tool(body)
    if one is not None:
        return one.schema_text
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "arguments": json.loads(tool.schema_text)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in body.tools or []
    ]
    return json.dumps({"anyOf": calls})


def forced_call(body: ChatCompletionRequest, text: str) -> Call:
    """The call of an answer that had to be one; a text that was cut at its maximum length may be no JSON, as OpenAI's may."""
    one = named_tool(body)
    if one is not None:
        return one.function.name, text
    return _call(_json(text)) or ("", text)


def written_calls(body: ChatCompletionRequest, text: str) -> tuple[str, list[Call]]:
    """The calls that a text makes, and the text before them; none where it makes none, or calls what is no tool."""
    names = {tool.function.name for tool in body.tools or []}
    tagged = _TAGGED.findall(text)
    found = [_call(_json(part)) for part in tagged or [text.strip()]]
    calls = [call for call in found if call is not None and call[0] in names]
    if not calls or len(calls) < len(found):
        return text, []
    return text[: text.index("<tool_call>")].strip() if tagged else "", calls


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _call(found: Any) -> Call | None:
    """A call of Hermes' and Qwen's format (`arguments`), or of Llama's (`parameters`)."""
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", found.get("parameters", {}))
    return found["name"], json.dumps(arguments, ensure_ascii=False)
