"""Instructor against a server: prints what it got as JSON. Arguments: the address, a task that generates text."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import instructor
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict


class Film(BaseModel):
    model_config = ConfigDict(extra="forbid")
    good: bool


def main(url: str, task: str) -> None:
    to: dict[str, Any] = {"base_url": url, "api_key": "none", "max_retries": 0}
    asked: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]
    how: dict[str, Any] = {"model": task, "response_model": Film, "max_tokens": 40, "max_retries": 0}
    client = instructor.from_openai(OpenAI(**to), mode=instructor.Mode.JSON_SCHEMA)
    film, whole = client.chat.completions.create_with_completion(messages=asked, **how)
    said = {"role": "assistant", "content": whole.choices[0].message.content}
    again = client.chat.completions.create(messages=[*asked, said, asked[1]], **how)
    parts = list(client.chat.completions.create_partial(messages=asked, **how))
    of_tools = instructor.from_openai(OpenAI(**to), mode=instructor.Mode.TOOLS)
    later = instructor.from_openai(AsyncOpenAI(**to), mode=instructor.Mode.JSON_SCHEMA)
    print(
        json.dumps(
            {
                "film": film.model_dump(),
                "second": again.model_dump(),
                "streamed": parts[-1].model_dump(),
                "usage": whole.usage.completion_tokens,
                "tools": of_tools.chat.completions.create(messages=asked, **how).model_dump(),
                "async": asyncio.run(later.chat.completions.create(messages=asked, **how)).model_dump(),
            }
        )
    )


main(*sys.argv[1:])
