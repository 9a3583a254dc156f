"""LangChain's chat model against a server: prints what it got as JSON. Arguments: the address, a task that generates text."""

from __future__ import annotations

import asyncio
import json
import sys

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel


class Film(BaseModel):
    good: bool


def main(url: str, task: str) -> None:
    model = ChatOpenAI(model=task, base_url=url, api_key="none", max_retries=0)
    asked = [SystemMessage("Be brief."), HumanMessage("a film")]
    first = model.invoke(asked)
    second = model.invoke([*asked, first, HumanMessage("and now")])
    pieces = list(model.stream(asked, stream_usage=True))
    longer = ChatOpenAI(model=task, base_url=url, api_key="none", max_retries=0, max_tokens=40)
    film = longer.with_structured_output(Film, method="json_schema").invoke("x")
    print(
        json.dumps(
            {
                "first": first.content,
                "second": second.content,
                "streamed": "".join(str(piece.content) for piece in pieces),
                "stream_usage": sum(piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata),
                "usage": first.usage_metadata["output_tokens"] if first.usage_metadata else 0,
                "async": asyncio.run(model.ainvoke(asked)).content,
                "completion": OpenAI(model=task, base_url=url, api_key="none", max_retries=0, max_tokens=9, temperature=0).invoke("a film"),
                "film": film.model_dump() if isinstance(film, Film) else film,
            }
        )
    )


main(*sys.argv[1:])
