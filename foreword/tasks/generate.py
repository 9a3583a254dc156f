"""Generation: an input, and the text that should follow it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.generation import greedy_search
from foreword.backbone.model_info import ModelInfo
from foreword.errors import DataError, UsageError
from foreword.prompts.init import Material
from foreword.prompts.template import Row, Template
from foreword.prompts.tokens import VirtualTokens
from foreword.tasks.base import EvalFeature, Example, Prediction
from foreword.tasks.conversation import LAST_USER, check_conversation
from foreword.tasks.conversation import to_dict as conversation_to_dict
from foreword.tasks.metrics import base as metrics
from foreword.tasks.metrics.base import Score
from foreword.tasks.streaming_task import StreamingTask
from foreword.tasks.template_task import parsed


@final
@dataclass(frozen=True, init=False)
class Generate(StreamingTask):
    """Greedy text after the input, ended by the end-of-sequence token that training puts behind every output."""

    template: Template = Template.parse("{soft}{input}\nOutput: {answer}")
    max_new_tokens: int = 64
    description: str = ""
    conversation: str = LAST_USER
    kind: ClassVar[str] = "generate"
    metric: ClassVar[str] = "loss"
    target: ClassVar[str] = "output"
    takes_shots: ClassVar[bool] = True

    def __init__(
        self, template: Template | str = template, max_new_tokens: int = 64, description: str = "", conversation: str = LAST_USER
    ) -> None:
        given = {"max_new_tokens": max_new_tokens, "description": description, "conversation": conversation}
        for name, value in {"template": parsed(template), **given}.items():
            object.__setattr__(self, name, value)
        check_conversation(conversation, self.columns)
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is {self.max_new_tokens}, but it must be at least 1.")

    @property
    def max_answer_tokens(self) -> int:
        return self.max_new_tokens

    def answer(self, example: Example, info: ModelInfo) -> list[int]:
        text = example.get(self.target, "")
        if not text.strip():
            raise DataError("an example has an empty 'output'; remove the row or fill it.")
        return info.tokenizer.answer(self.template.space + text) + ([info.tokenizer.eos] if info.tokenizer.eos is not None else [])

    def predict(
        self, model: FrozenModel, adapter_state: AdapterState, eval_features: Sequence[EvalFeature], batch_size: int
    ) -> Iterator[Prediction]:
        rows = [eval_feature.rows[0] for eval_feature in eval_features]
        for begin in range(0, len(rows), batch_size):
            batch = collate(rows[begin : begin + batch_size], pad=model.tokenizer.pad)
            for ids in greedy_search.generate(
                model, batch, adapter_state.tokens, max_new_tokens=self.max_new_tokens, stop=self.stop(model.info)
            ):
                yield Prediction(model.tokenizer.decode(ids).strip())

    def stream(self, model: FrozenModel, tokens: VirtualTokens | None, row: Row) -> Iterator[str]:
        """The answer to one row as a stream of texts, which join to `predict`'s text (without leading white space)."""
        ids: list[int] = []
        text = shown = ""
        for step in greedy_search.steps(
            model, collate([row], pad=model.tokenizer.pad), tokens, max_new_tokens=self.max_new_tokens, stop=self.stop(model.info)
        ):
            ids.append(step[0] or 0)
            text = model.tokenizer.decode(ids).lstrip()
            if len(text) > len(shown) and not text.endswith("\ufffd"):  # a character may be incomplete
                yield text[len(shown) :]
                shown = text
        if len(text) > len(shown):
            yield text[len(shown) :]  # the end came inside a character

    def stop(self, info: ModelInfo) -> set[int]:
        return {info.tokenizer.eos} if info.tokenizer.eos is not None else set()

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        predicted = [p.text for p in predictions]
        return {"rouge_l": metrics.rouge_l(predicted, targets), "exact_match": metrics.exact_match(predicted, targets)}

    def material(self, examples: Sequence[Example]) -> Material:
        texts = tuple(" ".join(example[name] for name in self.columns) for example in examples)
        return Material(self.description or "Read the input and write the output that belongs to it.", (), texts)

    def with_template(self, template: Template) -> Generate:
        return replace(self, template=template)

    def to_dict(self) -> dict[str, Any]:
        named = {"max_new_tokens": self.max_new_tokens, "description": self.description}
        return {
            "kind": self.kind,
            "template": self.template.source,
            "bos": self.template.bos,
            **named,
            **conversation_to_dict(self.conversation),
        }
