"""Foreword's own endpoints: labels, tags, answers from a text, many at once, and the tasks themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from foreword.errors import ForewordError
from foreword.server import response_schemas
from foreword.server.batch_items import read_items, refused
from foreword.server.body_route import BodyRoute
from foreword.server.collected_answers import collected
from foreword.server.dependencies import ERRORS, GONE, Context, State, charge
from foreword.server.http_errors import HTTPError, error_of, error_of_failed, model_not_found
from foreword.server.inflight_requests import RequestOutput
from foreword.server.middleware import path_of
from foreword.server.preprocessing import Prompt, engine_requests
from foreword.server.request_schemas import Batch, Classification, ModelRequest, Question, Questions, Tagging, TaskName
from foreword.server.responses import Json, extra, json_response, usage
from foreword.server.server_state import RequestContext, ServerState
from foreword.serving.engine import TaskCard
from foreword.serving.sampling import SamplingParams
from foreword.task_kinds import BASE_MODEL, find_kind

router = APIRouter(route_class=BodyRoute, responses=ERRORS)


@router.post("/v1/classify", response_model=response_schemas.Labels, tags=["answers"])
async def classify(body: Classification, request: Request, state: State, context: Context) -> Response:
    """Labels of texts, or their numbers where the task is a regression."""
    inputs = body.input if isinstance(body.input, list) else [body.input]
    return await _listed(request, state, context, body, inputs, _labelled)


@router.post("/v1/tag", response_model=response_schemas.Tags, tags=["answers"])
async def tag(body: Tagging, request: Request, state: State, context: Context) -> Response:
    """A tag for each word of sentences."""
    inputs = body.input if isinstance(body.input, list) else [body.input]
    sentences: list[Prompt] = [sentence if isinstance(sentence, str) else {"tokens": sentence} for sentence in inputs]
    return await _listed(request, state, context, body, sentences, lambda found: {"tags": _value(found)})


@router.post("/v1/qa", response_model=response_schemas.Answers, tags=["answers"])
async def answer(body: Questions, request: Request, state: State, context: Context) -> Response:
    """Answers to questions, taken from their contexts."""
    pairs = [body.input] if isinstance(body.input, Question) else body.input
    return await _listed(request, state, context, body, [pair.model_dump() for pair in pairs], _value)


@router.post("/v1/batch", response_model=response_schemas.Items, tags=["answers"])
async def batch(body: Batch, request: Request, state: State, context: Context) -> Response:
    """Many inputs for one task, many tasks over one input, or every input for every task. One that fails fails alone."""
    items = await state.threads.run(context.num_bytes, read_items, state, context, body)
    made = [item.request for item in items if item.request is not None]
    made = charge(state, context, made)
    found = await collected(request, state, context, made, apart=True)
    if found is None:
        return Response(status_code=GONE)
    outputs = iter(found)
    data = [
        {"index": index, **(_item(next(outputs)) if item.error is None else refused(item, item.error))} for index, item in enumerate(items)
    ]
    return json_response({**_head(context, "batch"), "data": data, "usage": usage(found)})


@router.get("/v1/tasks", response_model=response_schemas.Tasks, tags=["tasks"])
async def list_tasks(state: State, context: Context) -> Response:
    """Every task with its state."""
    return json_response({"tasks": [_task(found) for found in state.visible(context.caller)]})


@router.get("/v1/tasks/{name}", response_model=response_schemas.Task, tags=["tasks"])
async def show_task(name: str, state: State, context: Context) -> Response:
    """One task with its state."""
    found = state.engine.card(name) if context.caller.sees(name) else None
    if found is None:
        raise model_not_found(name)
    return json_response(_task(found))


@router.post("/v1/tasks/load", response_model=response_schemas.Task, tags=["tasks"])
async def load(body: TaskName, state: State, context: Context) -> Response:
    """Load a task into memory: its newest version, if the store has a new one. Running requests finish on the old one."""
    if not context.caller.sees(body.name):
        raise model_not_found(body.name)
    context.model = body.name if state.engine.card(body.name) else None
    try:
        return json_response(_task(await state.engine.load(body.name)))
    except ForewordError as error:
        raise model_not_found(body.name) if state.engine.card(body.name) is None else error_of(error) from error


@router.post("/v1/tasks/unload", response_model=response_schemas.Task, tags=["tasks"])
async def unload(body: TaskName, state: State, context: Context) -> Response:
    """Remove a task from memory, once its running requests have ended; the next request loads it again. Needs a key for all tasks, as others use the task too."""
    found = state.engine.card(body.name) if context.caller.sees(body.name) else None
    if found is None:
        raise model_not_found(body.name)
    if context.caller.tasks is not None:
        raise HTTPError(
            401, "This key may use only some tasks, so it cannot unload one that others use too; use a key without a list of tasks."
        )
    context.model = body.name
    try:
        await state.engine.unload(body.name)
    except ForewordError as error:
        raise error_of(error) from error
    return json_response(_task(state.engine.card(body.name) or found))


async def _listed(
    request: Request,
    state: ServerState,
    context: RequestContext,
    body: ModelRequest,
    inputs: Sequence[Prompt],
    facts: Callable[[RequestOutput], Json],
) -> Response:
    """One answer for each input, by one task whose kind this endpoint answers."""
    card = state.find(body.model, context.caller)
    kind = BASE_MODEL if card is None else find_kind(card.kind)
    if kind.name and kind.endpoint != (path := path_of(request.scope)):
        raise HTTPError(
            400,
            f"The task `{body.model}` is of kind {kind.name}, which {path} does not answer; use {kind.endpoint}.",
            param="model",
        )
    made = await state.threads.run(
        context.num_bytes, engine_requests, state, context.id, [(body.model, card)], inputs, [SamplingParams()], truncate=body.truncate
    )
    made = charge(state, context, made)
    found = await collected(request, state, context, made)
    if found is None:
        return Response(status_code=GONE)
    data = [{"index": index, **facts(each)} for index, each in enumerate(found)]
    return json_response({**_head(context, "list"), "model": body.model, "data": data, "usage": usage(found)})


def _head(context: RequestContext, prefix: str) -> Json:
    return {"id": f"{prefix}-{context.id}", "object": "list", "created": int(time.time())}


def _labelled(found: RequestOutput) -> Json:
    assert found.answer is not None
    value = found.answer.value
    more: Json = {"labels": value} if isinstance(value, list) else {"value": value} if isinstance(value, int | float) else {}
    return {"label": found.text, "scores": dict(found.answer.scores), **more}


def _value(found: RequestOutput) -> Any:
    assert found.answer is not None
    return found.answer.value


def _item(found: RequestOutput) -> Json:
    where = {"model": found.ask.model, "input": found.ask.input}
    if found.failed is not None:
        return where | error_of_failed(found.failed).document
    assert found.done is not None
    return {**where, "text": found.text, "finish_reason": found.done.reason, **extra(found)}


def _task(card: TaskCard) -> Json:
    return {
        "name": card.name,
        "kind": card.kind,
        "columns": list(card.columns),
        "base": card.base,
        "root": card.root,
        "state": card.state,
        "digest": card.digest,
        "num_bytes": card.num_bytes,
        "problem": card.problem,
        "conversation": card.conversation,
    }
