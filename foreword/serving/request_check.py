"""What every request must be before an engine touches it, so that a wrong one fails alone and at once."""

from __future__ import annotations

from foreword.backbone.model_info import ModelInfo
from foreword.errors import DataError
from foreword.serving.request import Request


def check_request(request: Request, info: ModelInfo) -> None:
    """Raise DataError for a column that is no text, for half a character, and for a token that the model does not have."""
    for column, text in request.example.items():
        if not isinstance(text, str):
            raise DataError(f"the column '{column}' is of type {type(text).__name__}, but a task reads texts; give a text.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"the column '{column}' has half of a character (a lone surrogate) at position {error.start}, which no tokenizer reads; give whole characters."
            ) from error
    size, params = info.shape.vocabulary, request.sampling
    for name, ids in {"the text": request.ids, "logit_bias": params.logit_bias, "stop_token_ids": params.stop_token_ids}.items():
        wrong = next((token for token in ids if type(token) is not int or not 0 <= token < size), None)
        if wrong is not None:
            raise DataError(f"{name} has the token {wrong!r}, but the tokens of {info.name} are from 0 to {size - 1}; give those.")


def unreadable(error: Exception) -> DataError:
    """The error of a request that could not be read for whatever reason: it is the request's mistake."""
    return DataError(f"the request cannot be read ({type(error).__name__}: {error}); give plain texts and whole numbers.")
