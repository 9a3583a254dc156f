"""Tasks that generate text token by token, so that an engine can sample and stream it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.prompts.template import Row
from foreword.prompts.tokens import VirtualTokens
from foreword.tasks.template_task import TemplateTask


class StreamingTask(TemplateTask):
    """Abstract: a task of a kind whose row in `task_kinds.py` says `streams`."""

    max_new_tokens: int

    @abstractmethod
    def stream(self, model: FrozenModel, tokens: VirtualTokens | None, row: Row) -> Iterator[str]:
        """The growing answer to one row, in pieces that join to the text of `predict`."""

    @abstractmethod
    def stop(self, info: ModelInfo) -> set[int]:
        """Tokens that end an answer."""
