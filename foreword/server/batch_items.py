"""The items of a batch: every input for every model, each read by itself, so that one that is wrong fails alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from foreword.errors import ForewordError
from foreword.server.bounded_schema import BoundedSchema
from foreword.server.http_errors import HTTPError, error_of, shorten
from foreword.server.json_body import check_values
from foreword.server.preprocessing import EngineRequest, check_count, engine_requests
from foreword.server.request_schemas import Batch, Input
from foreword.server.request_validation import check_batch
from foreword.server.responses import Json
from foreword.server.sampling_fields import to_sampling_params
from foreword.server.server_state import RequestContext, ServerState
from foreword.server.validation_errors import error_of_body
from foreword.serving.sampling import SamplingParams


class BatchInput(BoundedSchema):
    """One input of a batch."""

    input: Input


@dataclass(frozen=True)
class BatchItem:
    """One input for one model: a request to the engine, or what is wrong with it."""

    model: str
    input: int
    request: EngineRequest | None = None
    error: HTTPError | None = None


def read_items(state: ServerState, context: RequestContext, body: Batch) -> list[BatchItem]:
    """All items of a batch, by model. Raises HTTPError for what is wrong with the batch as a whole, or with the only item of one without lists."""
    names = [body.model] if isinstance(body.model, str) else body.model
    inputs = body.input if isinstance(body.input, list) else [body.input]
    if not names:
        raise HTTPError(400, "`model` is an empty list; name at least one task.", param="model")
    check_count(state.limits, inputs, len(names))
    sampling = to_sampling_params(body)
    read, alone = [_input(given) for given in inputs], isinstance(body.model, str)
    items = [
        item for number, name in enumerate(names) for item in _of_model(state, context, body, name, number, read, sampling, alone=alone)
    ]
    if items[0].error is not None and alone and not isinstance(body.input, list):
        raise items[0].error
    return items


def refused(item: BatchItem, error: HTTPError) -> Json:
    """An item in the response that never reached the engine."""
    return {"model": shorten(item.model), "input": item.input, **error.document}


def _of_model(
    state: ServerState,
    context: RequestContext,
    body: Batch,
    name: str,
    number: int,
    inputs: Sequence[Input | HTTPError],
    sampling: SamplingParams,
    *,
    alone: bool,
) -> Iterator[BatchItem]:
    """The items of one model; raises HTTPError where all of the batch is for this one (`alone`) and it does not exist."""
    try:
        card = state.find(name, context.caller)
        check_batch(body, [(name, card)])
    except HTTPError as error:
        if alone:
            raise
        yield from (BatchItem(name, index, error=error) for index in range(len(inputs)))
        return
    for index, given in enumerate(inputs):
        try:
            if isinstance(given, HTTPError):
                raise given
            request_id = f"{context.id}-{number}-{index}"
            made = engine_requests(state, request_id, [(name, card)], [given], [sampling], truncate=body.truncate)[0]
            yield BatchItem(name, index, replace(made, input=index))
        except HTTPError as error:
            yield BatchItem(name, index, error=error)
        except ForewordError as error:
            yield BatchItem(name, index, error=error_of(error))


def _input(given: object) -> Input | HTTPError:
    """An input as it should be, or what is wrong with it."""
    try:
        check_values(given, "input")
        return BatchInput.model_validate({"input": given}).input
    except HTTPError as error:
        return error
    except ValidationError as error:
        return error_of_body(error.errors(include_url=False))
