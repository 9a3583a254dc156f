"""Request and response schemas of embeddings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from foreword.server.request_schemas import ModelRequest
from foreword.server.unsupported_fields import OF_EMBEDDINGS


class EmbeddingRequest(ModelRequest):
    """`POST /v1/embeddings`, where the base model is an encoder."""

    input: str | list[str] = Field(description="a text, or a list of texts")
    encoding_format: Literal["float", "base64"] = "float"
    pooling: Literal["mean", "cls"] = Field("mean", description="the mean of all states, or the state of the first token")
    normalize: bool = Field(True, description="divide each vector by its length")
    unsupported = OF_EMBEDDINGS


class EmbeddingItem(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
