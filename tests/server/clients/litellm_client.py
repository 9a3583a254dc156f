"""LiteLLM against a server: prints what it got as JSON. Arguments: the address, a task that generates text."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import litellm
from pydantic import BaseModel


class Film(BaseModel):
    good: bool


def main(url: str, task: str) -> None:
    to: dict[str, Any] = {"model": f"openai/{task}", "api_base": url, "api_key": "none", "max_retries": 0}
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a film"}]
    first = litellm.completion(messages=asked, **to)
    message = first.choices[0].message
    # As its users send an answer back: the object, and its fields.
    second = [
        litellm.completion(messages=[*asked, sent, {"role": "user", "content": "and now"}], **to).choices[0].message.content
        for sent in (message, message.model_dump())
    ]
    pieces = litellm.completion(messages=asked, stream=True, **to)
    film = litellm.completion(messages=[{"role": "user", "content": "x"}], response_format=Film, max_tokens=40, **to)
    print(
        json.dumps(
            {
                "first": message.content,
                "second": second[0] if second[0] == second[1] else second,
                "streamed": "".join(piece.choices[0].delta.content or "" for piece in pieces),
                "usage": first.usage.completion_tokens,
                "async": asyncio.run(litellm.acompletion(messages=asked, **to)).choices[0].message.content,
                "film": json.loads(film.choices[0].message.content),
            }
        )
    )


main(*sys.argv[1:])
