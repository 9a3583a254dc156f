"""Embeddings: a text as one vector, the mean of an encoder's states or the state of its first token ([CLS])."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import DataError, ForewordError
from foreword.serving.request import Answer, Done, Event, Failed, Request
from foreword.serving.request_check import check_request, unreadable
from foreword.tasks.base import EvalFeature, budget_for
from foreword.tasks.head_task import pool, read_inputs
from foreword.tasks.text_pairs import eval_feature

BATCH = 32
Emit = Callable[[Event], None]


@final
class EmbeddingQueue:
    """Requests with a `pooling`, which need no task: each step answers some of them, whatever else runs."""

    def __init__(self, model: FrozenModel) -> None:
        self.model = model
        self._waiting: dict[str, tuple[Request, Emit]] = {}

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._waiting)

    def add(self, request: Request, emit: Emit) -> None:
        """Put a request at the end."""
        self._waiting[request.id] = (request, emit)

    def cancel(self, request_id: str) -> None:
        """End a request, if it is here."""
        found = self._waiting.pop(request_id, None)
        if found is not None:
            found[1](Done("cancelled", 0, 0))

    def step(self) -> None:
        """Answer the oldest requests; what is wrong with one does not affect others."""
        ready: list[tuple[Request, Emit, EvalFeature]] = []
        for request, emit in [self._waiting.pop(name) for name in list(self._waiting)[:BATCH]]:
            try:
                ready.append((request, emit, self._eval_feature(request)))
            except ForewordError as error:
                emit(Failed("request", error.request_message))
            except Exception as error:  # whatever a text holds, it is nobody else's trouble
                emit(Failed("request", str(unreadable(error))))
        if not ready:
            return
        try:
            vectors = self._vectors(ready)
        except Exception as error:  # the other requests of the engine continue
            for _, emit, _ in ready:
                emit(Failed("engine", f"the step failed ({type(error).__name__}: {error})."))
            return
        for (_, emit, feature), vector in zip(ready, vectors, strict=True):
            emit(Answer("", vector))
            emit(Done("stop", sum(len(row.ids) for row in feature.rows), 0))

    def _eval_feature(self, request: Request) -> EvalFeature:
        info = self.model.info
        if info.shape.kind != "encoder":
            raise DataError(f"{info.name} is not an encoder, so its states are no embeddings of a text; serve an encoder.")
        check_request(request, info)
        return eval_feature(request.example, ("text",), info, budget_for(None, info), truncate=request.truncate)[0]

    def _vectors(self, ready: Sequence[tuple[Request, Emit, EvalFeature]]) -> list[list[float]]:
        with torch.inference_mode():
            inputs = read_inputs(self.model, None, [feature.rows[0] for _, _, feature in ready])
            by_pooling = {name: pool(inputs, name).tolist() for name in {request.pooling or "mean" for request, _, _ in ready}}
        return [by_pooling[request.pooling or "mean"][place] for place, (request, _, _) in enumerate(ready)]
