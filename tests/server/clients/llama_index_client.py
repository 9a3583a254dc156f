"""LlamaIndex's OpenAILike against a server: prints what it got as JSON. Arguments: the address, a task that generates text."""

from __future__ import annotations

import asyncio
import json
import sys

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

SCHEMA = {"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "film", "schema": SCHEMA, "strict": True}}


def main(url: str, task: str) -> None:
    model = OpenAILike(model=task, api_base=url, api_key="none", is_chat_model=True, temperature=0.0, max_retries=0)
    asked = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="a film")]
    first = model.chat(asked)
    second = model.chat([*asked, first.message, ChatMessage(role="user", content="and now")])
    film = model.chat([ChatMessage(role="user", content="x")], response_format=FORMAT, max_tokens=40)
    print(
        json.dumps(
            {
                "first": first.message.content,
                "second": second.message.content,
                "streamed": "".join(piece.delta or "" for piece in model.stream_chat(asked)),
                "usage": first.raw.usage.completion_tokens,
                "async": asyncio.run(model.achat(asked)).message.content,
                "film": json.loads(film.message.content or ""),
            }
        )
    )


main(*sys.argv[1:])
