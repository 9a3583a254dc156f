"""The endpoint of embeddings."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from foreword.server.body_route import BodyRoute
from foreword.server.collected_answers import collected
from foreword.server.dependencies import ERRORS, GONE, Context, State, charge
from foreword.server.embedding_schemas import EmbeddingRequest, EmbeddingResponse
from foreword.server.http_errors import HTTPError
from foreword.server.inflight_requests import RequestOutput
from foreword.server.preprocessing import EngineRequest, check_count
from foreword.server.responses import json_response, usage
from foreword.server.server_state import ServerState
from foreword.serving import request as engine

router = APIRouter(route_class=BodyRoute, responses=ERRORS)


@router.post("/v1/embeddings", response_model=EmbeddingResponse, tags=["answers"])
async def embed(body: EmbeddingRequest, request: Request, state: State, context: Context) -> Response:
    """A vector for each text."""
    if state.find(body.model, context.caller) is not None:
        raise HTTPError(400, f"`{body.model}` is a task, but embeddings are the base model's; ask for `{state.base.name}`.", param="model")
    if state.base.shape.kind != "encoder":
        raise HTTPError(
            400, f"The model `{state.base.name}` is not an encoder, so it makes no embeddings; serve an encoder for them.", param="model"
        )
    made = await state.threads.run(context.num_bytes, _requests, state, context.id, body)
    made = charge(state, context, made)
    found = await collected(request, state, context, made)
    if found is None:
        return Response(status_code=GONE)
    num_tokens = usage(found)["prompt_tokens"]
    data = [{"object": "embedding", "index": index, "embedding": _embedding(body, each)} for index, each in enumerate(found)]
    counts = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return json_response({"object": "list", "data": data, "model": body.model, "usage": counts})


def _requests(state: ServerState, request_id: str, body: EmbeddingRequest) -> list[EngineRequest]:
    """One for each text; raises HTTPError for none, too many or too long ones."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    check_count(state.limits, texts, 1)
    longest = max(map(len, texts))
    if longest > state.limits.text_chars:
        raise HTTPError(
            400, f"A text has {longest} characters, but at most {state.limits.text_chars} are allowed; shorten it.", param="input"
        )
    pooling = "first" if body.pooling == "cls" else "mean"
    return [
        EngineRequest(
            engine.Request(f"{request_id}-{index}", None, {"text": text}, truncate=body.truncate, pooling=pooling),
            None,
            body.model,
            index,
            state.base.estimate(text),
        )
        for index, text in enumerate(texts)
    ]


def _embedding(body: EmbeddingRequest, found: RequestOutput) -> list[float] | str:
    assert found.answer is not None and isinstance(found.answer.value, list)
    vector: Sequence[float] = found.answer.value
    if body.normalize:
        length = math.sqrt(sum(value * value for value in vector)) or 1.0
        vector = [value / length for value in vector]
    return list(vector) if body.encoding_format == "float" else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
