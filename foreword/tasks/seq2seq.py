"""Text to text through an encoder–decoder: translation, summaries, rewriting; beam search and the metrics of written texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.generation import beam_search, greedy_search
from foreword.backbone.model_info import ModelInfo
from foreword.errors import DataError, ModelError, UsageError
from foreword.prompts.init import Material
from foreword.prompts.template import Template
from foreword.specs import PromptSpec
from foreword.tasks.base import EvalFeature, Example, Prediction, Task
from foreword.tasks.conversation import LAST_USER, check_conversation
from foreword.tasks.conversation import to_dict as conversation_to_dict
from foreword.tasks.metrics import text_metrics
from foreword.tasks.metrics.base import Score
from foreword.tasks.template_task import TemplateTask, parsed


@final
@dataclass(frozen=True, init=False)
class Seq2Seq(TemplateTask):
    """The likeliest of `num_beams` outputs, by log-probability / length^length_penalty; one beam is greedy.

    The encoder reads the input, the decoder is trained on the output and its end-of-sequence token.
    """

    template: Template = Template.parse("{soft}{input}{answer}")
    num_beams: int = 4
    length_penalty: float = 1.0
    max_new_tokens: int = 128
    description: str = ""
    conversation: str = LAST_USER
    kind: ClassVar[str] = "seq2seq"
    metric: ClassVar[str] = "loss"
    target: ClassVar[str] = "output"

    def __init__(
        self,
        template: Template | str = template,
        num_beams: int = 4,
        length_penalty: float = 1.0,
        max_new_tokens: int = 128,
        description: str = "",
        conversation: str = LAST_USER,
    ) -> None:
        given = {"num_beams": num_beams, "length_penalty": length_penalty, "max_new_tokens": max_new_tokens, "description": description}
        for name, value in {"template": parsed(template), **given, "conversation": conversation}.items():
            object.__setattr__(self, name, value)
        check_conversation(conversation, self.columns)
        for name in ("num_beams", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, but it must be at least 1.")

    def for_model(self, info: ModelInfo, spec: PromptSpec | None) -> Task:
        if info.shape.kind != "encoder-decoder":
            raise ModelError(
                f"task '{self.kind}' needs an encoder–decoder, but {info.name} has one stack; use task 'generate', or a model such as T5 or BART."
            )
        return super().for_model(info, spec)

    @property
    def max_answer_tokens(self) -> int:
        return self.max_new_tokens

    def answer(self, example: Example, info: ModelInfo) -> list[int]:
        text = example.get(self.target, "")
        if not text.strip():
            raise DataError("an example has an empty 'output'; remove the row or fill it.")
        return info.tokenizer.answer(self.template.space + text) + sorted(_stop(info))

    def predict(
        self, model: FrozenModel, adapter_state: AdapterState, eval_features: Sequence[EvalFeature], batch_size: int
    ) -> Iterator[Prediction]:
        rows = [eval_feature.rows[0] for eval_feature in eval_features]
        for begin in range(0, len(rows), batch_size):
            batch = collate(rows[begin : begin + batch_size], pad=model.tokenizer.pad)
            limits: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "stop": _stop(model.info)}
            if self.num_beams == 1:
                found = greedy_search.generate(model, batch, adapter_state.tokens, **limits)
            else:
                weight = {"num_beams": self.num_beams, "length_penalty": self.length_penalty}
                found = beam_search.search(model, batch, adapter_state.tokens, **limits, **weight)
            yield from (Prediction(model.tokenizer.decode(ids).strip()) for ids in found)

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        return text_metrics.texts([prediction.text for prediction in predictions], targets)

    def material(self, examples: Sequence[Example]) -> Material:
        texts = tuple(" ".join(example[name] for name in self.columns) for example in examples)
        return Material(self.description or "Read the input and write the output that belongs to it.", (), texts)

    def with_template(self, template: Template) -> Seq2Seq:
        return replace(self, template=template)

    def to_dict(self) -> dict[str, Any]:
        named = {name: getattr(self, name) for name in ("num_beams", "length_penalty", "max_new_tokens", "description")}
        return {
            "kind": self.kind,
            "template": self.template.source,
            "bos": self.template.bos,
            **named,
            **conversation_to_dict(self.conversation),
        }


def _stop(info: ModelInfo) -> set[int]:
    return set() if info.tokenizer.eos is None else {info.tokenizer.eos}
