"""Foreword's own endpoints: labels, tags, answers from a text, many at once, and the tasks themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from foreword.errors import ForewordError
from foreword.server import openapi
from foreword.server.http_errors import Refusal, refusal_for, refusal_of, unknown
from foreword.server.inflight import ClientGone, Collected, collect, unless_gone
from foreword.server.openai_routes import ERRORS, GONE, TheService, TheVisit, respond
from foreword.server.preprocessing import Given, PreparedRequest, batched, prepare_requests
from foreword.server.responses import Json, extra, usage
from foreword.server.schemas import Asking, Batch, Classification, Question, Questions, Tagging, TaskName
from foreword.server.state import RequestLog, ServerState
from foreword.server.stream import note
from foreword.serving.engine import TaskCard
from foreword.serving.sampling import Sampling
from foreword.task_kinds import BASE_MODEL, find_kind

router = APIRouter(responses=ERRORS)


@router.post("/v1/classify", response_model=openapi.Labels, tags=["answers"])
async def classify(body: Classification, request: Request, state: TheService, request_log: TheVisit) -> Response:
    """Labels of texts, or their numbers where the task is a regression."""
    inputs = body.input if isinstance(body.input, list) else [body.input]
    return await _listed(request, state, request_log, body, inputs, _labelled)


@router.post("/v1/tag", response_model=openapi.Tags, tags=["answers"])
async def tag(body: Tagging, request: Request, state: TheService, request_log: TheVisit) -> Response:
    """A tag for each word of sentences."""
    inputs = body.input if isinstance(body.input, list) else [body.input]
    sentences: list[Given] = [sentence if isinstance(sentence, str) else {"tokens": sentence} for sentence in inputs]
    return await _listed(request, state, request_log, body, sentences, lambda found: {"tags": _value(found)})


@router.post("/v1/qa", response_model=openapi.Answers, tags=["answers"])
async def answer(body: Questions, request: Request, state: TheService, request_log: TheVisit) -> Response:
    """Answers to questions, taken from their contexts."""
    pairs = [body.input] if isinstance(body.input, Question) else body.input
    return await _listed(request, state, request_log, body, [pair.model_dump() for pair in pairs], _value)


@router.post("/v1/batch", response_model=openapi.Items, tags=["answers"])
async def batch(body: Batch, request: Request, state: TheService, request_log: TheVisit) -> Response:
    """Many inputs for one task, many tasks over one input, or every input for every task. One that fails fails alone."""
    inputs = body.input if isinstance(body.input, list) else [body.input]
    found = await _collected(request, state, request_log, batched(state, request_log, body, inputs), apart=True)
    if found is None:
        return Response(status_code=GONE)
    return respond({**_head(request_log, "batch"), "data": [_item(index, each) for index, each in enumerate(found)], "usage": usage(found)})


@router.get("/v1/tasks", response_model=openapi.Tasks, tags=["tasks"])
async def list_tasks(state: TheService, request_log: TheVisit) -> Response:
    """Every task with its state."""
    return respond({"tasks": [_task(found) for found in state.visible(request_log.caller)]})


@router.get("/v1/tasks/{name}", response_model=openapi.Task, tags=["tasks"])
async def show_task(name: str, state: TheService, request_log: TheVisit) -> Response:
    """One task with its state."""
    found = state.engine.card(name) if request_log.caller.sees(name) else None
    if found is None:
        raise unknown(name)
    return respond(_task(found))


@router.post("/v1/tasks/load", response_model=openapi.Task, tags=["tasks"])
async def load(body: TaskName, state: TheService, request_log: TheVisit) -> Response:
    """Bring a task into memory: its newest version, if the store has another now. Requests under way finish on the old one."""
    if not request_log.caller.sees(body.name):
        raise unknown(body.name)
    request_log.model = body.name if state.engine.card(body.name) else None
    try:
        return respond(_task(await state.engine.load(body.name)))
    except ForewordError as error:
        raise unknown(body.name) if state.engine.card(body.name) is None else refusal_of(error) from error


@router.post("/v1/tasks/unload", response_model=openapi.Task, tags=["tasks"])
async def unload(body: TaskName, state: TheService, request_log: TheVisit) -> Response:
    """Take a task out of memory, once requests under way have ended; the next request brings it back."""
    found = state.engine.card(body.name) if request_log.caller.sees(body.name) else None
    if found is None:
        raise unknown(body.name)
    request_log.model = body.name
    try:
        await state.engine.unload(body.name)
    except ForewordError as error:
        raise refusal_of(error) from error
    return respond(_task(state.engine.card(body.name) or found))


async def _listed(
    request: Request,
    state: ServerState,
    request_log: RequestLog,
    body: Asking,
    inputs: Sequence[Given],
    facts: Callable[[Collected], Json],
) -> Response:
    """One answer for each input, all by one task whose kind this endpoint answers."""
    card = state.find(body.model, request_log.caller)
    kind = BASE_MODEL if card is None else find_kind(card.kind)
    if kind.name and kind.endpoint != request.url.path:
        raise Refusal(
            400, f"`{body.model}` is for {kind.name}, not for what {request.url.path} answers; use {kind.endpoint}.", param="model"
        )
    made = prepare_requests(state, request_log, [(body.model, card)], inputs, [Sampling()], truncate=body.truncate)
    found = await _collected(request, state, request_log, made, apart=False)
    if found is None:
        return Response(status_code=GONE)
    data = [{"index": index, **facts(each)} for index, each in enumerate(found)]
    return respond({**_head(request_log, "list"), "model": body.model, "data": data, "usage": usage(found)})


async def _collected(
    request: Request, state: ServerState, request_log: RequestLog, made: Sequence[PreparedRequest], *, apart: bool
) -> list[Collected] | None:
    """Whole answers, None if the client has left."""
    try:
        found = await unless_gone(request.receive, collect(state, made, apart=apart))
    except ClientGone:
        request_log.outcome = "cancelled"
        return None
    note(request_log, found)
    return found


def _head(request_log: RequestLog, prefix: str) -> Json:
    return {"id": f"{prefix}-{request_log.id}", "object": "list", "created": int(time.time())}


def _labelled(found: Collected) -> Json:
    assert found.answer is not None
    value = found.answer.value
    more: Json = {"labels": value} if isinstance(value, list) else {"value": value} if isinstance(value, int | float) else {}
    return {"label": found.text, "scores": dict(found.answer.scores), **more}


def _value(found: Collected) -> Any:
    assert found.answer is not None
    return found.answer.value


def _item(index: int, found: Collected) -> Json:
    where = {"index": index, "model": found.ask.model, "input": found.ask.input}
    if found.failed is not None:
        return where | refusal_for(found.failed).document
    assert found.done is not None
    return {**where, "text": found.text, "finish_reason": found.done.reason, **extra(found)}


def _task(card: TaskCard) -> Json:
    return {
        "name": card.name,
        "kind": card.kind,
        "columns": list(card.columns),
        "base": card.base,
        "root": card.root,
        "state": card.place,
        "digest": card.digest,
        "num_bytes": card.num_bytes,
        "problem": card.problem,
    }
